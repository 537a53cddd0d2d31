//! Containment: no packet of the lab leaves a node through Docker's NIC.
//!
//! Docker's NIC only connects the nodes with each other. Packets leaving through it with a pod's address, or to any
//! destination outside Docker's own subnet, are counted and dropped; a count makes the trial dirty. The guard is set up
//! before the first pod, stays as long as the node, and removes the default route through that NIC.

use relapse_kernel::nft::{self, Chain, Hook, Policy, Rule, Table};
use relapse_kernel::{NetNs, Result, link, route};
use relapse_lab::cluster::node_network::pair;

use super::created::Created;

/// Docker's NIC in every node.
pub const MANAGEMENT_NIC: &str = "eth0";
/// Without the prefix of the trials' tables, because it outlasts them.
const TABLE: &str = "guard-of-relapse";
const WITH_POD_ADDRESS: &str = "a pod's address";
const ELSEWHERE: &str = "neither a node nor this machine";

/// Sets up the guard and deletes the default routes through Docker's NIC.
///
/// # Errors
/// If the kernel refuses it, or it does not read back.
pub fn set_up(ns: &NetNs, cluster: &Created) -> Result<()> {
    rules(cluster).apply(ns)?;
    let nic = link::find(ns, MANAGEMENT_NIC)?.map(|link| link.index);
    let routes = route::save_routes(ns, Some(route::MAIN))?;
    let by_it = routes.iter().filter(|saved| saved.route().destination.1 == 0 && saved.route().oif == nic);
    by_it.into_iter().try_for_each(|saved| saved.delete(ns))
}

/// The number of packets dropped so far.
///
/// # Errors
/// If the guard no longer exists.
pub fn hits(ns: &NetNs) -> Result<u64> {
    Ok(nft::counter(ns, TABLE, WITH_POD_ADDRESS)? + nft::counter(ns, TABLE, ELSEWHERE)?)
}

fn rules(cluster: &Created) -> Table {
    let (pods, management) = (pair(cluster.pod_prefix), pair(cluster.management));
    let out = || Rule::new().oifname(MANAGEMENT_NIC);
    Table::new(TABLE)
        // Pods reach the API server, which is a node, through NAT, as with any CNI.
        .chain(Chain::nat("translate", Hook::Postrouting, 90))
        .rule("translate", out().ip_saddr(pods).ip_daddr(management).masquerade(None).comment("pods to nodes"))
        .chain(Chain::filter("guard", Hook::Postrouting, 300, Policy::Accept))
        .rule("guard", out().ip_saddr(pods).counter().drop().comment(WITH_POD_ADDRESS))
        .rule("guard", out().not_ip_daddr(management).counter().drop().comment(ELSEWHERE))
}
