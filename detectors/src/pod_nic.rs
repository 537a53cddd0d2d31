//! `pod-nic`: a node lost the interface that its pods are routed through.
//!
//! What it sees: the pod NIC is deleted, renamed, set down or loses its carrier while rules, look-ups or pods of the
//! node depend on it. Critical if it is gone and the node hosts a DNS endpoint; `info` if no pod is routed through it.
//! A carrier that returns within 300 ms is a flap: TCP retransmits, and nothing is reported.
//! A NIC that was gone or down before the detector started is named a second later.
//! Why it matters: the node stays Ready, its pods stay Running, and nothing they send leaves the node.
//! Which incident: I3.
//!
//! Left out: the interfaces of single pods, and the primary NIC.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::detector::{Context, Detector, DetectorInfo, Scope, State, new};
use crate::dns_endpoints::DnsEndpoints;
use crate::finding::{Level, Severity, SubjectKind};
use crate::operator::Operator;
use crate::prefix::Prefix;
use crate::signal::{Change, CollectorKind, Link, Observed, RouteLookup, Rule, Signal};
use crate::time::Time;

pub const INFO: DetectorInfo = DetectorInfo {
    name: "pod-nic",
    incident: "I3",
    level: Level::Cause,
    subjects: &[SubjectKind::Node],
    what: "A node lost the interface that its pods are routed through.",
    facts: "It finds the same with none and with stale facts: pods are also those that agents see.",
    wants: &[CollectorKind::Rtnetlink, CollectorKind::RouteLookup, CollectorKind::Inventory],
    needs: &[&[CollectorKind::Rtnetlink]],
    scope: Scope::Node,
    state: State::EachNode(new::<PodNic>),
};

/// How long a carrier may be away: a cable or a switch port that flaps.
const FLAP: Duration = Duration::from_millis(300);

#[derive(Default)]
struct PodNic {
    nic: Option<Nic>,
    /// The carrier is away, and since when.
    dark: Option<(Time, Link)>,
    pods: BTreeMap<String, IpAddr>,
    /// Source prefixes routed by the pod table, by rule; `None` if no rules were seen.
    routed: Option<BTreeSet<(u32, Prefix)>>,
    /// Sources whose last look-up returned the pod NIC.
    looked_up: BTreeSet<IpAddr>,
    dns: DnsEndpoints,
    /// The node hosts a DNS endpoint, or hosted the last one.
    hosts_dns: bool,
    /// When the node was first seen, until its NIC has worked.
    start: Option<Time>,
    worked: bool,
}

#[derive(Clone, Copy)]
struct Nic {
    index: u32,
    up: bool,
}

impl PodNic {
    /// How many pods are routed through the pod NIC, by the best evidence available.
    fn dependents(&self, operator: &Operator) -> usize {
        match &self.routed {
            Some(rules) if self.pods.is_empty() => {
                let of_pods = |from: &Prefix| operator.pod_prefixes.iter().any(|pods| pods.overlaps(from));
                rules.iter().filter(|(_, from)| of_pods(from)).count()
            }
            Some(rules) => {
                let covered = |pod: &&IpAddr| rules.iter().any(|(_, from)| from.contains(**pod));
                self.pods.values().filter(covered).count()
            }
            None if self.looked_up.is_empty() => self.pods.values().filter(|pod| operator.is_pod(**pod)).count(),
            None => self.looked_up.len(),
        }
    }

    fn rule(&mut self, operator: &Operator, rule: &Rule) {
        let rules = self.routed.get_or_insert_default();
        let Some(from) = rule.from.filter(|_| rule.table == operator.pod_table) else { return };
        let key = (rule.priority, from);
        if rule.change == Change::Removed {
            rules.remove(&key);
        } else {
            rules.insert(key);
        }
    }

    fn lookup(&mut self, operator: &Operator, lookup: &RouteLookup) {
        if lookup.link.as_deref() != Some(operator.pod_nic.as_str()) {
            self.looked_up.remove(&lookup.source);
        } else if operator.is_pod(lookup.source) {
            self.looked_up.insert(lookup.source);
        }
    }

    fn link(&mut self, cx: &mut Context<'_>, at: Time, link: &Link) {
        let nic = &cx.operator.pod_nic;
        let renamed = link.name != *nic && self.nic.is_some_and(|known| known.index == link.index);
        if link.name != *nic && !renamed {
            return;
        }
        let gone = renamed || link.change == Change::Removed;
        let up = !gone && link.is_usable();
        let was_up = self.nic.is_some_and(|nic| nic.up);
        self.nic = (!gone).then_some(Nic { index: link.index, up });
        self.worked |= up;
        let dark = self.dark.take();
        if up {
            return cx.claims.withdraw(format!("{nic} of {} is up again", cx.node));
        }
        // Only the loss of a working NIC counts, not the states of one that is coming up. A NIC that was set down and
        // then deleted stays one finding.
        if !was_up && dark.is_none() && cx.claims.standing().is_none() {
            return;
        }
        let since = dark.map_or(at, |(since, _)| since);
        if !gone && link.up && cx.claims.standing().is_none() {
            self.dark = Some((since, link.clone()));
            return;
        }
        self.lost(cx, since, link, renamed);
    }

    fn lost(&self, cx: &mut Context<'_>, since: Time, link: &Link, renamed: bool) {
        let Operator { pod_nic: nic, pod_table, .. } = cx.operator;
        let gone = renamed || link.change == Change::Removed;
        let dependents = self.dependents(cx.operator);
        let severity = match (dependents, gone && self.hosts_dns) {
            (0, _) => Severity::Info,
            (_, true) => Severity::Critical,
            (_, false) => Severity::Warning,
        };
        cx.claims.make(severity, since, || {
            let how = match (link.change, renamed) {
                (_, true) => format!("was renamed to {}", link.name),
                (Change::Removed, _) => "was deleted".to_owned(),
                _ if !link.up => "was set down".to_owned(),
                _ => "lost its carrier".to_owned(),
            };
            let dns = if self.hosts_dns { "; the node hosts a DNS endpoint" } else { "" };
            format!(
                "{nic} (index {}) of {} {how}; pods routed through it by table {pod_table}: {dependents}{dns}",
                link.index, cx.node
            )
        });
    }
}

/// The state of a node is reported in parts, and its NIC may be on its way up.
const SETTLE: Duration = Duration::from_secs(1);

impl PodNic {
    /// A NIC that has not worked since the node was first seen.
    fn start(&self, cx: &mut Context<'_>) {
        let Some(start) = self.start.filter(|start| !self.worked && cx.now.since(*start) >= SETTLE) else { return };
        let Operator { pod_nic: nic, pod_table, .. } = cx.operator;
        let dependents = self.dependents(cx.operator);
        if dependents == 0 {
            return cx.claims.withdraw(format!("no pod is routed through {nic}"));
        }
        let severity = if self.nic.is_none() && self.hosts_dns { Severity::Critical } else { Severity::Warning };
        cx.claims.make(severity, start, || {
            let how = if self.nic.is_none() { "is missing" } else { "is down" };
            let dns = if self.hosts_dns { "; the node hosts a DNS endpoint" } else { "" };
            format!(
                "{nic} of {} {how} since it was first looked for; pods routed through it by table {pod_table}: \
                 {dependents}{dns}",
                cx.node
            )
        });
    }
}

impl Detector for PodNic {
    fn observe(&mut self, cx: &mut Context<'_>, signal: &Signal) {
        if matches!(signal.observed, Observed::Link(_)) {
            self.start.get_or_insert(signal.at);
        }
        match &signal.observed {
            Observed::Link(link) => self.link(cx, signal.at, link),
            Observed::Rule(rule) => self.rule(cx.operator, rule),
            Observed::RouteLookup(lookup) => self.lookup(cx.operator, lookup),
            Observed::Pod(pod) if pod.change == Change::Removed => {
                self.pods.retain(|name, address| *name != pod.name || *address != pod.address);
                self.looked_up.remove(&pod.address);
            }
            Observed::Pod(pod) => {
                self.pods.insert(pod.name.clone(), pod.address);
            }
            // An endpoint that stops being ready because its node lost the NIC still counts.
            Observed::Endpoints(list) if !list.ready.is_empty() => {
                if let Some(ready) = self.dns.update(cx.operator, signal) {
                    self.hosts_dns = ready.iter().any(|endpoint| endpoint.node == cx.node);
                }
            }
            _ => {}
        }
    }

    fn tick(&mut self, cx: &mut Context<'_>) {
        self.start(cx);
        if let Some((since, link)) = self.dark.take_if(|(since, _)| cx.now.since(*since) >= FLAP) {
            self.lost(cx, since, &link, false);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::testing::{Scene, play, scene};

    const NAME: &str = INFO.name;
    const POD: &str = "10.176.98.2";
    const UPSTREAM: &str = "10.16.16.16";

    fn armed() -> Scene {
        scene!(NAME, "0 link eth0 2; 0 link eth1 3; 0 @worker-2 link eth0 2; 0 @worker-2 link eth1 3")
    }

    fn routed() -> Scene {
        let mut scene = armed();
        play!(scene, "0 from {POD}; 1 pod coredns-0 {POD}");
        scene
    }

    /// The node with the only DNS endpoint loses its pod NIC; names fail everywhere, upstream answers.
    pub(crate) fn incident() -> Scene {
        let mut scene = routed().on("worker-2");
        play!(scene, "5 endpoints 0@worker-1");
        for step in 0..12 {
            if step == 3 {
                play!(scene, "1000 @worker-1 link -eth1 3");
            }
            if step == 9 {
                play!(scene, "2900 @worker-1 link +eth1 9 down; 2901 @worker-1 link *eth1 9");
            }
            let (at, ok) = (step * 300 + 200, !(3..9).contains(&step));
            play!(scene, "{at} probe upstream {UPSTREAM} ok; {} probe service 192.168.0.10 {ok}", at + 1);
            play!(scene, "{} probe endpoint {POD} {ok}", at + 2);
        }
        scene
    }

    #[test]
    fn incident_at_once_and_critical_and_over_when_the_link_is_back() {
        let mut scene = incident();
        play!(scene, "? critical 1000 node/worker-1 ? over ? dns-replica: nothing ? policy-route: nothing");
        play!(scene, "? dns-failure: warning 1400..1499 service/kube-dns ? dns-failure: over");
        play!(scene, "? dns-redundancy: warning 0..9 service/kube-dns");
        let evidence = scene.evidence(NAME);
        assert!(evidence.contains("was deleted; pods routed through it by table 2: 1; the node hosts"), "{evidence}");
    }

    #[test]
    fn set_down_carrier_lost_and_renamed_are_losses_too() {
        for (lost, expected) in [
            ("*eth1 3 down", "warning 500 node/worker-1"),
            ("*away 3", "warning 500 node/worker-1"),
            ("*eth0 2 down", "nothing"),
        ] {
            play!(routed(), "500 link {lost} ? {expected}");
        }
    }

    #[test]
    fn a_lost_carrier_counts_once_it_has_been_away_for_as_long_as_no_flap() {
        play!(
            routed(),
            "500 link *eth1 3 dark; 790 ? nothing; 900 ? warning 800..850 node/worker-1; 1000 link *eth1 3 ? over"
        );
        // A NIC that is deleted meanwhile is gone at once.
        play!(routed(), "500 link *eth1 3 dark; 600 link -eth1 3 ? warning 600 node/worker-1");
    }

    #[test]
    fn twin_the_carrier_flaps() {
        let mut scene = routed();
        for at in [500, 1_000, 1_500] {
            play!(scene, "{at} link *eth1 3 dark; {} link *eth1 3", at + 250);
        }
        play!(scene, "3000 ? silence");
    }

    #[test]
    fn down_then_deleted_is_one_finding() {
        let mut scene = routed();
        play!(scene, "500 link *eth1 3 down; 501 link -eth1 3");
        assert_eq!(scene.findings.iter().filter(|(_, finding)| finding.detector == NAME).count(), 1);
    }

    #[test]
    fn twin_released_on_purpose_with_no_pod_routed_through_it() {
        let mut scene = routed();
        play!(scene, "400 from -{POD}; 450 pod -coredns-0 {POD}; 500 link -eth1 3");
        // A pod that uses the primary NIC stays.
        play!(scene, "100 @worker-2 from 10.176.99.9; 100 @worker-2 from -10.176.99.9");
        play!(scene, "100 @worker-2 pod elsewhere 10.176.99.8; 600 @worker-2 link -eth1 3");
        play!(scene, "5000 ? info ? quiet");
    }

    #[test]
    fn twin_a_deleted_pods_own_veth() {
        let mut scene = routed();
        play!(scene, "100 link veth-coredns-0 12; 500 link -veth-coredns-0 12; 501 from -{POD}");
        play!(scene, "900 pod -coredns-0 {POD}; 5000 ? nothing ? quiet");
    }

    #[test]
    fn a_nic_on_its_way_up_was_not_lost() {
        scene!(NAME, "0 from {POD}; 100 link +eth1 3 down; 110 link *eth1 3 dark; 120 link *eth1 3 ? nothing");
    }

    #[test]
    fn late_a_nic_that_is_gone_or_down_while_a_rule_asks_for_it() {
        for (link, dns, expected) in [
            ("", "", "warning 1000..1050 node/worker-1 ? evidence eth1 of worker-1 is missing"),
            ("", "0 endpoints 0@worker-1;", "critical 1000..1050 node/worker-1"),
            ("0 link eth1 3 down;", "", "warning 1000..1050 node/worker-1 ? evidence eth1 of worker-1 is down"),
        ] {
            let mut scene = scene!(NAME, "0 link eth0 2; {link} {dns} 0 from {POD}; 0 pod coredns-0 {POD}; 1100");
            play!(scene, "? {expected}; 3000 link +eth1 9 down ? not over; 3010 link *eth1 9 ? over");
        }
        // Neither rules nor look-ups are seen: the operator declares that pods leave by it.
        scene!(NAME, "0 link eth0 2; 0 pod coredns-0 {POD}; 1100 ? warning 1000..1050 node/worker-1");
    }

    #[test]
    fn late_twin_a_node_without_the_nic_and_without_pods_routed_through_it() {
        scene!(NAME, "0 link eth0 2; 0 from 10.176.200.1; 0 pod elsewhere 10.176.99.8; 5000 ? nothing");
        scene!(NAME, "0 link eth0 2; 5000 ? silence");
        // An agent that sees no links cannot tell.
        scene!(NAME, "0 from {POD}; 0 pod coredns-0 {POD}; 5000 ? nothing");
    }

    #[test]
    fn look_ups_stand_in_for_rules_that_were_never_seen() {
        play!(armed(), "10 lookup {POD} {UPSTREAM} eth1; 500 link -eth1 3 ? warning");
    }
}
