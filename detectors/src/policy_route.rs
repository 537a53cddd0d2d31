//! `policy-route`: pods of a node lost the routing that sends their traffic out of the pod NIC.
//!
//! What it sees: rules or routes of the pods' table are removed (netlink), or the kernel's answer to "where would this
//! pod's packet go?" is no longer the pod NIC. `info` immediately; `warning` if it persists for 2 s, or on the first
//! SYN on the wrong NIC: from such a pod out of the node's NIC, or, if the rule to a pod is gone, from its neighbour
//! out of the pod NIC (the packet comes back and loops until its TTL expires). What was missing before it started is a
//! warning after the same time, where rules and the node's other pods prove it.
//! Why it matters: the fabric drops the replies to packets that left through the wrong port, and only TCP to remote
//! destinations fails; ping works.
//! Which incident: I4.
//!
//! Left out: a pod NIC that is gone or down (`pod-nic`), the fate of the SYNs (`wrong-nic`).

mod rules;
mod standing;
mod start;
mod state;

use crate::detector::{Context, Detector, DetectorInfo, Scope, State, new};
use crate::finding::{Level, SubjectKind};
use crate::operator::Operator;
use crate::signal::{CollectorKind, Observed, Segment, Signal};
use state::NodeRouting;

pub const INFO: DetectorInfo = DetectorInfo {
    name: "policy-route",
    incident: "I4",
    level: Level::Cause,
    subjects: &[SubjectKind::Node, SubjectKind::Pod],
    what: "The rules or routes that send pod traffic out of the pod NIC are gone.",
    facts: "It finds the same with none and with stale facts: pods are also those that agents see.",
    wants: &[CollectorKind::Rtnetlink, CollectorKind::RouteLookup, CollectorKind::Packets, CollectorKind::Inventory],
    needs: &[&[CollectorKind::Rtnetlink, CollectorKind::RouteLookup]],
    scope: Scope::Node,
    state: State::EachNode(new::<NodeRouting>),
};

impl Detector for NodeRouting {
    fn observe(&mut self, cx: &mut Context<'_>, signal: &Signal) {
        let (at, operator) = (signal.at, cx.operator);
        self.start.seen(at);
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
        self.miss(cx);
        let wanted = self.judge(cx);
        cx.claims.settle(wanted, "rules, routes and look-ups are restored");
    }
}

/// SYNs of pods that leave by the node's NIC, and SYN-ACKs that arrive there.
fn concerns(operator: &Operator, segment: &Segment) -> bool {
    segment.link == operator.node_nic
        && (segment.opens() && segment.goes_out() && operator.is_pod(segment.source.ip())
            || segment.accepts() && segment.comes_in() && operator.is_pod(segment.destination.ip()))
}

/// A SYN from pod to pod that leaves by the pod NIC: wrong if both are on this node.
fn between_pods(operator: &Operator, segment: &Segment) -> bool {
    let both = operator.is_pod(segment.source.ip()) && operator.is_pod(segment.destination.ip());
    segment.link == operator.pod_nic && segment.opens() && segment.goes_out() && both
}

#[cfg(test)]
pub(crate) mod tests;
