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

use crate::detector::{Context, Detector, DetectorInfo, Scope, State, new};
use crate::finding::Level;
use crate::operator::Operator;
use crate::signal::{CollectorKind, Observed, Segment, Signal};
use state::NodeRouting;

pub const INFO: DetectorInfo = DetectorInfo {
    name: "policy-route",
    incident: "I4",
    level: Level::Cause,
    what: "The rules or routes that take pods out by the pod NIC are gone.",
    wants: &[CollectorKind::Rtnetlink, CollectorKind::RouteLookup, CollectorKind::Packets, CollectorKind::Inventory],
    needs: &[&[CollectorKind::Rtnetlink, CollectorKind::RouteLookup]],
    scope: Scope::Node,
    state: State::EachNode(new::<NodeRouting>),
};

impl Detector for NodeRouting {
    fn observe(&mut self, cx: &mut Context<'_>, signal: &Signal) {
        let (at, operator) = (signal.at, cx.operator);
        match &signal.observed {
            Observed::Pod(pod) => self.pod(at, operator, pod),
            Observed::Rule(rule) => self.rule(at, operator, rule),
            Observed::Route(route) => self.route(at, operator, route),
            Observed::Link(link) => self.link(at, operator, link),
            Observed::RouteLookup(lookup) => self.lookup(at, operator, lookup),
            Observed::Segment(segment) if concerns(operator, segment) => self.segment(at, segment),
            Observed::Segment(segment) if between_pods(operator, segment) => self.neighbour(at, segment),
            _ => return,
        }
        self.tick(cx);
    }

    fn tick(&mut self, cx: &mut Context<'_>) {
        let wanted = self.judge(cx);
        cx.claims.settle(wanted, "rules, routes and look-ups are whole again");
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
