//! A kind node's place in the fabric, for the length of a trial: two NICs, policy table, source NAT.
//!
//! Docker's NIC stays what the nodes reach each other by; the default route is the fabric's meanwhile, and
//! between trials there is none.

use std::time::Duration;

use relapse_detectors::prefix::Prefix;
use relapse_kernel::builder::Builder;
use relapse_kernel::conntrack::Conntrack;
use relapse_kernel::route::{self, MAIN, Rule};
use relapse_kernel::{Error, NetNs, Result, link, nft, sysctl};
use relapse_lab::cluster::Node;
use relapse_lab::cluster::fabric::Fabric;
use relapse_lab::cluster::node_network::{SNAT_TABLE, attach_nics, pair, snat};
use relapse_model::{NetworkPlan, NodePlan};

use super::created::{Created, NodeRef};
use super::until::until;
use super::{failed, failures};

/// Before the rules of any pod: the API server's endpoint is a node.
const MANAGEMENT_PRIORITY: u32 = 400;

/// Entries of deleted flows count no longer by then.
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(10);
/// Entries that come and go on a node between two looks.
const IN_PASSING: u64 = 100;

/// What a trial changed on a node, and what was there before.
pub struct Attached {
    node: Node,
    management: Rule,
    /// As they were.
    settings: Vec<(String, String)>,
    nics: [String; 2],
    /// Where the nodes reach each other.
    between_nodes: Prefix,
}

/// Plugs a node into the fabric.
///
/// # Errors
/// What the kernel refused.
pub async fn attach(
    fabric: &mut Fabric,
    number: usize,
    cluster: &Created,
    node: &NodeRef,
    plan: &NodePlan,
    network: &NetworkPlan,
) -> Result<Attached> {
    // Messages call it what the scenario does.
    let ns = NetNs::of_process(&plan.name, node.pid)?;
    let settings = sysctl::all_of(&ns)?;
    sysctl::apply(&ns, &sysctl::lab_settings(true))?;
    for (name, seconds) in &network.conntrack_timeouts {
        sysctl::write(&ns, &format!("net.netfilter.nf_conntrack_{name}"), &seconds.to_string())?;
    }
    let (address, length) = pair(cluster.management);
    let management = Rule::ipv4(MANAGEMENT_PRIORITY).to(address, length).table(MAIN);
    let builder = Builder::open(&ns)?;
    builder.add_rule(&management).await?;
    attach_nics(fabric, number, &builder, plan, network).await?;
    snat(network, None).apply(&ns)?;
    Ok(Attached {
        node: Node { name: plan.name.clone(), ns },
        management,
        settings,
        nics: [network.node_nic.clone(), network.pod_nic.clone()],
        between_nodes: cluster.management,
    })
}

impl Attached {
    pub const fn node(&self) -> &Node {
        &self.node
    }

    /// Takes all of it away again; goes on past what fails, and says it.
    pub fn detach(&self) -> Vec<String> {
        let ns = &self.node.ns;
        let steps = [
            self.nics.iter().try_for_each(|nic| match link::find(ns, nic)? {
                Some(found) => link::delete(ns, found.index),
                None => Ok(()),
            }),
            nft::delete_table(ns, SNAT_TABLE),
            route::delete_rule(ns, &self.management),
            sysctl::write_all(ns, &self.settings),
        ];
        failures(&self.node.name, steps)
    }

    /// Before the first flow, and once all nodes are out of the fabric: connection tracking would remember a trial for minutes, to the next one
    /// and to whoever lowers the limit beside another cluster. What nodes have among themselves, pods with the API
    /// server and a node with itself goes on. An entry still counts for a while after it was deleted, until the
    /// last of those who listen has heard of it: that is waited for.
    ///
    /// # Errors
    /// When the kernel refuses, or still counts what is gone.
    pub fn forget_flows(&self) -> std::result::Result<(), String> {
        let table = Conntrack::open(&self.node.ns).map_err(failed)?;
        let late = || format!("{} had not forgotten the flows of a trial", self.node.name);
        let forget = || {
            let deleted = table.delete_where(|entry| {
                let ends = [entry.original.0, entry.original.1, entry.reply.0, entry.reply.1].map(|end| end.ip());
                !ends.iter().any(|end| end.is_loopback() || self.between_nodes.contains(*end))
            })?;
            let (kept, counted) = (table.entries()?.len() as u64, table.table()?.0);
            Ok((deleted == 0 && counted <= kept + IN_PASSING).then_some(()))
        };
        until(FORGOTTEN_WITHIN, &|| false, late, || forget().map_err(|e: Error| failed(e)))
    }
}
