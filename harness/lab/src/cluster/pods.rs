//! What every backend adds to its pods: a pod that comes and goes, and separate source ports for each.

use std::net::IpAddr;

use relapse_model::replicas::FIRST_POD;
use relapse_model::{ClusterPlan, NodeId, PodId, PodPlan, PodRole};

/// The ephemeral ports of Linux, shared by the pods of a node.
const FIRST_PORT: u32 = 32_768;
const PORTS: u32 = 28_232;

const PASSER_BY: &str = "passer-by";

/// The highest address in a node's share that the pod that comes and goes takes.
const LAST_POD: u128 = 199;

/// Adds the pod that comes and goes, last so that all other numbers stay. In a share without a free address there is
/// none.
#[must_use]
pub fn with_passer_by(plan: &ClusterPlan) -> ClusterPlan {
    let mut plan = plan.clone();
    // Not on a node the scenario keeps empty.
    let node = plan.pods.iter().map(|pod| pod.node).max().unwrap_or(NodeId(plan.nodes.len() - 1));
    let used = |address| plan.pods.iter().any(|pod| pod.address == address);
    let share = plan.nodes[node.0].pod_prefix;
    let free = |address: &IpAddr| {
        let own = [plan.nodes[node.0].pod_nic_address, plan.network.pod_gateway];
        !used(*address) && !own.contains(address)
    };
    // From the end of the share: those before belong to the pods of the scenario.
    let address =
        (FIRST_POD..=LAST_POD).rev().filter(|n| share.nth(n + 1).is_some()).filter_map(|n| share.nth(n)).find(free);
    if let Some(address) = address {
        let (name, role) = (PASSER_BY.into(), PodRole::Plain);
        plan.pods.push(PodPlan { name, node, address, mtu: 1500, role, host_network: false });
    }
    plan
}

/// That pod, if there is one.
#[must_use]
pub fn passer_by(plan: &ClusterPlan) -> Option<PodId> {
    let last = plan.pods.last().filter(|pod| pod.name == PASSER_BY);
    last.map(|_| PodId(plan.pods.len() - 1))
}

/// The source ports of a pod, in the format of `ip_local_port_range`. Pods of a node use separate shares:
/// otherwise two of them would occasionally get the same translated port by chance, and the incident of I7 would
/// occur without a fault.
#[must_use]
pub fn port_share(plan: &ClusterPlan, id: PodId) -> String {
    let node = plan.pods[id.0].node;
    let neighbours: Vec<usize> = (0..plan.pods.len()).filter(|other| plan.pods[*other].node == node).collect();
    let count = u32::try_from(neighbours.len()).unwrap_or(1);
    let place = neighbours.iter().position(|other| *other == id.0).and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
    let low = FIRST_PORT + place * (PORTS / count);
    format!("{low}\t{}", low + PORTS / count - 1)
}
