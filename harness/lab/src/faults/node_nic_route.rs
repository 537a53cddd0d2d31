//! The pods' table of a node gets a route of its own for one destination, by the node's NIC: benign (twin of I4).

use relapse_kernel::builder::Builder;
use relapse_kernel::link;
use relapse_kernel::route::{self, Route};
use relapse_model::diagnostics::Span;
use relapse_model::spanned::Spanned;
use relapse_model::{ClusterPlan, NodeId, OutsideId, Resolver};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::cluster::node_network::host;
use crate::fault::{Fault, FaultError, FaultSpec, InForce, Job, Look, UndoStack, Where, World, now};

/// The pods' table of a node routes one destination by the node's NIC, on purpose.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeNicRouteSpec {
    pub node: Spanned<String>,
    /// `outside/NAME`.
    pub to: Spanned<String>,
}

/// The same, resolved.
#[derive(Debug)]
pub struct NodeNicRoute {
    pub(crate) node: NodeId,
    pub(crate) to: OutsideId,
}

impl FaultSpec for NodeNicRouteSpec {
    const EXAMPLE: &'static str = "{ node: worker-1, to: outside/host }";
    const LOOK: &'static [Look] =
        &[(Where::Node, "ip rule; ip route show table {table}"), (Where::Node, crate::fault::SYNS)];

    fn plan(&self, _at: Span, resolver: &mut Resolver<'_>) -> Option<Box<dyn Fault>> {
        let (node, to) = (resolver.node(&self.node), resolver.outside(&self.to));
        Some(Box::new(NodeNicRoute { node: node?, to: to? }))
    }
}

// The mutation.

impl Fault for NodeNicRoute {
    fn changes(&self, cluster: &ClusterPlan) -> Vec<String> {
        vec![cluster.pod_table_of(self.node)]
    }

    fn inject<'a>(&'a self, world: &'a World, undo: &'a mut UndoStack) -> Job<'a, Result<InForce, FaultError>> {
        Box::pin(async move {
            let (plan, ns) = (world.cluster.plan(), world.cluster.node(self.node).ns.clone());
            let (network, to) = (&plan.network, host(plan.outside[self.to.0].address));
            let nic = link::find(&ns, &network.node_nic)?;
            let nic =
                nic.ok_or_else(|| FaultError::NotFound { what: format!("{} of {}", network.node_nic, ns.name()) })?;
            let table = network.pod_table;
            let new = Route::to(to.0, to.1).via(network.node_gateway).dev(nic.index).onlink().table(table);
            let is_there = move |ns: &relapse_kernel::NetNs| -> relapse_kernel::Result<bool> {
                let found = route::routes(ns, Some(table))?;
                Ok(found.iter().any(|route| route.destination == to && route.oif == Some(nic.index)))
            };
            let (home, route) = (ns.clone(), new.clone());
            undo.push(format!("remove the route to {} from table {table}", to.0), move || {
                if is_there(&home)? {
                    route::delete_route(&home, &route)?;
                }
                Ok(())
            });
            let t0 = now();
            Builder::open(&ns)?.add_route(&new).await?;
            let in_force = is_there(&ns)?;
            let t1 = now();
            let what = format!("table {table} of {} routes {} by {}", ns.name(), to.0, network.node_nic);
            if !in_force {
                return Err(FaultError::NotInForce { what, read_back: format!("no route to {}", to.0) });
            }
            Ok(InForce { t0, t1, what, read_back: format!("{} by {}", to.0, network.node_nic), reduced: None })
        })
    }
}
