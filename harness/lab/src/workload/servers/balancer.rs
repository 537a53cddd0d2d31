//! Load balancers outside: hosts that forward the port of a Service to its node ports.
//!
//! As a load balancer of a cloud at layer 4: it tracks connections and distributes them at random over the nodes that
//! are healthy. With policy Local these are the nodes with an endpoint, as its checks of the health port would find.
//! It puts its own address in place of the client's, so that replies return through it.

use relapse_kernel::NetNs;
use relapse_kernel::nft::{Chain, Hook, Rule, Table};
use relapse_model::{ClusterPlan, OutsideId, OutsidePlan, ServicePlan, TrafficPolicy};
use tokio::task::JoinSet;

use crate::cluster::node_network::host;
use crate::cluster::{Cluster, Inventory};
use crate::job::FaultError;

/// Name of the nft table.
const TABLE: &str = "relapse-balancer";

/// Starts all of them. They follow the endpoints.
pub(super) fn start(cluster: &dyn Cluster, tasks: &mut JoinSet<()>) -> Result<(), FaultError> {
    for (number, balancer) in cluster.plan().outside.iter().enumerate() {
        let Some(id) = balancer.balances else { continue };
        let (plan, mut inventory) = (cluster.plan().clone(), cluster.inventory());
        let (ns, balancer) = (cluster.outside(OutsideId(number)).ns.clone(), balancer.clone());
        let program = move |ns: &NetNs, known: &Inventory| {
            rules(&plan, &balancer, &plan.services[id.0], known).map_or(Ok(()), |table| table.replace(ns))
        };
        program(&ns, &inventory.borrow_and_update())?;
        tasks.spawn(async move {
            while inventory.changed().await.is_ok() {
                // A namespace that is gone needs no rules.
                let _ = program(&ns, &inventory.borrow_and_update());
            }
        });
    }
    Ok(())
}

/// `None` if the Service has no node port, which planning rejects.
fn rules(plan: &ClusterPlan, balancer: &OutsidePlan, service: &ServicePlan, known: &Inventory) -> Option<Table> {
    let (port, node_port) = (*service.ports.first()?, service.node_port?);
    let ready = known.services.iter().find(|known| known.service == service.name).map(|known| &known.ready);
    let has_endpoint = |node: &str| ready.is_some_and(|ready| ready.iter().any(|endpoint| endpoint.node == node));
    let healthy = |name: &str| service.policy == TrafficPolicy::Cluster || has_endpoint(name);
    let nodes: Vec<_> = plan.nodes.iter().filter(|node| healthy(&node.name)).collect();
    let mut table = Table::new(TABLE)
        .chain(Chain::nat("prerouting", Hook::Prerouting, -100))
        .chain(Chain::nat("postrouting", Hook::Postrouting, 100))
        .rule("postrouting", Rule::new().tcp_dport(node_port).masquerade(None).comment("by its own address"));
    for (position, node) in nodes.iter().enumerate() {
        let left = u32::try_from(nodes.len() - position).unwrap_or(1);
        let traffic = Rule::new().ip_daddr(host(balancer.address)).tcp_dport(port);
        let traffic = if left > 1 { traffic.numgen_random(left, 0) } else { traffic };
        let to = format!("{}:{port} -> {}:{node_port}", service.name, node.name);
        table = table.rule("prerouting", traffic.dnat(node.address, Some(node_port)).comment(to));
    }
    Some(table)
}
