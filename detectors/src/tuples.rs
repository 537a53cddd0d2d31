//! Connections as they look on the wire of an uplink, after source NAT: one after another on a tuple.
//!
//! Job: for each (source, destination) keep the present connection and the last one that the server
//! accepted, whose `TIME_WAIT` it may still hold.
//! Invariant: a connection that was never answered does not replace the one the server remembers.
//! Left out: who was translated to that source; conntrack events tell.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::operator::Operator;
use crate::signal::Segment;
use crate::time::Time;
use crate::wire::after;

const FORGET: Duration = Duration::from_mins(5);
const CAP: usize = 65_536;

/// What names a connection on the wire: translated source, destination.
pub(crate) type TupleKey = (SocketAddr, SocketAddr);

#[derive(Debug, Default)]
pub(crate) struct Tuples {
    tuples: BTreeMap<TupleKey, Tuple>,
    pruned: Time,
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
    /// The server sent something else than a SYN-ACK.
    pub challenged: bool,
    timestamp: Option<u32>,
    end: u32,
}

/// What a server that holds a connection in `TIME_WAIT` remembers of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Held {
    pub last: Time,
    pub timestamp: Option<u32>,
    pub end: u32,
}

impl Tuple {
    /// How the present connection's SYN lies behind the one the server holds, if it does. Where both
    /// carry timestamps these decide, else the sequence numbers (RFC 6191; Linux does the same).
    pub fn behind(&self) -> Option<String> {
        let (held, initial) = (self.held?, self.present.initial);
        let sequence_behind = !after(initial, held.end.wrapping_sub(1));
        match (self.present.syn_timestamp, held.timestamp) {
            (Some(new), Some(old)) if after(old, new) => {
                Some(format!("its SYN's timestamp {new} lies behind the {old} of the earlier connection"))
            }
            (Some(new), Some(old)) if new != old => None,
            _ if sequence_behind => Some(format!(
                "its SYN's sequence number {initial} lies behind the {} of the earlier connection",
                held.end
            )),
            _ => None,
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

    /// Takes a segment on an uplink; says which tuple it concerned.
    pub fn observe(&mut self, at: Time, operator: &Operator, segment: &Segment) -> Option<TupleKey> {
        if !operator.is_uplink(&segment.link) {
            return None;
        }
        self.prune(at);
        if segment.goes_out() {
            let key = (segment.source, segment.destination);
            self.out(at, key, segment).then_some(key)
        } else {
            let key = (segment.destination, segment.source);
            let tuple = self.tuples.get_mut(&key)?;
            tuple.answer(at, segment);
            Some(key)
        }
    }

    fn out(&mut self, at: Time, key: TupleKey, segment: &Segment) -> bool {
        if segment.accepts() {
            // A connection somebody else opened.
            return false;
        }
        let full = self.tuples.len() >= CAP;
        let Some(tuple) = self.tuples.get_mut(&key) else {
            // Only connections whose beginning was seen are followed: most others were opened from outside.
            let follow = segment.opens() && !full;
            if follow {
                self.tuples.insert(key, Tuple { present: Connection::new(at, segment), held: None });
            }
            return follow;
        };
        if !segment.opens() {
            if !segment.flags.rst {
                // The client goes on only where it was answered.
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

    fn prune(&mut self, now: Time) {
        if now.since(self.pruned) >= Duration::from_secs(1) {
            self.pruned = now;
            self.tuples.retain(|_, tuple| now.since(tuple.present.last) < FORGET);
        }
    }
}

impl Tuple {
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
