//! Which packet sizes each path is proven to carry.
//!
//! Job: track segments to peers until they are acknowledged, and bulk transfers of sockets; keep the largest size
//! proven for each path, and the larger segments still unacknowledged.
//! Invariants: a size is proven only by an acknowledgment that covers it, never by silence. Segments no larger than the
//! proven size are not kept, which bounds the memory.
//! Left out: the interpretation of sizes that are not proven.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::capped::Capped;
use crate::hidden_clients::HiddenClients;
use crate::operator::Operator;
use crate::prefix::Prefix;
use crate::signal::{Observed, Segment, Signal, Socket, SocketKey, TcpState};
use crate::time::Time;
use crate::wire::{TIMESTAMPS, after, headers};

/// Segments kept for one connection, and connections kept.
const SEGMENTS: usize = 8;
const CAP: usize = 8192;
/// Entries not seen for this long are dropped.
const FORGET: Duration = Duration::from_mins(2);
/// A segment repeated sooner than this is not a retransmission timeout (200 ms at least).
const TIMEOUT: Duration = Duration::from_millis(150);
/// A socket's state is read shortly after the segments it reflects.
const SKEW: Duration = Duration::from_millis(5);

#[derive(Debug, Default)]
pub(crate) struct ProvenSizes {
    largest: Capped<Prefix, u32, CAP>,
    sent: Capped<(Arc<str>, SocketAddr), Vec<Sent>, CAP>,
    /// When a peer's segment was last seen on each node: all segments up to then have been delivered.
    last_received: Capped<Arc<str>, Time, CAP>,
    handshakes: Capped<SocketAddr, Handshake, CAP>,
    sockets: Capped<(Arc<str>, SocketKey), Bulk, CAP>,
}

/// Options of a peer's SYN.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Handshake {
    pub at: Time,
    pub mss: Option<u16>,
    pub timestamps: bool,
}

/// A segment larger than anything proven, not yet acknowledged.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    link: String,
    sequence: u32,
    end: u32,
    pub size: u32,
    pub times: u32,
    first: Time,
    pub last: Time,
}

#[derive(Debug)]
struct Bulk {
    at: Time,
    bytes_acked: u64,
    send_queue: u32,
    send_mss: u32,
}

impl ProvenSizes {
    /// The largest packet this path is proven to carry, 0 if none is known.
    pub fn largest(&self, path: Prefix) -> u32 {
        self.largest.get(&path).copied().unwrap_or(0)
    }

    /// The options of this peer's SYN.
    pub fn handshake(&self, remote: SocketAddr) -> Option<Handshake> {
        self.handshakes.get(&remote).copied()
    }

    /// Unacknowledged segments on this path that were retransmitted after a timeout.
    pub fn retransmitted(&self, path: Prefix) -> impl Iterator<Item = (SocketAddr, &Sent)> {
        let largest = self.largest(path);
        self.sent
            .iter()
            .filter(move |((_, remote), _)| path.contains(remote.ip()))
            .flat_map(|((_, remote), segments)| segments.iter().map(|sent| (*remote, sent)))
            .filter(move |(_, sent)| sent.size > largest && sent.times > 1 && sent.last.since(sent.first) >= TIMEOUT)
    }

    /// Peers on this path, each with the smallest packet unacknowledged for this long although more than one was sent:
    /// a receiver may delay the acknowledgment of a single packet.
    pub fn unacknowledged(&self, path: Prefix, patience: Duration) -> impl Iterator<Item = (SocketAddr, u32)> {
        let largest = self.largest(path);
        self.sent.iter().filter(move |((_, remote), _)| path.contains(remote.ip())).filter_map(
            move |((node, remote), segments)| {
                let received = self.last_received.get(node).copied().unwrap_or_default();
                let waits = |sent: &&Sent| sent.size > largest;
                let times: u32 = segments.iter().filter(waits).map(|sent| sent.times).sum();
                let old = segments.iter().filter(waits).filter(|sent| received >= sent.first + patience);
                old.map(|sent| sent.size).min().filter(|_| times > 1).map(|size| (*remote, size))
            },
        )
    }

    /// Size of the packet at the head of the socket's queue: full size if the queue holds enough.
    pub fn head_size(&self, socket: &Socket) -> u32 {
        let options = match self.handshakes.get(&socket.remote) {
            Some(handshake) if !handshake.timestamps => 0,
            // `tcpi_snd_mss` excludes the timestamps option, which is assumed if the SYN was not seen.
            _ => TIMESTAMPS,
        };
        let payload = socket.send_mss.min(socket.send_queue.max(1));
        payload.saturating_add(options).saturating_add(headers(socket.remote.ip()))
    }

    pub fn observe(&mut self, operator: &Operator, hidden: &HiddenClients, signal: &Signal) {
        let is_peer = |address: SocketAddr| !operator.is_pod(address.ip());
        let (at, node) = (signal.at, &signal.node);
        match &signal.observed {
            Observed::Segment(segment) if segment.comes_in() && is_peer(segment.source) => {
                self.last_received.record(Arc::clone(node), at);
                self.received(at, operator, node, segment);
            }
            Observed::Segment(segment) if segment.goes_out() && segment.payload > 0 && is_peer(segment.destination) => {
                self.sent(at, operator, node, segment);
            }
            Observed::Socket(socket) => {
                let socket = hidden.uncover(socket);
                if is_peer(socket.remote) {
                    self.socket(at, operator, node, &socket);
                }
            }
            _ => {}
        }
    }

    fn received(&mut self, at: Time, operator: &Operator, node: &Arc<str>, segment: &Segment) {
        let remote = segment.source;
        let key = (Arc::clone(node), remote);
        if segment.opens() {
            self.sent.remove(&key);
            let timestamps = segment.timestamp.is_some();
            self.handshakes.insert(remote, Handshake { at, mss: segment.mss, timestamps });
        } else if segment.flags.ack && !segment.flags.rst {
            self.acknowledged(operator, &key, |sent| !after(sent.end, segment.acknowledgment));
        }
    }

    /// Removes acknowledged segments to a peer, which prove their size.
    fn acknowledged(&mut self, operator: &Operator, key: &(Arc<str>, SocketAddr), is: impl Fn(&Sent) -> bool) {
        let Some(segments) = self.sent.get_mut(key) else { return };
        if let Some(size) = segments.extract_if(.., |sent| is(sent)).map(|sent| sent.size).max() {
            self.prove(operator, key.1, size);
        }
    }

    fn sent(&mut self, at: Time, operator: &Operator, node: &Arc<str>, segment: &Segment) {
        let remote = segment.destination;
        let size = segment.packet_size();
        if size <= self.largest(operator.path_of(remote.ip())) {
            return;
        }
        let Some(segments) = self.sent.entry((Arc::clone(node), remote)) else { return };
        let same = |sent: &&mut Sent| sent.sequence == segment.sequence && sent.link == segment.link;
        if let Some(sent) = segments.iter_mut().find(same) {
            sent.times += 1;
            sent.first = sent.first.min(at);
            sent.last = sent.last.max(at);
        } else if segments.len() < SEGMENTS {
            let (link, sequence, end) = (segment.link.clone(), segment.sequence, segment.end());
            segments.push(Sent { link, sequence, end, size, times: 1, first: at, last: at });
        }
    }

    fn socket(&mut self, at: Time, operator: &Operator, node: &Arc<str>, socket: &Socket) {
        let open = matches!(socket.state, TcpState::Established | TcpState::CloseWait | TcpState::FinWait2);
        // With an empty queue, everything sent before is acknowledged.
        if open && socket.unacked == 0 && socket.send_queue == 0 {
            self.acknowledged(operator, &(Arc::clone(node), socket.remote), |sent| sent.last + SKEW < at);
        }
        let key = (Arc::clone(node), socket.key());
        if let Some(before) = self.sockets.get(&key) {
            // Two full segments were queued and as much was acknowledged, so at least one was full-size.
            let two = u64::from(socket.send_mss) * 2;
            let bulk = before.send_mss == socket.send_mss && u64::from(before.send_queue) >= two;
            if bulk && two > 0 && socket.bytes_acked >= before.bytes_acked.saturating_add(two) {
                let full = Socket { send_queue: u32::MAX, ..socket.clone() };
                self.prove(operator, socket.remote, self.head_size(&full));
            }
        }
        let (bytes_acked, send_queue, send_mss) = (socket.bytes_acked, socket.send_queue, socket.send_mss);
        self.sockets.insert(key, Bulk { at, bytes_acked, send_queue, send_mss });
    }

    fn prove(&mut self, operator: &Operator, remote: SocketAddr, size: u32) {
        if let Some(largest) = self.largest.entry(operator.path_of(remote.ip())) {
            *largest = size.max(*largest);
        }
    }

    pub fn forget(&mut self, now: Time) {
        self.sent.retain(|_, segments| {
            segments.retain(|sent| now.since(sent.last) < FORGET);
            !segments.is_empty()
        });
        self.handshakes.retain(|_, handshake| now.since(handshake.at) < FORGET);
        self.sockets.retain(|_, bulk| now.since(bulk.at) < FORGET);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Scene, operator};

    /// The largest size proven for the path by these steps of its client, and the number of retransmitted segments.
    fn proven(steps: &[&str]) -> (u32, usize) {
        let mut scene = Scene::new("pmtu-blackhole");
        for step in steps {
            let (at, what) = step.split_once(' ').unwrap();
            scene.play(format_args!("{at} office 192.168.40.7:40000 {what}"));
        }
        let mut proven = ProvenSizes::default();
        scene.signals.iter().for_each(|signal| proven.observe(&operator(), &HiddenClients::default(), signal));
        let path = "192.168.40.0/24".parse().unwrap();
        (proven.largest(path), proven.retransmitted(path).count())
    }

    #[test]
    fn only_an_acknowledgment_that_covers_it_proves_a_size() {
        assert_eq!(proven(&["0 syn 1280", "1 data 1 1268", "2 acked 1268"]).0, 0, "one byte short");
        assert_eq!(proven(&["0 syn 1280", "1 data 1 1268", "2 acked 1268", "3 acked 1269"]).0, 1320);
    }

    #[test]
    fn a_tail_loss_probe_is_no_timeout() {
        assert_eq!(proven(&["0 data 1 1368", "20 data 1 1368"]).1, 0);
        assert_eq!(proven(&["0 data 1 1368", "210 data 1 1368"]).1, 1);
    }

    #[test]
    fn a_socket_proves_by_bulk_or_by_an_empty_queue() {
        assert_eq!(proven(&["0 socket 1348 0 9000 0", "100 socket 1348 2696 9000 0"]).0, 1400);
        assert_eq!(proven(&["0 socket 1348 0 900 0", "100 socket 1348 90000 900 0"]).0, 0, "many small ones");
        assert_eq!(proven(&["0 data 1 1348", "50 socket 1348 5000 0 0"]).0, 1400);
    }
}
