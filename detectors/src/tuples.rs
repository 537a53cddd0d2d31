//! Connections on the wire of an uplink, after source NAT, in succession on each tuple.
//!
//! Job: for each (source, destination), keep the present connection and the last one accepted by the server, which may
//! still hold it in `TIME_WAIT`; and keep each connect by destination and sequence number, which translation does not
//! change: a retransmitted SYN may leave from another port.
//! Invariant: a connection that was never answered does not replace the one held by the server.
//! Left out: the original source, which conntrack events report.

use std::net::SocketAddr;
use std::time::Duration;

use crate::capped::Capped;
use crate::operator::Operator;
use crate::signal::Segment;
use crate::time::Time;
use crate::wire::after;

const FORGET: Duration = Duration::from_mins(5);
/// Connects succeed or fail long before.
const FORGET_CONNECT: Duration = Duration::from_secs(30);
/// Without any segment for this long, none is still undelivered.
const SILENCE: Duration = Duration::from_millis(150);
const CAP: usize = 65_536;

/// Identifies a connection on the wire: translated source, destination.
pub(crate) type TupleKey = (SocketAddr, SocketAddr);

#[derive(Debug, Default)]
pub(crate) struct Tuples {
    tuples: Capped<TupleKey, Tuple, CAP>,
    connects: Capped<ConnectKey, Connect, CAP>,
    /// The longest recent time that each server took to accept a SYN.
    round_trips: Capped<SocketAddr, (Time, Duration), CAP>,
    /// When a segment of an uplink was last seen: all segments up to then have been delivered.
    last_seen: Time,
}

/// Identifies a connect regardless of its translated port: destination, initial sequence number.
pub(crate) type ConnectKey = (SocketAddr, u32);

/// A client's attempt to connect, across all translated ports of its SYNs.
#[derive(Debug, Clone)]
pub(crate) struct Connect {
    /// The tuple of its first SYN, or its last tuple that belonged to another connection before.
    pub tuple: TupleKey,
    pub first: Time,
    pub last_syn: Time,
    pub syns: u32,
    pub answered: bool,
    /// The server answered with something other than a SYN-ACK.
    pub challenged: bool,
    /// The earlier connection on that tuple that the server may hold.
    pub held: Option<Held>,
    /// Its SYN is older than that connection.
    pub behind: bool,
}

#[derive(Debug)]
pub(crate) struct Tuple {
    pub present: Connection,
    /// The last connection before it that the server accepted.
    pub held: Option<Held>,
}

/// The present connection.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    /// Initial sequence number.
    pub initial: u32,
    pub first: Time,
    pub last: Time,
    /// When its SYN was last sent.
    pub last_syn: Time,
    pub syns: u32,
    pub syn_timestamp: Option<u32>,
    /// The server accepted it.
    pub answered: bool,
    /// The server sent something other than a SYN-ACK.
    pub challenged: bool,
    timestamp: Option<u32>,
    end: u32,
}

/// State that a server keeps of a connection in `TIME_WAIT`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Held {
    pub last: Time,
    pub timestamp: Option<u32>,
    pub end: u32,
}

impl Tuple {
    /// How the present connection's SYN is older than the connection held by the server, if it is. If both carry
    /// timestamps, these decide, otherwise the sequence numbers (RFC 6191; Linux does the same).
    pub fn behind(&self) -> Option<String> {
        let (held, initial) = (self.held?, self.present.initial);
        let sequence_behind = !after(initial, held.end.wrapping_sub(1));
        match (self.present.syn_timestamp, held.timestamp) {
            (Some(new), Some(old)) if after(old, new) => {
                Some(format!("its SYN's timestamp {new} is older than the {old} of the earlier connection"))
            }
            (Some(new), Some(old)) if new != old => None,
            _ if sequence_behind => {
                Some(format!("its SYN's sequence number {initial} is below the {} of the earlier connection", held.end))
            }
            _ => None,
        }
    }

    fn answer(&mut self, at: Time, segment: &Segment) {
        let present = &mut self.present;
        if segment.accepts() {
            present.answered |= present.initial.wrapping_add(1) == segment.acknowledgment;
        } else if !present.answered {
            present.challenged |= at >= present.first;
            return;
        }
        if present.answered {
            present.last = present.last.max(at);
        }
    }
}

impl Connection {
    fn new(at: Time, syn: &Segment) -> Self {
        Self {
            initial: syn.sequence,
            first: at,
            last: at,
            last_syn: at,
            syns: 1,
            syn_timestamp: syn.timestamp,
            answered: false,
            challenged: false,
            timestamp: syn.timestamp,
            end: syn.end(),
        }
    }

    fn sent(&mut self, at: Time, segment: &Segment) {
        self.last = self.last.max(at);
        self.timestamp = match (self.timestamp, segment.timestamp) {
            (Some(old), Some(new)) if after(old, new) => Some(old),
            (old, new) => new.or(old),
        };
        if after(segment.end(), self.end) {
            self.end = segment.end();
        }
    }
}

impl Tuples {
    pub fn get(&self, key: &TupleKey) -> Option<&Tuple> {
        self.tuples.get(key)
    }

    /// The connect of a tuple's present connection.
    pub fn connect_of(&self, key: &TupleKey) -> Option<&Connect> {
        self.connect(&(key.1, self.get(key)?.present.initial))
    }

    pub fn connect(&self, key: &ConnectKey) -> Option<&Connect> {
        self.connects.get(key)
    }

    /// The longest recent time that this server took to accept a SYN.
    pub fn round_trip(&self, server: &SocketAddr) -> Option<Duration> {
        self.round_trips.get(server).map(|(_, took)| *took)
    }

    /// Whether all segments up to `by` have been delivered.
    pub fn delivered_up_to(&self, by: Time, now: Time) -> bool {
        self.last_seen >= by || now.since(by) >= SILENCE
    }

    /// Processes a segment on an uplink and returns its tuple.
    pub fn observe(&mut self, at: Time, operator: &Operator, segment: &Segment) -> Option<TupleKey> {
        if !operator.is_uplink(&segment.link) {
            return None;
        }
        self.last_seen = self.last_seen.max(at);
        let key = if segment.goes_out() {
            let key = (segment.source, segment.destination);
            if !self.out(at, key, segment) {
                return None;
            }
            if segment.opens() {
                self.syn(at, key, segment);
            }
            key
        } else {
            let key = (segment.destination, segment.source);
            self.tuples.get_mut(&key)?.answer(at, segment);
            key
        };
        let present = &self.tuples.get(&key)?.present;
        if let Some(connect) = self.connects.get_mut(&(key.1, present.initial)) {
            if present.answered && !connect.answered && segment.accepts() {
                let before = self.round_trips.get(&key.1).map_or(Duration::ZERO, |(_, took)| *took * 7 / 8);
                self.round_trips.insert(key.1, (at, at.since(present.last_syn).max(before)));
            }
            connect.answered |= present.answered;
            connect.challenged |= present.challenged;
        }
        Some(key)
    }

    fn syn(&mut self, at: Time, key: TupleKey, segment: &Segment) {
        let Some(tuple) = self.tuples.get(&key) else { return };
        let (held, behind) = (tuple.held, tuple.behind().is_some());
        if let Some(connect) = self.connects.get_mut(&(key.1, segment.sequence)) {
            connect.syns += 1;
            connect.first = connect.first.min(at);
            connect.last_syn = connect.last_syn.max(at);
            if held.is_some() {
                (connect.tuple, connect.held) = (key, held);
                connect.behind |= behind;
            }
        } else {
            let (answered, challenged) = (false, false);
            let connect = Connect { tuple: key, first: at, last_syn: at, syns: 1, answered, challenged, held, behind };
            self.connects.insert((key.1, segment.sequence), connect);
        }
    }

    fn out(&mut self, at: Time, key: TupleKey, segment: &Segment) -> bool {
        if segment.accepts() {
            // A connection opened by the peer.
            return false;
        }
        let Some(tuple) = self.tuples.get_mut(&key) else {
            // Only connections whose SYN was seen are tracked: most others were opened from outside.
            if segment.opens() {
                self.tuples.insert(key, Tuple { present: Connection::new(at, segment), held: None });
            }
            return segment.opens();
        };
        if !segment.opens() {
            if !segment.flags.rst {
                // The client continues only after an answer.
                tuple.present.answered |= segment.flags.ack;
                tuple.present.sent(at, segment);
            }
        } else if tuple.present.initial == segment.sequence {
            tuple.present.syns += 1;
            tuple.present.last_syn = tuple.present.last_syn.max(at);
            tuple.present.last = tuple.present.last.max(at);
        } else if at >= tuple.present.first {
            let old = &tuple.present;
            if old.answered {
                tuple.held = Some(Held { last: old.last, timestamp: old.timestamp, end: old.end });
            }
            tuple.present = Connection::new(at, segment);
        }
        true
    }

    pub fn forget(&mut self, now: Time) {
        self.tuples.retain(|_, tuple| now.since(tuple.present.last) < FORGET);
        self.connects.retain(|_, connect| now.since(connect.last_syn) < FORGET_CONNECT);
        self.round_trips.make_room(|(at, _)| *at);
    }
}
