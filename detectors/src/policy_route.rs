//! `policy-route`: pods of a node lost the routing that takes them out by the pod NIC.
//!
//! What it sees: rules and routes of the table that pods depend on go (netlink), or the kernel's answer to
//! "where would this pod's packet go?" is no longer the pod NIC. `info` at once; `warning` when it still
//! is so after 2 s, or on the first SYN on the wrong NIC: of such a pod by the node's NIC, or, where the rule
//! to a pod is gone, of its neighbour by the pod NIC (it comes back, and goes round until its TTL is used up).
//! Why it matters: the fabric drops the replies to packets that left by the wrong port, and only TCP to
//! far destinations fails; ping works.
//! Which incident: I4.
//!
//! Left out: a pod NIC that is gone or down (`pod-nic`), what becomes of the SYNs (`wrong-nic`).

mod state;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::claims::Claims;
use crate::detector::{Detector, DetectorInfo, Scope};
use crate::finding::{Finding, Level};
use crate::operator::Operator;
use crate::signal::{CollectorKind, Observed, Segment, Signal};
use crate::time::Time;
use state::NodeRouting;

pub const INFO: DetectorInfo = DetectorInfo {
    name: "policy-route",
    incident: "I4",
    level: Level::Cause,
    what: "The rules or routes that take pods out by the pod NIC are gone.",
    wants: &[CollectorKind::Rtnetlink, CollectorKind::RouteLookup, CollectorKind::Packets, CollectorKind::Inventory],
    needs: &[&[CollectorKind::Rtnetlink, CollectorKind::RouteLookup]],
    scope: Scope::Node,
    arm: |operator| Box::new(PolicyRoute { operator: operator.clone(), nodes: BTreeMap::new() }),
};

struct PolicyRoute {
    operator: Operator,
    nodes: BTreeMap<Arc<str>, Node>,
}

struct Node {
    routing: NodeRouting,
    claims: Claims,
}

impl Node {
    fn judge(&mut self, now: Time, operator: &Operator, name: &str, out: &mut Vec<Finding>) {
        let wanted = self.routing.judge(now, operator, name);
        self.claims.settle(out, wanted, "rules, routes and look-ups are whole again");
    }
}

impl Detector for PolicyRoute {
    fn info(&self) -> &'static DetectorInfo {
        &INFO
    }

    fn observe(&mut self, now: Time, signal: &Signal, out: &mut Vec<Finding>) {
        let node = self
            .nodes
            .entry(Arc::clone(&signal.node))
            .or_insert_with(|| Node { routing: NodeRouting::default(), claims: Claims::new(&INFO) });
        let (at, operator, routing) = (signal.at, &self.operator, &mut node.routing);
        match &signal.observed {
            Observed::Pod(pod) => routing.pod(at, operator, pod),
            Observed::Rule(rule) => routing.rule(at, operator, rule),
            Observed::Route(route) => routing.route(at, operator, route),
            Observed::Link(link) => routing.link(at, operator, link),
            Observed::RouteLookup(lookup) => routing.lookup(at, operator, lookup),
            Observed::Segment(segment) if concerns(operator, segment) => routing.segment(at, segment),
            Observed::Segment(segment) if between_pods(operator, segment) => routing.neighbour(at, segment),
            _ => return,
        }
        node.judge(now, &self.operator, &signal.node, out);
    }

    fn tick(&mut self, now: Time, out: &mut Vec<Finding>) {
        for (name, node) in &mut self.nodes {
            node.judge(now, &self.operator, name, out);
        }
    }
}

/// Only SYNs that leave by the node's NIC, and SYN-ACKs that come in by it, say anything here.
fn concerns(operator: &Operator, segment: &Segment) -> bool {
    segment.link == operator.node_nic
        && (segment.opens() && segment.goes_out() && operator.is_pod(segment.source.ip())
            || segment.accepts() && segment.comes_in() && operator.is_pod(segment.destination.ip()))
}

/// A SYN of a pod to a pod that leaves by the pod NIC: out of place where both are of this node.
fn between_pods(operator: &Operator, segment: &Segment) -> bool {
    let both = operator.is_pod(segment.source.ip()) && operator.is_pod(segment.destination.ip());
    segment.link == operator.pod_nic && segment.opens() && segment.goes_out() && both
}

#[cfg(test)]
pub(crate) mod tests;
