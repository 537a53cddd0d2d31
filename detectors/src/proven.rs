//! Which packet sizes each path is proven to carry, and which packets TCP has lost there.
//!
//! Job: track segments to peers until they are acknowledged, and bulk transfers of sockets; keep when each size was last
//! proven for each path, and the larger segments still unacknowledged.
//! Invariants: a size is proven only by an acknowledgment that covers it, never by silence, and only for the node that
//! sees the path's packets. Proofs age: a path may shrink under what it once carried. A few segments of each connection
//! are kept, and none of a size proven just before. Patience is counted in round trips and retransmission timeouts.
//! Left out: the interpretation of sizes that are not proven.

use std::collections::BTreeMap;
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

/// Segments kept for one connection, sizes kept for one path, and connections kept.
const SEGMENTS: usize = 8;
const SIZES: usize = 16;
const CAP: usize = 8192;
/// Entries not seen for this long are dropped.
const FORGET: Duration = Duration::from_mins(2);
/// A size proven longer ago counts no more, as a learned path MTU (`ip_rt_mtu_expires` in net/ipv4/route.c, RFC 1191
/// 6.3).
const AGE: Duration = Duration::from_mins(10);
/// A proof of the same size is renewed no sooner.
const RENEWAL: Duration = Duration::from_millis(100);
/// A retransmission timeout is the round-trip time and at least this much (`TCP_RTO_MIN` in include/net/tcp.h, 200 ms,
/// less two ticks of 10 ms). Tail-loss probes come after two round trips (RFC 8985 7.2).
const RTO_MIN: Duration = Duration::from_millis(180);
/// Round-trip time of a path on which none was measured (RFC 6298 2.1).
const INITIAL: Duration = Duration::from_secs(1);
/// How long the acknowledgment of a segment may be delayed (`TCP_DELACK_MIN` in include/net/tcp.h, 40 ms, and a tick).
const DELAYED: Duration = Duration::from_millis(50);
/// A socket's state is read shortly after the segments it reflects.
const SKEW: Duration = Duration::from_millis(5);

/// A path, and the node that sees its packets.
pub(crate) type Way = (Arc<str>, Prefix);

#[derive(Debug, Default)]
pub(crate) struct ProvenSizes {
    ways: Capped<Way, Carried, CAP>,
    sent: Capped<(Arc<str>, SocketAddr), Vec<Sent>, CAP>,
    handshakes: Capped<(Arc<str>, SocketAddr), Handshake, CAP>,
    sockets: Capped<(Arc<str>, SocketKey), Bulk, CAP>,
}

/// What a path has carried.
#[derive(Debug, Default)]
struct Carried {
    /// When each size was last proven. A size is left out if a larger one was proven later.
    sizes: BTreeMap<u32, Time>,
    /// The last round-trip time that was measured.
    round_trip: Option<Duration>,
    /// When either was last seen.
    last: Time,
}

/// A peer's SYN and what followed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Handshake {
    pub at: Time,
    pub mss: Option<u16>,
    /// The MSS in our SYN-ACK: the pod's own MTU less the headers.
    pub own_mss: Option<u16>,
    timestamps: bool,
    /// From SYN to ACK, or as measured by the socket.
    round_trip: Option<Duration>,
}

impl Handshake {
    /// The largest packet that can be sent on this connection: both sides' MSS limit it (RFC 9293 3.7.1).
    pub fn largest_packet(&self, remote: SocketAddr) -> Option<u32> {
        Some(u32::from(self.mss?.min(self.own_mss?)) + headers(remote.ip()))
    }
}

/// A segment not yet acknowledged.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    link: String,
    sequence: u32,
    end: u32,
    pub size: u32,
    pub times: u32,
    first: Time,
    last: Time,
}

#[derive(Debug)]
struct Bulk {
    at: Time,
    /// Since its read before.
    period: Duration,
    bytes_acked: u64,
    send_queue: u32,
    send_mss: u32,
}

impl Carried {
    fn prove(&mut self, at: Time, size: u32) {
        self.last = self.last.max(at);
        if self.carried(size).is_some_and(|last| last >= at) {
            return;
        }
        self.sizes.retain(|smaller, last| *smaller > size || *last > at);
        self.sizes.insert(size, at);
        if self.sizes.len() > SIZES {
            self.sizes.pop_first();
        }
    }

    /// When a packet of at least this size was last acknowledged.
    fn carried(&self, size: u32) -> Option<Time> {
        self.sizes.range(size..).map(|(_, at)| *at).max()
    }
}

impl ProvenSizes {
    /// The largest packet this path has carried lately, 0 if none is known.
    pub fn largest(&self, way: &Way) -> u32 {
        self.ways.get(way).and_then(|carried| carried.sizes.last_key_value()).map_or(0, |(size, _)| *size)
    }

    /// When this path last carried a packet of at least this size.
    pub fn carried(&self, way: &Way, size: u32) -> Option<Time> {
        self.ways.get(way)?.carried(size)
    }

    /// The SYN of this peer.
    pub fn handshake(&self, node: &Arc<str>, remote: SocketAddr) -> Option<Handshake> {
        self.handshakes.get(&(Arc::clone(node), remote)).copied()
    }

    /// How long before its last read this socket was read; zero if it was not.
    pub fn period(&self, socket: &(Arc<str>, SocketKey)) -> Duration {
        self.sockets.get(socket).map_or(Duration::ZERO, |read| read.period)
    }

    fn round_trip(&self, way: &Way, remote: SocketAddr) -> Duration {
        let own = self.handshake(&way.0, remote).and_then(|handshake| handshake.round_trip);
        own.or_else(|| self.ways.get(way)?.round_trip).unwrap_or(INITIAL)
    }

    /// Segments on this path, larger than any it carried, that were sent again after a retransmission timeout, and whose
    /// acknowledgment is overdue.
    pub fn lost<'a>(&'a self, way: &'a Way, now: Time) -> impl Iterator<Item = (SocketAddr, &'a Sent)> {
        let largest = self.largest(way);
        let of_node = self.sent.iter().filter(|((node, remote), _)| *node == way.0 && way.1.contains(remote.ip()));
        let segments = of_node.flat_map(|((_, remote), segments)| segments.iter().map(|sent| (*remote, sent)));
        segments.filter(move |(remote, sent)| {
            let round_trip = self.round_trip(way, *remote);
            sent.size > largest
                && sent.last.since(sent.first) >= round_trip + RTO_MIN
                && now.since(sent.last) >= round_trip * 3 / 2 + DELAYED
        })
    }

    /// Size of the packet at the head of the socket's queue: full size if the queue holds enough. `node`: where its
    /// peer's packets are seen.
    pub fn head_size(&self, node: &Arc<str>, socket: &Socket) -> u32 {
        let options = match self.handshake(node, socket.remote) {
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
                self.received(at, operator, node, segment);
            }
            Observed::Segment(segment) if segment.goes_out() && is_peer(segment.destination) => {
                self.sent(at, operator, node, segment);
            }
            Observed::Socket(socket) => {
                if let Some((seen_at, uncovered)) = hidden.uncover(node, socket)
                    && is_peer(uncovered.remote)
                {
                    self.socket(at, operator, (Arc::clone(node), socket.key()), &seen_at, &uncovered);
                }
            }
            _ => {}
        }
    }

    fn received(&mut self, at: Time, operator: &Operator, node: &Arc<str>, segment: &Segment) {
        let key = (Arc::clone(node), segment.source);
        if segment.opens() {
            self.sent.remove(&key);
            let (mss, timestamps) = (segment.mss, segment.timestamp.is_some());
            self.handshakes.insert(key, Handshake { at, mss, own_mss: None, timestamps, round_trip: None });
        } else if segment.flags.ack && !segment.flags.rst {
            let opened = self.handshakes.get(&key).filter(|handshake| handshake.round_trip.is_none());
            if let Some(opened) = opened.map(|handshake| handshake.at) {
                self.timed(at, operator, &key, at.since(opened));
            }
            self.acknowledged(operator, at, &key, |sent| !after(sent.end, segment.acknowledgment));
        }
    }

    /// A round trip to this peer took so long.
    fn timed(&mut self, at: Time, operator: &Operator, key: &(Arc<str>, SocketAddr), took: Duration) {
        if let Some(handshake) = self.handshakes.get_mut(key) {
            handshake.round_trip = Some(handshake.round_trip.map_or(took, |known| known.min(took)));
        }
        if let Some(carried) = self.ways.entry((Arc::clone(&key.0), operator.path_of(key.1.ip()))) {
            (carried.round_trip, carried.last) = (Some(took), carried.last.max(at));
        }
    }

    /// Removes acknowledged segments to a peer, which prove their size.
    fn acknowledged(
        &mut self,
        operator: &Operator,
        at: Time,
        key: &(Arc<str>, SocketAddr),
        is: impl Fn(&Sent) -> bool,
    ) {
        let Some(segments) = self.sent.get_mut(key) else { return };
        if let Some(size) = segments.extract_if(.., |sent| is(sent)).map(|sent| sent.size).max() {
            self.prove(operator, at, key, size);
        }
    }

    fn sent(&mut self, at: Time, operator: &Operator, node: &Arc<str>, segment: &Segment) {
        let remote = segment.destination;
        let key = (Arc::clone(node), remote);
        if segment.accepts() {
            if let Some(handshake) = self.handshakes.get_mut(&key) {
                handshake.own_mss = segment.mss;
            }
            return;
        }
        let size = segment.packet_size();
        let way = (Arc::clone(node), operator.path_of(remote.ip()));
        let is_fresh = self.carried(&way, size).is_some_and(|last| at < last + RENEWAL);
        if segment.payload == 0 || is_fresh {
            return;
        }
        let Some(segments) = self.sent.entry(key) else { return };
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

    fn socket(
        &mut self,
        at: Time,
        operator: &Operator,
        key: (Arc<str>, SocketKey),
        seen_at: &Arc<str>,
        socket: &Socket,
    ) {
        let open = matches!(socket.state, TcpState::Established | TcpState::CloseWait);
        let peer = (Arc::clone(seen_at), socket.remote);
        if socket.rtt_us > 0 {
            self.timed(at, operator, &peer, Duration::from_micros(socket.rtt_us.into()));
        }
        // With an empty queue, everything sent before is acknowledged.
        if open && socket.unacked == 0 && socket.send_queue == 0 {
            self.acknowledged(operator, at, &peer, |sent| sent.last + SKEW < at);
        }
        if let Some(before) = self.sockets.get(&key) {
            // Two full segments were queued and as much was acknowledged, so at least one was full-size.
            let two = u64::from(socket.send_mss) * 2;
            let bulk = before.send_mss == socket.send_mss && u64::from(before.send_queue) >= two;
            if bulk && two > 0 && socket.bytes_acked >= before.bytes_acked.saturating_add(two) {
                let full = Socket { send_queue: u32::MAX, ..socket.clone() };
                // Acknowledged at some time since.
                let earliest = before.at;
                self.prove(operator, earliest, &peer, self.head_size(seen_at, &full));
            }
        }
        let (bytes_acked, send_queue, send_mss) = (socket.bytes_acked, socket.send_queue, socket.send_mss);
        let period = self.sockets.get(&key).map_or(Duration::ZERO, |before| at.since(before.at));
        self.sockets.insert(key, Bulk { at, period, bytes_acked, send_queue, send_mss });
    }

    fn prove(&mut self, operator: &Operator, at: Time, peer: &(Arc<str>, SocketAddr), size: u32) {
        if let Some(carried) = self.ways.entry((Arc::clone(&peer.0), operator.path_of(peer.1.ip()))) {
            carried.prove(at, size);
        }
    }

    pub fn forget(&mut self, now: Time) {
        for carried in self.ways.values_mut() {
            carried.sizes.retain(|_, last| now.since(*last) < AGE);
        }
        self.ways.make_room(|carried| carried.last);
        self.sent.retain(|_, segments| {
            segments.retain(|sent| now.since(sent.last) < FORGET);
            !segments.is_empty()
        });
        self.handshakes.retain(|_, handshake| now.since(handshake.at) < FORGET);
        self.sockets.retain(|_, bulk| now.since(bulk.at) < FORGET);
    }
}

#[cfg(test)]
mod tests;
