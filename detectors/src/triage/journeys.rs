//! SYNs on their way through the nodes, and the answers to them.
//!
//! Source and destination change on the way (Services, source NAT), the initial sequence number does not: everything
//! that is seen with one number, on whatever node, is one journey.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::access::Leg;
use crate::capped::Capped;
use crate::operator::Operator;
use crate::signal::{Direction, Segment};
use crate::time::Time;

/// A connect that is answered takes less, or less than two round trips.
pub(super) const PATIENCE: Duration = Duration::from_millis(350);
/// Journeys that began in this time before now count.
pub(super) const RECENT: Duration = Duration::from_secs(4);
const FORGET: Duration = Duration::from_secs(10);
/// A SYN seen again after this time was sent again.
const AGAIN: Duration = Duration::from_millis(100);
/// A translated port counts as reused for so long (`TIME_WAIT`).
const REUSED: Duration = Duration::from_mins(1);
const CAP: usize = 16_384;
const MOST_SIGHTS: usize = 16;

/// Where a segment was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sighting {
    pub at: Time,
    pub node: Arc<str>,
    pub link: String,
    pub direction: Direction,
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

impl Sighting {
    fn of(at: Time, node: &Arc<str>, segment: &Segment) -> Self {
        let (link, direction) = (segment.link.clone(), segment.direction);
        Self { at, node: Arc::clone(node), link, direction, source: segment.source, destination: segment.destination }
    }

    fn is_same(&self, other: &Self) -> bool {
        let ends = |sight: &Self| (sight.source, sight.destination);
        self.node == other.node
            && self.link == other.link
            && self.direction == other.direction
            && ends(self) == ends(other)
    }

    pub fn goes_out(&self) -> bool {
        self.direction == Direction::Out
    }
}

/// One connect.
#[derive(Debug, Default)]
pub(super) struct Journey {
    /// In the order of time, each place once.
    pub syns: Vec<Sighting>,
    pub answers: Vec<Sighting>,
    pub refused: Option<Time>,
    /// The tuple by which it left was another client's before.
    pub reused: bool,
    sent_again: bool,
    /// How long an answer may take.
    patience: Duration,
}

impl Journey {
    pub fn origin(&self) -> Option<&Sighting> {
        self.syns.first()
    }

    pub fn began(&self) -> Time {
        self.origin().map_or(Time::default(), |sight| sight.at)
    }

    /// When the SYN-ACK came back to where the SYN was seen first.
    pub fn answered(&self) -> Option<Time> {
        let origin = self.origin()?;
        let back = |sight: &&Sighting| {
            sight.node == origin.node
                && sight.link == origin.link
                && sight.direction != origin.direction
                && (sight.source, sight.destination) == (origin.destination, origin.source)
        };
        self.answers.iter().find(back).map(|sight| sight.at)
    }

    /// Whether nothing came back in time.
    pub fn is_broken(&self, now: Time) -> bool {
        let age = now.since(self.began());
        age >= self.patience.max(PATIENCE) && age < RECENT && self.answered().is_none() && self.refused.is_none()
    }
}

/// All connects of a few seconds.
#[derive(Debug, Default)]
pub(super) struct Journeys {
    by_number: Capped<u32, Journey, CAP>,
    /// The link by which answered SYNs leave the node of their client, by source and destination.
    leaves_by: Capped<(IpAddr, IpAddr), (Time, String), CAP>,
    /// The client of the last answered connect on a translated tuple.
    tuples: Capped<(SocketAddr, SocketAddr), (Time, IpAddr), CAP>,
    /// The original source of a translated one, and when that was last seen.
    originals: Capped<SocketAddr, (Time, SocketAddr), CAP>,
    /// When a connect to a server was last answered, and the longest recent time that it took.
    accepted: Capped<SocketAddr, (Time, Duration), CAP>,
}

impl Journeys {
    pub fn observe(&mut self, at: Time, node: &Arc<str>, operator: &Operator, segment: &Segment) {
        if segment.opens() {
            self.syn(at, node, operator, segment);
        } else if segment.accepts() {
            self.answer(at, node, operator, segment);
        } else if segment.flags.rst
            && let Some(journey) = self.by_number.get_mut(&segment.acknowledgment.wrapping_sub(1))
        {
            journey.refused = journey.refused.or(Some(at));
        }
    }

    fn syn(&mut self, at: Time, node: &Arc<str>, operator: &Operator, segment: &Segment) {
        let Some(journey) = self.by_number.entry(segment.sequence) else { return };
        if journey.syns.last().is_some_and(|last| at.since(last.at) > FORGET) {
            *journey = Journey::default();
        }
        let sight = Sighting::of(at, node, segment);
        let known = journey.syns.iter().find(|known| known.is_same(&sight));
        journey.sent_again |= known.is_some_and(|known| at.since(known.at) >= AGAIN);
        if known.is_some() || journey.syns.len() == MOST_SIGHTS {
            return;
        }
        let usual = self.accepted.get(&segment.destination).map_or(Duration::ZERO, |(_, took)| *took);
        journey.patience = journey.patience.max(usual * 2);
        let index = journey.syns.partition_point(|known| known.at <= at);
        journey.syns.insert(index, sight);
        let origin = &journey.syns[0];
        if segment.source == origin.source {
            return;
        }
        // Translated.
        let original = origin.source;
        self.originals.insert(segment.source, (at, original));
        if segment.goes_out() && operator.is_uplink(&segment.link) {
            let key = (segment.source, segment.destination);
            let before = self.tuples.get(&key).filter(|(last, _)| at.since(*last) < REUSED);
            journey.reused |= before.is_some_and(|(_, client)| *client != original.ip());
        }
    }

    fn answer(&mut self, at: Time, node: &Arc<str>, operator: &Operator, segment: &Segment) {
        let Some(journey) = self.by_number.get_mut(&segment.acknowledgment.wrapping_sub(1)) else { return };
        let sight = Sighting::of(at, node, segment);
        if !journey.answers.iter().any(|known| known.is_same(&sight)) && journey.answers.len() < MOST_SIGHTS {
            journey.answers.push(sight);
        }
        if journey.answered() != Some(at) {
            return;
        }
        let Some(origin) = journey.origin() else { return };
        let left = journey.syns.iter().find(|sight| sight.goes_out() && operator.is_uplink(&sight.link));
        if let Some(left) = left.filter(|left| left.node == origin.node) {
            self.leaves_by.insert((origin.source.ip(), left.destination.ip()), (at, left.link.clone()));
        }
        for sight in &journey.syns {
            let before = self.accepted.get(&sight.destination).map_or(Duration::ZERO, |(_, took)| *took * 7 / 8);
            let took = if journey.sent_again { before } else { at.since(origin.at).max(before) };
            self.accepted.insert(sight.destination, (at, took));
            // A connect that is not answered does not replace the one that the server remembers.
            if sight.source != origin.source {
                self.tuples.insert((sight.source, sight.destination), (at, origin.source.ip()));
            }
        }
    }

    /// The link by which answered SYNs from a client to an address leave.
    pub fn leaves_by(&self, client: IpAddr, to: IpAddr) -> Option<&str> {
        self.leaves_by.get(&(client, to)).map(|(_, link)| link.as_str())
    }

    /// The source before translation.
    pub fn original(&self, source: SocketAddr) -> SocketAddr {
        self.originals.get(&source).map_or(source, |(_, original)| *original)
    }

    /// When this server last accepted a connection.
    pub fn accepted(&self, server: SocketAddr) -> Option<Time> {
        self.accepted.get(&server).map(|(at, _)| *at)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Journey> {
        self.by_number.values()
    }

    /// The connects of a leg, newest last. A leg by a name goes to whatever address it has.
    pub fn of<'a>(&'a self, leg: &'a Leg) -> Vec<&'a Journey> {
        let belongs = |journey: &&Journey| {
            let Some(origin) = journey.origin() else { return false };
            let port = leg.port == Some(origin.destination.port()) || !leg.via.is_empty();
            let known = leg.asks(origin.destination.ip()) || leg.lookup.is_some();
            leg.port.is_some() && port && known && leg.is_from(origin.source.ip())
        };
        let mut own: Vec<_> = self.by_number.values().filter(belongs).collect();
        own.sort_by_key(|journey| journey.began());
        own
    }

    pub fn forget(&mut self, now: Time) {
        self.by_number.retain(|_, journey| now.since(journey.began()) < FORGET);
        self.tuples.retain(|_, (last, _)| now.since(*last) < REUSED);
        self.originals.make_room(|(at, _)| *at);
        self.leaves_by.make_room(|(at, _)| *at);
        self.accepted.make_room(|(at, _)| *at);
    }
}
