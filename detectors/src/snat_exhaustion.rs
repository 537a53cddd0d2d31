//! `snat-exhaustion`: no port is left for source NAT, and SYNs of pods are dropped on their node.
//!
//! What it sees: three or more SYNs to one destination came in from pods within two seconds and never went out, and
//! `insert_failed` grew at the same instants and by about as much.
//! Why it matters: there is no conntrack event for it, since no flow is created.
//! Which incident: I7, its extreme.
//!
//! Left out: `insert_failed` alone (races of DNS queries increase it too), SYNs that a policy drops (which do not
//! increase it), and a full table, whose `drop` grows. Two SYNs that draw the same port at the same instant are a race,
//! not a lack of ports: one of them goes out.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use crate::capped::Capped;
use crate::detector::{Context, Detector, DetectorInfo, Scope, State, new};
use crate::finding::{Level, Severity, SubjectKind};
use crate::operator::Operator;
use crate::signal::{CollectorKind, ConntrackStats, Observed, Segment, Signal};
use crate::time::Time;

pub const INFO: DetectorInfo = DetectorInfo {
    name: "snat-exhaustion",
    incident: "I7",
    level: Level::Symptom,
    subjects: &[SubjectKind::Node],
    what: "SYNs of pods are dropped on their node because source NAT finds no port.",
    facts: "It finds the same with none and with stale facts: pods are also those that agents see.",
    wants: &[CollectorKind::Packets, CollectorKind::ConntrackStats],
    needs: &[&[CollectorKind::Packets], &[CollectorKind::ConntrackStats]],
    scope: Scope::Node,
    state: State::EachNode(new::<SnatExhaustion>),
};

/// How long a SYN may take through the node, including collectors' delays.
const TRANSIT: Duration = Duration::from_millis(300);
/// Lost SYNs and failed insertions within this time belong together.
const TOGETHER: Duration = Duration::from_secs(2);
const LOST_SYNS: usize = 3;
/// A SYN is dropped, and counted, this soon after it came in; statistics are polled.
const COUNTED: Duration = Duration::from_millis(100);
/// SYNs that come in this close together may draw the same port.
const RACE: Duration = Duration::from_millis(10);
/// So many lost SYNs, a fifth of all, are no races, however many SYNs there are.
const MANY: usize = 8;
const CAP: usize = 8192;

#[derive(Default)]
struct SnatExhaustion {
    stats: Option<ConntrackStats>,
    /// When `insert_failed` grew, and by how much.
    failed: VecDeque<(Time, u64)>,
    dropped: Option<Time>,
    /// SYNs in from pods, by sequence number and timestamp, which translation does not change.
    waiting: Capped<(u32, Option<u32>), Waiting, CAP>,
    /// SYNs seen going out before they were seen coming in.
    passed: Capped<(u32, Option<u32>), Time, CAP>,
    /// SYNs that went out and those that did not, by when they came in.
    left: VecDeque<(Time, SocketAddr)>,
    lost: VecDeque<(Time, SocketAddr)>,
}

struct Waiting {
    at: Time,
    source: SocketAddr,
    destination: SocketAddr,
}

impl SnatExhaustion {
    fn segment(&mut self, at: Time, operator: &Operator, segment: &Segment) {
        let key = (segment.sequence, segment.timestamp);
        if segment.opens() && segment.goes_out() {
            match self.waiting.remove(&key) {
                Some(syn) => self.left.push_back((syn.at, syn.destination)),
                None => self.passed.insert(key, at),
            }
        } else if segment.opens() && operator.is_pod(segment.source.ip()) && !operator.is_uplink(&segment.link) {
            let (source, destination) = (segment.source, segment.destination);
            match self.passed.remove(&key) {
                Some(_) => self.left.push_back((at, destination)),
                None => self.waiting.insert(key, Waiting { at, source, destination }),
            }
        } else if segment.goes_out() && segment.flags.ack && (segment.flags.syn || segment.flags.rst) {
            // The node itself answered: the SYN reached its destination.
            self.waiting.retain(|(sequence, _), syn| {
                segment.acknowledgment != sequence.wrapping_add(1) || syn.source != segment.destination
            });
        }
    }

    fn stats(&mut self, at: Time, stats: ConntrackStats) {
        let Some(before) = self.stats.replace(stats) else { return };
        let grown = stats.since(&before);
        if grown.insert_failed > 0 {
            self.failed.push_back((at, grown.insert_failed));
        }
        if grown.drop > 0 {
            self.dropped = Some(at);
        }
    }

    /// Growth of `insert_failed` while SYNs were lost; of later SYNs it is not known yet whether they are.
    fn failed_meanwhile(&self) -> u64 {
        let (Some((first, _)), Some((last, _))) = (self.lost.front(), self.lost.back()) else { return 0 };
        let meanwhile = *first..*last + COUNTED;
        self.failed.iter().filter(|(at, _)| meanwhile.contains(at)).map(|(_, by)| by).sum()
    }

    /// The SYNs to a destination that found no port, by when they came in; `None` if another explanation is as good.
    fn lost_to(&self, to: SocketAddr) -> Option<Vec<Time>> {
        let of = |list: &VecDeque<(Time, SocketAddr)>| -> Vec<Time> {
            list.iter().filter(|(_, destination)| *destination == to).map(|(at, _)| *at).collect()
        };
        let (lost, mut left) = (of(&self.lost), of(&self.left));
        let was_counted = |at: &&Time| self.failed.iter().any(|(then, _)| then >= *at && then.since(**at) < COUNTED);
        let counted = lost.iter().filter(was_counted).count();
        let (failed, all) = (self.failed_meanwhile(), self.lost.len() as u64);
        // About one failed insertion for each lost SYN, and at its time.
        if lost.len() < LOST_SYNS || counted * 4 < lost.len() * 3 || failed * 4 < all * 3 || failed > 2 * all + 2 {
            return None;
        }
        let is_much = lost.len() >= MANY && lost.len() * 4 >= left.len();
        // Each winner explains one loser.
        let races = lost.iter().filter(|at| {
            let winner = left.iter().position(|left| left.since(**at).max(at.since(*left)) < RACE);
            winner.map(|winner| left.swap_remove(winner)).is_some()
        });
        let races = races.count();
        (is_much || lost.len() - races >= LOST_SYNS).then_some(lost)
    }
}

impl Detector for SnatExhaustion {
    fn observe(&mut self, cx: &mut Context<'_>, signal: &Signal) {
        match &signal.observed {
            Observed::Segment(segment) => self.segment(signal.at, cx.operator, segment),
            Observed::ConntrackStats(stats) => self.stats(signal.at, *stats),
            _ => {}
        }
    }

    fn tick(&mut self, cx: &mut Context<'_>) {
        let now = cx.now;
        if self.waiting.values().any(|syn| now.since(syn.at) >= TRANSIT) {
            let late = self.waiting.extract_if(.., |_, syn| now.since(syn.at) >= TRANSIT);
            let mut late: Vec<_> = late.map(|(_, syn)| (syn.at, syn.destination)).collect();
            late.sort_by_key(|(at, _)| *at);
            self.lost.extend(late);
        }
        self.passed.retain(|_, at| now.since(*at) < TRANSIT);
        for list in [&mut self.lost, &mut self.left] {
            while list.front().is_some_and(|(at, _)| now.since(*at) >= TOGETHER) || list.len() > CAP {
                list.pop_front();
            }
        }
        while self.failed.front().is_some_and(|(at, _)| now.since(*at) >= TOGETHER + COUNTED) {
            self.failed.pop_front();
        }
        self.dropped = self.dropped.filter(|at| now.since(*at) < TOGETHER);
        if self.lost.is_empty() {
            return cx.claims.withdraw(format!("no SYN of a pod was lost on {} for {} s", cx.node, TOGETHER.as_secs()));
        }
        let destinations: BTreeSet<SocketAddr> = self.lost.iter().map(|(_, to)| *to).collect();
        let accused = destinations.into_iter().filter_map(|to| self.lost_to(to).map(|lost| (lost.len(), lost[0], to)));
        if let (Some((count, since, to)), None) = (accused.max(), self.dropped) {
            let failed = self.failed_meanwhile();
            cx.claims.make(Severity::Warning, since, || {
                format!(
                    "{count} SYNs of pods to {to} entered {} and never left; insert_failed grew by {failed}",
                    cx.node
                )
            });
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::testing::{Scene, play, scene};

    const NAME: &str = INFO.name;
    const SERVER: &str = "10.200.0.5:443";

    /// The nth pod's address, and the sequence number of its SYN.
    fn pod(number: u64) -> (String, u64) {
        (format!("10.176.98.{}:{}", 30 + number % 4, 40_000 + number), number * 1_000)
    }

    /// Connects of four pods; from 1 s on, no port is left.
    pub(crate) fn incident() -> Scene {
        let mut scene = scene!(NAME, "");
        for step in 0..60 {
            let ((pod, sequence), at, failed) = (pod(step), step * 100, step.clamp(9, 29) - 9);
            play!(scene, "{at} stats drop={failed} insert_failed={failed}");
            play!(scene, "{} in veth-a {pod} {SERVER} S {sequence} 0 5", at + 10);
            if !(10..30).contains(&step) {
                play!(scene, "{} syn eth1 10.176.64.11:{} {SERVER} {sequence} 5", at + 10, 46_000 + step);
            }
        }
        scene
    }

    #[test]
    fn incident_syns_die_while_insertions_fail() {
        let evidence = "evidence 3 SYNs of pods to 10.200.0.5:443";
        play!(incident(), "? warning 1500..1600 node/worker-1 ? {evidence} ? over");
    }

    #[test]
    fn twin_two_syns_draw_the_same_port_now_and_then() {
        let mut scene = scene!(NAME, "");
        for step in 0..60 {
            let ((pod, sequence), at, failed) = (pod(step), step * 100, step / 6);
            play!(scene, "{at} in veth-a {pod} {SERVER} S {sequence} 0 5");
            play!(scene, "{} syn eth1 10.176.64.11:{} {SERVER} {sequence} 5", at + 1, 46_000 + step);
            if step % 6 == 0 {
                play!(scene, "{} in veth-b 10.176.98.40:{} {SERVER} S {} 0 5", at + 1, 50_000 + step, sequence + 7);
            }
            play!(scene, "{} stats drop={failed} insert_failed={failed}", at + 24);
        }
        play!(scene, "8000 ? silence");
    }

    #[test]
    fn twin_a_policy_drops_syns_while_dns_questions_race() {
        let mut scene = scene!(NAME, "");
        for step in 0..60 {
            let ((pod, sequence), at) = (pod(step), step * 100);
            play!(scene, "{at} in veth-a {pod} {SERVER} S {sequence} 0 5");
            if step % 7 == 0 {
                play!(scene, "{} stats drop={step} insert_failed={step}", at + 50);
            }
        }
        play!(scene, "8000 ? silence");
    }

    #[test]
    fn twin_races_of_dns_questions_let_insert_failed_grow() {
        let mut scene = scene!(NAME, "");
        for step in 0..30 {
            let ((pod, sequence), at, failed) = (pod(step), step * 100, step * 2);
            play!(scene, "{at} stats drop={failed} insert_failed={failed}");
            // Translated by a Service on the way: another destination, the same sequence number.
            play!(scene, "{} in veth-a {pod} 192.168.0.20:80 S {sequence} 0 5", at + 1);
            play!(scene, "{} syn veth-b {pod} 10.176.98.9:8080 {sequence} 5", at + 1);
        }
        play!(scene, "5000 ? silence");
    }

    #[test]
    fn dead_syns_without_failed_insertions_are_another_matter() {
        let mut scene = scene!(NAME, "");
        for step in 0..30 {
            let ((pod, sequence), at) = (pod(step), step * 100);
            play!(scene, "{at} stats drop=7 insert_failed=7; {} in veth-a {pod} {SERVER} S {sequence} 0 5", at + 1);
        }
        play!(scene, "? silence");
    }

    #[test]
    fn one_dead_syn_is_not_enough_and_answers_of_the_node_are_answers() {
        let kubelet = "10.176.64.11:10250";
        let mut scene = scene!(NAME, "0 stats drop=0; 100 in veth-a {} {SERVER} S 100 0 5", pod(1).0);
        for step in 2..8 {
            let ((pod, sequence), at, flags) = (pod(step), step * 100, if step % 2 == 0 { "SA" } else { "RA" });
            play!(scene, "{at} in veth-a {pod} {kubelet} S {sequence} 0 5");
            play!(scene, "{} out veth-a {kubelet} {pod} {flags} 1 {} 5", at + 1, sequence + 1);
            play!(scene, "{} stats drop={step} insert_failed={step}", at + 2);
        }
        play!(scene, "2000 ? silence");
    }

    #[test]
    fn sights_of_one_syn_may_be_told_in_either_order() {
        let mut scene = scene!(NAME, "");
        for step in 0..10 {
            let ((pod, sequence), at) = (pod(step), step * 100);
            play!(scene, "{at} syn eth1 10.176.64.11:46000 {SERVER} {sequence} 5");
            play!(scene, "{} in veth-a {pod} {SERVER} S {sequence} 0 5", at + 20);
            play!(scene, "{} stats drop={step} insert_failed={step}", at + 30);
        }
        play!(scene, "3000 ? silence");
    }

    #[test]
    fn a_full_table_is_conntrack_exhaustion() {
        let mut scene = scene!(NAME, "");
        for step in 0..20 {
            let ((pod, sequence), at) = (pod(step), step * 100);
            play!(scene, "{at} stats drop={} insert_failed={step}", step * 3);
            play!(scene, "{at} in veth-a {pod} {SERVER} S {sequence} 0 5");
        }
        play!(scene, "? nothing");
    }
}
