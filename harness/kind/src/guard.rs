//! Containment: no packet of the lab leaves a node by Docker's NIC.
//!
//! Docker's NIC is there for the nodes among themselves. What would leave by it with a pod's address,
//! or for anywhere but Docker's own subnet, is counted and dropped; a count makes the trial dirty. The
//! guard is up before the first pod is, stays as long as the node, and leaves no default route by that NIC.

use relapse_kernel::nft::{self, Chain, Hook, Policy, Rule, Table};
use relapse_kernel::{NetNs, Result, link, route};
use relapse_lab::cluster::node_network::pair;

use super::created::Created;

/// Docker's NIC in every node.
pub const MANAGEMENT_NIC: &str = "eth0";
/// Its name does not begin as those of trials do: it outlasts them.
const TABLE: &str = "guard-of-relapse";
const WITH_POD_ADDRESS: &str = "a pod's address";
const ELSEWHERE: &str = "neither a node nor this machine";

/// Puts it up, and takes the way out away.
///
/// # Errors
/// When the kernel refuses it, or it does not read back.
pub fn put_up(ns: &NetNs, cluster: &Created) -> Result<()> {
    rules(cluster).apply(ns)?;
    let nic = link::find(ns, MANAGEMENT_NIC)?.map(|link| link.index);
    let routes = route::save_routes(ns, Some(route::MAIN))?;
    let by_it = routes.iter().filter(|saved| saved.route().destination.1 == 0 && saved.route().oif == nic);
    by_it.into_iter().try_for_each(|saved| saved.delete(ns))
}

/// Packets it has dropped so far.
///
/// # Errors
/// When it is no longer there.
pub fn hits(ns: &NetNs) -> Result<u64> {
    Ok(nft::counter(ns, TABLE, WITH_POD_ADDRESS)? + nft::counter(ns, TABLE, ELSEWHERE)?)
}

fn rules(cluster: &Created) -> Table {
    let (pods, management) = (pair(cluster.pod_prefix), pair(cluster.management));
    let out = || Rule::new().oifname(MANAGEMENT_NIC);
    Table::new(TABLE)
        // Pods reach the API server, which is a node: translated, as by any CNI.
        .chain(Chain::nat("translate", Hook::Postrouting, 90))
        .rule("translate", out().ip_saddr(pods).ip_daddr(management).masquerade(None).comment("pods to nodes"))
        .chain(Chain::filter("guard", Hook::Postrouting, 300, Policy::Accept))
        .rule("guard", out().ip_saddr(pods).counter().drop().comment(WITH_POD_ADDRESS))
        .rule("guard", out().not_ip_daddr(management).counter().drop().comment(ELSEWHERE))
}
