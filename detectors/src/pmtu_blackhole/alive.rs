//! Which clients receive small packets, and when they last did.
//!
//! Invariant: a packet *from* a client proves nothing unless it acknowledges something new. A half-dead client may keep
//! sending. What one node's clients receive proves nothing for another node.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::capped::Capped;
use crate::hidden_clients::HiddenClients;
use crate::operator::Operator;
use crate::proven::Way;
use crate::signal::{Observed, Segment, Signal, Socket};
use crate::time::Time;
use crate::wire::after;

/// How late a stall or the progress of another connection may be seen.
const UNDER_WAY: Duration = Duration::from_millis(50);
const FORGET: Duration = Duration::from_mins(2);
const CAP: usize = 16_384;

#[derive(Debug, Default)]
pub(super) struct SmallPackets {
    /// By node, address, then port, so that all connections of a client are adjacent.
    connections: Capped<(Arc<str>, IpAddr, u16), Connection, CAP>,
    paths: Capped<Way, Time, CAP>,
    /// The smallest MSS announced by each client, and when it last announced one.
    mss: Capped<(Arc<str>, IpAddr), (Time, u16), CAP>,
}

#[derive(Debug, Default)]
struct Connection {
    seen: Time,
    mss: Option<u16>,
    acknowledged: Option<u32>,
    /// When its SYN arrived, and the bytes acknowledged at the last read of its socket.
    opened: Option<Time>,
    read: Option<(Time, u64)>,
    progress: Option<Time>,
}

impl SmallPackets {
    /// Whether the client received something, on another connection, since then.
    pub fn reached(&self, node: &Arc<str>, client: SocketAddr, since: Time) -> bool {
        let key = |port| (Arc::clone(node), client.ip(), port);
        let connections = self.connections.range(key(0)..=key(u16::MAX));
        let mut others = connections.filter(|((.., port), _)| *port != client.port());
        others.any(|(_, connection)| connection.progress.is_some_and(|at| at > since + UNDER_WAY))
    }

    /// Whether any client on the path received something since then.
    pub fn reached_path(&self, way: &Way, since: Time) -> bool {
        self.paths.get(way).is_some_and(|at| *at > since + UNDER_WAY)
    }

    /// Whether this connection's client announced a smaller MSS before.
    pub fn mss_rose(&self, node: &Arc<str>, remote: SocketAddr) -> bool {
        let key = (Arc::clone(node), remote.ip(), remote.port());
        let mss = self.connections.get(&key).and_then(|connection| connection.mss);
        let smallest = self.mss.get(&(Arc::clone(node), remote.ip()));
        mss.is_some_and(|mss| smallest.is_some_and(|(_, smallest)| *smallest < mss))
    }

    pub fn observe(&mut self, operator: &Operator, hidden: &HiddenClients, signal: &Signal) {
        let is_peer = |address: SocketAddr| !operator.is_pod(address.ip());
        match &signal.observed {
            Observed::Segment(segment) if segment.comes_in() && is_peer(segment.source) => {
                self.segment(signal.at, operator, &signal.node, segment);
            }
            Observed::Socket(socket) => {
                let Some((node, socket)) = hidden.uncover(&signal.node, socket) else { return };
                if is_peer(socket.remote) {
                    self.socket(signal.at, operator, &node, &socket);
                }
            }
            _ => {}
        }
    }

    fn segment(&mut self, at: Time, operator: &Operator, node: &Arc<str>, segment: &Segment) {
        let Some(connection) = self.connection(at, node, segment.source) else { return };
        if segment.opens() {
            *connection = Connection { seen: at, mss: segment.mss, opened: Some(at), ..Connection::default() };
            if let Some(mss) = segment.mss {
                let key = (Arc::clone(node), segment.source.ip());
                let smallest = self.mss.get(&key).map_or(mss, |(_, smallest)| mss.min(*smallest));
                self.mss.insert(key, (at, smallest));
            }
        } else if segment.flags.ack && !segment.flags.syn && !segment.flags.rst {
            // The first one after a SYN acknowledges the SYN-ACK.
            let is_new = match connection.acknowledged {
                Some(acknowledged) => after(segment.acknowledgment, acknowledged),
                None => connection.opened.is_some(),
            };
            if is_new || connection.acknowledged.is_none() {
                connection.acknowledged = Some(segment.acknowledgment);
            }
            if is_new {
                self.progress(at, operator, node, segment.source);
            }
        }
    }

    /// A socket shows progress at some time since its last read; the earliest possible time counts.
    fn socket(&mut self, at: Time, operator: &Operator, node: &Arc<str>, socket: &Socket) {
        let Some(connection) = self.connection(at, node, socket.remote) else { return };
        let reached = match connection.read {
            Some((before, acked)) => (socket.bytes_acked > acked).then_some(before),
            // A request arrived, so the client received the SYN-ACK.
            None => connection.opened.filter(|_| socket.bytes_acked > 0 || socket.bytes_received > 0),
        };
        connection.read = Some((at, socket.bytes_acked));
        if let Some(at) = reached {
            self.progress(at, operator, node, socket.remote);
        }
    }

    fn connection(&mut self, at: Time, node: &Arc<str>, remote: SocketAddr) -> Option<&mut Connection> {
        let connection = self.connections.entry((Arc::clone(node), remote.ip(), remote.port()))?;
        connection.seen = connection.seen.max(at);
        Some(connection)
    }

    fn progress(&mut self, at: Time, operator: &Operator, node: &Arc<str>, remote: SocketAddr) {
        if let Some(connection) = self.connections.get_mut(&(Arc::clone(node), remote.ip(), remote.port())) {
            connection.progress = connection.progress.max(Some(at));
        }
        self.paths.record((Arc::clone(node), operator.path_of(remote.ip())), at);
    }

    pub fn forget(&mut self, now: Time) {
        self.connections.retain(|_, connection| now.since(connection.seen) < FORGET);
        self.paths.retain(|_, at| now.since(*at) < FORGET);
        self.mss.make_room(|(at, _)| *at);
    }
}
