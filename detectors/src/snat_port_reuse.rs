//! `snat-port-reuse`: source NAT gave a port back while the server still holds it in `TIME_WAIT`.
//!
//! What it sees: a translated tuple (address, port, destination, port) that belonged to another source
//! within the server's `TIME_WAIT`. `info` for that alone, which is legal; `warning` when the new SYN lies
//! behind the earlier connection (timestamp, else sequence number) and is not answered at once.
//! Why it matters: the server answers with an ACK of the old connection, or not at all, and one connect in
//! a great many times out, for months, without a pattern.
//! Which incident: I7.
//!
//! Left out: reuse that succeeds, and servers that never accepted the earlier connection.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::claims::Claims;
use crate::detector::{Detector, DetectorInfo, Scope};
use crate::finding::{Finding, Level, Severity, Subject};
use crate::operator::Operator;
use crate::signal::{Change, CollectorKind, Flow, Observed, Protocol, Signal};
use crate::time::Time;
use crate::tuples::{TupleKey, Tuples};

pub const INFO: DetectorInfo = DetectorInfo {
    name: "snat-port-reuse",
    incident: "I7",
    level: Level::Cause,
    what: "Source NAT reused a port towards a server that still holds it in TIME_WAIT.",
    wants: &[CollectorKind::ConntrackEvents, CollectorKind::Packets, CollectorKind::Inventory],
    needs: &[&[CollectorKind::ConntrackEvents]],
    scope: Scope::Node,
    arm: |operator| {
        Box::new(SnatPortReuse { operator: operator.clone(), nodes: BTreeMap::new(), pods: BTreeMap::new() })
    },
};

/// How long the answer to a SYN may take before it counts as missing.
const ANSWER: Duration = Duration::from_millis(200);
/// The same where the server said something else first: a kernel recovers by itself in 10 ms, or with the
/// next SYN a second later, when source NAT draws such a port twice in a row.
const RECOVERY: Duration = Duration::from_millis(1_200);
/// The same where nothing came back from a server whose round trips are known, at least this long.
const NOTHING: Duration = Duration::from_millis(50);
/// How many such round trips.
const ROUND_TRIPS: u32 = 4;
/// Segments are judged this often between ticks.
const JUDGE: Duration = Duration::from_millis(5);
/// The conntrack event and the SYN on the wire belong together within this time.
const TOGETHER: Duration = Duration::from_millis(800);
/// Without another reuse for this long, it is over.
const QUIET: Duration = Duration::from_secs(2);
const CAP: usize = 65_536;

struct SnatPortReuse {
    operator: Operator,
    nodes: BTreeMap<Arc<str>, Node>,
    /// Names of pods, for the evidence.
    pods: BTreeMap<IpAddr, String>,
}

struct Node {
    claims: Claims,
    uses: BTreeMap<TupleKey, Use>,
    tuples: Tuples,
    /// Reuses not yet judged to their end.
    reuses: BTreeMap<TupleKey, Reuse>,
    last_reuse: Time,
    last_warning: Option<Time>,
    judged: Time,
    pruned: Time,
}

/// Who used a translated tuple, and until when.
#[derive(Debug, Clone)]
struct Use {
    source: SocketAddr,
    last: Time,
    /// Something was heard of it between its beginning and its end.
    heard: bool,
    replied: bool,
    /// The last use before it that the server accepted.
    earlier: Option<(SocketAddr, Time)>,
}

struct Reuse {
    at: Time,
    source: SocketAddr,
    earlier: SocketAddr,
    ago: Duration,
    replied: bool,
}

impl Node {
    /// Whether the SYN of this tuple has waited for its answer longer than it ever takes.
    fn is_unanswered(&self, key: &TupleKey, now: Time) -> bool {
        let Some(connect) = self.tuples.connect_of(key) else { return false };
        let patience = match self.tuples.round_trip(&key.1) {
            _ if connect.challenged => RECOVERY,
            Some(usual) => (usual * ROUND_TRIPS).clamp(NOTHING, ANSWER.max(usual * 2)),
            None => ANSWER,
        };
        !connect.answered && self.tuples.would_have_heard(connect.first + patience, now)
    }

    fn flow(&mut self, at: Time, time_wait: Duration, flow: &Flow) {
        let key = (flow.reply.destination, flow.reply.source);
        let wire = self.tuples.get(&key);
        if flow.change == Change::Removed {
            if let Some(known) = self.uses.get_mut(&key).filter(|known| known.source == flow.original.source) {
                known.replied |= flow.replied;
                // The entry outlives the connection by its timeout; only where nothing else was heard
                // is its end the last word.
                if !known.heard {
                    known.last = known.last.max(at);
                }
            }
            return;
        }
        let source = flow.original.source;
        let same = self.uses.get_mut(&key).filter(|known| known.source == source);
        if let Some(known) = same.filter(|_| flow.change != Change::Added) {
            known.heard = true;
            known.last = known.last.max(at);
            known.replied |= flow.replied;
            return;
        }
        if self.uses.len() >= CAP && !self.uses.contains_key(&key) {
            return;
        }
        let earlier = self.uses.get(&key).and_then(|known| {
            // What the wire shows of the connection before this one is nearer to the truth.
            let on_wire = wire.and_then(|tuple| match &tuple.held {
                Some(held) if tuple.present.first + TOGETHER > at => Some(held.last),
                _ => (tuple.present.answered).then_some(tuple.present.last.min(at)),
            });
            let answered = known.replied || on_wire.is_some();
            if answered { Some((known.source, on_wire.unwrap_or(known.last).max(known.last))) } else { known.earlier }
        });
        let previous = self.uses.get(&key).map(|known| (known.source, known.last));
        for ((before, last), replied) in earlier.map(|e| (e, true)).into_iter().chain(previous.map(|p| (p, false))) {
            let ago = at.since(last);
            if before.ip() != source.ip() && ago <= time_wait {
                self.last_reuse = self.last_reuse.max(at);
                self.reuses.insert(key, Reuse { at, source, earlier: before, ago, replied });
                break;
            }
        }
        let heard = false;
        self.uses.insert(key, Use { source, last: at, heard, replied: flow.replied, earlier });
    }

    fn judge(&mut self, now: Time, name: &str, pods: &BTreeMap<IpAddr, String>, out: &mut Vec<Finding>) {
        self.judged = now;
        let subject = Subject::node(name);
        let who = |source: SocketAddr| match pods.get(&source.ip()) {
            Some(pod) => format!("pod {pod} ({source})"),
            None => source.to_string(),
        };
        let mut worst = None;
        for (key, reuse) in &self.reuses {
            let tuple = self.tuples.get(key).filter(|tuple| {
                let first = tuple.present.first;
                first.since(reuse.at) < TOGETHER && reuse.at.since(first) < TOGETHER
            });
            let behind = tuple.filter(|_| reuse.replied && self.is_unanswered(key, now));
            let behind = behind.and_then(crate::tuples::Tuple::behind);
            let milder = |(_, _, other): &(TupleKey, &Reuse, Option<String>)| other.is_none() && behind.is_some();
            if worst.as_ref().is_none_or(milder) {
                worst = Some((*key, reuse, behind));
            }
        }
        if let Some(((source, destination), reuse, behind)) = worst {
            let severity = if behind.is_some() { Severity::Warning } else { Severity::Info };
            if behind.is_some() {
                self.last_warning = self.last_warning.max(Some(reuse.at));
            }
            self.claims.make(out, &subject, severity, reuse.at, || {
                let note = behind.map(|why| format!("; {why}, and it is not answered")).unwrap_or_default();
                format!(
                    "{source} -> {destination} of {name} was reused by {}, {:.1} s after {}{note}",
                    who(reuse.source),
                    reuse.ago.as_secs_f64(),
                    who(reuse.earlier),
                )
            });
        }
        self.reuses.retain(|_, reuse| now.since(reuse.at) < QUIET);
        let standing = self.claims.standing(&subject);
        let last = if standing > Some(Severity::Info) { self.last_warning } else { Some(self.last_reuse) };
        if standing.is_some() && last.is_none_or(|last| now.since(last) >= QUIET + ANSWER) {
            let evidence = format!("no such reuse for {} s", QUIET.as_secs());
            self.claims.withdraw(out, &subject, evidence);
        }
    }

    fn prune(&mut self, now: Time, time_wait: Duration) {
        if now.since(self.pruned) >= Duration::from_secs(1) {
            self.pruned = now;
            // A connection may be long; only the end of one that is known to have ended is forgotten soon.
            self.uses.retain(|_, known| now.since(known.last) < time_wait * 10);
        }
    }
}

impl Detector for SnatPortReuse {
    fn info(&self) -> &'static DetectorInfo {
        &INFO
    }

    fn observe(&mut self, now: Time, signal: &Signal, out: &mut Vec<Finding>) {
        let node = self.nodes.entry(Arc::clone(&signal.node)).or_insert_with(|| Node {
            claims: Claims::new(&INFO),
            uses: BTreeMap::new(),
            tuples: Tuples::default(),
            reuses: BTreeMap::new(),
            last_reuse: Time::default(),
            last_warning: None,
            judged: Time::default(),
            pruned: Time::default(),
        });
        let known = node.reuses.len();
        match &signal.observed {
            Observed::Flow(flow)
                if flow.protocol == Protocol::Tcp && flow.reply.destination != flow.original.source =>
            {
                node.flow(signal.at, self.operator.time_wait, flow);
            }
            Observed::Segment(segment) => {
                node.tuples.observe(signal.at, &self.operator, segment);
            }
            Observed::Pod(pod) if pod.change != Change::Removed && self.pods.len() < CAP => {
                self.pods.insert(pod.address, pod.name.clone());
            }
            _ => {}
        }
        let due = !node.reuses.is_empty() && now.since(node.judged) >= JUDGE;
        if node.reuses.len() > known || due {
            node.judge(now, &signal.node, &self.pods, out);
        }
    }

    fn tick(&mut self, now: Time, out: &mut Vec<Finding>) {
        for (name, node) in &mut self.nodes {
            node.judge(now, name, &self.pods, out);
            node.prune(now, self.operator.time_wait);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::signal::Direction;
    use crate::testing::{Scene, flow, pod, segment, syn_ack_in, syn_in, syn_out};

    const NAME: &str = "snat-port-reuse";
    const NODE: &str = "worker-1";
    const SERVER: &str = "10.200.0.5:443";
    const PORT: &str = "10.176.64.11:46994";
    const FIRST: &str = "10.176.98.30:51000";
    const SECOND: &str = "10.176.98.31:52000";

    /// A connection by this translated port that is opened, answered, and closed 10 ms later.
    pub(crate) fn succeeds(scene: &mut Scene, at: u64, original: &str, port: &str, sequence: u32, timestamp: u32) {
        scene.at(at, NODE, flow(Change::Added, original, port, SERVER, false));
        scene.at(at, NODE, syn_in("veth-a", original, SERVER, sequence, timestamp));
        scene.at(at, NODE, syn_out("eth1", port, SERVER, sequence, timestamp));
        scene.at(at + 1, NODE, syn_ack_in("eth1", SERVER, port, sequence));
        scene.at(at + 1, NODE, flow(Change::Changed, original, port, SERVER, true));
        let end = [sequence.wrapping_add(101), 77_500];
        let fin = segment("eth1", Direction::Out, [port, SERVER], "FA", end, timestamp + 10);
        scene.at(at + 10, NODE, Observed::Segment(fin));
        scene.at(at + 1_010, NODE, flow(Change::Removed, original, port, SERVER, true));
    }

    /// One that is sent twice and not answered.
    pub(crate) fn stalls(scene: &mut Scene, at: u64, original: &str, sequence: u32, timestamp: u32) {
        scene.at(at, NODE, flow(Change::Added, original, PORT, SERVER, false));
        for (after, later) in [(0, 0), (1_030, 1_030)] {
            // Others are served meanwhile.
            if after > 0 {
                scene.at(at + 500, NODE, syn_out("eth1", "10.176.64.11:46990", SERVER, 4, 99));
                scene.at(at + 501, NODE, syn_ack_in("eth1", SERVER, "10.176.64.11:46990", 4));
            }
            scene.at(at + after, NODE, syn_in("veth-b", original, SERVER, sequence, timestamp + later));
            scene.at(at + after, NODE, syn_out("eth1", PORT, SERVER, sequence, timestamp + later));
        }
    }

    /// The port of one pod's connection comes back to another within `TIME_WAIT`, behind it.
    pub(crate) fn incident() -> Scene {
        let mut scene = Scene::new();
        scene.at(0, NODE, pod(Change::Present, "control-1", "10.176.98.30"));
        scene.at(0, NODE, pod(Change::Present, "control-2", "10.176.98.31"));
        succeeds(&mut scene, 100, FIRST, PORT, 9_000, 50_000);
        stalls(&mut scene, 1_500, SECOND, 8_000, 20_000);
        scene.at(6_000, NODE, syn_out("eth1", "10.176.64.11:46990", SERVER, 5, 99));
        scene
    }

    #[test]
    fn incident_info_with_the_reuse_warning_when_it_is_not_answered_at_once() {
        let scene = incident();
        let (at, subject) = scene.first(NAME, Severity::Info).unwrap();
        assert!((1_500..=1_550).contains(&at) && subject == "node/worker-1");
        let (at, _) = scene.first(NAME, Severity::Warning).unwrap();
        assert!((1_700..=1_750).contains(&at), "{at}");
        let evidence = scene.evidence(NAME);
        assert!(
            evidence.contains("reused by pod control-2 (10.176.98.31:52000), 1.4 s after pod control-1"),
            "{evidence}"
        );
        assert!(evidence.contains("timestamp 20000 lies behind the 50010"), "{evidence}");
        let (at, subject) = scene.first("connect-stall", Severity::Warning).unwrap();
        assert!((2_530..=2_600).contains(&at) && subject == "node/worker-1", "{at}");
        assert!(scene.cleared(NAME) && scene.cleared("connect-stall"));
        assert_eq!(scene.findings.len(), 5, "three claims, two withdrawals");
    }

    #[test]
    fn twin_reuse_that_succeeds() {
        let mut scene = Scene::new();
        for step in 0..10 {
            let (original, sequence) = if step % 2 == 0 { (FIRST, 10_000) } else { (SECOND, 20_000) };
            let advance = u32::try_from(step).unwrap() * 20_000;
            succeeds(&mut scene, 100 + step * 1_200, original, PORT, sequence + advance, 50_000 + advance);
        }
        scene.until(20_000);
        assert_eq!(scene.worst(NAME), Some(Severity::Info));
        scene.assert_quiet();
        assert!(scene.cleared(NAME));
    }

    #[test]
    fn twin_reuse_behind_that_the_client_recovers_within_ten_milliseconds() {
        let mut scene = Scene::new();
        succeeds(&mut scene, 100, FIRST, PORT, 9_000, 50_000);
        let at = 1_500;
        scene.at(at, NODE, flow(Change::Added, SECOND, PORT, SERVER, false));
        scene.at(at, NODE, syn_out("eth1", PORT, SERVER, 8_000, 20_000));
        let ack = segment("eth1", Direction::In, [SERVER, PORT], "A", [78_000, 9_102], 7);
        scene.at(at + 1, NODE, Observed::Segment(ack));
        let reset = segment("eth1", Direction::Out, [PORT, SERVER], "R", [9_102, 0], 0);
        scene.at(at + 1, NODE, Observed::Segment(reset));
        scene.at(at + 11, NODE, syn_out("eth1", PORT, SERVER, 8_000, 20_010));
        scene.at(at + 12, NODE, syn_ack_in("eth1", SERVER, PORT, 8_000));
        scene.until(6_000);
        scene.assert_quiet();
    }

    #[test]
    fn twin_a_client_that_draws_two_such_ports_and_recovers_by_a_third() {
        let ports = [PORT, "10.176.64.11:46995", "10.176.64.11:46996"];
        let mut scene = Scene::new();
        for (at, port) in [(100, ports[0]), (130, ports[1])] {
            succeeds(&mut scene, at, FIRST, port, 9_000, 50_000);
        }
        // Each reset ends the node's entry, and source NAT draws another port.
        for (at, port) in [(1_500, ports[0]), (1_511, ports[1])] {
            scene.at(at, NODE, flow(Change::Added, SECOND, port, SERVER, false));
            scene.at(at, NODE, syn_out("eth1", port, SERVER, 8_000, 20_000));
            let ack = segment("eth1", Direction::In, [SERVER, port], "A", [78_000, 9_102], 7);
            scene.at(at, NODE, Observed::Segment(ack));
        }
        // After the second one the kernel waits its usual second.
        scene.at(2_530, NODE, flow(Change::Added, SECOND, ports[2], SERVER, false));
        scene.at(2_530, NODE, syn_out("eth1", ports[2], SERVER, 8_000, 21_030));
        scene.at(2_531, NODE, syn_ack_in("eth1", SERVER, ports[2], 8_000));
        scene.until(8_000);
        scene.assert_quiet();
    }

    #[test]
    fn where_nothing_comes_back_a_few_round_trips_are_enough() {
        let mut scene = Scene::new();
        succeeds(&mut scene, 100, FIRST, PORT, 9_000, 50_000);
        scene.at(1_500, NODE, flow(Change::Added, SECOND, PORT, SERVER, false));
        for step in 0..10 {
            scene.at(1_500 + step * 10, NODE, syn_out("eth1", "10.176.64.11:46990", SERVER, 4, 99));
            if step == 0 {
                scene.at(1_500, NODE, syn_out("eth1", PORT, SERVER, 8_000, 20_000));
            }
        }
        let (at, _) = scene.first(NAME, Severity::Warning).unwrap();
        assert!((1_550..=1_560).contains(&at), "{at}");
    }

    #[test]
    fn without_timestamps_the_sequence_number_decides() {
        for (sequence, expected) in [(9_102, Severity::Info), (9_101, Severity::Warning), (100, Severity::Warning)] {
            let bare = |observed| match observed {
                Observed::Segment(segment) => Observed::Segment(crate::signal::Segment { timestamp: None, ..segment }),
                other => other,
            };
            let mut scene = Scene::new();
            scene.at(0, NODE, flow(Change::Added, FIRST, PORT, SERVER, false));
            scene.at(0, NODE, bare(syn_out("eth1", PORT, SERVER, 9_000, 0)));
            scene.at(1, NODE, bare(syn_ack_in("eth1", SERVER, PORT, 9_000)));
            let fin = segment("eth1", Direction::Out, [PORT, SERVER], "FA", [9_101, 5], 0);
            scene.at(10, NODE, bare(Observed::Segment(fin)));
            scene.at(1_500, NODE, bare(syn_out("eth1", PORT, SERVER, sequence, 0)));
            // The conntrack event is told after the segment.
            scene.late(1_499, NODE, flow(Change::Added, SECOND, PORT, SERVER, false));
            scene.until(2_000);
            assert_eq!(scene.worst(NAME), Some(expected), "{sequence}");
        }
    }

    #[test]
    fn beyond_time_wait_and_by_the_same_source_it_is_no_reuse() {
        let mut scene = Scene::new();
        succeeds(&mut scene, 0, FIRST, PORT, 9_000, 50_000);
        succeeds(&mut scene, 2_000, "10.176.98.30:51001", PORT, 9_500, 60_000);
        scene.at(62_100, NODE, flow(Change::Added, SECOND, PORT, SERVER, false));
        scene.at(62_100, NODE, syn_out("eth1", PORT, SERVER, 1, 1));
        scene.until(64_000);
        assert_eq!(scene.findings, []);
    }

    #[test]
    fn a_third_pod_is_compared_with_the_connection_the_server_remembers() {
        let mut scene = Scene::new();
        succeeds(&mut scene, 0, FIRST, PORT, 9_000, 50_000);
        scene.at(1_200, NODE, flow(Change::Added, SECOND, PORT, SERVER, false));
        scene.at(1_200, NODE, syn_out("eth1", PORT, SERVER, 8_000, 60_000));
        scene.at(2_300, NODE, flow(Change::Removed, SECOND, PORT, SERVER, false));
        scene.until(5_000);
        scene.assert_quiet();
        scene.at(5_000, NODE, flow(Change::Added, "10.176.98.32:1", PORT, SERVER, false));
        scene.at(5_000, NODE, syn_out("eth1", PORT, SERVER, 8_000_000, 55_000));
        scene.until(6_000);
        scene.assert_quiet();
        scene.at(7_000, NODE, flow(Change::Added, "10.176.98.33:1", PORT, SERVER, false));
        scene.at(7_000, NODE, syn_out("eth1", PORT, SERVER, 9_000_000, 49_000));
        scene.until(8_000);
        assert_eq!(scene.worst(NAME), Some(Severity::Warning));
    }

    #[test]
    fn untranslated_flows_and_other_protocols_are_no_matter() {
        let mut scene = Scene::new();
        for (at, original) in [(0, FIRST), (100, SECOND)] {
            let Observed::Flow(plain) = flow(Change::Added, original, original, SERVER, true) else { unreachable!() };
            scene.at(at, NODE, Observed::Flow(plain));
            let Observed::Flow(udp) = flow(Change::Added, original, PORT, SERVER, true) else { unreachable!() };
            scene.at(at, NODE, Observed::Flow(Flow { protocol: Protocol::Udp, ..udp }));
        }
        scene.until(1_000);
        assert_eq!(scene.findings, []);
    }
}
