//! `snat-port-reuse`: source NAT reused a port while the server still holds it in `TIME_WAIT`.
//!
//! What it sees: a translated tuple (address, port, destination, port) that belonged to another source within the
//! server's `TIME_WAIT`. `info` for that alone, which is legal; `warning` if the new SYN is older than the earlier
//! connection (by timestamp, otherwise by sequence number) and is not answered immediately.
//! Why it matters: the server answers with an ACK of the old connection, or not at all, and a few connects among very
//! many time out, for months, without a pattern.
//! Which incident: I7.
//!
//! Left out: reuse that succeeds, and servers that never accepted the earlier connection.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::capped::Capped;
use crate::detector::{Context, Detector, DetectorInfo, Scope, State, new};
use crate::finding::{Level, Severity, SubjectKind};
use crate::signal::{Change, CollectorKind, Flow, Observed, Protocol, Signal};
use crate::time::Time;
use crate::tuples::{Tuple, TupleKey, Tuples};

pub const INFO: DetectorInfo = DetectorInfo {
    name: "snat-port-reuse",
    incident: "I7",
    level: Level::Cause,
    subjects: &[SubjectKind::Node],
    what: "Source NAT reused a port towards a server that still holds it in TIME_WAIT.",
    facts: "It finds the same with none and with stale facts.",
    wants: &[CollectorKind::ConntrackEvents, CollectorKind::Packets, CollectorKind::Inventory],
    needs: &[&[CollectorKind::ConntrackEvents]],
    scope: Scope::Node,
    state: State::EachNode(new::<SnatPortReuse>),
};

/// How long the answer to a SYN may take before it counts as missing.
const ANSWER: Duration = Duration::from_millis(200);
/// The same if the server sent something other than a SYN-ACK first: the client's kernel recovers in 10 ms, or with the
/// next SYN a second later if source NAT picks such a port twice in a row.
const RECOVERY: Duration = Duration::from_millis(1_200);
/// The minimum if nothing came back from a server whose round-trip time is known.
const NOTHING: Duration = Duration::from_millis(50);
/// The number of round trips in that case.
const ROUND_TRIPS: u32 = 4;
/// How often reuses are judged between ticks.
const JUDGE: Duration = Duration::from_millis(5);
/// A conntrack event and a SYN within this time belong together.
const TOGETHER: Duration = Duration::from_millis(800);
/// The finding is over without another reuse for this long.
const QUIET: Duration = Duration::from_secs(2);
const CAP: usize = 65_536;

#[derive(Default)]
struct SnatPortReuse {
    /// Names of the node's pods, for the evidence.
    pods: Capped<IpAddr, String, CAP>,
    uses: Capped<TupleKey, Use, CAP>,
    tuples: Tuples,
    /// Reuses still being judged.
    reuses: BTreeMap<TupleKey, Reuse>,
    last_reuse: Time,
    last_warning: Option<Time>,
    judged: Time,
}

/// The last use of a translated tuple.
#[derive(Debug, Clone)]
struct Use {
    source: SocketAddr,
    last: Time,
    /// An event was seen between its creation and its removal.
    updated: bool,
    replied: bool,
    /// The last earlier use that the server accepted.
    earlier: Option<(SocketAddr, Time)>,
}

struct Reuse {
    at: Time,
    source: SocketAddr,
    earlier: SocketAddr,
    ago: Duration,
    replied: bool,
}

impl SnatPortReuse {
    /// Whether the SYN of this tuple has been unanswered for longer than an answer takes.
    fn is_unanswered(&self, key: &TupleKey, now: Time) -> bool {
        let Some(connect) = self.tuples.connect_of(key) else { return false };
        let patience = match self.tuples.round_trip(&key.1) {
            _ if connect.challenged => RECOVERY,
            Some(usual) => (usual * ROUND_TRIPS).clamp(NOTHING, ANSWER.max(usual * 2)),
            None => ANSWER,
        };
        !connect.answered && self.tuples.delivered_up_to(connect.first + patience, now)
    }

    fn flow(&mut self, at: Time, time_wait: Duration, flow: &Flow) {
        let (key, source) = (flow.outside(), flow.original.source);
        let same = self.uses.get_mut(&key).filter(|known| known.source == source);
        match (flow.change, same) {
            (Change::Removed, Some(known)) => {
                known.replied |= flow.replied;
                // The entry outlives the connection by its timeout, so its removal counts only without other events.
                if !known.updated {
                    known.last = known.last.max(at);
                }
            }
            (Change::Present | Change::Changed, Some(known)) => {
                known.updated = true;
                known.last = known.last.max(at);
                known.replied |= flow.replied;
            }
            (Change::Removed, None) => {}
            _ => self.begins(at, time_wait, flow),
        }
    }

    fn begins(&mut self, at: Time, time_wait: Duration, flow: &Flow) {
        let (key, source) = (flow.outside(), flow.original.source);
        let known = self.uses.get(&key);
        let previous = known.map(|known| (known.source, known.last));
        let earlier = known.and_then(|known| {
            // Segments of the previous connection are more accurate than its conntrack events.
            let on_wire = self.tuples.get(&key).and_then(|tuple| match &tuple.held {
                Some(held) if tuple.present.first + TOGETHER > at => Some(held.last),
                _ => (tuple.present.answered).then_some(tuple.present.last.min(at)),
            });
            let answered = known.replied || on_wire.is_some();
            if answered { Some((known.source, on_wire.unwrap_or(known.last).max(known.last))) } else { known.earlier }
        });
        for ((before, last), replied) in earlier.map(|e| (e, true)).into_iter().chain(previous.map(|p| (p, false))) {
            let ago = at.since(last);
            if before.ip() != source.ip() && ago <= time_wait {
                self.last_reuse = self.last_reuse.max(at);
                self.reuses.insert(key, Reuse { at, source, earlier: before, ago, replied });
                break;
            }
        }
        self.uses.insert(key, Use { source, last: at, updated: false, replied: flow.replied, earlier });
    }

    fn judge(&mut self, cx: &mut Context<'_>) {
        let now = cx.now;
        self.judged = now;
        let mut worst = None;
        for (key, reuse) in &self.reuses {
            let tuple = self.tuples.get(key).filter(|tuple| {
                let first = tuple.present.first;
                first.since(reuse.at) < TOGETHER && reuse.at.since(first) < TOGETHER
            });
            let behind = tuple.filter(|_| reuse.replied && self.is_unanswered(key, now)).and_then(Tuple::behind);
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
            cx.claims.make(severity, reuse.at, || {
                let who = |source: SocketAddr| match self.pods.get(&source.ip()) {
                    Some(pod) => format!("pod {pod} ({source})"),
                    None => source.to_string(),
                };
                format!(
                    "{source} -> {destination} of {} was reused by {}, {:.1} s after {}{}",
                    cx.node,
                    who(reuse.source),
                    reuse.ago.as_secs_f64(),
                    who(reuse.earlier),
                    behind.map(|why| format!("; {why}, and it is unanswered")).unwrap_or_default()
                )
            });
        }
        self.reuses.retain(|_, reuse| now.since(reuse.at) < QUIET);
        let standing = cx.claims.standing();
        let last = if standing > Some(Severity::Info) { self.last_warning } else { Some(self.last_reuse) };
        if standing.is_some() && last.is_none_or(|last| now.since(last) >= QUIET + ANSWER) {
            cx.claims.withdraw(format!("no such reuse for {} s", QUIET.as_secs()));
        }
    }
}

impl Detector for SnatPortReuse {
    fn observe(&mut self, cx: &mut Context<'_>, signal: &Signal) {
        let known = self.reuses.len();
        match &signal.observed {
            Observed::Flow(flow) if flow.protocol == Protocol::Tcp && flow.is_translated() => {
                self.flow(signal.at, cx.operator.time_wait, flow);
            }
            Observed::Segment(segment) => {
                self.tuples.observe(signal.at, cx.operator, segment);
            }
            Observed::Pod(pod) if pod.change != Change::Removed => self.pods.insert(pod.address, pod.name.clone()),
            _ => {}
        }
        let due = !self.reuses.is_empty() && cx.now.since(self.judged) >= JUDGE;
        if self.reuses.len() > known || due {
            self.judge(cx);
        }
    }

    fn tick(&mut self, cx: &mut Context<'_>) {
        self.judge(cx);
    }

    fn forget(&mut self, cx: &Context<'_>) {
        self.tuples.forget(cx.now);
        // Connections may be long, so entries are kept for ten times `TIME_WAIT`.
        self.uses.retain(|_, known| cx.now.since(known.last) < cx.operator.time_wait * 10);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::signal::Segment;
    use crate::testing::{Scene, observed, play, scene};

    const NAME: &str = INFO.name;
    const NODE: &str = "worker-1";
    const SERVER: &str = "10.200.0.5:443";
    const PORT: &str = "10.176.64.11:46994";
    const OTHER: &str = "10.176.64.11:46990";
    const FIRST: &str = "10.176.98.30:51000";
    const SECOND: &str = "10.176.98.31:52000";

    /// A connection from this translated port that is opened, answered, and closed 10 ms later.
    pub(crate) fn succeeds(scene: &mut Scene, at: u64, original: &str, port: &str, sequence: u32, timestamp: u32) {
        play!(scene, "{at} flow +{original} {port} {SERVER}");
        play!(scene, "{at} in veth-a {original} {SERVER} S {sequence} 0 {timestamp}");
        play!(scene, "{at} syn eth1 {port} {SERVER} {sequence} {timestamp}");
        play!(scene, "{} syn-ack eth1 {SERVER} {port} {sequence}", at + 1);
        play!(scene, "{} flow *{original} {port} {SERVER} replied", at + 1);
        let end = sequence.wrapping_add(101);
        play!(scene, "{} out eth1 {port} {SERVER} FA {end} 77500 {}", at + 10, timestamp + 10);
        play!(scene, "{} flow -{original} {port} {SERVER} replied", at + 1_010);
    }

    /// A SYN that is older than the earlier connection.
    fn behind(scene: &mut Scene, at: u64, original: &str, port: &str) {
        play!(scene, "{at} flow +{original} {port} {SERVER}; {at} syn eth1 {port} {SERVER} 8000 20000");
    }

    /// One pod's port is reused by another within `TIME_WAIT` with an older SYN, which is sent twice and not answered,
    /// while others are served.
    pub(crate) fn incident() -> Scene {
        let mut scene = scene!(NAME, "0 pod control-1 10.176.98.30; 0 pod control-2 10.176.98.31");
        succeeds(&mut scene, 100, FIRST, PORT, 9_000, 50_000);
        play!(scene, "1500 flow +{SECOND} {PORT} {SERVER}; 1500 in veth-b {SECOND} {SERVER} S 8000 0 20000");
        play!(scene, "1500 syn eth1 {PORT} {SERVER} 8000 20000");
        play!(scene, "2000 syn eth1 {OTHER} {SERVER} 4 99; 2001 syn-ack eth1 {SERVER} {OTHER} 4");
        play!(scene, "2530 in veth-b {SECOND} {SERVER} S 8000 0 21030; 2530 syn eth1 {PORT} {SERVER} 8000 21030");
        play!(scene, "6000 syn eth1 {OTHER} {SERVER} 5 99");
        scene
    }

    #[test]
    fn incident_info_with_the_reuse_warning_when_it_is_not_answered_at_once() {
        let mut scene = incident();
        play!(scene, "? info 1500..1550 node/worker-1 ? warning 1700..1750 node/worker-1 ? over");
        play!(scene, "? evidence reused by pod control-2 (10.176.98.31:52000), 1.4 s after pod control-1");
        play!(scene, "? evidence timestamp 20000 is older than the 50010");
        play!(scene, "? connect-stall: warning 2530..2600 node/worker-1 ? connect-stall: over");
        assert_eq!(scene.findings.len(), 5, "three claims, two withdrawals");
    }

    #[test]
    fn twin_reuse_that_succeeds() {
        let mut scene = scene!(NAME, "");
        for step in 0..10 {
            let (original, sequence) = if step % 2 == 0 { (FIRST, 10_000) } else { (SECOND, 20_000) };
            let advance = step * 20_000;
            succeeds(&mut scene, 100 + u64::from(step) * 1_200, original, PORT, sequence + advance, 50_000 + advance);
        }
        play!(scene, "20000 ? info ? quiet ? over");
    }

    #[test]
    fn twin_reuse_behind_that_the_client_recovers_within_ten_milliseconds() {
        let mut scene = scene!(NAME, "");
        succeeds(&mut scene, 100, FIRST, PORT, 9_000, 50_000);
        behind(&mut scene, 1_500, SECOND, PORT);
        play!(scene, "1501 in eth1 {SERVER} {PORT} A 78000 9102 7; 1501 out eth1 {PORT} {SERVER} R 9102 0 0");
        play!(scene, "1511 syn eth1 {PORT} {SERVER} 8000 20010; 1512 syn-ack eth1 {SERVER} {PORT} 8000; 6000 ? quiet");
    }

    #[test]
    fn twin_a_client_that_draws_two_such_ports_and_recovers_by_a_third() {
        let [second, third] = ["10.176.64.11:46995", "10.176.64.11:46996"];
        let mut scene = scene!(NAME, "");
        succeeds(&mut scene, 100, FIRST, PORT, 9_000, 50_000);
        succeeds(&mut scene, 130, FIRST, second, 9_000, 50_000);
        // Each reset ends the node's entry, and source NAT picks another port.
        for (at, port) in [(1_500, PORT), (1_511, second)] {
            behind(&mut scene, at, SECOND, port);
            play!(scene, "{at} in eth1 {SERVER} {port} A 78000 9102 7");
        }
        // After the second one the kernel waits its usual second.
        play!(scene, "2530 flow +{SECOND} {third} {SERVER}; 2530 syn eth1 {third} {SERVER} 8000 21030");
        play!(scene, "2531 syn-ack eth1 {SERVER} {third} 8000; 8000 ? quiet");
    }

    #[test]
    fn where_nothing_comes_back_a_few_round_trips_are_enough() {
        let mut scene = scene!(NAME, "");
        succeeds(&mut scene, 100, FIRST, PORT, 9_000, 50_000);
        play!(scene, "1500 flow +{SECOND} {PORT} {SERVER}; 1500 syn eth1 {OTHER} {SERVER} 4 99");
        play!(scene, "1500 syn eth1 {PORT} {SERVER} 8000 20000");
        for step in 1..10 {
            play!(scene, "{} syn eth1 {OTHER} {SERVER} 4 99", 1_500 + step * 10);
        }
        play!(scene, "? warning 1550..1560 node/worker-1");
    }

    #[test]
    fn without_timestamps_the_sequence_number_decides() {
        for (sequence, expected) in [(9_102, "info"), (9_101, "warning"), (100, "warning")] {
            let mut scene = scene!(NAME, "0 flow +{FIRST} {PORT} {SERVER}");
            for (at, words) in [
                (0, format!("syn eth1 {PORT} {SERVER} 9000 0")),
                (1, format!("syn-ack eth1 {SERVER} {PORT} 9000")),
                (10, format!("out eth1 {PORT} {SERVER} FA 9101 5 0")),
                (1_500, format!("syn eth1 {PORT} {SERVER} {sequence} 0")),
            ] {
                let words: Vec<_> = words.split(' ').collect();
                let Observed::Segment(segment) = observed(&words) else { unreachable!() };
                scene.at(at, NODE, Segment { timestamp: None, ..segment }.into());
            }
            // The conntrack event is delivered after the segment.
            play!(scene, "~1499 flow +{SECOND} {PORT} {SERVER}; 2000 ? {expected}");
        }
    }

    #[test]
    fn beyond_time_wait_and_by_the_same_source_it_is_no_reuse() {
        let mut scene = scene!(NAME, "");
        succeeds(&mut scene, 0, FIRST, PORT, 9_000, 50_000);
        succeeds(&mut scene, 2_000, "10.176.98.30:51001", PORT, 9_500, 60_000);
        play!(scene, "62100 flow +{SECOND} {PORT} {SERVER}; 62100 syn eth1 {PORT} {SERVER} 1 1; 64000 ? silence");
    }

    #[test]
    fn a_third_pod_is_compared_with_the_connection_the_server_remembers() {
        let mut scene = scene!(NAME, "");
        succeeds(&mut scene, 0, FIRST, PORT, 9_000, 50_000);
        play!(scene, "1200 flow +{SECOND} {PORT} {SERVER}; 1200 syn eth1 {PORT} {SERVER} 8000 60000");
        play!(scene, "2300 flow -{SECOND} {PORT} {SERVER}; 5000 ? quiet");
        play!(scene, "5000 flow +10.176.98.32:1 {PORT} {SERVER}; 5000 syn eth1 {PORT} {SERVER} 8000000 55000");
        play!(scene, "6000 ? quiet");
        play!(scene, "7000 flow +10.176.98.33:1 {PORT} {SERVER}; 7000 syn eth1 {PORT} {SERVER} 9000000 49000");
        play!(scene, "8000 ? warning");
    }

    #[test]
    fn untranslated_flows_and_other_protocols_are_no_matter() {
        let mut scene = scene!(NAME, "");
        for (at, original) in [(0, FIRST), (100, SECOND)] {
            play!(scene, "{at} flow +{original} {original} {SERVER} replied");
            let added = format!("+{original}");
            let Observed::Flow(udp) = observed(&["flow", &added, PORT, SERVER, "replied"]) else { unreachable!() };
            scene.at(at, NODE, Flow { protocol: Protocol::Udp, ..udp }.into());
        }
        play!(scene, "1000 ? silence");
    }
}
