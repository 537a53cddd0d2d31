//! Attaches a kind node to the fabric for the duration of a trial: two NICs, policy table, source NAT.
//!
//! The nodes still reach each other through Docker's NIC. The default route points to the fabric during a trial, and
//! there is none between trials.

use std::time::Duration;

use relapse_detectors::prefix::Prefix;
use relapse_kernel::builder::Builder;
use relapse_kernel::conntrack::Conntrack;
use relapse_kernel::route::{self, MAIN, Rule};
use relapse_kernel::{Error, NetNs, Result, link, nft, sysctl};
use relapse_lab::cluster::Node;
use relapse_lab::cluster::fabric::Fabric;
use relapse_lab::cluster::node_network::{
    NODE_PORTS_TABLE, SNAT_TABLE, attach_nics, node_port_rule, node_ports, pair, snat,
};
use relapse_model::ClusterPlan;

use super::created::{Created, NodeRef};
use super::until::until;
use super::{failed, failures};

/// Before the rules of all pods, because the API server's endpoint is a node.
const MANAGEMENT_PRIORITY: u32 = 400;

/// Time limit for deleted entries to leave the kernel's count.
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(10);
/// Entries that may come and go on a node between two reads.
const IN_PASSING: u64 = 100;

/// A trial's changes to a node, and the state before.
pub struct Attached {
    node: Node,
    rules: Vec<Rule>,
    tables: Vec<&'static str>,
    /// Settings before the trial.
    settings: Vec<(String, String)>,
    nics: [String; 2],
    /// The prefix by which the nodes reach each other.
    between_nodes: Prefix,
}

/// Attaches a node to the fabric.
///
/// # Errors
/// The error of the kernel.
pub async fn attach(
    fabric: &mut Fabric,
    number: usize,
    cluster: &Created,
    node: &NodeRef,
    plan: &ClusterPlan,
) -> Result<Attached> {
    let (network, planned) = (&plan.network, &plan.nodes[number]);
    // Messages use the scenario's name.
    let ns = NetNs::of_process(&planned.name, node.pid)?;
    let settings = sysctl::all_of(&ns)?;
    sysctl::apply(&ns, &sysctl::lab_settings(true))?;
    for (name, seconds) in &network.conntrack_timeouts {
        sysctl::write(&ns, &format!("net.netfilter.nf_conntrack_{name}"), &seconds.to_string())?;
    }
    let (address, length) = pair(cluster.management);
    let management = Rule::ipv4(MANAGEMENT_PRIORITY).to(address, length).table(MAIN);
    let builder = Builder::open(&ns)?;
    builder.add_rule(&management).await?;
    attach_nics(fabric, number, &builder, planned, network).await?;
    snat(network, None).apply(&ns)?;
    let mut tables = vec![SNAT_TABLE];
    let mut rules = vec![management];
    if plan.has_node_ports() {
        builder.add_rule(&node_port_rule()).await?;
        rules.push(node_port_rule());
        node_ports(network, planned).apply(&ns)?;
        tables.push(NODE_PORTS_TABLE);
    }
    Ok(Attached {
        node: Node { name: planned.name.clone(), ns },
        rules,
        tables,
        settings,
        nics: [network.node_nic.clone(), network.pod_nic.clone()],
        between_nodes: cluster.management,
    })
}

impl Attached {
    pub const fn node(&self) -> &Node {
        &self.node
    }

    /// Undoes all changes. Continues after errors and returns them.
    pub fn detach(&self) -> Vec<String> {
        let ns = &self.node.ns;
        let steps = [
            self.nics.iter().try_for_each(|nic| match link::find(ns, nic)? {
                Some(found) => link::delete(ns, found.index),
                None => Ok(()),
            }),
            self.tables.iter().try_for_each(|table| nft::delete_table(ns, table)),
            self.rules.iter().try_for_each(|rule| route::delete_rule(ns, rule)),
            sysctl::write_all(ns, &self.settings),
        ];
        failures(&self.node.name, steps)
    }

    /// Deletes connection-tracking entries before the first flow and after all nodes have left the fabric. Otherwise
    /// they would last for minutes and affect the next trial, and anyone who lowers the limit beside another cluster.
    /// Flows between nodes, between pods and the API server, and of a node with itself are kept. A deleted entry still
    /// counts until the last listener has received the event, so this waits for the count to drop.
    ///
    /// # Errors
    /// If the kernel refuses, or still counts the deleted entries after the time limit.
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
