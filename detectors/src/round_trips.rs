//! Round-trip times of TCP at the uplinks of nodes, of handshakes and of data.
//!
//! A retransmitted segment is not timed, since it is unknown which copy is acknowledged (Karn's algorithm, RFC 6298 3).
//! A handshake is answered by the peer's kernel at once. Data may be acknowledged late: by a timer, or with the response
//! of a slow server. So its time is only an upper bound of the round trip. In addition, the peer's timestamps tell by
//! how much the way back has become longer (RFC 7323 4.1; one tick per millisecond, as on Linux).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::capped::Capped;
use crate::operator::Operator;
use crate::signal::{Observed, Segment, Signal};
use crate::time::Time;
use crate::wire::after;

const CAP: usize = 16_384;
const FORGET: Duration = Duration::from_mins(2);

/// A connection: the node at whose uplink it is captured, its near and its far end.
pub(crate) type Connection = (Arc<str>, SocketAddr, SocketAddr);

/// One round trip.
#[derive(Debug, Clone)]
pub(crate) struct RoundTrip {
    pub connection: Connection,
    pub began: Time,
    pub ended: Time,
    pub handshake: bool,
    /// How much longer the way back took than at the last [`RoundTrips::anchor`].
    pub rise: Duration,
    timestamp: Option<u32>,
}

impl RoundTrip {
    pub fn time(&self) -> Duration {
        self.ended.since(self.began)
    }

    pub const fn peer(&self) -> IpAddr {
        self.connection.2.ip()
    }
}

/// Open connections.
#[derive(Debug, Default)]
pub(crate) struct RoundTrips {
    connections: Capped<Connection, Open, CAP>,
}

#[derive(Debug)]
struct Open {
    timed: Option<Timed>,
    /// Sequence number after everything sent.
    next: u32,
    last: Time,
    /// When the last segment arrived that was not late, and its timestamp.
    anchor: Option<(Time, u32)>,
}

#[derive(Debug, Clone, Copy)]
struct Timed {
    end: u32,
    at: Time,
    handshake: bool,
}

impl RoundTrips {
    pub fn observe(&mut self, operator: &Operator, signal: &Signal) -> Option<RoundTrip> {
        let Observed::Segment(segment) = &signal.observed else { return None };
        let out = segment.goes_out();
        let (near, far) =
            if out { (segment.source, segment.destination) } else { (segment.destination, segment.source) };
        if !operator.is_uplink(&segment.link) || operator.is_pod(far.ip()) {
            return None;
        }
        let connection = (Arc::clone(&signal.node), near, far);
        let trip = if out {
            self.sent(connection.clone(), signal.at, segment);
            None
        } else {
            self.heard(&connection, signal.at, segment)
        };
        if segment.flags.rst || segment.flags.fin {
            self.connections.remove(&connection);
        }
        trip
    }

    fn sent(&mut self, connection: Connection, at: Time, segment: &Segment) {
        let (handshake, end) = (segment.flags.syn, segment.end());
        if !handshake && segment.payload == 0 {
            return;
        }
        let first = Open { timed: None, next: segment.sequence, last: at, anchor: None };
        let Some(open) = self.connections.entry_or(connection, || first) else { return };
        // The port is reused.
        if handshake && open.next != end {
            *open = Open { timed: None, next: segment.sequence, last: at, anchor: None };
        }
        open.last = at;
        if after(open.next, segment.sequence) {
            open.timed = None;
        } else {
            open.timed = open.timed.or(Some(Timed { end, at, handshake }));
        }
        if after(end, open.next) {
            open.next = end;
        }
    }

    fn heard(&mut self, connection: &Connection, at: Time, segment: &Segment) -> Option<RoundTrip> {
        let open = self.connections.get_mut(connection)?;
        let Timed { end, at: began, handshake } = open.timed?;
        let acknowledged = segment.acknowledgment;
        // A segment with another number does not answer the SYN (RFC 5961 4).
        let answers = if handshake { acknowledged == end } else { !after(end, acknowledged) };
        if !segment.flags.ack || !answers || at < began {
            return None;
        }
        open.timed = None;
        open.last = at;
        let timestamp = segment.timestamp;
        let rise = open.anchor.zip(timestamp).map(|((then, clock), now)| {
            at.since(then).saturating_sub(Duration::from_millis(now.wrapping_sub(clock).into()))
        });
        let (connection, rise) = (connection.clone(), rise.unwrap_or_default());
        Some(RoundTrip { connection, began, ended: at, handshake, rise, timestamp })
    }

    /// Compares later segments of the connection with this one, which was not late.
    pub fn anchor(&mut self, trip: &RoundTrip) {
        if let (Some(open), Some(clock)) = (self.connections.get_mut(&trip.connection), trip.timestamp) {
            open.anchor = Some((trip.ended, clock));
        }
    }

    pub fn forget(&mut self, now: Time) {
        self.connections.retain(|_, open| now.since(open.last) < FORGET);
    }
}
