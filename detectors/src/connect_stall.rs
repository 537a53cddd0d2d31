//! `connect-stall`: a connect on a reused translated port gets no SYN-ACK.
//!
//! What it sees: a translated SYN retransmitted without a SYN-ACK, from the same port or another, on a tuple whose
//! earlier connection the server accepted within `TIME_WAIT`, while the server accepts other connections or answers
//! with something else. Also a client that gave up before a retransmission, if its SYN is older than that connection.
//! Why it matters: this is the sporadic connection timeout itself, detected at the first retransmission.
//! Which incident: I7.
//!
//! Left out: servers that accept no connections at all; they are down, and no reuse explains it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::capped::Capped;
use crate::detector::{Context, Detector, DetectorInfo, Scope, State, new};
use crate::finding::{Level, Severity, SubjectKind};
use crate::operator::Operator;
use crate::signal::{Change, CollectorKind, Flow, Observed, Protocol, Segment, Signal};
use crate::time::Time;
use crate::tuples::{Connect, ConnectKey, TupleKey, Tuples};

pub const INFO: DetectorInfo = DetectorInfo {
    name: "connect-stall",
    incident: "I7",
    level: Level::Symptom,
    subjects: &[SubjectKind::Node],
    what: "A connect on a reused translated port is not answered although the server accepts others.",
    facts: "It finds the same with none and with stale facts.",
    wants: &[CollectorKind::Packets, CollectorKind::ConntrackEvents, CollectorKind::Inventory],
    needs: &[&[CollectorKind::Packets]],
    scope: Scope::Node,
    state: State::EachNode(new::<ConnectStall>),
};

/// A repeated SYN sooner than this is not a retransmission timeout.
const RETRANSMISSION: Duration = Duration::from_millis(100);
/// An answer to others this soon after the SYN, or within one and a half round trips, may have been in flight before the
/// server stopped.
const UNDER_WAY: Duration = Duration::from_millis(100);
/// How long the answer to a retransmitted SYN may take, or two round trips, if the client could reset the server's old
/// connection.
const RECOVERY: Duration = Duration::from_millis(100);
/// A SYN without a retransmission by then was given up: the first one is due after a second.
const GIVEN_UP: Duration = Duration::from_millis(1_200);
/// How long a stalled connect is tracked and its finding stands.
const WATCH: Duration = Duration::from_secs(8);
const QUIET: Duration = Duration::from_secs(2);
const CAP: usize = 16_384;

#[derive(Default)]
struct ConnectStall {
    pods: Capped<IpAddr, (), CAP>,
    tuples: Tuples,
    /// Translated tuples according to conntrack; `None` while this node has no conntrack signals.
    translated: Option<Capped<TupleKey, Time, { CAP * 4 }>>,
    /// Tracked connects with a retransmitted SYN, and when each was last counted.
    stalled: Capped<ConnectKey, Option<Time>, CAP>,
    /// When each server last accepted a connection.
    accepted: Capped<SocketAddr, Time, CAP>,
    last: Time,
}

impl ConnectStall {
    fn flow(&mut self, at: Time, flow: &Flow) {
        let translated = self.translated.get_or_insert_default();
        if flow.protocol != Protocol::Tcp || flow.change == Change::Removed {
            return;
        }
        if flow.is_translated() {
            translated.insert(flow.outside(), at);
        } else {
            translated.remove(&flow.outside());
        }
    }

    fn segment(&mut self, at: Time, operator: &Operator, segment: &Segment) {
        if segment.accepts() && segment.comes_in() && operator.is_uplink(&segment.link) {
            self.accepted.record(segment.source, at);
        }
        if self.tuples.observe(at, operator, segment).is_none() || !segment.opens() {
            return;
        }
        let key = (segment.destination, segment.sequence);
        let Some(connect) = self.tuples.connect(&key) else { return };
        if (is_again(connect) || connect.behind) && !connect.answered {
            self.stalled.entry(key);
        }
    }
}

/// Whether its SYN was retransmitted after a timeout.
fn is_again(connect: &Connect) -> bool {
    connect.syns > 1 && connect.last_syn.since(connect.first) >= RETRANSMISSION
}

impl Detector for ConnectStall {
    fn observe(&mut self, cx: &mut Context<'_>, signal: &Signal) {
        match &signal.observed {
            Observed::Segment(segment) => self.segment(signal.at, cx.operator, segment),
            Observed::Flow(flow) => self.flow(signal.at, flow),
            Observed::Pod(pod) if pod.change != Change::Removed => self.pods.insert(pod.address, ()),
            _ => {}
        }
    }

    fn tick(&mut self, cx: &mut Context<'_>) {
        let (now, tuples) = (cx.now, &self.tuples);
        self.stalled.retain(|key, _| {
            let connect = tuples.connect(key);
            connect.is_some_and(|c| (!c.answered || is_again(c)) && now.since(c.first) < WATCH)
        });
        for (key, counted) in self.stalled.iter_mut() {
            let Some(connect) = tuples.connect(key) else { continue };
            let (source, destination) = connect.tuple;
            let held = connect.held.filter(|held| connect.first.since(held.last) <= cx.operator.time_wait);
            let Some(held) = held else { continue };
            let is_translated = match &self.translated {
                Some(known) => known.contains_key(&connect.tuple),
                None => !self.pods.contains_key(&source.ip()),
            };
            let round_trip = tuples.round_trip(&destination).unwrap_or_default();
            let (under_way, recovery) = (UNDER_WAY.max(round_trip * 3 / 2), RECOVERY.max(round_trip * 2));
            let serves = self.accepted.get(&destination).is_some_and(|at| *at > connect.first + under_way);
            // If it has been answered, perhaps on another port, only the connection held by the server explains
            // the wait; a client whose SYN was challenged has reset that connection and recovered.
            let explained = match (is_again(connect), connect.challenged) {
                (true, false) => !connect.answered || connect.behind,
                (true, true) => !connect.answered && tuples.delivered_up_to(connect.last_syn + recovery, now),
                // No retransmission: the client gave up before it.
                (false, _) => !connect.answered && tuples.delivered_up_to(connect.last_syn + GIVEN_UP, now),
            };
            let is_new = counted.is_none_or(|counted| connect.last_syn > counted);
            if !is_new || !is_translated || !explained || !(serves || connect.challenged) {
                continue;
            }
            *counted = Some(now);
            self.last = now;
            cx.claims.make(Severity::Warning, connect.first, || {
                let seconds = |since: Time, until: Time| format!("{:.1} s", until.since(since).as_secs_f64());
                let sent = match is_again(connect) {
                    true => format!("{} times in {}", connect.syns, seconds(connect.first, connect.last_syn)),
                    false => format!("and given up {} later", seconds(connect.first, now)),
                };
                format!(
                    "SYN {source} -> {destination} of {} was sent {sent} without a SYN-ACK; the tuple was in use \
                     until {} before, and the server {}",
                    cx.node,
                    seconds(held.last, connect.first),
                    if serves { "accepts others" } else { "answered with something other than a SYN-ACK" },
                )
            });
        }
        if cx.claims.standing().is_some() && now.since(self.last) >= QUIET {
            cx.claims.withdraw(format!("no such SYN for {} s", QUIET.as_secs()));
        }
    }

    fn forget(&mut self, cx: &Context<'_>) {
        self.tuples.forget(cx.now);
        self.accepted.retain(|_, at| cx.now.since(*at) < WATCH * 2);
        if let Some(translated) = &mut self.translated {
            translated.retain(|_, at| cx.now.since(*at) < cx.operator.time_wait * 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snat_port_reuse::tests::succeeds;
    use crate::testing::{Scene, play, scene};

    const NAME: &str = INFO.name;
    const SERVER: &str = "10.200.0.5:443";
    const PORT: &str = "10.176.64.11:46994";
    const FIRST: &str = "10.176.98.30:51000";
    const SECOND: &str = "10.176.98.31:52000";

    /// A pod's connection succeeds; at 1.5 s another pod sends an older SYN from the same translated port.
    fn reused() -> Scene {
        let mut scene = scene!(NAME, "");
        succeeds(&mut scene, 0, FIRST, PORT, 9_000, 50_000);
        play!(scene, "1500 flow +{SECOND} {PORT} {SERVER}; 1500 syn eth1 {PORT} {SERVER} 8000 20000");
        scene
    }

    fn stalls(scene: &mut Scene, at: u64) {
        play!(scene, "{at} flow +{SECOND} {PORT} {SERVER}");
        for later in [0, 1_030, 3_100] {
            play!(scene, "{} syn eth1 {PORT} {SERVER} 8000 20000", at + later);
        }
    }

    #[test]
    fn an_ack_of_the_old_connection_is_enough() {
        let mut scene = reused();
        // One SYN is not a stall.
        play!(scene, "1501 in eth1 {SERVER} {PORT} A 78000 9102 7; 2500 ? nothing");
        // The client may have reset it.
        play!(scene, "2530 syn eth1 {PORT} {SERVER} 8000 21030; 2600 ? nothing");
        play!(scene, "2800 ? warning ? evidence was sent 2 times in 1.0 s");
    }

    #[test]
    fn a_client_that_gives_up_within_a_second_sends_no_second_syn() {
        let mut scene = reused();
        play!(scene, "2600 ? nothing");
        succeeds(&mut scene, 2_710, FIRST, "10.176.64.11:46001", 19_000, 60_000);
        play!(scene, "? warning ? evidence given up");
    }

    #[test]
    fn the_second_syn_may_leave_by_another_port_and_be_answered() {
        let mut scene = reused();
        // The node drops its entry for the first SYN within a second.
        let other = "10.176.64.11:46990";
        play!(scene, "2530 flow +{SECOND} {other} {SERVER}; 2530 syn eth1 {other} {SERVER} 8000 21030");
        play!(scene, "2531 syn-ack eth1 {SERVER} {other} 8000; 2600 ? warning ? evidence {PORT}; 6000 ? over");
    }

    /// A pod's connection succeeds on a path of 150 ms; at 1.5 s another pod sends an older SYN from the same port.
    fn reused_far_away() -> Scene {
        let mut scene = scene!(NAME, "0 flow +{FIRST} {PORT} {SERVER}; 0 syn eth1 {PORT} {SERVER} 9000 50000");
        play!(scene, "150 syn-ack eth1 {SERVER} {PORT} 9000; 200 out eth1 {PORT} {SERVER} FA 9101 77500 50200");
        play!(scene, "1490 syn eth1 10.176.64.11:46990 {SERVER} 4 99");
        play!(scene, "1500 flow +{SECOND} {PORT} {SERVER}; 1500 syn eth1 {PORT} {SERVER} 8000 20000");
        scene
    }

    #[test]
    fn twin_far_away_the_second_syn_is_answered_after_a_round_trip() {
        let mut scene = reused_far_away();
        play!(scene, "1650 in eth1 {SERVER} {PORT} A 78000 9102 7; 2530 syn eth1 {PORT} {SERVER} 8000 21030");
        play!(scene, "2640 syn eth1 10.176.64.11:46991 {SERVER} 5 99; 2680 syn-ack eth1 {SERVER} {PORT} 8000");
        play!(scene, "9000 ? nothing");
    }

    #[test]
    fn twin_far_away_a_server_dies_while_its_answer_to_others_is_under_way() {
        let mut scene = reused_far_away();
        play!(scene, "1640 syn-ack eth1 {SERVER} 10.176.64.11:46990 4");
        for at in [2_530, 4_600] {
            play!(scene, "{at} syn eth1 {PORT} {SERVER} 8000 {at}");
        }
        play!(scene, "9000 ? nothing");
    }

    #[test]
    fn twin_a_dead_server_without_reuse() {
        let mut scene = scene!(NAME, "");
        succeeds(&mut scene, 0, FIRST, "10.176.64.11:46001", 9_000, 50_000);
        stalls(&mut scene, 1_500);
        play!(scene, "9000 ? nothing ? quiet");
    }

    #[test]
    fn twin_a_dead_server_and_reused_ports() {
        let mut scene = scene!(NAME, "");
        succeeds(&mut scene, 0, FIRST, PORT, 9_000, 50_000);
        play!(scene, "1505 syn-ack eth1 {SERVER} 10.176.64.11:46990 4");
        stalls(&mut scene, 1_500);
        // The server accepts no connections.
        play!(scene, "9000 ? nothing");
    }

    #[test]
    fn twin_a_server_that_never_accepted_anybody() {
        let mut scene = scene!(NAME, "");
        for (at, original, sequence) in
            [(0, FIRST, 9_000), (2_000, SECOND, 8_000), (4_000, FIRST, 7_000), (6_000, SECOND, 6_000)]
        {
            play!(scene, "{at} flow +{original} {PORT} {SERVER}; {at} syn eth1 {PORT} {SERVER} {sequence} {sequence}");
            play!(scene, "{} syn eth1 {PORT} {SERVER} {sequence} {}", at + 1_030, sequence + 1_030);
            play!(scene, "{} flow -{original} {PORT} {SERVER}", at + 1_500);
        }
        play!(scene, "9000 ? quiet");
    }
}
