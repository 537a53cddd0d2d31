//! kube-proxy's rules for one Service are lost on one node, or lead to a pod that no longer exists (W1).
//!
//! kube-proxy keeps running. It writes the rules of a Service when its endpoints change, and all of them only once an
//! hour (`FullSyncPeriod`, `pkg/proxy/util`), so that what something else deleted stays deleted.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use relapse_model::diagnostics::Span;
use relapse_model::spanned::Spanned;
use relapse_model::values;
use relapse_model::{ClusterPlan, NodeId, Resolver, ServiceId};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::cluster::ServiceRules;
use crate::fault::wait_for;
use crate::fault::{Fault, FaultError, FaultSpec, InForce, Job, Look, SYNS, UndoStack, Where, World, now};

/// A node loses kube-proxy's rules for a Service.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceRulesLossSpec {
    pub node: Spanned<String>,
    pub service: Spanned<String>,
    pub how: How,
    /// Time after which they are written again. Default: never.
    pub rebuild_after: Option<Spanned<values::Duration>>,
}

/// How the rules are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// Nothing translates the virtual address.
    Gone,
    /// They lead to the address of a pod that no longer exists.
    Stale,
}

/// The same, resolved.
#[derive(Debug)]
pub struct ServiceRulesLoss {
    pub(crate) node: NodeId,
    pub(crate) service: ServiceId,
    pub(crate) how: How,
    pub(crate) rebuild_after: Option<Duration>,
}

/// Shows the rules that kube-proxy writes in either mode, and a lab's.
pub(super) const LOOK: &[Look] = &[
    (Where::Node, "nft list ruleset; iptables-save -t nat"),
    (Where::Node, "curl -si http://127.0.0.1:10256/healthz"),
    (Where::Pod, SYNS),
];

impl FaultSpec for ServiceRulesLossSpec {
    const EXAMPLE: &'static str = "{ node: worker-1, service: shop, how: stale, rebuildAfter: 300ms }";
    const LOOK: &'static [Look] = LOOK;

    fn plan(&self, _at: Span, resolver: &mut Resolver<'_>) -> Option<Box<dyn Fault>> {
        let (node, service) = (resolver.node(&self.node), resolver.service(&self.service));
        let rebuild_after = self.rebuild_after.as_ref().map(|d| resolver.duration("rebuildAfter", d));
        let rebuild_after = match rebuild_after {
            Some(duration) => Some(duration?),
            None => None,
        };
        Some(Box::new(ServiceRulesLoss { node: node?, service: service?, how: self.how, rebuild_after }))
    }
}

// The mutation.

/// The last address of a node's share, counted from its end: the plugins assign the first ones.
const UNUSED: u128 = 250;

impl Fault for ServiceRulesLoss {
    fn changes(&self, cluster: &ClusterPlan) -> Vec<String> {
        let (node, service) = (&cluster.nodes[self.node.0].name, &cluster.services[self.service.0].name);
        vec![format!("the rule set of node/{node} for service/{service}")]
    }

    fn inject<'a>(&'a self, world: &'a World, undo: &'a mut UndoStack) -> Job<'a, Result<InForce, FaultError>> {
        Box::pin(async move {
            let (cluster, node, service) = (&world.cluster, self.node, self.service);
            let plan = cluster.plan();
            let (at, name) = (&plan.nodes[node.0].name, &plan.services[service.0].name);
            let what = match self.how {
                How::Gone => format!("the rules of {at} for {name} deleted"),
                How::Stale => format!("the rules of {at} for {name} lead to a pod that no longer exists"),
            };
            let before = cluster.service_rules(node, service).await?;
            if before.is_empty() {
                return Err(FaultError::NotFound { what: format!("rules of {at} for {name}") });
            }
            let home = Arc::clone(cluster);
            let original = before.clone();
            undo.push(format!("write the rules of {at} for {name}"), move || {
                wait_for(home.write_service_rules(node, service, ServiceRules::Whole))?;
                let now = wait_for(home.service_rules(node, service))?;
                let what = || "write the rules of a Service".into();
                // The endpoints may have changed meanwhile.
                let is_back = now == original || !now.is_empty();
                is_back.then_some(()).ok_or_else(|| FaultError::NotInForce { what: what(), read_back: "none".into() })
            });
            let (rules, stale) = match self.how {
                How::Gone => (ServiceRules::Gone, None),
                How::Stale => {
                    let address = self.unused(world).ok_or_else(|| FaultError::NotFound { what: what.clone() })?;
                    (ServiceRules::Stale(address), Some(address))
                }
            };
            let t0 = now();
            cluster.write_service_rules(node, service, rules).await?;
            let left = cluster.service_rules(node, service).await?;
            let t1 = now();
            let in_force = match stale {
                None => left.is_empty(),
                Some(address) => !left.is_empty() && left.iter().all(|rule| rule.contains(&address.to_string())),
            };
            let read_back = if left.is_empty() { "none".to_owned() } else { left.join(", ") };
            if !in_force {
                return Err(FaultError::NotInForce { what, read_back });
            }
            if let Some(span) = self.rebuild_after {
                // Part of the twin: the time until they are written again.
                tokio::time::sleep(span).await;
                cluster.write_service_rules(node, service, ServiceRules::Whole).await?;
            }
            Ok(InForce { t0, t1, what, read_back: format!("its rules: {read_back}"), reduced: None })
        })
    }
}

impl ServiceRulesLoss {
    /// An address that a pod behind the Service could have had.
    fn unused(&self, world: &World) -> Option<IpAddr> {
        let plan = world.cluster.plan();
        let pod = plan.services[self.service.0].pods.first()?;
        let share = plan.nodes[plan.pods[pod.0].node.0].pod_prefix;
        let used = |address| plan.pods.iter().any(|pod| pod.address == address);
        (1..=UNUSED).rev().filter_map(|n| share.nth(n)).find(|address| !used(*address))
    }
}
