//! `snat-exhaustion`: no port is left for source NAT, and SYNs of pods die on their node.
//!
//! What it sees: `insert_failed` grows while SYNs that came in from pods never go out again: two or more
//! to one destination within two seconds.
//! Why it matters: no conntrack event tells of it; the flow never comes to exist.
//! Which incident: I7, its extreme.
//!
//! Left out: `insert_failed` alone (races of DNS questions let it grow), and a full table, whose `drop` grows.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::claims::Claims;
use crate::detector::{Detector, DetectorInfo, Scope};
use crate::finding::{Finding, Level, Severity, Subject};
use crate::operator::Operator;
use crate::signal::{CollectorKind, ConntrackStats, Observed, Segment, Signal};
use crate::time::Time;

pub const INFO: DetectorInfo = DetectorInfo {
    name: "snat-exhaustion",
    incident: "I7",
    level: Level::Symptom,
    what: "SYNs of pods die on their node because source NAT finds no port.",
    wants: &[CollectorKind::Packets, CollectorKind::ConntrackStats],
    needs: &[&[CollectorKind::Packets], &[CollectorKind::ConntrackStats]],
    scope: Scope::Node,
    arm: |operator| Box::new(SnatExhaustion { operator: operator.clone(), nodes: BTreeMap::new() }),
};

/// How long a SYN may be on its way through the node, collectors' delays included.
const TRANSIT: Duration = Duration::from_millis(300);
/// Dead SYNs and failed insertions within this time belong together.
const TOGETHER: Duration = Duration::from_secs(2);
const DEAD_SYNS: usize = 2;
const CAP: usize = 8192;

struct SnatExhaustion {
    operator: Operator,
    nodes: BTreeMap<Arc<str>, Node>,
}

struct Node {
    claims: Claims,
    stats: Option<ConntrackStats>,
    /// When `insert_failed` last grew, and by how much since the claim stands or lately.
    failed: Option<(Time, u64)>,
    dropped: Option<Time>,
    /// SYNs in from pods, by what no translation changes: sequence number and timestamp.
    waiting: BTreeMap<(u32, Option<u32>), Waiting>,
    /// SYNs that went out before the sight of their coming in was told.
    passed: BTreeMap<(u32, Option<u32>), Time>,
    dead: VecDeque<(Time, SocketAddr)>,
}

struct Waiting {
    at: Time,
    source: SocketAddr,
    destination: SocketAddr,
}

impl Node {
    fn segment(&mut self, at: Time, operator: &Operator, segment: &Segment) {
        let key = (segment.sequence, segment.timestamp);
        if segment.opens() && segment.goes_out() {
            if self.waiting.remove(&key).is_none() && self.passed.len() < CAP {
                self.passed.insert(key, at);
            }
        } else if segment.opens() && operator.is_pod(segment.source.ip()) && !operator.is_uplink(&segment.link) {
            let went = self.passed.remove(&key).is_some();
            if !went && self.waiting.len() < CAP {
                let (source, destination) = (segment.source, segment.destination);
                self.waiting.insert(key, Waiting { at, source, destination });
            }
        } else if segment.goes_out() && segment.flags.ack && (segment.flags.syn || segment.flags.rst) {
            // The node itself answered: the SYN had reached its end.
            self.waiting.retain(|(sequence, _), syn| {
                segment.acknowledgment != sequence.wrapping_add(1) || syn.source != segment.destination
            });
        }
    }

    fn stats(&mut self, at: Time, stats: ConntrackStats) {
        if let Some(before) = self.stats.replace(stats) {
            let more = stats.insert_failed.saturating_sub(before.insert_failed);
            if more > 0 {
                self.failed = Some((at, self.failed.map_or(more, |(_, earlier)| earlier + more)));
            }
            // A failed insertion counts as a drop too; what is beyond is a full table.
            if stats.drop.saturating_sub(before.drop) > more {
                self.dropped = Some(at);
            }
        }
    }

    fn judge(&mut self, now: Time, name: &str, out: &mut Vec<Finding>) {
        if self.waiting.values().any(|syn| now.since(syn.at) >= TRANSIT) {
            let mut late: Vec<_> =
                self.waiting.extract_if(.., |_, syn| now.since(syn.at) >= TRANSIT).map(|(_, syn)| syn).collect();
            late.sort_by_key(|syn| syn.at);
            self.dead.extend(late.into_iter().map(|syn| (syn.at, syn.destination)));
        }
        self.passed.retain(|_, at| now.since(*at) < TRANSIT);
        while self.dead.front().is_some_and(|(at, _)| now.since(*at) >= TOGETHER) {
            self.dead.pop_front();
        }
        let recent = |at: Time| now.since(at) < TOGETHER;
        self.failed = self.failed.filter(|(at, _)| recent(*at));
        self.dropped = self.dropped.filter(|at| recent(*at));
        let subject = Subject::node(name);
        let mut to: BTreeMap<SocketAddr, usize> = BTreeMap::new();
        for (_, destination) in &self.dead {
            *to.entry(*destination).or_default() += 1;
        }
        let worst = to.into_iter().max_by_key(|(_, count)| *count).filter(|(_, count)| *count >= DEAD_SYNS);
        match (worst, self.failed) {
            (Some((destination, count)), Some((_, failed))) if self.dropped.is_none() => {
                let since = self.dead.front().map_or(now, |(at, _)| *at);
                self.claims.make(out, &subject, Severity::Warning, since, || {
                    format!(
                        "{count} SYNs of pods to {destination} came in and never left {name}; insert_failed grew by {failed}"
                    )
                });
            }
            (Some(_), _) => {}
            (None, _) => {
                let evidence = format!("no SYN of a pod died on {name} for {} s", TOGETHER.as_secs());
                self.claims.withdraw(out, &subject, evidence);
            }
        }
    }
}

impl Detector for SnatExhaustion {
    fn info(&self) -> &'static DetectorInfo {
        &INFO
    }

    fn observe(&mut self, _now: Time, signal: &Signal, _out: &mut Vec<Finding>) {
        let node = self.nodes.entry(Arc::clone(&signal.node)).or_insert_with(|| Node {
            claims: Claims::new(&INFO),
            stats: None,
            failed: None,
            dropped: None,
            waiting: BTreeMap::new(),
            passed: BTreeMap::new(),
            dead: VecDeque::new(),
        });
        match &signal.observed {
            Observed::Segment(segment) => node.segment(signal.at, &self.operator, segment),
            Observed::ConntrackStats(stats) => node.stats(signal.at, *stats),
            _ => {}
        }
    }

    fn tick(&mut self, now: Time, out: &mut Vec<Finding>) {
        for (name, node) in &mut self.nodes {
            node.judge(now, name, out);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::signal::{Direction, Observed};
    use crate::testing::{Scene, segment, stats, syn_in, syn_out};

    const NAME: &str = "snat-exhaustion";
    const NODE: &str = "worker-1";
    const SERVER: &str = "10.200.0.5:443";

    fn failed(insert_failed: u64) -> Observed {
        Observed::ConntrackStats(ConntrackStats { drop: insert_failed, insert_failed, ..stats() })
    }

    fn pod(number: u64) -> String {
        format!("10.176.98.{}:{}", 30 + number % 4, 40_000 + number)
    }

    fn sequence(number: u64) -> u32 {
        u32::try_from(number).unwrap() * 1_000
    }

    /// Connects of four pods; from 1 s on, no port is left.
    pub(crate) fn incident() -> Scene {
        let mut scene = Scene::new();
        for step in 0..60 {
            let at = step * 100;
            let starved = (10..30).contains(&step);
            scene.at(at, NODE, failed(step.clamp(9, 29) - 9));
            scene.at(at + 10, NODE, syn_in("veth-a", &pod(step), SERVER, sequence(step), 5));
            if !starved {
                let out = format!("10.176.64.11:{}", 46_000 + step);
                scene.at(at + 10, NODE, syn_out("eth1", &out, SERVER, sequence(step), 5));
            }
        }
        scene
    }

    #[test]
    fn incident_syns_die_while_insertions_fail() {
        let scene = incident();
        let (at, subject) = scene.first(NAME, Severity::Warning).unwrap();
        assert!((1_400..=1_500).contains(&at) && subject == "node/worker-1", "{at}");
        assert!(scene.evidence(NAME).contains("2 SYNs of pods to 10.200.0.5:443"), "{}", scene.evidence(NAME));
        assert!(scene.cleared(NAME));
    }

    #[test]
    fn twin_races_of_dns_questions_let_insert_failed_grow() {
        let mut scene = Scene::new();
        for step in 0..30 {
            scene.at(step * 100, NODE, failed(step * 2));
            // Translated by a Service on the way: another destination, the same sequence number.
            scene.at(step * 100 + 1, NODE, syn_in("veth-a", &pod(step), "192.168.0.20:80", sequence(step), 5));
            scene.at(step * 100 + 1, NODE, syn_out("veth-b", &pod(step), "10.176.98.9:8080", sequence(step), 5));
        }
        scene.until(5_000);
        assert_eq!(scene.findings, []);
    }

    #[test]
    fn dead_syns_without_failed_insertions_are_another_matter() {
        let mut scene = Scene::new();
        for step in 0..30 {
            scene.at(step * 100, NODE, failed(7));
            scene.at(step * 100 + 1, NODE, syn_in("veth-a", &pod(step), SERVER, sequence(step), 5));
        }
        assert_eq!(scene.findings, []);
    }

    #[test]
    fn one_dead_syn_is_not_enough_and_answers_of_the_node_are_answers() {
        let mut scene = Scene::new();
        scene.at(0, NODE, failed(0));
        scene.at(100, NODE, syn_in("veth-a", &pod(1), SERVER, 100, 5));
        for step in 2..8 {
            let at = step * 100;
            scene.at(at, NODE, syn_in("veth-a", &pod(step), "10.176.64.11:10250", sequence(step), 5));
            let numbers = [1, sequence(step) + 1];
            let flags = if step % 2 == 0 { "SA" } else { "RA" };
            let answer = segment("veth-a", Direction::Out, ["10.176.64.11:10250", &pod(step)], flags, numbers, 5);
            scene.at(at + 1, NODE, Observed::Segment(answer));
            scene.at(at + 2, NODE, failed(step));
        }
        scene.until(2_000);
        assert_eq!(scene.findings, []);
    }

    #[test]
    fn sights_of_one_syn_may_be_told_in_either_order() {
        let mut scene = Scene::new();
        for step in 0..10 {
            scene.at(step * 100, NODE, syn_out("eth1", "10.176.64.11:46000", SERVER, sequence(step), 5));
            scene.at(step * 100 + 20, NODE, syn_in("veth-a", &pod(step), SERVER, sequence(step), 5));
            scene.at(step * 100 + 30, NODE, failed(step));
        }
        scene.until(3_000);
        assert_eq!(scene.findings, []);
    }

    #[test]
    fn a_full_table_is_conntrack_exhaustion() {
        let mut scene = Scene::new();
        for step in 0..20 {
            let full = ConntrackStats { drop: step * 3, insert_failed: step, ..stats() };
            scene.at(step * 100, NODE, Observed::ConntrackStats(full));
            scene.at(step * 100, NODE, syn_in("veth-a", &pod(step), SERVER, sequence(step), 5));
        }
        assert_eq!(scene.worst(NAME), None);
    }
}
