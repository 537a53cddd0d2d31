//! `mss-change`: peers of one path announce a larger MSS than they used to, and it does not fit.
//!
//! What it sees: the MSS of incoming SYNs steps up against the history of the same client. `info` at the
//! first such SYN; `warning` where a declared MTU, or the sizes proven so far, say that it cannot fit, or
//! as soon as a timeout sends again a segment larger than any the path is proven to carry.
//! Why it matters: the handshake and everything small go on working; whoever edited the clamp did it far
//! away, and this is the only trace of it that reaches the nodes.
//! Which incident: I1.
//!
//! Left out: a new path, and new clients of a known path beside others that keep their MSS (`info`).

mod history;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::claims::{Claim, Claims};
use crate::detector::{Detector, DetectorInfo, Scope};
use crate::finding::{Finding, Level, Severity, Subject};
use crate::operator::Operator;
use crate::prefix::Prefix;
use crate::proven::ProvenSizes;
use crate::signal::{CollectorKind, Observed, Segment, Signal, Socket};
use crate::time::Time;
use crate::wire::headers;
use history::{History, Rise};

pub const INFO: DetectorInfo = DetectorInfo {
    name: "mss-change",
    incident: "I1",
    level: Level::Cause,
    what: "Peers of one path announce a larger MSS than before, and the path does not carry it.",
    wants: &[CollectorKind::Packets, CollectorKind::Sockets],
    needs: &[&[CollectorKind::Packets]],
    scope: Scope::Node,
    arm: |operator| {
        Box::new(MssChange {
            operator: operator.clone(),
            claims: Claims::new(&INFO),
            proven: ProvenSizes::new(operator),
            histories: BTreeMap::new(),
            stuck: BTreeMap::new(),
        })
    },
};

/// How long the first larger segments have to prove that they pass, before what was proven earlier counts
/// against the new MSS. Rare flows need time to come; where they come and do not pass, that is seen sooner.
const PROOF: Duration = Duration::from_millis(700);
/// How long larger segments may wait for their acknowledgment, where what was proven earlier says that they
/// do not pass.
const UNACKNOWLEDGED: Duration = Duration::from_millis(100);
/// How long the acknowledgment of a retransmitted segment may take.
const ACKNOWLEDGMENT: Duration = Duration::from_millis(60);
/// Consecutive timeouts of a socket, where segments are not seen.
const TIMEOUTS: u8 = 2;
/// Paths that are remembered.
const CAP: usize = 4096;

struct MssChange {
    operator: Operator,
    claims: Claims,
    proven: ProvenSizes,
    /// By node, interface and path: a clamp between two interfaces is not a change.
    histories: BTreeMap<(Arc<str>, String, Prefix), History>,
    /// Sockets with timeouts: the size at their head, and how often it was sent.
    stuck: BTreeMap<Prefix, (u32, u32)>,
}

impl MssChange {
    /// Whether there is, or was until now, a rise to judge.
    fn syn(&mut self, signal: &Signal, segment: &Segment, mss: u16) -> bool {
        let path = self.operator.path_of(segment.source.ip());
        let key = (Arc::clone(&signal.node), segment.link.clone(), path);
        if self.histories.len() >= CAP && !self.histories.contains_key(&key) {
            return false;
        }
        let history = self.histories.entry(key).or_default();
        let before = history.rise.is_some();
        history.syn(signal.at, segment.source.ip(), mss);
        before || history.rise.is_some()
    }

    fn socket(&mut self, socket: &Socket) {
        let path = self.operator.path_of(socket.remote.ip());
        let rose = |rise: &Rise| self.proven.handshake(socket.remote).is_none_or(|h| h.mss > Some(rise.old));
        let risen = self.histories.iter().any(|((_, _, p), h)| *p == path && h.rise.as_ref().is_some_and(rose));
        if risen && socket.retransmits >= TIMEOUTS {
            let size = self.proven.head_size(socket);
            self.stuck.insert(path, (size, u32::from(socket.retransmits) + 1));
        }
    }

    /// Why the new MSS does not fit, if that is known.
    fn misfit(&self, now: Time, path: Prefix, rise: &Rise) -> Option<String> {
        let overhead = headers(rise.client);
        let (old, new) = (u32::from(rise.old) + overhead, u32::from(rise.new) + overhead);
        let largest = self.proven.largest(path);
        let declared = self.operator.declared_mtu(rise.client).filter(|mtu| new > u32::from(*mtu));
        if let Some(mtu) = declared.filter(|_| rise.established(now)) {
            return Some(format!("{new}-byte packets do not fit the declared MTU of {mtu}"));
        }
        let fits = |size: u32| size > largest.max(old) && size <= new;
        let seen = self.proven.retransmitted(path).filter(|(remote, sent)| {
            let risen = self.proven.handshake(*remote).is_none_or(|h| h.mss > Some(rise.old) && h.at >= rise.since);
            risen && fits(sent.size) && now.since(sent.last) >= ACKNOWLEDGMENT
        });
        let seen = seen.map(|(_, sent)| (sent.size, sent.times)).max();
        let stuck = self.stuck.get(&path).copied().filter(|(size, _)| fits(*size));
        if let Some((size, times)) = seen.or(stuck) {
            return Some(format!("a {size}-byte packet was sent {times} times, largest acknowledged {largest}"));
        }
        let waits = self.proven.unacknowledged(path, UNACKNOWLEDGED).filter(|(remote, size)| {
            largest > old && fits(*size) && self.proven.handshake(*remote).is_some_and(|h| h.mss > Some(rise.old))
        });
        if let Some(size) = waits.map(|(_, size)| size).min() {
            return Some(format!(
                "{size}-byte packets are not acknowledged, and the largest ever acknowledged is {largest}"
            ));
        }
        // The path carried more than the old clamp let through, and never as much as the new one asks for.
        let proven = largest > old && new > largest && now.since(rise.since) >= PROOF;
        (proven && rise.established(now))
            .then(|| format!("packets would be {new} bytes, and the largest ever acknowledged is {largest}"))
    }

    fn judge(&mut self, now: Time, out: &mut Vec<Finding>) {
        let mut wanted = BTreeMap::new();
        for ((_, _, path), history) in &self.histories {
            let Some(rise) = &history.rise else { continue };
            let misfit = self.misfit(now, *path, rise);
            let severity = if misfit.is_some() { Severity::Warning } else { Severity::Info };
            let note = misfit.map(|why| format!("; {why}")).unwrap_or_default();
            let evidence = format!("SYN MSS from {path} rose {} -> {}{note}", rise.old, rise.new);
            let claim = Claim { severity, since: rise.since, evidence };
            let subject = Subject::path(path);
            if wanted.get(&subject).is_none_or(|other: &Claim| other.severity < severity) {
                wanted.insert(subject, claim);
            }
        }
        let risen: BTreeSet<String> = wanted.keys().map(|subject| subject.name.clone()).collect();
        self.stuck.retain(|path, _| risen.contains(&path.to_string()));
        self.claims.settle(out, wanted, "SYNs announce the earlier MSS again");
    }
}

impl Detector for MssChange {
    fn info(&self) -> &'static DetectorInfo {
        &INFO
    }

    fn observe(&mut self, now: Time, signal: &Signal, out: &mut Vec<Finding>) {
        self.proven.observe(signal);
        match &signal.observed {
            Observed::Segment(segment) if segment.opens() && segment.comes_in() => {
                let Some(mss) = segment.mss else { return };
                if self.operator.is_pod(segment.source.ip()) || !self.syn(signal, segment, mss) {
                    return;
                }
            }
            Observed::Socket(socket) if socket.retransmits >= TIMEOUTS => self.socket(socket),
            _ => return,
        }
        self.judge(now, out);
    }

    fn tick(&mut self, now: Time, out: &mut Vec<Finding>) {
        if self.histories.values().any(|history| history.rise.is_some()) {
            self.judge(now, out);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
