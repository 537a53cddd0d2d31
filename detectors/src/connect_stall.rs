//! `connect-stall`: a connect on a reused translated port gets no SYN-ACK.
//!
//! What it sees: a translated SYN sent again without a SYN-ACK, by the same port or by another, after a
//! tuple whose earlier connection the server accepted within `TIME_WAIT`, while the same server accepts
//! others or answers with something else. The same where the client gave up before it sent it again and the
//! SYN lay behind that connection.
//! Why it matters: this is the sporadic connection timeout itself, caught at its first retransmission.
//! Which incident: I7.
//!
//! Left out: servers that accept nobody; they are down, and no reuse explains it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::claims::Claims;
use crate::detector::{Detector, DetectorInfo, Scope};
use crate::finding::{Finding, Level, Severity, Subject};
use crate::operator::Operator;
use crate::signal::{Change, CollectorKind, Flow, Observed, Protocol, Segment, Signal};
use crate::time::Time;
use crate::tuples::{Connect, ConnectKey, TupleKey, Tuples};

pub const INFO: DetectorInfo = DetectorInfo {
    name: "connect-stall",
    incident: "I7",
    level: Level::Symptom,
    what: "A connect on a reused translated port is not answered although the server accepts others.",
    wants: &[CollectorKind::Packets, CollectorKind::ConntrackEvents, CollectorKind::Inventory],
    needs: &[&[CollectorKind::Packets]],
    scope: Scope::Node,
    arm: |operator| {
        Box::new(ConnectStall { operator: operator.clone(), nodes: BTreeMap::new(), pods: BTreeSet::new() })
    },
};

/// The same SYN sooner than this is not a retransmission timeout.
const RETRANSMISSION: Duration = Duration::from_millis(100);
/// An answer to others this soon after the SYN may have been under way before the server stopped.
const UNDER_WAY: Duration = Duration::from_millis(100);
/// How long the answer to the SYN that was sent again may take, where the client could reset what the server
/// held.
const RECOVERY: Duration = Duration::from_millis(100);
/// A SYN that is not sent again by then never is: the first retransmission is due after a second.
const GIVEN_UP: Duration = Duration::from_millis(1_200);
/// How long a stalled connect is watched, and stands.
const WATCH: Duration = Duration::from_secs(8);
const QUIET: Duration = Duration::from_secs(2);
const CAP: usize = 16_384;

struct ConnectStall {
    operator: Operator,
    nodes: BTreeMap<Arc<str>, Node>,
    pods: BTreeSet<IpAddr>,
}

struct Node {
    claims: Claims,
    tuples: Tuples,
    /// Translated tuples, by conntrack's account; `None` while it says nothing on this node.
    translated: Option<BTreeMap<TupleKey, Time>>,
    /// Connects whose SYN was sent again that are watched, and when they were last counted.
    stalled: BTreeMap<ConnectKey, Option<Time>>,
    /// When each server last accepted anyone.
    accepted: BTreeMap<SocketAddr, Time>,
    last: Time,
    pruned: Time,
}

impl Node {
    fn flow(&mut self, at: Time, flow: &Flow) {
        let translated = self.translated.get_or_insert_default();
        let key = (flow.reply.destination, flow.reply.source);
        if flow.protocol != Protocol::Tcp || flow.change == Change::Removed {
            return;
        }
        if flow.reply.destination == flow.original.source {
            translated.remove(&key);
        } else if translated.len() < CAP * 4 {
            translated.insert(key, at);
        }
    }

    fn segment(&mut self, at: Time, operator: &Operator, segment: &Segment) {
        if segment.accepts() && segment.comes_in() && operator.is_uplink(&segment.link) && self.accepted.len() < CAP {
            let latest = self.accepted.entry(segment.source).or_default();
            *latest = (*latest).max(at);
        }
        if self.tuples.observe(at, operator, segment).is_none() || !segment.opens() {
            return;
        }
        let key = (segment.destination, segment.sequence);
        let Some(connect) = self.tuples.connect(&key) else { return };
        if (is_again(connect) || connect.behind) && !connect.answered && self.stalled.len() < CAP {
            self.stalled.entry(key).or_default();
        }
    }

    fn judge(&mut self, now: Time, name: &str, time_wait: Duration, pods: &BTreeSet<IpAddr>, out: &mut Vec<Finding>) {
        let subject = Subject::node(name);
        let (tuples, accepted, translated) = (&self.tuples, &self.accepted, &self.translated);
        self.stalled.retain(|key, _| {
            let connect = tuples.connect(key);
            connect.is_some_and(|c| (!c.answered || is_again(c)) && now.since(c.first) < WATCH)
        });
        for (key, counted) in &mut self.stalled {
            let Some(connect) = tuples.connect(key) else { continue };
            let (source, destination) = connect.tuple;
            let Some(held) = connect.held.filter(|held| connect.first.since(held.last) <= time_wait) else { continue };
            let is_translated = match translated {
                Some(known) => known.contains_key(&connect.tuple),
                None => !pods.contains(&source.ip()),
            };
            let serves = accepted.get(&destination).is_some_and(|at| *at > connect.first + UNDER_WAY);
            // Answered by now, perhaps by another port: then only what the server held explains the wait, and
            // a client that was told to reset it has recovered by itself.
            let explained = match (is_again(connect), connect.challenged) {
                (true, false) => !connect.answered || connect.behind,
                (true, true) => !connect.answered && tuples.would_have_heard(connect.last_syn + RECOVERY, now),
                // Not sent again: whoever connects gave up before that.
                (false, _) => !connect.answered && tuples.would_have_heard(connect.last_syn + GIVEN_UP, now),
            };
            let news = counted.is_none_or(|counted| connect.last_syn > counted);
            if !news || !is_translated || !explained || !(serves || connect.challenged) {
                continue;
            }
            *counted = Some(now);
            self.last = now;
            self.claims.make(out, &subject, Severity::Warning, connect.first, || {
                let sent = match is_again(connect) {
                    true => format!(
                        "{} times in {:.1} s",
                        connect.syns,
                        connect.last_syn.since(connect.first).as_secs_f64()
                    ),
                    false => format!("and given up {:.1} s later", now.since(connect.first).as_secs_f64()),
                };
                format!(
                    "SYN {source} -> {destination} of {name} was sent {sent} without a SYN-ACK; the tuple was in use \
                     until {:.1} s before, and the server {}",
                    connect.first.since(held.last).as_secs_f64(),
                    if serves { "accepts others" } else { "answered with an ACK of something else" },
                )
            });
        }
        if self.claims.standing(&subject).is_some() && now.since(self.last) >= QUIET {
            self.claims.withdraw(out, &subject, format!("no such SYN for {} s", QUIET.as_secs()));
        }
        if now.since(self.pruned) >= Duration::from_secs(1) {
            self.pruned = now;
            self.accepted.retain(|_, at| now.since(*at) < WATCH * 2);
            if let Some(translated) = &mut self.translated {
                translated.retain(|_, at| now.since(*at) < time_wait * 2);
            }
        }
    }
}

/// Whether a timeout sent its SYN again.
fn is_again(connect: &Connect) -> bool {
    connect.syns > 1 && connect.last_syn.since(connect.first) >= RETRANSMISSION
}

impl Detector for ConnectStall {
    fn info(&self) -> &'static DetectorInfo {
        &INFO
    }

    fn observe(&mut self, _now: Time, signal: &Signal, _out: &mut Vec<Finding>) {
        let node = self.nodes.entry(Arc::clone(&signal.node)).or_insert_with(|| Node {
            claims: Claims::new(&INFO),
            tuples: Tuples::default(),
            translated: None,
            stalled: BTreeMap::new(),
            accepted: BTreeMap::new(),
            last: Time::default(),
            pruned: Time::default(),
        });
        match &signal.observed {
            Observed::Segment(segment) => node.segment(signal.at, &self.operator, segment),
            Observed::Flow(flow) => node.flow(signal.at, flow),
            Observed::Pod(pod) if pod.change != Change::Removed && self.pods.len() < CAP => {
                self.pods.insert(pod.address);
            }
            _ => {}
        }
    }

    fn tick(&mut self, now: Time, out: &mut Vec<Finding>) {
        for (name, node) in &mut self.nodes {
            node.judge(now, name, self.operator.time_wait, &self.pods, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::Direction;
    use crate::snat_port_reuse::tests::succeeds;
    use crate::testing::{Scene, flow, segment, syn_ack_in, syn_out};

    const NAME: &str = "connect-stall";
    const NODE: &str = "worker-1";
    const SERVER: &str = "10.200.0.5:443";
    const PORT: &str = "10.176.64.11:46994";
    const FIRST: &str = "10.176.98.30:51000";
    const SECOND: &str = "10.176.98.31:52000";

    fn stalls(scene: &mut Scene, at: u64) {
        scene.at(at, NODE, flow(Change::Added, SECOND, PORT, SERVER, false));
        for later in [0, 1_030, 3_100] {
            scene.at(at + later, NODE, syn_out("eth1", PORT, SERVER, 8_000, 20_000));
        }
    }

    #[test]
    fn an_ack_of_the_old_connection_is_enough() {
        let mut scene = Scene::new();
        succeeds(&mut scene, 0, FIRST, PORT, 9_000, 50_000);
        scene.at(1_500, NODE, flow(Change::Added, SECOND, PORT, SERVER, false));
        scene.at(1_500, NODE, syn_out("eth1", PORT, SERVER, 8_000, 20_000));
        let ack = segment("eth1", Direction::In, [SERVER, PORT], "A", [78_000, 9_102], 7);
        scene.at(1_501, NODE, Observed::Segment(ack));
        scene.until(2_500);
        assert_eq!(scene.worst(NAME), None, "the first SYN is not yet stalled");
        scene.at(2_530, NODE, syn_out("eth1", PORT, SERVER, 8_000, 21_030));
        scene.until(2_600);
        assert_eq!(scene.worst(NAME), None, "the client may have reset it");
        scene.until(2_800);
        assert_eq!(scene.worst(NAME), Some(Severity::Warning));
        assert!(scene.evidence(NAME).contains("was sent 2 times in 1.0 s"));
    }

    #[test]
    fn a_client_that_gives_up_within_a_second_sends_no_second_syn() {
        let mut scene = Scene::new();
        succeeds(&mut scene, 0, FIRST, PORT, 9_000, 50_000);
        scene.at(1_500, NODE, flow(Change::Added, SECOND, PORT, SERVER, false));
        scene.at(1_500, NODE, syn_out("eth1", PORT, SERVER, 8_000, 20_000));
        scene.until(2_600);
        assert_eq!(scene.worst(NAME), None);
        succeeds(&mut scene, 2_710, FIRST, "10.176.64.11:46001", 19_000, 60_000);
        assert_eq!(scene.worst(NAME), Some(Severity::Warning));
        assert!(scene.evidence(NAME).contains("given up"), "{}", scene.evidence(NAME));
    }

    #[test]
    fn the_second_syn_may_leave_by_another_port_and_be_answered() {
        let mut scene = Scene::new();
        succeeds(&mut scene, 0, FIRST, PORT, 9_000, 50_000);
        scene.at(1_500, NODE, flow(Change::Added, SECOND, PORT, SERVER, false));
        scene.at(1_500, NODE, syn_out("eth1", PORT, SERVER, 8_000, 20_000));
        // The node forgot the first SYN within a second.
        let other = "10.176.64.11:46990";
        scene.at(2_530, NODE, flow(Change::Added, SECOND, other, SERVER, false));
        scene.at(2_530, NODE, syn_out("eth1", other, SERVER, 8_000, 21_030));
        scene.at(2_531, NODE, syn_ack_in("eth1", SERVER, other, 8_000));
        scene.until(2_600);
        assert_eq!(scene.worst(NAME), Some(Severity::Warning));
        assert!(scene.evidence(NAME).contains(PORT), "{}", scene.evidence(NAME));
        scene.until(6_000);
        assert!(scene.cleared(NAME));
    }

    #[test]
    fn twin_a_dead_server_without_reuse() {
        let mut scene = Scene::new();
        succeeds(&mut scene, 0, FIRST, "10.176.64.11:46001", 9_000, 50_000);
        stalls(&mut scene, 1_500);
        scene.until(9_000);
        assert_eq!(scene.worst(NAME), None);
        scene.assert_quiet();
    }

    #[test]
    fn twin_a_dead_server_and_reused_ports() {
        let mut scene = Scene::new();
        succeeds(&mut scene, 0, FIRST, PORT, 9_000, 50_000);
        scene.at(1_505, NODE, syn_ack_in("eth1", SERVER, "10.176.64.11:46990", 4));
        stalls(&mut scene, 1_500);
        scene.until(9_000);
        assert_eq!(scene.worst(NAME), None, "it serves nobody");
    }

    #[test]
    fn twin_a_server_that_never_accepted_anybody() {
        let mut scene = Scene::new();
        for step in 0..4 {
            let original = if step % 2 == 0 { FIRST } else { SECOND };
            let at = step * 2_000;
            scene.at(at, NODE, flow(Change::Added, original, PORT, SERVER, false));
            let sequence = 9_000 - u32::try_from(step).unwrap() * 1_000;
            scene.at(at, NODE, syn_out("eth1", PORT, SERVER, sequence, sequence));
            scene.at(at + 1_030, NODE, syn_out("eth1", PORT, SERVER, sequence, sequence + 1_030));
            scene.at(at + 1_500, NODE, flow(Change::Removed, original, PORT, SERVER, false));
        }
        scene.until(9_000);
        scene.assert_quiet();
    }
}
