//! `mss-change`: peers of one path announce a larger MSS than they used to, and it does not fit.
//!
//! What it sees: the MSS of incoming SYNs rises compared with the same client's history: `info`. `warning` if the packets
//! that can occur now, limited by the smaller MSS of both sides and so by the pod's own MTU, do not fit a declared MTU;
//! or as soon as a segment larger than any the path has carried is lost: sent again after a retransmission timeout, and
//! not acknowledged within a round trip either. The first SYN of a path is compared with the declared MTU; that is a
//! `warning` only with such segments, since senders may learn the path's MTU.
//! Why it matters: handshakes and small packets keep working; the clamp was edited on a remote gateway, and this is its
//! only trace on the nodes.
//! Which incident: I1.
//!
//! Left out: a new path, and new clients of a known path next to others that keep their MSS (`info`). The largest size
//! carried so far is no limit: larger packets may never have been sent.

mod history;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use crate::capped::Capped;
use crate::claims::{Claim, want};
use crate::detector::{Context, Detector, DetectorInfo, Scope, State, new};
use crate::finding::{Level, Severity, Subject, SubjectKind};
use crate::hidden_clients::HiddenClients;
use crate::operator::Operator;
use crate::prefix::Prefix;
use crate::proven::{ProvenSizes, Way};
use crate::signal::{CollectorKind, Observed, Segment, Signal, Socket};
use crate::wire::headers;
use history::{History, Rise};

pub const INFO: DetectorInfo = DetectorInfo {
    name: "mss-change",
    incident: "I1",
    level: Level::Cause,
    subjects: &[SubjectKind::Path],
    what: "Peers of one path announce a larger MSS than before, and the path does not carry it.",
    facts: "Without a declared MTU it waits for a lost packet instead of the first SYN, and likewise with a stale \
            one: a too large MTU proves nothing, a too small one is dropped once a larger packet is acknowledged.",
    wants: &[CollectorKind::Packets, CollectorKind::Sockets, CollectorKind::ConntrackEvents],
    needs: &[&[CollectorKind::Packets]],
    scope: Scope::Node,
    state: State::Cluster(new::<MssChange>),
};

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
    stuck: BTreeMap<Way, (u32, u32)>,
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

    /// The SYN-ACK to this client: what can be sent to it is known now.
    fn accepted(&mut self, operator: &Operator, node: &Arc<str>, remote: SocketAddr) -> bool {
        let Some(handshake) = self.proven.handshake(node, remote) else { return false };
        let Some(packet) = handshake.largest_packet(remote) else { return false };
        let path = operator.path_of(remote.ip());
        let here = self.histories.iter_mut().filter(|((at, _, to), _)| at == node && *to == path);
        let mut is_news = false;
        for rise in here.filter_map(|(_, history)| history.rise.as_mut()) {
            if handshake.mss > Some(rise.old) && packet > rise.packet {
                rise.packet = packet;
                is_news = true;
            }
        }
        is_news
    }

    fn socket(&mut self, operator: &Operator, node: Arc<str>, socket: &Socket) {
        let way = (node, operator.path_of(socket.remote.ip()));
        let mss = self.proven.handshake(&way.0, socket.remote).map(|handshake| handshake.mss);
        let rose = |rise: &Rise| mss.is_none_or(|mss| mss > Some(rise.old));
        let mut here = self.histories.iter().filter(|((node, _, path), _)| (node, path) == (&way.0, &way.1));
        if here.any(|(_, history)| history.rise.as_ref().is_some_and(rose)) {
            let size = self.proven.head_size(&way.0, socket);
            self.stuck.insert(way, (size, u32::from(socket.retransmits) + 1));
        }
    }

    /// Why the new MSS does not fit, if that is known.
    fn misfit(&self, cx: &Context<'_>, way: &Way, rise: &Rise) -> Option<String> {
        let (now, overhead) = (cx.now, headers(rise.client));
        let (old, new) = (u32::from(rise.old) + overhead, u32::from(rise.new) + overhead);
        let largest = self.proven.largest(way);
        // A declared MTU that the path exceeds is out of date.
        let is_broken = |mtu: &u16| rise.packet > u32::from(*mtu) && largest <= u32::from(*mtu);
        let declared = cx.operator.declared_mtu(rise.client).filter(is_broken);
        if let Some(mtu) = declared.filter(|_| rise.established(now)) {
            return Some(format!("{}-byte packets do not fit the declared MTU of {mtu}", rise.packet));
        }
        let fits = |size: u32| size > largest.max(old) && size <= new;
        let lost = self.proven.lost(way, now).filter(|(remote, sent)| {
            let risen = self.proven.handshake(&way.0, *remote);
            fits(sent.size) && risen.is_none_or(|h| h.mss > Some(rise.old) && h.at >= rise.since)
        });
        let lost = lost.map(|(_, sent)| (sent.size, sent.times)).max();
        let stuck = self.stuck.get(way).copied().filter(|(size, _)| fits(*size));
        let (size, times) = lost.or(stuck)?;
        Some(format!("a {size}-byte packet was sent {times} times, largest acknowledged {largest}"))
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
            Observed::Segment(segment) if segment.accepts() && segment.goes_out() => {
                if !self.accepted(cx.operator, &signal.node, segment.destination) {
                    return;
                }
            }
            Observed::Socket(socket) if socket.retransmits >= TIMEOUTS => {
                let Some((node, socket)) = self.hidden.uncover(&signal.node, socket) else { return };
                let socket = socket.into_owned();
                self.socket(cx.operator, node, &socket);
            }
            _ => return,
        }
        self.tick(cx);
    }

    fn tick(&mut self, cx: &mut Context<'_>) {
        let mut wanted = BTreeMap::new();
        for ((node, _, path), history) in self.histories.iter() {
            let Some(rise) = &history.rise else { continue };
            let misfit = self.misfit(cx, &(Arc::clone(node), *path), rise);
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
        self.stuck.retain(|(_, path), _| risen.contains(&path.to_string()));
        cx.claims.settle(wanted, "SYNs announce the earlier MSS again");
    }

    fn forget(&mut self, cx: &Context<'_>) {
        self.proven.forget(cx.now);
        self.hidden.forget(cx.now);
        self.histories.make_room(|history| history.last);
        self.histories.values_mut().for_each(History::forget);
    }
}

#[cfg(test)]
mod tests;
