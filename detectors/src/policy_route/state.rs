//! The routing that a node's pods depend on, and what is missing from it.
//!
//! Invariant: only what existed together with its pod can be missing, or what the other pods of its node have; a deleted
//! pod's rules are removed with it, in whatever order the two are reported. [`standing`](super::standing) has what is
//! missing from the start.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::capped::Capped;
use crate::claims::{Claim, want};
use crate::detector::Context;
use crate::finding::{Severity, Subject};
use crate::operator::Operator;
use crate::prefix::Prefix;
use crate::signal::{Change, Link, Pod, Route, RouteLookup, Rule, Segment};
use crate::time::Time;

use super::rules::{Cover, PodRules};
use super::start::{CAP, Start};

/// A restarting address manager flushes and rebuilds the table within a second.
pub(super) const GRACE: Duration = Duration::from_secs(2);
/// A pod may lose its rule shortly before its deletion is known.
const DELETION: Duration = Duration::from_millis(150);
/// Minimum time between the first and the last wrong look-up if look-ups are the only evidence.
const CONFIRMED: Duration = Duration::from_millis(1900);
/// Without a second look-up, this much time is enough.
const UNCONFIRMED: Duration = Duration::from_secs(3);

#[derive(Debug, Default)]
pub(super) struct NodeRouting {
    pub(super) pods: BTreeMap<String, PodRules>,
    pub(super) rules: Vec<Rule>,
    pub(super) start: Start,
    /// Routes of the pod table by destination and metric, which identify a route.
    pub(super) routes: BTreeMap<(Option<Prefix>, u32), Route>,
    /// Destinations the pod table no longer routes to the pod NIC, and since when.
    lost: BTreeMap<Option<Prefix>, Time>,
    lookups: Capped<(IpAddr, IpAddr), Answer, CAP>,
    pub(super) nic: PodNic,
    /// All pods of a node with several lost a rule. It stays the node's loss until no pod misses one: recreated pods
    /// get new rules, which proves nothing about the others.
    pub(super) all: bool,
    /// When a rule or a route was last restored: earlier look-ups no longer count.
    restored: Time,
    /// The last SYN of each pod address that left by the node's NIC.
    strayed: Capped<IpAddr, (Time, SocketAddr), CAP>,
    /// The last SYN to each pod of this node that left by the pod NIC, and its sender.
    looped: Capped<IpAddr, (Time, IpAddr), CAP>,
    /// Destinations that answered pods by the node's NIC, where that is legitimate.
    answered: Capped<IpAddr, (), CAP>,
}

#[derive(Debug, Default)]
struct Answer {
    was_right: bool,
    wrong: Option<Wrong>,
}

#[derive(Debug)]
struct Wrong {
    since: Time,
    last: Time,
    link: Option<String>,
}

#[derive(Debug, Default)]
pub(super) struct PodNic {
    pub(super) index: Option<u32>,
    pub(super) down: bool,
    /// When it last came up: its routes are not expected before.
    pub(super) since: Time,
}

impl NodeRouting {
    pub fn pod(&mut self, at: Time, operator: &Operator, pod: &Pod) {
        if pod.change == Change::Removed {
            // A new pod of the same name may be reported before the old one's deletion.
            if self.pods.get(&pod.name).is_some_and(|known| known.address == pod.address) {
                self.pods.remove(&pod.name);
                self.lookups.retain(|(source, _), _| *source != pod.address);
                self.strayed.remove(&pod.address);
                self.looped.remove(&pod.address);
            }
            return;
        }
        let same = self.pods.get(&pod.name).is_some_and(|known| known.address == pod.address);
        if !same {
            let rules = PodRules {
                address: pod.address,
                link: pod.link.clone(),
                since: at,
                leaving: false,
                from: Cover::default(),
                to: Cover::default(),
            };
            self.pods.insert(pod.name.clone(), rules);
        }
        self.cover(at, operator);
    }

    pub fn rule(&mut self, at: Time, operator: &Operator, rule: &Rule) {
        let same = |known: &Rule| known.from == rule.from && known.to == rule.to && known.table == rule.table;
        let exact = self.rules.iter().position(|known| same(known) && known.priority == rule.priority);
        if rule.change == Change::Removed {
            if let Some(index) = exact.or_else(|| self.rules.iter().position(same)) {
                self.rules.swap_remove(index);
            }
        } else if exact.is_none() {
            self.rules.push(rule.clone());
        }
        self.cover(at, operator);
    }

    fn cover(&mut self, at: Time, operator: &Operator) {
        for pod in self.pods.values_mut() {
            let holds = |prefix: Option<Prefix>| prefix.is_some_and(|prefix| prefix.contains(pod.address));
            let rules = || self.rules.iter();
            let missed = pod.missing().is_some();
            pod.from.update(rules().any(|rule| rule.table == operator.pod_table && holds(rule.from)), at);
            pod.to.update(rules().any(|rule| rule.table != operator.pod_table && holds(rule.to)), at);
            if missed && pod.missing().is_none() {
                self.restored = self.restored.max(at);
            }
        }
        self.count();
    }

    /// Whether all pods of the node miss a rule.
    pub(super) fn count(&mut self) {
        let routed = || self.pods.values().filter(|pod| pod.routed());
        let missing = routed().filter(|pod| pod.missing().is_some()).count();
        self.all = if missing == 0 { false } else { self.all || missing >= 2 && missing == routed().count() };
    }

    pub fn route(&mut self, at: Time, operator: &Operator, route: &Route) {
        if route.table != operator.pod_table {
            return self.start.route(at, route);
        }
        let carried = self.carries(operator, route.destination);
        if route.change == Change::Removed {
            self.routes.remove(&(route.destination, route.metric));
        } else {
            self.routes.insert((route.destination, route.metric), route.clone());
        }
        if carried && !self.carries(operator, route.destination) {
            self.lost.entry(route.destination).or_insert(at);
        }
        let lost = std::mem::take(&mut self.lost);
        let count = lost.len();
        self.lost = lost.into_iter().filter(|(destination, _)| !self.carries(operator, *destination)).collect();
        if self.lost.len() < count {
            self.restored = self.restored.max(at);
        }
    }

    /// Whether the pod table still routes this destination to the pod NIC.
    fn carries(&self, operator: &Operator, destination: Option<Prefix>) -> bool {
        self.routes.values().any(|route| {
            let covers = match (route.destination, destination) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(outer), Some(inner)) => outer.length() <= inner.length() && outer.overlaps(&inner),
            };
            // A route without link and gateway is blackhole or unreachable.
            let leads = route.link.as_ref().map_or(route.gateway.is_some(), |link| *link == operator.pod_nic);
            covers && leads
        })
    }

    pub fn link(&mut self, at: Time, operator: &Operator, link: &Link) {
        let gone = link.change == Change::Removed;
        for pod in self.pods.values_mut().filter(|pod| pod.link == link.name) {
            pod.leaving = gone;
        }
        let renamed = link.name != operator.pod_nic && self.nic.index == Some(link.index);
        if link.name != operator.pod_nic && !renamed {
            return;
        }
        let down = renamed || !link.is_usable();
        if self.nic.down && !down {
            self.nic.since = at;
        }
        self.nic.down = down;
        self.nic.index = (!gone && !renamed).then_some(link.index);
        if gone || renamed || !link.up {
            // The kernel flushes its IPv4 routes without a message for each one.
            let by_nic = |route: &Route| route.link.as_ref().is_none_or(|via| *via == operator.pod_nic);
            let flushed: Vec<_> = self.routes.extract_if(.., |_, route| by_nic(route)).collect();
            self.lost.extend(flushed.into_iter().map(|((destination, _), _)| (destination, at)));
        }
    }

    pub fn lookup(&mut self, at: Time, operator: &Operator, lookup: &RouteLookup) {
        let Some(answer) = self.lookups.entry((lookup.source, lookup.destination)) else { return };
        if lookup.link.as_deref() == Some(operator.pod_nic.as_str()) {
            *answer = Answer { was_right: true, wrong: None };
        } else if answer.was_right {
            let since = answer.wrong.as_ref().map_or(at, |wrong| wrong.since);
            answer.wrong = Some(Wrong { since, last: at, link: lookup.link.clone() });
        }
    }

    /// A SYN of a pod leaving by the node's NIC, or the answer to one.
    pub fn segment(&mut self, at: Time, segment: &Segment) {
        if segment.accepts() {
            self.answered.insert(segment.source.ip(), ());
            self.start.answered(segment.destination.ip());
        } else if !self.answered.contains_key(&segment.destination.ip()) {
            self.strayed.insert(segment.source.ip(), (at, segment.destination));
        }
    }

    /// A SYN from pod to pod leaving by the pod NIC.
    pub fn neighbour(&mut self, at: Time, segment: &Segment) {
        let to = segment.destination.ip();
        if self.pods.values().any(|pod| pod.address == to) {
            self.looped.insert(to, (at, segment.source.ip()));
        }
    }

    /// What is missing now, by subject.
    pub fn judge(&self, cx: &Context<'_>) -> BTreeMap<Subject, Claim> {
        let mut wanted = BTreeMap::new();
        let routed: Vec<_> = self.pods.iter().filter(|(_, pod)| pod.routed()).collect();
        self.judge_rules(cx, &routed, &mut wanted);
        self.judge_host_routes(cx, &mut wanted);
        if !self.nic.down {
            let table = self.judge_table(cx, &routed, &mut wanted) || self.judge_empty_table(cx, &mut wanted);
            if !table {
                self.judge_lookups(cx, &mut wanted);
            }
        }
        wanted
    }

    fn judge_rules(&self, cx: &Context<'_>, routed: &[(&String, &PodRules)], wanted: &mut BTreeMap<Subject, Claim>) {
        let Context { now, operator, node, .. } = *cx;
        let missing: Vec<_> = routed.iter().filter_map(|(name, pod)| Some((*name, *pod, pod.missing()?))).collect();
        if self.all && !missing.is_empty() {
            let since = missing.iter().map(|(_, _, (since, _))| *since).min().unwrap_or(now);
            let stray = missing.iter().find_map(|(_, pod, (since, _))| self.stray(pod.address, *since));
            let severity = severity(now, since, stray.map(|_| Duration::ZERO));
            let evidence = format!(
                "{} pods of {node} lost their policy rules; {} have been without them for {}{}",
                if missing.len() == routed.len() { "all" } else { "most" },
                missing.len(),
                seconds(now, since),
                Self::left_by(operator, stray)
            );
            wanted.insert(Subject::node(node), Claim { severity, since, evidence });
            return;
        }
        let only = routed.len() == 1;
        for (name, pod, (since, kind)) in missing {
            let stray = self.stray(pod.address, since);
            let looped = self.looped.get(&pod.address).filter(|(at, _)| *at >= since && pod.to.lost.is_some());
            let severity = severity(now, since, (stray.is_some() || looped.is_some()).then_some(DELETION));
            let table = if kind == "from" { operator.pod_table.to_string() } else { "main".to_owned() };
            let evidence = format!(
                "the rule \"{kind} {} lookup {table}\" of pod {name} on {node} has been missing for {}{}{}",
                pod.address,
                seconds(now, since),
                Self::left_by(operator, stray),
                looped.map_or_else(String::new, |(_, from)| {
                    format!("; a SYN {from} -> {} of the same node left by {}", pod.address, operator.pod_nic)
                })
            );
            // The rules of a node's only pod are the node's rules.
            if only && pod.from.lost.is_some() && pod.to.lost.is_some() {
                let evidence =
                    format!("{evidence}; it is the only pod of {node}, and its other rule is missing as well");
                wanted.insert(Subject::node(node), Claim { severity, since, evidence });
            }
            wanted.insert(Subject::pod(name), Claim { severity, since, evidence });
        }
    }

    fn judge_table(
        &self,
        cx: &Context<'_>,
        routed: &[(&String, &PodRules)],
        wanted: &mut BTreeMap<Subject, Claim>,
    ) -> bool {
        let Context { now, operator, node, .. } = *cx;
        let from = |rule: &Rule| rule.from.is_some_and(|from| operator.is_pod(from.address()));
        // If pods are unknown, their rules represent them.
        let depends = routed.iter().any(|(_, pod)| pod.from.had)
            || self.pods.is_empty() && self.rules.iter().any(|rule| rule.table == operator.pod_table && from(rule));
        let Some(earliest) = self.lost.values().min().filter(|_| depends) else { return false };
        let since = (*earliest).max(self.nic.since);
        let sources: Vec<IpAddr> = routed.iter().map(|(_, pod)| pod.address).collect();
        let stray = sources.iter().find_map(|address| self.stray(*address, since));
        let severity = severity(now, since, stray.map(|_| Duration::ZERO));
        let lost: Vec<String> =
            self.lost.keys().map(|to| to.map_or("default".to_owned(), |to| to.to_string())).collect();
        let evidence = format!(
            "table {} of {node} has had no route to {} through {} for {}; {} pods depend on it{}",
            operator.pod_table,
            lost.join(", "),
            operator.pod_nic,
            seconds(now, since),
            sources.len(),
            Self::left_by(operator, stray)
        );
        let claim = Claim { severity, since, evidence };
        want(wanted, Subject::node(node), claim);
        true
    }

    /// Look-ups that were right and are now wrong, and that neither a lost rule nor the table explains.
    fn judge_lookups(&self, cx: &Context<'_>, wanted: &mut BTreeMap<Subject, Claim>) {
        let Context { now, operator, node, .. } = *cx;
        let mut wrong: BTreeMap<IpAddr, (&Wrong, IpAddr)> = BTreeMap::new();
        let mut right = BTreeSet::new();
        for ((source, destination), answer) in self.lookups.iter() {
            if let Some(fault) = &answer.wrong {
                wrong.entry(*source).or_insert((fault, *destination));
            } else if answer.was_right {
                right.insert(*source);
            }
        }
        right.retain(|source| !wrong.contains_key(source));
        let wrong_sources = wrong.len();
        for (source, (fault, destination)) in wrong {
            let pod = self.pods.iter().find(|(_, pod)| pod.address == source);
            if pod.is_some_and(|(_, pod)| pod.leaving || pod.missing().is_some()) {
                continue;
            }
            let since = fault.since.max(self.nic.since).max(self.restored);
            if fault.last < since || self.is_exception(destination, fault.link.as_deref()) {
                continue;
            }
            let stray = self.stray(source, since);
            let stands = fault.last.since(since) >= CONFIRMED || now.since(since) >= UNCONFIRMED;
            let stray_stands = stray.is_some() && now.since(since) >= DELETION;
            let severity = if stands || stray_stands { Severity::Warning } else { Severity::Info };
            let evidence = format!(
                "on {node} a packet from {source} to {destination} has been routed to {} instead of {} for {}{}",
                fault.link.as_deref().unwrap_or("no interface"),
                operator.pod_nic,
                seconds(now, since),
                Self::left_by(operator, stray)
            );
            // If the pod's own rule exists, or no pod is routed correctly, the fault is not a single pod's.
            let own_rule = pod.is_some_and(|(_, pod)| pod.from.had);
            let subject = match pod {
                Some((name, _)) if !right.is_empty() || wrong_sources < 2 && !own_rule => Subject::pod(name),
                _ => Subject::node(node),
            };
            want(wanted, subject, Claim { severity, since, evidence });
        }
    }

    /// Whether the pod table itself sends this destination, among others, to another link.
    fn is_exception(&self, destination: IpAddr, link: Option<&str>) -> bool {
        let covers = |route: &Route| route.destination.is_some_and(|to| to.contains(destination));
        self.routes.values().any(|route| covers(route) && link.is_some() && route.link.as_deref() == link)
    }

    /// A SYN of this pod that left by the node's NIC since `since`.
    pub(super) fn stray(&self, address: IpAddr, since: Time) -> Option<(IpAddr, SocketAddr)> {
        let (at, destination) = self.strayed.get(&address)?;
        (*at >= since && !self.answered.contains_key(&destination.ip())).then_some((address, *destination))
    }

    pub(super) fn left_by(operator: &Operator, stray: Option<(IpAddr, SocketAddr)>) -> String {
        let via = &operator.node_nic;
        stray.map(|(from, to)| format!("; a SYN {from} -> {to} left by {via}")).unwrap_or_default()
    }
}

/// `stray_after`: how long after the loss a packet on the wrong NIC counts.
pub(super) fn severity(now: Time, since: Time, stray_after: Option<Duration>) -> Severity {
    let stray = stray_after.is_some_and(|wait| now.since(since) >= wait);
    if stray || now.since(since) >= GRACE { Severity::Warning } else { Severity::Info }
}

pub(super) fn seconds(now: Time, since: Time) -> String {
    format!("{:.1} s", now.since(since).as_secs_f64())
}
