//! A node's policy routing for pods is lost: the table, its default route, or rules that lead to it (I4).
//!
//! With `rebuildAfter` it is restored after a while, as when the CNI's address manager restarts.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use relapse_kernel::NetNs;
use relapse_kernel::route::{self, SavedRoute, SavedRule};
use relapse_model::diagnostics::Span;
use relapse_model::spanned::Spanned;
use relapse_model::values;
use relapse_model::{ClusterPlan, FlowId, NodeId, Place, PodId, Resolver};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::cluster::Cluster;
use crate::cluster::node_network::host;
use crate::fault::{Fault, FaultError, FaultSpec, InForce, Job, Look, SYNS, UnderWay, UndoStack, Where, World, now};

/// A node loses the routing table for pod traffic, or the rules that select it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyRouteLossSpec {
    pub node: Spanned<String>,
    pub lose: Spanned<Lose>,
    /// Pod whose rules or route are lost, where `lose` is about one pod. It must run on the node.
    pub pod: Option<Spanned<String>>,
    /// Time after which it is restored by itself. Default: never.
    pub rebuild_after: Option<Spanned<values::Duration>>,
    /// Flows of the node's pods pause until it is restored.
    #[serde(default)]
    pub quiet: Option<Spanned<bool>>,
}

/// What is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Lose {
    /// All routes of the table.
    Table,
    /// The table's default route.
    DefaultRoute,
    /// The rule for packets from the pod.
    FromRule,
    /// The rule for packets to the pod.
    ToRule,
    /// Both rules of the pod.
    PodRules,
    /// The rules of all pods on the node.
    AllRules,
    /// The route by which the node reaches the pod.
    HostRoute,
}

/// The same, resolved.
#[derive(Debug)]
pub struct PolicyRouteLoss {
    pub(crate) node: NodeId,
    pub(crate) lose: Lose,
    /// Set where one pod loses something.
    pub(crate) pod: Option<PodId>,
    pub(crate) rebuild_after: Option<Duration>,
    /// Flows that pause until it is restored.
    pub(crate) quiet: Vec<FlowId>,
}

impl FaultSpec for PolicyRouteLossSpec {
    const EXAMPLE: &'static str = "{ node: worker-1, lose: pod-rules, pod: a, rebuildAfter: 600ms, quiet: true }";
    const LOOK: &'static [Look] = &[
        (Where::Node, "ip rule; ip route show table {table}"),
        (Where::Node, "ip route get {address} from {pod} iif {link}"),
        (Where::Node, SYNS),
        (Where::Outside, SYNS),
    ];

    fn plan(&self, _at: Span, resolver: &mut Resolver<'_>) -> Option<Box<dyn Fault>> {
        let node = resolver.node(&self.node);
        let pod = self.pod.as_ref().map(|pod| resolver.pod(pod));
        let rebuild_after = self.rebuild_after.as_ref().map(|d| resolver.duration("rebuildAfter", d));
        let one_pods = matches!(self.lose.value, Lose::FromRule | Lose::ToRule | Lose::PodRules | Lose::HostRoute);
        match (&self.pod, one_pods) {
            (None, true) => {
                resolver.error(self.lose.span, "the pod whose rules or route are lost is missing", "add `pod: NAME`")
            }
            (Some(pod), false) => {
                resolver.error(
                    pod.span,
                    "`pod` has no effect here",
                    "`lose` applies to all pods of the node: remove `pod`",
                );
            }
            _ => {}
        }
        if let (Some(node), Some(Some(id)), Some(pod)) = (node, pod, &self.pod) {
            resolver.pod_on_node(pod, id, node);
            resolver.has_link(pod, id);
        }
        let quiet = self.quiet.filter(|quiet| quiet.value);
        if let (Some(quiet), None) = (quiet, &self.rebuild_after) {
            resolver.error(
                quiet.span,
                "`quiet` lasts until the routes are restored, which never happens",
                "add `rebuildAfter`",
            );
        }
        let node = node?;
        let paused = |r: &Resolver<'_>| {
            let on_node = |place| matches!(place, Place::Pod(pod) if r.cluster.pods[pod.0].node == node);
            let starts_there =
                |i: &usize| on_node(r.workload[*i].from) || r.workload[*i].in_turn.iter().any(|p| on_node(*p));
            (0..r.workload.len()).filter(starts_there).map(FlowId).collect()
        };
        Some(Box::new(PolicyRouteLoss {
            node,
            lose: self.lose.value,
            pod: match pod {
                Some(pod) => Some(pod?),
                None => None,
            },
            rebuild_after: match rebuild_after {
                Some(duration) => Some(duration?),
                None => None,
            },
            quiet: if quiet.is_some() { paused(resolver) } else { Vec::new() },
        }))
    }
}

// The mutation.

impl Fault for PolicyRouteLoss {
    fn changes(&self, cluster: &ClusterPlan) -> Vec<String> {
        match self.lose {
            Lose::Table | Lose::DefaultRoute => vec![cluster.pod_table_of(self.node)],
            Lose::FromRule | Lose::ToRule | Lose::PodRules | Lose::AllRules | Lose::HostRoute => {
                let pods = cluster.pods.iter().enumerate();
                let lost = pods.filter(|(number, pod)| match self.pod {
                    Some(PodId(one)) => *number == one,
                    None => pod.node == self.node,
                });
                lost.map(|(_, pod)| format!("the rules and the route of pod/{}", pod.name)).collect()
            }
        }
    }

    fn inject<'a>(&'a self, world: &'a World, undo: &'a mut UndoStack) -> Job<'a, Result<InForce, FaultError>> {
        Box::pin(async move {
            let cluster = world.cluster.as_ref();
            let ns = &cluster.node(self.node).ns;
            let lost = self.find_lost(cluster)?;
            if lost.routes.is_empty() && lost.rules.is_empty() {
                return Err(FaultError::NotFound {
                    what: format!("routes or rules of {:?} on {}", self.lose, ns.name()),
                });
            }
            let quiet: Vec<_> = self.quiet.iter().map(|flow| Arc::clone(&world.flows[flow.0].1)).collect();
            if !quiet.is_empty() {
                let paused = quiet.clone();
                let churn = world.quiet.clone();
                undo.push("resume flows", move || {
                    paused.iter().for_each(|flow| flow.pause(false));
                    churn.set(false);
                    Ok(())
                });
                world.quiet.set(true);
                quiet.iter().for_each(|flow| flow.pause(true));
                for flow in &self.quiet {
                    world.until(*flow, UnderWay::None, "remove routes while nothing is under way").await?;
                }
            }
            let (home, saved) = (ns.clone(), lost.clone());
            undo.push(format!("restore {lost}"), move || saved.restore(&home));
            let t0 = now();
            lost.delete(ns)?;
            let read_back = lost.read_back(ns)?;
            let t1 = now();
            if let Some(span) = self.rebuild_after {
                // Part of the twin: the time the address manager takes.
                tokio::time::sleep(span).await;
                lost.restore(ns)?;
                quiet.iter().for_each(|flow| flow.pause(false));
                world.quiet.set(false);
            }
            Ok(InForce { t0, t1, what: format!("deleted {lost} on {}", ns.name()), read_back, reduced: None })
        })
    }
}

/// The deleted routes and rules, as saved.
#[derive(Debug, Clone)]
struct Lost {
    routes: Vec<SavedRoute>,
    rules: Vec<SavedRule>,
}

impl PolicyRouteLoss {
    fn find_lost(&self, cluster: &dyn Cluster) -> Result<Lost, FaultError> {
        let ns = &cluster.node(self.node).ns;
        let plan = cluster.plan();
        let mut lost = Lost { routes: Vec::new(), rules: Vec::new() };
        let whose: Vec<_> = match self.pod {
            Some(pod) => vec![host(plan.pods[pod.0].address)],
            None => plan.pods_with_links(self.node).map(|id| host(plan.pods[id.0].address)).collect(),
        };
        match self.lose {
            Lose::HostRoute => {
                lost.routes = route::save_routes(ns, Some(route::MAIN))?;
                lost.routes.retain(|saved| whose.contains(&saved.route().destination));
            }
            Lose::Table | Lose::DefaultRoute => {
                lost.routes = route::save_routes(ns, Some(plan.network.pod_table))?;
                if self.lose == Lose::DefaultRoute {
                    lost.routes.retain(|saved| saved.route().destination.1 == 0);
                }
            }
            Lose::FromRule | Lose::ToRule | Lose::PodRules | Lose::AllRules => {
                lost.rules = route::save_rules(ns)?;
                lost.rules.retain(|saved| {
                    let rule = saved.rule();
                    let from = self.lose != Lose::ToRule && whose.contains(&rule.from);
                    let to = self.lose != Lose::FromRule && rule.to.is_some_and(|to| whose.contains(&to));
                    from || to
                });
            }
        }
        Ok(lost)
    }
}

impl Lost {
    fn delete(&self, ns: &NetNs) -> Result<(), FaultError> {
        self.routes.iter().try_for_each(|route| route.delete(ns))?;
        self.rules.iter().try_for_each(|rule| rule.delete(ns))
    }

    fn restore(&self, ns: &NetNs) -> Result<(), FaultError> {
        route::restore_routes(ns, &self.routes)?;
        // A pod recreated meanwhile has brought its own rules.
        let back = |rule: &SavedRule| rule.restore(ns).or_else(|e| if rule.is_in_force(ns)? { Ok(()) } else { Err(e) });
        self.rules.iter().try_for_each(back)
    }

    /// Checks that none of them is in force.
    fn read_back(&self, ns: &NetNs) -> Result<String, FaultError> {
        let mut left = 0;
        for route in &self.routes {
            left += usize::from(route.is_in_force(ns)?);
        }
        for rule in &self.rules {
            left += usize::from(rule.is_in_force(ns)?);
        }
        if left > 0 {
            return Err(FaultError::NotInForce {
                what: format!("delete {self}"),
                read_back: format!("{left} still in force"),
            });
        }
        Ok("none of them is in force".into())
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        for saved in &self.routes {
            let route = saved.route();
            let to = if route.destination.1 == 0 {
                "default".into()
            } else {
                format!("{}/{}", route.destination.0, route.destination.1)
            };
            parts.push(format!("route {to} of table {}", route.table));
        }
        for saved in &self.rules {
            let rule = saved.rule();
            parts.push(match rule.to {
                Some((to, _)) => format!("rule to {to}"),
                None => format!("rule from {}", rule.from.0),
            });
        }
        f.write_str(&parts.join(", "))
    }
}
