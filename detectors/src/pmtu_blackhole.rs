//! `pmtu-blackhole`: large packets to one path are lost, small ones pass.
//!
//! What it sees: sockets that received a request and have two or more consecutive timeouts of a segment larger than any
//! the path has carried, while the same client receives small ones (or several clients are stuck in the same way, or
//! this client's MSS rose, and the path carries small ones). Three timeouts if the path carried as much before and has
//! not since: it may have shrunk.
//! Why it matters: sessions open, requests arrive, and every large response ends in a timeout.
//! Which incident: I1.
//!
//! Left out: clients that receive nothing at all; they are dead, not behind a black hole.

mod alive;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::capped::Capped;
use crate::claims::{Claim, want};
use crate::detector::{Context, Detector, DetectorInfo, Scope, State, new};
use crate::finding::{Level, Severity, Subject, SubjectKind};
use crate::hidden_clients::HiddenClients;
use crate::operator::Operator;
use crate::proven::{ProvenSizes, Way};
use crate::signal::{CollectorKind, Observed, Signal, Socket, SocketKey, TcpState};
use crate::time::Time;
use crate::wire::always_fits;
use alive::SmallPackets;

pub const INFO: DetectorInfo = DetectorInfo {
    name: "pmtu-blackhole",
    incident: "I1",
    level: Level::Symptom,
    subjects: &[SubjectKind::Path],
    what: "Large packets to one path are lost over and over while small ones pass.",
    facts: "It finds the same with none and with stale facts; without prefixes of peers it names their /24.",
    wants: &[CollectorKind::Sockets, CollectorKind::Packets, CollectorKind::ConntrackEvents],
    needs: &[&[CollectorKind::Sockets]],
    scope: Scope::Node,
    state: State::Cluster(new::<PmtuBlackhole>),
};

/// Consecutive timeouts. Tail-loss probes do not count as such in `tcpi_retransmits`.
const TIMEOUTS: u8 = 2;
/// The same of a size that the path once carried: packets are lost now and then.
const TIMEOUTS_ONCE_CARRIED: u8 = 3;
/// A socket not seen for this long, or for some periods of reading, is closed, or recovered unobserved.
const UNSEEN: Duration = Duration::from_secs(2);
/// The same if other sockets of its node were seen meanwhile: all are read together, ten times a second or, if there are
/// many, more slowly.
const NOT_LISTED: Duration = Duration::from_millis(700);
const PERIODS: u32 = 3;
const CAP: usize = 8192;

#[derive(Default)]
struct PmtuBlackhole {
    proven: ProvenSizes,
    hidden: HiddenClients,
    small: SmallPackets,
    sockets: Capped<(Arc<str>, SocketKey), Stall, CAP>,
    /// When sockets of a node were last read.
    last_read: Capped<Arc<str>, Time, CAP>,
}

/// A socket that waits for an acknowledgment.
struct Stall {
    /// The path, and the node whose uplink sees the client.
    way: Way,
    remote: SocketAddr,
    bytes_acked: u64,
    since: Time,
    seen: Time,
    /// Between its last two reads.
    period: Duration,
    retransmits: u8,
    received: bool,
    size: u32,
    round_trip: Duration,
    /// The timeout before any retransmission; each doubles it (RFC 6298, 5.5).
    timeout: Duration,
}

impl PmtuBlackhole {
    fn socket(
        &mut self,
        at: Time,
        operator: &Operator,
        key: (Arc<str>, SocketKey),
        seen_at: Arc<str>,
        socket: &Socket,
    ) {
        let open = matches!(
            socket.state,
            TcpState::Established | TcpState::CloseWait | TcpState::FinWait1 | TcpState::LastAck
        );
        if !open || socket.unacked == 0 || operator.is_pod(socket.remote.ip()) {
            self.sockets.remove(&key);
            return;
        }
        let before = self.sockets.get(&key).filter(|stall| stall.bytes_acked == socket.bytes_acked);
        // First seen after timeouts: the stall began earlier.
        let began = at - Duration::from_micros(u64::from(socket.rto_us)) * u32::from(socket.retransmits > 0);
        let stall = Stall {
            size: self.proven.head_size(&seen_at, socket),
            way: (seen_at, operator.path_of(socket.remote.ip())),
            remote: socket.remote,
            bytes_acked: socket.bytes_acked,
            since: before.map_or(began, |stall| stall.since),
            seen: at,
            period: self.proven.period(&key),
            retransmits: socket.retransmits,
            received: socket.bytes_received > 0,
            round_trip: Duration::from_micros(socket.rtt_us.into()),
            timeout: Duration::from_micros(u64::from(socket.rto_us) >> socket.retransmits.min(31)),
        };
        self.sockets.insert(key, stall);
    }

    /// Sockets whose large segment is lost repeatedly, by path.
    fn stuck(&self) -> BTreeMap<&Way, Vec<&Stall>> {
        let mut stuck: BTreeMap<&Way, Vec<&Stall>> = BTreeMap::new();
        let is_large = |stall: &Stall| stall.size > always_fits(stall.remote.ip());
        for stall in self.sockets.values().filter(|stall| stall.received && is_large(stall)) {
            let needed = match self.proven.carried(&stall.way, stall.size) {
                Some(at) if at >= stall.since + stall.round_trip => continue,
                Some(_) => TIMEOUTS_ONCE_CARRIED,
                None => TIMEOUTS,
            };
            if stall.retransmits >= needed {
                stuck.entry(&stall.way).or_default().push(stall);
            }
        }
        stuck
    }

    fn judge(&self, cx: &mut Context<'_>) {
        let mut wanted = BTreeMap::new();
        for (way @ (node, path), stalls) in self.stuck() {
            let clients: BTreeSet<IpAddr> = stalls.iter().map(|stall| stall.remote.ip()).collect();
            let proof = |stall: &&&Stall| {
                // What was acknowledged a timeout after the stall began was not under way before. A round trip is too
                // short: a busy machine delays packets that passed before.
                let since = stall.since + stall.timeout;
                self.small.reached(node, stall.remote, since)
                    || (clients.len() > 1 || self.small.mss_rose(node, stall.remote))
                        && self.small.reached_path(way, since)
            };
            let subject = Subject::path(path);
            let Some(stall) = stalls.iter().find(proof) else {
                // Evidence that small packets pass may pause; a claim stands while sockets are stuck.
                if let Some(severity) = cx.claims.standing_of(&subject) {
                    want(&mut wanted, subject, Claim { severity, since: Time::default(), evidence: String::new() });
                }
                continue;
            };
            let severity = if clients.len() > 1 { Severity::Critical } else { Severity::Warning };
            let carried = match self.proven.carried(way, stall.size) {
                Some(at) => {
                    format!("as large ones were last acknowledged {:.1} s before", stall.since.since(at).as_secs_f64())
                }
                None => format!("largest acknowledged from {path} {}", self.proven.largest(way)),
            };
            let evidence = format!(
                "{} was sent {}-byte packets {} times, {carried}, and small packets pass; stuck connections: {}{}",
                stall.remote,
                stall.size,
                u32::from(stall.retransmits) + 1,
                stalls.len(),
                self.hidden.note(*path),
            );
            want(&mut wanted, subject, Claim { severity, since: stall.since, evidence });
        }
        cx.claims.settle(wanted, "no connection waits for a large packet any more");
    }
}

impl Detector for PmtuBlackhole {
    fn observe(&mut self, cx: &mut Context<'_>, signal: &Signal) {
        self.hidden.observe(cx.operator, signal);
        self.proven.observe(cx.operator, &self.hidden, signal);
        self.small.observe(cx.operator, &self.hidden, signal);
        if let Observed::Socket(socket) = &signal.observed {
            self.last_read.record(Arc::clone(&signal.node), signal.at);
            let Some((seen_at, uncovered)) = self.hidden.uncover(&signal.node, socket) else { return };
            let uncovered = uncovered.into_owned();
            self.socket(signal.at, cx.operator, (Arc::clone(&signal.node), socket.key()), seen_at, &uncovered);
            // Only a timeout is judged immediately; recoveries are seen at the next tick.
            if socket.retransmits >= TIMEOUTS {
                self.judge(cx);
            }
        }
    }

    fn tick(&mut self, cx: &mut Context<'_>) {
        let last_read = &self.last_read;
        self.sockets.retain(|(node, _), stall| {
            let last = last_read.get(node).copied().unwrap_or_default();
            let late = stall.period * PERIODS;
            last.since(stall.seen) < late.max(NOT_LISTED) && cx.now.since(stall.seen) < late.max(UNSEEN)
        });
        self.judge(cx);
    }

    fn forget(&mut self, cx: &Context<'_>) {
        self.proven.forget(cx.now);
        self.hidden.forget(cx.now);
        self.small.forget(cx.now);
    }
}

#[cfg(test)]
pub(crate) mod tests;
