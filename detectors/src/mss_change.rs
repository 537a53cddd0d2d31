//! `mss-change`: peers of one path announce a larger MSS than they used to, and it does not fit.
//!
//! What it sees: the MSS of incoming SYNs rises compared with the same client's history. `info` at the first such SYN;
//! `warning` if it cannot fit a declared MTU or the sizes proven so far, or as soon as a timeout retransmits a segment
//! larger than any the path is proven to carry. The first SYN of a path is compared with the declared MTU; that is a
//! `warning` only with such segments, since senders may learn the path's MTU.
//! Why it matters: handshakes and small packets keep working; the clamp was edited on a remote gateway, and this is its
//! only trace on the nodes.
//! Which incident: I1.
//!
//! Left out: a new path, and new clients of a known path next to others that keep their MSS (`info`).

mod history;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::capped::Capped;
use crate::claims::{Claim, want};
use crate::detector::{Context, Detector, DetectorInfo, Scope, State, new};
use crate::finding::{Level, Severity, Subject};
use crate::hidden_clients::HiddenClients;
use crate::operator::Operator;
use crate::prefix::Prefix;
use crate::proven::ProvenSizes;
use crate::signal::{CollectorKind, Observed, Segment, Signal, Socket};
use crate::wire::headers;
use history::{History, Rise};

pub const INFO: DetectorInfo = DetectorInfo {
    name: "mss-change",
    incident: "I1",
    level: Level::Cause,
    what: "Peers of one path announce a larger MSS than before, and the path does not carry it.",
    wants: &[CollectorKind::Packets, CollectorKind::Sockets, CollectorKind::ConntrackEvents],
    needs: &[&[CollectorKind::Packets]],
    scope: Scope::Node,
    state: State::Cluster(new::<MssChange>),
};

/// How long the first larger segments have to prove that they pass, before the sizes proven earlier count against the
/// new MSS. Rare flows need this time; segments that do not pass are seen sooner.
const PROOF: Duration = Duration::from_millis(700);
/// How long larger segments may wait for their acknowledgment, if the sizes proven earlier suggest that they do not
/// pass.
const UNACKNOWLEDGED: Duration = Duration::from_millis(100);
/// How long the acknowledgment of a retransmitted segment may take.
const ACKNOWLEDGMENT: Duration = Duration::from_millis(60);
/// Consecutive timeouts of a socket, if segments are not seen.
const TIMEOUTS: u8 = 2;
/// Limit on tracked paths.
const CAP: usize = 4096;

#[derive(Default)]
struct MssChange {
    proven: ProvenSizes,
    hidden: HiddenClients,
    /// By node, interface and path: a clamp between two interfaces is not a change.
    histories: Capped<(Arc<str>, String, Prefix), History, CAP>,
    /// Sockets with timeouts: the size at their head, and how often it was sent.
    stuck: BTreeMap<Prefix, (u32, u32)>,
}

impl MssChange {
    /// Whether there is a rise to judge, or was one before this SYN.
    fn syn(&mut self, signal: &Signal, operator: &Operator, segment: &Segment, mss: u16) -> bool {
        let path = operator.path_of(segment.source.ip());
        let key = (Arc::clone(&signal.node), segment.link.clone(), path);
        let Some(history) = self.histories.entry(key) else { return false };
        let before = history.rise.is_some();
        let fits = operator
            .declared_mtu(segment.source.ip())
            .map(|mtu| u32::from(mtu).saturating_sub(headers(segment.source.ip())));
        history.syn(signal.at, segment.source.ip(), mss, fits.and_then(|fits| u16::try_from(fits).ok()));
        before || history.rise.is_some()
    }

    fn socket(&mut self, operator: &Operator, socket: &Socket) {
        let path = operator.path_of(socket.remote.ip());
        let rose = |rise: &Rise| self.proven.handshake(socket.remote).is_none_or(|h| h.mss > Some(rise.old));
        let risen = self.histories.iter().any(|((_, _, p), h)| *p == path && h.rise.as_ref().is_some_and(rose));
        if risen {
            let size = self.proven.head_size(socket);
            self.stuck.insert(path, (size, u32::from(socket.retransmits) + 1));
        }
    }

    /// Why the new MSS does not fit, if that is known.
    fn misfit(&self, cx: &Context<'_>, path: Prefix, rise: &Rise) -> Option<String> {
        let (now, overhead) = (cx.now, headers(rise.client));
        let (old, new) = (u32::from(rise.old) + overhead, u32::from(rise.new) + overhead);
        let largest = self.proven.largest(path);
        let declared = cx.operator.declared_mtu(rise.client).filter(|mtu| new > u32::from(*mtu));
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
        // The path carried more than the old clamp allowed, but never as much as the new one needs.
        let proven = largest > old && new > largest && now.since(rise.since) >= PROOF;
        (proven && rise.established(now))
            .then(|| format!("packets would be {new} bytes, and the largest ever acknowledged is {largest}"))
    }
}

impl Detector for MssChange {
    fn observe(&mut self, cx: &mut Context<'_>, signal: &Signal) {
        self.hidden.observe(cx.operator, signal);
        self.proven.observe(cx.operator, &self.hidden, signal);
        match &signal.observed {
            Observed::Segment(segment) if segment.opens() && segment.comes_in() => {
                let (Some(mss), source) = (segment.mss, segment.source.ip()) else { return };
                let is_peer = !cx.operator.is_pod(source) && !self.hidden.hides(source);
                if !is_peer || !self.syn(signal, cx.operator, segment, mss) {
                    return;
                }
            }
            Observed::Socket(socket) if socket.retransmits >= TIMEOUTS => {
                let socket = self.hidden.uncover(socket).into_owned();
                self.socket(cx.operator, &socket);
            }
            _ => return,
        }
        self.tick(cx);
    }

    fn tick(&mut self, cx: &mut Context<'_>) {
        let mut wanted = BTreeMap::new();
        for ((_, _, path), history) in self.histories.iter() {
            let Some(rise) = &history.rise else { continue };
            let misfit = self.misfit(cx, *path, rise);
            let severity = if misfit.is_some() { Severity::Warning } else { Severity::Info };
            let note = misfit.map(|why| format!("; {why}")).unwrap_or_default();
            let hidden = self.hidden.note(*path);
            let how = match rise.from_start {
                true => format!("is {}, and {} fits the declared MTU", rise.new, rise.old),
                false => format!("rose {} -> {}", rise.old, rise.new),
            };
            let evidence = format!("SYN MSS from {path} {how}{note}{hidden}");
            want(&mut wanted, Subject::path(path), Claim { severity, since: rise.since, evidence });
        }
        let risen: BTreeSet<String> = wanted.keys().map(|subject| subject.name.clone()).collect();
        self.stuck.retain(|path, _| risen.contains(&path.to_string()));
        cx.claims.settle(wanted, "SYNs announce the earlier MSS again");
    }

    fn forget(&mut self, cx: &Context<'_>) {
        self.proven.forget(cx.now);
        self.hidden.forget(cx.now);
    }
}

#[cfg(test)]
mod tests;
