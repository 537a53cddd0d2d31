//! `wrong-nic`: SYNs or SYN-ACKs of pods leave by the node's NIC and are not answered.
//!
//! What it sees: a SYN with a pod's address leaves by the node's NIC and is retransmitted (same addresses, same
//! sequence number) without an answer on any interface; or, from clients that give up before a retransmission, three
//! SYNs to one destination, each 400 ms old, or older than two round trips. The same for a SYN-ACK of a pod, such as the back end of an ingress on
//! another node, that is retransmitted without an ACK. A refusal (RST) is an answer. Critical if ICMP to that address is
//! answered.
//! Why it matters: the request arrives, and the fabric drops the reply; a test with ping shows nothing wrong.
//! Which incident: I4.
//!
//! Left out: nodes without a pod NIC, pods that get answers by the node's NIC, which is their normal path, and
//! destinations that belong there: they answered pods by the node's NIC before, or the pods' table or a rule has an
//! exception for them. A dead server among those is only dead.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::capped::Capped;
use crate::detector::{Context, Detector, DetectorInfo, Scope, State, new};
use crate::finding::{Level, Severity, SubjectKind};
use crate::operator::Operator;
use crate::prefix::Prefix;
use crate::signal::{Change, CollectorKind, Observed, ProbeKind, Route, Rule, Segment, Signal};
use crate::time::Time;
use crate::tuples::Tuples;

pub const INFO: DetectorInfo = DetectorInfo {
    name: "wrong-nic",
    incident: "I4",
    level: Level::Symptom,
    subjects: &[SubjectKind::Node],
    what: "SYNs or SYN-ACKs of pods leave by the node's NIC and are not answered.",
    facts: "It finds the same with none and with stale facts, unless rules lead to a pod that is gone: pods are also those \
            that agents see.",
    wants: &[CollectorKind::Packets, CollectorKind::Probes, CollectorKind::Rtnetlink],
    needs: &[&[CollectorKind::Packets]],
    scope: Scope::Node,
    state: State::EachNode(new::<WrongNic>),
};

/// A repeated SYN sooner than this is not a retransmission (the first timeout is 1 s, `TCP_TIMEOUT_INIT` in
/// include/net/tcp.h).
const RETRANSMISSION: Duration = Duration::from_millis(100);
/// How many unanswered SYNs to one destination count, and the minimum age of each: this, or two round trips.
const SEVERAL: usize = 3;
const PATIENCE: Duration = Duration::from_millis(400);
/// The finding is over without a wrong SYN for this long.
const QUIET: Duration = Duration::from_secs(2);
/// SYNs are dropped after this.
const FORGET: Duration = Duration::from_secs(30);
/// SYNs of clients that never retransmit count together for so long.
const WINDOW: Duration = Duration::from_secs(10);
const CAP: usize = 8192;

#[derive(Default)]
struct WrongNic {
    has_pod_nic: bool,
    /// Unanswered SYNs by the node's NIC: (source, destination, sequence).
    open: Capped<(SocketAddr, SocketAddr, u32), Sent, CAP>,
    /// Pods with an unanswered, retransmitted SYN or SYN-ACK.
    wrong: BTreeMap<Opening, Wrong>,
    /// Pods that get answers by the node's NIC.
    at_home: Capped<Opening, Time, CAP>,
    /// Destinations that answered a pod by the node's NIC, until a pod opens a connection to them by the pod NIC.
    answered_there: Capped<IpAddr, Time, CAP>,
    /// Destinations for which the routing has an exception: routes of the pods' table by the node's NIC, and rules that
    /// lead to another table.
    exceptions: BTreeSet<(Exception, Prefix)>,
    echo: Capped<IpAddr, Time, CAP>,
    tuples: Tuples,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Exception {
    Route { metric: u32 },
    Rule { priority: u32, table: u32 },
}

/// A pod, and whether it accepts connections (SYN-ACKs) or opens them (SYNs). One may work without the other: clients
/// outside the VPC reach a pod that does not reach a server inside.
type Opening = (IpAddr, bool);

struct Sent {
    first: Time,
    last: Time,
    /// A SYN-ACK.
    accepts: bool,
}

struct Wrong {
    since: Time,
    last: Time,
    source: SocketAddr,
    destination: SocketAddr,
    /// What happened to the SYN or SYN-ACK.
    how: String,
    /// The longest time between two of them.
    period: Duration,
}

impl Wrong {
    fn seen(&mut self, at: Time) {
        self.period = self.period.max(at.since(self.last));
        self.last = self.last.max(at);
    }

    /// Whether it has not been seen for far longer than usual.
    fn is_over(&self, now: Time) -> bool {
        now.since(self.last) >= QUIET.max(self.period * 3).min(FORGET)
    }
}

impl WrongNic {
    fn segment(&mut self, at: Time, operator: &Operator, segment: &Segment) {
        self.tuples.observe(at, operator, segment);
        self.has_pod_nic |= segment.link == operator.pod_nic;
        let (source, destination) = (segment.source.ip(), segment.destination.ip());
        if segment.accepts() && segment.comes_in() && operator.is_pod(destination) {
            let key = (segment.destination, segment.source, segment.acknowledgment.wrapping_sub(1));
            if self.open.remove(&key).is_some() {
                self.answered(at, (destination, false), operator, segment);
            }
        } else if segment.goes_out()
            && operator.is_pod(source)
            && (segment.accepts() || segment.opens() && !operator.is_pod(destination))
        {
            if segment.link == operator.pod_nic {
                self.answered_there.remove(&destination);
                self.at_home.retain(|(pod, _), _| *pod != source);
                // Earlier stray SYNs no longer count.
                self.open.retain(|(from, ..), sent| from.ip() != source || sent.last > at);
                self.wrong.retain(|(pod, _), wrong| *pod != source || wrong.last >= at);
            } else if segment.link == operator.node_nic {
                self.stray(at, segment);
            }
        }
    }

    /// A destination refuses a pod's SYN (RFC 9293 3.5.2: the RST acknowledges it), or a client a pod's SYN-ACK.
    fn refused(&mut self, at: Time, operator: &Operator, segment: &Segment) {
        let (pod, peer) = (segment.destination, segment.source);
        if !segment.comes_in() {
            return;
        }
        let opened =
            segment.flags.ack && self.open.remove(&(pod, peer, segment.acknowledgment.wrapping_sub(1))).is_some();
        if opened {
            self.answered(at, (pod.ip(), false), operator, segment);
            return;
        }
        let accepted = self.open.extract_if((pod, peer, 0)..=(pod, peer, u32::MAX), |_, sent| sent.accepts);
        if accepted.count() > 0 {
            self.answered(at, (pod.ip(), true), operator, segment);
        }
    }

    /// The ACK of a SYN-ACK: the pod gets answers by the node's NIC.
    fn acknowledged(&mut self, at: Time, operator: &Operator, segment: &Segment) {
        let key = (segment.destination, segment.source, segment.acknowledgment.wrapping_sub(1));
        if segment.comes_in() && self.open.get(&key).is_some_and(|sent| sent.accepts) {
            self.open.remove(&key);
            self.answered(at, (segment.destination.ip(), true), operator, segment);
        }
    }

    fn answered(&mut self, at: Time, opening: Opening, operator: &Operator, segment: &Segment) {
        self.wrong.remove(&opening);
        if segment.link == operator.node_nic {
            self.at_home.record(opening, at);
            if !opening.1 {
                self.answered_there.record(segment.source.ip(), at);
            }
        }
    }

    fn route(&mut self, operator: &Operator, route: &Route) {
        if let Some(destination) = route.destination.filter(|_| route.table == operator.pod_table) {
            let is_exception = route.link.as_ref() == Some(&operator.node_nic);
            self.except(Exception::Route { metric: route.metric }, destination, route.change, is_exception);
        }
    }

    fn rule(&mut self, operator: &Operator, rule: &Rule) {
        // Rules to pods lead to their links.
        if let Some(to) = rule.to.filter(|to| !operator.is_pod(to.address())) {
            let Rule { priority, table, .. } = *rule;
            self.except(Exception::Rule { priority, table }, to, rule.change, table != operator.pod_table);
        }
    }

    fn except(&mut self, what: Exception, destination: Prefix, change: Change, is_exception: bool) {
        if change == Change::Removed || !is_exception {
            self.exceptions.remove(&(what, destination));
        } else if self.exceptions.len() < CAP {
            self.exceptions.insert((what, destination));
        }
    }

    fn belongs_there(&self, destination: IpAddr) -> bool {
        self.answered_there.contains_key(&destination)
            || self.exceptions.iter().any(|(_, prefix)| prefix.contains(destination))
    }

    fn stray(&mut self, at: Time, segment: &Segment) {
        let key = (segment.source, segment.destination, segment.sequence);
        let accepts = segment.accepts();
        if !accepts && self.belongs_there(segment.destination.ip()) {
            return;
        }
        let Some(sent) = self.open.entry_or(key, || Sent { first: at, last: at, accepts }) else { return };
        let again = at.since(sent.first) >= RETRANSMISSION;
        sent.last = sent.last.max(at);
        let since = sent.first;
        let pod = (segment.source.ip(), accepts);
        if let Some(wrong) = self.wrong.get_mut(&pod) {
            wrong.seen(at);
        } else if again && self.has_pod_nic && !self.at_home.contains_key(&pod) {
            let answer = if accepts { "an ACK" } else { "an answer" };
            let how = format!("was retransmitted {:.1} s later without {answer}", at.since(since).as_secs_f64());
            let (source, destination) = (segment.source, segment.destination);
            let period = at.since(since);
            self.wrong.insert(pod, Wrong { since, last: at, source, destination, how, period });
        }
    }

    /// How long the answer of this destination may take.
    fn patience(&self, destination: &SocketAddr) -> Duration {
        PATIENCE.max(self.tuples.round_trip(destination).unwrap_or_default() * 2)
    }

    /// Clients that give up early never retransmit; several SYNs to one destination count instead.
    fn several(&mut self, now: Time) {
        if !self.has_pod_nic {
            return;
        }
        let mut waiting: BTreeMap<SocketAddr, Vec<(SocketAddr, &Sent)>> = BTreeMap::new();
        for ((source, destination, _), sent) in self.open.iter() {
            let (age, patience) = (now.since(sent.first), self.patience(destination));
            let is_at_home = || self.at_home.contains_key(&(source.ip(), false));
            if !sent.accepts && age >= patience && age < patience + WINDOW && !is_at_home() {
                waiting.entry(*destination).or_default().push((*source, sent));
            }
        }
        for (destination, syns) in waiting.into_iter().filter(|(_, syns)| syns.len() >= SEVERAL) {
            let Some((source, first)) = syns.iter().min_by_key(|(_, sent)| sent.first) else { continue };
            let mut times: Vec<Time> = syns.iter().map(|(_, sent)| sent.last).collect();
            times.sort_unstable();
            let last = times.last().copied().unwrap_or(first.last);
            let period = times.windows(2).map(|pair| pair[1].since(pair[0])).max().unwrap_or_default();
            if now.since(last) >= self.patience(&destination) + QUIET {
                continue;
            }
            if let Some(wrong) = self.wrong.get_mut(&(source.ip(), false)) {
                wrong.seen(last);
                continue;
            }
            let how = format!(
                "is one of {} to this destination without an answer for {:.1} s or longer",
                syns.len(),
                self.patience(&destination).as_secs_f64()
            );
            let (since, source) = (first.first, *source);
            self.wrong.insert((source.ip(), false), Wrong { since, last, source, destination, how, period });
        }
    }

    fn judge(&self, cx: &mut Context<'_>) {
        let Some(first) = self.wrong.iter().min_by_key(|(_, wrong)| wrong.since) else {
            return cx.claims.withdraw("SYNs and SYN-ACKs of pods are answered, or leave by the pod NIC, again");
        };
        let answered = |(_, wrong): &(&Opening, &Wrong)| {
            self.echo.get(&wrong.destination.ip()).is_some_and(|echo| *echo >= wrong.since)
        };
        let (severity, ((_, accepts), wrong), icmp) = match self.wrong.iter().find(answered) {
            Some(wrong) => (Severity::Critical, wrong, "ICMP echo to the same address is answered"),
            None => (Severity::Warning, first, "no answer to ICMP echo is known"),
        };
        cx.claims.make(severity, first.1.since, || {
            let Wrong { source, destination, how, .. } = wrong;
            let Operator { node_nic, pod_nic, .. } = cx.operator;
            let what = if *accepts { "SYN-ACK" } else { "SYN" };
            format!(
                "{what} {source} -> {destination} left {} by {node_nic} instead of {pod_nic} and {how}; {icmp}",
                cx.node
            )
        });
    }
}

impl Detector for WrongNic {
    fn observe(&mut self, cx: &mut Context<'_>, signal: &Signal) {
        match &signal.observed {
            Observed::Segment(segment) if segment.flags.syn => self.segment(signal.at, cx.operator, segment),
            Observed::Segment(segment) if !self.open.is_empty() && segment.flags.rst => {
                self.refused(signal.at, cx.operator, segment);
            }
            Observed::Segment(segment) if !self.open.is_empty() && segment.flags.ack => {
                self.acknowledged(signal.at, cx.operator, segment);
            }
            Observed::Route(route) => return self.route(cx.operator, route),
            Observed::Rule(rule) => return self.rule(cx.operator, rule),
            Observed::Probe(probe) if probe.kind == ProbeKind::Echo && probe.ok => {
                self.echo.insert(probe.target, signal.at);
            }
            Observed::Link(link) => {
                self.has_pod_nic |= link.name == cx.operator.pod_nic && link.change != Change::Removed;
                return;
            }
            _ => return,
        }
        self.judge(cx);
    }

    fn tick(&mut self, cx: &mut Context<'_>) {
        if !self.open.is_empty() {
            self.open.retain(|_, sent| cx.now.since(sent.last) < FORGET);
            self.several(cx.now);
        }
        if !self.wrong.is_empty() {
            self.wrong.retain(|_, wrong| !wrong.is_over(cx.now));
            self.judge(cx);
        }
    }

    fn forget(&mut self, cx: &Context<'_>) {
        self.tuples.forget(cx.now);
        self.at_home.make_room(|at| *at);
        self.answered_there.make_room(|at| *at);
        self.echo.make_room(|at| *at);
    }
}

#[cfg(test)]
mod tests;
