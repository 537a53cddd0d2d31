//! A policy on a node drops the connections of pods to one server: benign for source NAT (twin of I7).

use relapse_kernel::nft::{self, Chain, Hook, Policy, Rule, Table};
use relapse_model::diagnostics::Span;
use relapse_model::spanned::Spanned;
use relapse_model::{ClusterPlan, NodeId, OutsideId, Resolver};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::cluster::node_network::host;
use crate::fault::{Fault, FaultError, FaultSpec, InForce, Job, Look, UndoStack, Where, World, now};

/// A policy on a node drops what its pods send to one port of a host outside, as a NetworkPolicy does.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyDropSpec {
    pub node: Spanned<String>,
    /// `outside/NAME`.
    pub to: Spanned<String>,
    /// TCP port.
    #[schemars(range(min = 1))]
    pub port: Spanned<u16>,
}

/// The same, resolved.
#[derive(Debug)]
pub struct PolicyDrop {
    pub(crate) node: NodeId,
    pub(crate) to: OutsideId,
    pub(crate) port: u16,
}

impl FaultSpec for PolicyDropSpec {
    const EXAMPLE: &'static str = "{ node: worker-1, to: outside/host, port: 443 }";
    const LOOK: &'static [Look] = &[(Where::Node, "nft list ruleset"), (Where::Node, "conntrack -S")];

    fn plan(&self, _at: Span, resolver: &mut Resolver<'_>) -> Option<Box<dyn Fault>> {
        let (node, to) = (resolver.node(&self.node), resolver.outside(&self.to));
        Some(Box::new(PolicyDrop { node: node?, to: to?, port: self.port.value }))
    }
}

// The mutation.

impl Fault for PolicyDrop {
    fn changes(&self, cluster: &ClusterPlan) -> Vec<String> {
        let (node, to) = (&cluster.nodes[self.node.0].name, &cluster.outside[self.to.0].name);
        vec![format!("the policy of node/{node} for outside/{to} port {}", self.port)]
    }

    fn inject<'a>(&'a self, world: &'a World, undo: &'a mut UndoStack) -> Job<'a, Result<InForce, FaultError>> {
        Box::pin(async move {
            let plan = world.cluster.plan();
            let (ns, to) = (world.cluster.node(self.node).ns.clone(), &plan.outside[self.to.0]);
            let comment = format!("to {} port {}", to.name, self.port);
            let drop = Rule::new().ip_daddr(host(to.address)).tcp_dport(self.port).counter().drop().comment(&comment);
            let table = format!("relapse-policy-{}-{}", self.to.0, self.port);
            let (home, own) = (ns.clone(), table.clone());
            undo.push(format!("remove the policy of {}", ns.name()), move || nft::delete_table_if_there(&home, &own));
            let t0 = now();
            Table::new(&table)
                .chain(Chain::filter("forward", Hook::Forward, 0, Policy::Accept))
                .rule("forward", drop)
                .apply(&ns)?;
            // Fails if the rule is not there.
            let dropped = nft::counter(&ns, &table, &comment)?;
            let t1 = now();
            let what = format!("{} drops what pods send {comment}", ns.name());
            Ok(InForce { t0, t1, what, read_back: format!("rule {comment:?}, {dropped} packets"), reduced: None })
        })
    }
}
