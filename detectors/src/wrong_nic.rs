//! `wrong-nic`: SYNs of pods leave by the node's NIC and nobody answers them.
//!
//! What it sees: a SYN with a pod's address out by the node's NIC, sent again (same addresses, same
//! sequence number) without a SYN-ACK on any interface; or, of clients that give up before they would
//! send again, three to one destination, each 400 ms old. Critical where ICMP to that address is answered.
//! Why it matters: the request arrives, and the fabric drops the reply; whoever tests with ping sees
//! nothing wrong.
//! Which incident: I4.
//!
//! Left out: nodes without a pod NIC, and pods that get answers by the node's NIC: that is their way.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::claims::Claims;
use crate::detector::{Detector, DetectorInfo, Scope};
use crate::finding::{Finding, Level, Severity, Subject};
use crate::operator::Operator;
use crate::signal::{Change, CollectorKind, Observed, Probe, ProbeKind, Segment, Signal};
use crate::time::Time;

pub const INFO: DetectorInfo = DetectorInfo {
    name: "wrong-nic",
    incident: "I4",
    level: Level::Symptom,
    what: "SYNs of pods leave by the node's NIC and are not answered.",
    wants: &[CollectorKind::Packets, CollectorKind::Probes, CollectorKind::Rtnetlink],
    needs: &[&[CollectorKind::Packets]],
    scope: Scope::Node,
    arm: |operator| Box::new(WrongNic { operator: operator.clone(), nodes: BTreeMap::new() }),
};

/// The same SYN sooner than this is not a retransmission (the shortest timeout is 200 ms).
const RETRANSMISSION: Duration = Duration::from_millis(100);
/// Different SYNs to one destination without an answer, and how long each of them waits for it.
const SEVERAL: usize = 3;
const PATIENCE: Duration = Duration::from_millis(400);
/// No wrong SYN for this long: it is over.
const QUIET: Duration = Duration::from_secs(2);
/// A SYN is forgotten after this.
const FORGET: Duration = Duration::from_secs(30);
const CAP: usize = 8192;

struct WrongNic {
    operator: Operator,
    nodes: BTreeMap<Arc<str>, Node>,
}

struct Node {
    claims: Claims,
    has_pod_nic: bool,
    /// Unanswered SYNs by the node's NIC: (source, destination, sequence).
    open: BTreeMap<(SocketAddr, SocketAddr, u32), Sent>,
    /// Pods with an unanswered, retransmitted SYN.
    wrong: BTreeMap<IpAddr, Wrong>,
    /// Pods that are answered by the node's NIC.
    at_home: BTreeSet<IpAddr>,
    echo: BTreeMap<IpAddr, Time>,
}

struct Sent {
    first: Time,
    last: Time,
}

struct Wrong {
    since: Time,
    last: Time,
    source: SocketAddr,
    destination: SocketAddr,
    /// What became of it.
    how: String,
}

impl Node {
    fn new() -> Self {
        Self {
            claims: Claims::new(&INFO),
            has_pod_nic: false,
            open: BTreeMap::new(),
            wrong: BTreeMap::new(),
            at_home: BTreeSet::new(),
            echo: BTreeMap::new(),
        }
    }

    fn segment(&mut self, at: Time, operator: &Operator, segment: &Segment) {
        self.has_pod_nic |= segment.link == operator.pod_nic;
        let (source, destination) = (segment.source.ip(), segment.destination.ip());
        if segment.accepts() && segment.comes_in() && operator.is_pod(destination) {
            let key = (segment.destination, segment.source, segment.acknowledgment.wrapping_sub(1));
            if self.open.remove(&key).is_some() {
                self.wrong.remove(&destination);
                if segment.link == operator.node_nic && self.at_home.len() < CAP {
                    self.at_home.insert(destination);
                }
            }
        } else if segment.opens() && segment.goes_out() && operator.is_pod(source) && !operator.is_pod(destination) {
            if segment.link == operator.pod_nic {
                self.at_home.remove(&source);
                // Whatever strayed before says nothing about now.
                self.open.retain(|(from, ..), sent| from.ip() != source || sent.last > at);
                if self.wrong.get(&source).is_some_and(|wrong| wrong.last < at) {
                    self.wrong.remove(&source);
                }
            } else if segment.link == operator.node_nic {
                self.stray(at, segment);
            }
        }
    }

    fn stray(&mut self, at: Time, segment: &Segment) {
        if self.open.len() >= CAP {
            return;
        }
        let key = (segment.source, segment.destination, segment.sequence);
        let sent = self.open.entry(key).or_insert(Sent { first: at, last: at });
        let again = at.since(sent.first) >= RETRANSMISSION;
        sent.last = sent.last.max(at);
        let since = sent.first;
        let source = segment.source.ip();
        if let Some(wrong) = self.wrong.get_mut(&source) {
            wrong.last = wrong.last.max(at);
        } else if again && self.has_pod_nic && !self.at_home.contains(&source) {
            let how = format!("was sent again {:.1} s later without a SYN-ACK", at.since(since).as_secs_f64());
            let (source_socket, destination) = (segment.source, segment.destination);
            self.wrong.insert(source, Wrong { since, last: at, source: source_socket, destination, how });
        }
    }

    /// Clients that give up early send no SYN twice: several SYNs to one destination stand for it.
    fn several(&mut self, now: Time) {
        if !self.has_pod_nic {
            return;
        }
        let mut waiting: BTreeMap<SocketAddr, Vec<(SocketAddr, &Sent)>> = BTreeMap::new();
        for ((source, destination, _), sent) in &self.open {
            let age = now.since(sent.first);
            if age >= PATIENCE && age < PATIENCE + QUIET && !self.at_home.contains(&source.ip()) {
                waiting.entry(*destination).or_default().push((*source, sent));
            }
        }
        for (destination, syns) in waiting.into_iter().filter(|(_, syns)| syns.len() >= SEVERAL) {
            let Some((source, first)) = syns.iter().min_by_key(|(_, sent)| sent.first) else { continue };
            let last = syns.iter().map(|(_, sent)| sent.last).max().unwrap_or(first.last);
            if let Some(wrong) = self.wrong.get_mut(&source.ip()) {
                wrong.last = wrong.last.max(last);
                continue;
            }
            let how = format!("is one of {} to there without a SYN-ACK for 0.4 s or longer", syns.len());
            self.wrong.insert(source.ip(), Wrong { since: first.first, last, source: *source, destination, how });
        }
    }

    fn probe(&mut self, at: Time, probe: &Probe) {
        if probe.kind == ProbeKind::Echo && probe.ok && (self.echo.len() < CAP || self.echo.contains_key(&probe.target))
        {
            self.echo.insert(probe.target, at);
        }
    }

    fn judge(&mut self, name: &str, operator: &Operator, out: &mut Vec<Finding>) {
        let subject = Subject::node(name);
        let Some(first) = self.wrong.values().min_by_key(|wrong| wrong.since) else {
            self.claims.withdraw(out, &subject, "SYNs of pods are answered, or leave by the pod NIC, again");
            return;
        };
        let answered = |wrong: &&Wrong| self.echo.get(&wrong.destination.ip()).is_some_and(|echo| *echo >= wrong.since);
        let (severity, wrong, icmp) = match self.wrong.values().find(answered) {
            Some(wrong) => (Severity::Critical, wrong, "ICMP echo to the same address is answered"),
            None => (Severity::Warning, first, "no answer to ICMP echo is known"),
        };
        let since = first.since;
        self.claims.make(out, &subject, severity, since, || {
            format!(
                "SYN {} -> {} left {name} by {} instead of {} and {}; {icmp}",
                wrong.source, wrong.destination, operator.node_nic, operator.pod_nic, wrong.how,
            )
        });
    }
}

impl Detector for WrongNic {
    fn info(&self) -> &'static DetectorInfo {
        &INFO
    }

    fn observe(&mut self, _now: Time, signal: &Signal, out: &mut Vec<Finding>) {
        let operator = &self.operator;
        let node = self.nodes.entry(Arc::clone(&signal.node)).or_insert_with(Node::new);
        match &signal.observed {
            Observed::Segment(segment) if segment.flags.syn => node.segment(signal.at, operator, segment),
            Observed::Probe(probe) => node.probe(signal.at, probe),
            Observed::Link(link) => {
                node.has_pod_nic |= link.name == operator.pod_nic && link.change != Change::Removed;
                return;
            }
            _ => return,
        }
        node.judge(&signal.node, operator, out);
    }

    fn tick(&mut self, now: Time, out: &mut Vec<Finding>) {
        for (name, node) in &mut self.nodes {
            if !node.open.is_empty() {
                node.open.retain(|_, sent| now.since(sent.last) < FORGET);
                node.several(now);
            }
            if !node.wrong.is_empty() {
                node.wrong.retain(|_, wrong| now.since(wrong.last) < QUIET);
                node.judge(name, &self.operator, out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Scene, link, probe, syn_ack_in, syn_out};

    const NAME: &str = "wrong-nic";
    const POD: &str = "10.176.98.29:40001";
    const DATABASE: &str = "10.176.46.4:3306";

    fn armed() -> Scene {
        let mut scene = Scene::new();
        scene.at(0, "worker-2", link("eth1", 3));
        scene
    }

    #[test]
    fn incident_at_the_first_retransmission_critical_once_icmp_is_answered() {
        let mut scene = armed();
        scene.at(900, "worker-2", probe(ProbeKind::Echo, "10.176.46.4", true));
        scene.at(1_000, "worker-2", syn_out("eth0", POD, DATABASE, 7, 1));
        scene.until(2_000);
        assert_eq!(scene.worst(NAME), None, "one SYN may be on its way");
        scene.at(2_030, "worker-2", syn_out("eth0", POD, DATABASE, 7, 2));
        assert_eq!(scene.worst(NAME), Some(Severity::Warning), "that echo was before");
        scene.at(2_100, "worker-2", probe(ProbeKind::Echo, "10.176.46.4", true));
        assert_eq!(scene.first(NAME, Severity::Critical), Some((2_100, "node/worker-2".into())));
        scene.until(4_000);
        assert!(!scene.cleared(NAME));
        scene.until(4_100);
        assert!(scene.cleared(NAME), "two seconds without such a SYN");
    }

    /// Clients that give up after 400 ms: one SYN each, 50 ms apart.
    fn one_syn_each(scene: &mut Scene, at: u64, count: u16) {
        for n in 0..count {
            let from = format!("10.176.98.29:{}", 41_000 + n);
            scene.at(at + u64::from(n) * 50, "worker-2", syn_out("eth0", &from, DATABASE, n.into(), 1));
        }
    }

    #[test]
    fn incident_several_syns_of_clients_that_give_up_before_they_send_again() {
        let mut scene = armed();
        one_syn_each(&mut scene, 1_000, 12);
        scene.until(4_000);
        assert_eq!(scene.first(NAME, Severity::Warning), Some((1_500, "node/worker-2".into())));
        assert!(scene.evidence(NAME).contains("is one of 3 to there without a SYN-ACK for 0.4 s"));
        assert!(scene.cleared(NAME), "two seconds without such a SYN");
        assert_eq!(
            scene.findings.iter().filter(|(_, f)| f.detector == NAME && !f.cleared).count(),
            1,
            "and it stays so"
        );
    }

    #[test]
    fn several_syns_count_only_while_none_is_answered_and_the_pod_has_not_come_back() {
        let mut scene = armed();
        one_syn_each(&mut scene, 1_000, 2);
        scene.until(5_000);
        assert_eq!(scene.worst(NAME), None, "two may be lost");
        let mut scene = armed();
        one_syn_each(&mut scene, 1_000, 3);
        scene.at(1_200, "worker-2", syn_ack_in("eth1", DATABASE, "10.176.98.29:41001", 1));
        scene.until(5_000);
        assert_eq!(scene.worst(NAME), None, "one of three was answered");
        let mut scene = armed();
        one_syn_each(&mut scene, 1_000, 6);
        scene.at(1_350, "worker-2", syn_out("eth1", POD, DATABASE, 8, 2));
        scene.until(5_000);
        assert_eq!(scene.worst(NAME), None, "the table came back within a moment");
    }

    #[test]
    fn over_when_the_pod_leaves_by_its_own_nic_again() {
        let mut scene = armed();
        scene.at(1_000, "worker-2", syn_out("eth0", POD, DATABASE, 7, 1));
        scene.at(2_000, "worker-2", syn_out("eth0", POD, DATABASE, 7, 2));
        scene.at(2_010, "worker-2", syn_out("eth1", "10.176.98.30:1", DATABASE, 9, 2));
        assert!(!scene.cleared(NAME), "another pod");
        scene.at(2_020, "worker-2", syn_out("eth1", "10.176.98.29:40002", DATABASE, 8, 2));
        assert!(scene.cleared(NAME));
    }

    #[test]
    fn a_dead_server_behind_the_pod_nic_is_no_matter() {
        let mut scene = armed();
        for at in [1_000, 2_000, 4_000] {
            scene.at(at, "worker-2", syn_out("eth1", POD, DATABASE, 7, 1));
        }
        assert_eq!(scene.findings, []);
    }

    #[test]
    fn pods_at_home_on_the_nodes_nic_and_nodes_without_another() {
        let dies = |scene: &mut Scene, node: &str| {
            for at in [1_000, 2_000, 4_000] {
                scene.at(at, node, syn_out("eth0", POD, DATABASE, 7, 1));
            }
            scene.until(5_000);
        };
        let mut scene = armed();
        scene.at(500, "worker-2", syn_out("eth0", POD, "10.176.46.9:80", 3, 1));
        scene.at(501, "worker-2", syn_ack_in("eth0", "10.176.46.9:80", POD, 3));
        dies(&mut scene, "worker-2");
        assert_eq!(scene.findings, []);
        let mut scene = Scene::new();
        dies(&mut scene, "worker-2");
        assert_eq!(scene.findings, []);
    }

    #[test]
    fn the_same_syn_seen_twice_at_once_is_not_a_retransmission() {
        let mut scene = armed();
        scene.at(1_000, "worker-2", syn_out("eth0", POD, DATABASE, 7, 1));
        scene.at(1_001, "worker-2", syn_out("eth0", POD, DATABASE, 7, 1));
        scene.until(1_500);
        assert_eq!(scene.findings, []);
    }
}
