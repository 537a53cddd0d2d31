//! `pod-nic`: a node lost the interface that its pods are routed through.
//!
//! What it sees: the pod NIC is deleted, renamed, or loses its link (administratively or its carrier)
//! while rules, look-ups or pods of the node depend on it. Critical where it is gone altogether and the
//! node hosts a DNS endpoint; `info` where no pod is routed through it.
//! Why it matters: the node stays Ready, its pods stay Running, and nothing they send leaves the node.
//! Which incident: I3.
//!
//! Left out: the interfaces of single pods, and the primary NIC.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::claims::Claims;
use crate::detector::{Detector, DetectorInfo, Scope};
use crate::finding::{Finding, Level, Severity, Subject};
use crate::operator::Operator;
use crate::prefix::Prefix;
use crate::signal::{Change, CollectorKind, Endpoint, Link, Observed, RouteLookup, Rule, Signal};
use crate::time::Time;

pub const INFO: DetectorInfo = DetectorInfo {
    name: "pod-nic",
    incident: "I3",
    level: Level::Cause,
    what: "A node lost the interface that its pods are routed through.",
    wants: &[CollectorKind::Rtnetlink, CollectorKind::RouteLookup, CollectorKind::Inventory],
    needs: &[&[CollectorKind::Rtnetlink]],
    scope: Scope::Node,
    arm: |operator| {
        Box::new(PodNic {
            operator: operator.clone(),
            nodes: BTreeMap::new(),
            dns: BTreeSet::new(),
            dns_at: Time::default(),
        })
    },
};

struct PodNic {
    operator: Operator,
    nodes: BTreeMap<Arc<str>, Node>,
    /// Nodes that host, or last hosted, a DNS endpoint.
    dns: BTreeSet<String>,
    dns_at: Time,
}

struct Node {
    claims: Claims,
    nic: Option<Nic>,
    pods: BTreeMap<String, IpAddr>,
    /// Source prefixes that the pod table is for, by rule; `None` where rules were never seen.
    routed: Option<BTreeSet<(u32, Prefix)>>,
    /// Sources whose last look-up yielded the pod NIC.
    looked_up: BTreeSet<IpAddr>,
}

#[derive(Clone, Copy)]
struct Nic {
    index: u32,
    whole: bool,
}

impl Node {
    fn new() -> Self {
        Self { claims: Claims::new(&INFO), nic: None, pods: BTreeMap::new(), routed: None, looked_up: BTreeSet::new() }
    }

    /// How many pods are routed through the pod NIC, by the best evidence there is.
    fn dependents(&self, operator: &Operator) -> usize {
        match &self.routed {
            Some(rules) if self.pods.is_empty() => rules.len(),
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
        } else if operator.pod_prefixes.iter().any(|pods| pods.overlaps(&from)) {
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

    fn link(
        &mut self,
        at: Time,
        operator: &Operator,
        name: &str,
        hosts_dns: bool,
        link: &Link,
        out: &mut Vec<Finding>,
    ) {
        let nic = &operator.pod_nic;
        let renamed = link.name != *nic && self.nic.is_some_and(|known| known.index == link.index);
        if link.name != *nic && !renamed {
            return;
        }
        let subject = Subject::node(name);
        let gone = renamed || link.change == Change::Removed;
        let whole = !gone && link.up && link.carrier;
        let was_whole = self.nic.is_some_and(|nic| nic.whole);
        self.nic = if gone { None } else { Some(Nic { index: link.index, whole }) };
        if whole {
            self.claims.withdraw(out, &subject, format!("{nic} of {name} is back, with carrier"));
            return;
        }
        // Only the loss of what was whole is news; a NIC on its way up is not. A NIC that was down
        // and is now deleted stands as one finding.
        if !was_whole && self.claims.standing(&subject).is_none() {
            return;
        }
        let dependents = self.dependents(operator);
        let severity = match (dependents, gone && hosts_dns) {
            (0, _) => Severity::Info,
            (_, true) => Severity::Critical,
            (_, false) => Severity::Warning,
        };
        self.claims.make(out, &subject, severity, at, || {
            let how = match (link.change, renamed) {
                (_, true) => format!("was renamed to {}", link.name),
                (Change::Removed, _) => "was deleted".to_owned(),
                _ if !link.up => "was set down".to_owned(),
                _ => "lost its carrier".to_owned(),
            };
            let dns = if hosts_dns { "; the node hosts a DNS endpoint" } else { "" };
            format!(
                "{nic} (index {}) of {name} {how}; pods routed through it by table {}: {dependents}{dns}",
                link.index, operator.pod_table
            )
        });
    }
}

impl PodNic {
    fn endpoints(&mut self, at: Time, ready: &[Endpoint]) {
        // An endpoint that stops being ready because its node lost the NIC still counts.
        if at >= self.dns_at && !ready.is_empty() {
            self.dns_at = at;
            self.dns = ready.iter().map(|endpoint| endpoint.node.clone()).collect();
        }
    }
}

impl Detector for PodNic {
    fn info(&self) -> &'static DetectorInfo {
        &INFO
    }

    fn observe(&mut self, _now: Time, signal: &Signal, out: &mut Vec<Finding>) {
        let node = self.nodes.entry(Arc::clone(&signal.node)).or_insert_with(Node::new);
        match &signal.observed {
            Observed::Link(link) => {
                let hosts_dns = self.dns.contains(&*signal.node);
                node.link(signal.at, &self.operator, &signal.node, hosts_dns, link, out);
            }
            Observed::Rule(rule) => node.rule(&self.operator, rule),
            Observed::RouteLookup(lookup) => node.lookup(&self.operator, lookup),
            Observed::Pod(pod) if pod.change == Change::Removed => {
                if node.pods.get(&pod.name) == Some(&pod.address) {
                    node.pods.remove(&pod.name);
                }
                node.looked_up.remove(&pod.address);
            }
            Observed::Pod(pod) => {
                node.pods.insert(pod.name.clone(), pod.address);
            }
            Observed::Endpoints(endpoints) if endpoints.service == self.operator.dns_service => {
                self.endpoints(signal.at, &endpoints.ready);
            }
            _ => {}
        }
    }

    fn tick(&mut self, _now: Time, _out: &mut Vec<Finding>) {}
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::signal::ProbeKind;
    use crate::testing::{Scene, endpoints, link, link_gone, link_state, lookup, pod, probe, rule_from};

    const NAME: &str = "pod-nic";
    const POD: &str = "10.176.98.2";

    fn armed() -> Scene {
        let mut scene = Scene::new();
        for node in ["worker-1", "worker-2"] {
            scene.at(0, node, link("eth0", 2));
            scene.at(0, node, link("eth1", 3));
        }
        scene
    }

    fn routed() -> Scene {
        let mut scene = armed();
        scene.at(0, "worker-1", rule_from(Change::Present, POD));
        scene.at(1, "worker-1", pod(Change::Present, "coredns-0", POD));
        scene
    }

    /// The pod NIC of the node with the only DNS endpoint goes; names fail everywhere, upstream answers.
    pub(crate) fn incident() -> Scene {
        let mut scene = routed();
        scene.at(5, "worker-2", endpoints(&[("coredns-0", "worker-1")]));
        for step in 0..12 {
            let ok = !(3..9).contains(&step);
            if step == 3 {
                scene.at(1_000, "worker-1", link_gone("eth1", 3));
            }
            if step == 9 {
                scene.at(2_900, "worker-1", link_state("eth1", 9, Change::Added, false, false));
                scene.at(2_901, "worker-1", link_state("eth1", 9, Change::Changed, true, true));
            }
            let at = step * 300 + 200;
            scene.at(at, "worker-2", probe(ProbeKind::DnsUpstream, "10.16.16.16", true));
            scene.at(at + 1, "worker-2", probe(ProbeKind::DnsService, "192.168.0.10", ok));
            scene.at(at + 2, "worker-2", probe(ProbeKind::DnsEndpoint, POD, ok));
        }
        scene
    }

    #[test]
    fn incident_at_once_and_critical_and_over_when_the_link_is_back() {
        let scene = incident();
        assert_eq!(scene.first(NAME, Severity::Critical), Some((1_000, "node/worker-1".into())));
        assert!(scene.evidence(NAME).contains("was deleted; pods routed through it by table 2: 1; the node hosts"));
        let (at, subject) = scene.first("dns-failure", Severity::Warning).unwrap();
        assert!((1_400..1_500).contains(&at) && subject == "service/kube-dns", "{at}");
        assert!(scene.first("dns-redundancy", Severity::Warning).unwrap().0 < 10);
        assert_eq!(scene.worst("dns-replica"), None);
        assert_eq!(scene.worst("policy-route"), None);
        assert!(scene.cleared(NAME) && scene.cleared("dns-failure"));
    }

    #[test]
    fn set_down_carrier_lost_and_renamed_are_losses_too() {
        let lost = |observed| {
            let mut scene = routed();
            scene.at(500, "worker-1", observed);
            scene.first(NAME, Severity::Warning)
        };
        let expected = Some((500, "node/worker-1".into()));
        assert_eq!(lost(link_state("eth1", 3, Change::Changed, false, false)), expected);
        assert_eq!(lost(link_state("eth1", 3, Change::Changed, true, false)), expected);
        assert_eq!(lost(link_state("away", 3, Change::Changed, true, true)), expected);
        assert_eq!(lost(link_state("eth0", 2, Change::Changed, false, false)), None);
    }

    #[test]
    fn down_then_deleted_is_one_finding() {
        let mut scene = routed();
        scene.at(500, "worker-1", link_state("eth1", 3, Change::Changed, false, false));
        scene.at(501, "worker-1", link_gone("eth1", 3));
        assert_eq!(scene.findings.iter().filter(|(_, finding)| finding.detector == NAME).count(), 1);
    }

    #[test]
    fn twin_released_on_purpose_with_no_pod_routed_through_it() {
        let mut scene = routed();
        scene.at(400, "worker-1", rule_from(Change::Removed, POD));
        scene.at(450, "worker-1", pod(Change::Removed, "coredns-0", POD));
        scene.at(500, "worker-1", link_gone("eth1", 3));
        // A pod that uses the primary NIC stays.
        scene.at(100, "worker-2", rule_from(Change::Present, "10.176.99.9"));
        scene.at(100, "worker-2", rule_from(Change::Removed, "10.176.99.9"));
        scene.at(100, "worker-2", pod(Change::Present, "elsewhere", "10.176.99.8"));
        scene.at(600, "worker-2", link_gone("eth1", 3));
        scene.until(5_000);
        assert_eq!(scene.worst(NAME), Some(Severity::Info));
        scene.assert_quiet();
    }

    #[test]
    fn twin_a_deleted_pods_own_veth() {
        let mut scene = routed();
        scene.at(100, "worker-1", link("veth-coredns-0", 12));
        scene.at(500, "worker-1", link_gone("veth-coredns-0", 12));
        scene.at(501, "worker-1", rule_from(Change::Removed, POD));
        scene.at(900, "worker-1", pod(Change::Removed, "coredns-0", POD));
        scene.until(5_000);
        assert_eq!(scene.worst(NAME), None);
        scene.assert_quiet();
    }

    #[test]
    fn a_nic_on_its_way_up_was_not_lost() {
        let mut scene = Scene::new();
        scene.at(0, "worker-1", rule_from(Change::Present, POD));
        scene.at(100, "worker-1", link_state("eth1", 3, Change::Added, false, false));
        scene.at(110, "worker-1", link_state("eth1", 3, Change::Changed, true, false));
        scene.at(120, "worker-1", link_state("eth1", 3, Change::Changed, true, true));
        assert_eq!(scene.worst(NAME), None);
    }

    #[test]
    fn look_ups_stand_in_for_rules_that_were_never_seen() {
        let mut scene = armed();
        scene.at(10, "worker-1", lookup(POD, "10.16.16.16", Some("eth1")));
        scene.at(500, "worker-1", link_gone("eth1", 3));
        assert_eq!(scene.worst(NAME), Some(Severity::Warning));
    }
}
