//! How long the way to each address usually takes, which names lead there, and where it takes longer than it did.
//!
//! A step counts when three round trips in a row are slow. Of several that end together only one counts: a machine that
//! had no time delayed them all. What is slow does not become usual. A name that gets a new address is compared with
//! what it had: the slowest of its addresses before.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::capped::Capped;
use crate::names::Answer;
use crate::operator::Operator;
use crate::round_trips::{RoundTrip, RoundTrips};
use crate::signal::Signal;
use crate::time::Time;

/// Steps of 3 times and 20 ms are incidents, below 1.5 times or 5 ms they are none: the limits lie between.
const SLOW: (u32, Duration) = (22, Duration::from_millis(15));
/// The same for what is as fast as before.
const FAST: (u32, Duration) = (17, Duration::from_millis(9));
/// Slow round trips in a row, and fast ones.
const IN_A_ROW: u32 = 3;
/// Round trips that end this close to each other are one.
const TOGETHER: Duration = Duration::from_millis(15);
/// How late data may be acknowledged (`TCP_DELACK_MIN`, include/net/tcp.h: 40 ms, and a tick).
const DELAYED: Duration = Duration::from_millis(50);
/// How much later than before a segment must come to be late by the peer's clock.
const RISE: Duration = Duration::from_millis(7);
/// Round trips from which on something is usual, and how many are kept.
const ENOUGH: usize = 3;
const KEPT: usize = 32;
/// Addresses that a name gets this soon are its first.
const FIRST: Duration = Duration::from_secs(1);
/// A slow address that a name does not lead to for this long, while it is used, is left.
const LEFT: Duration = Duration::from_secs(2);
/// What nothing is heard of any more.
const SILENT: Duration = Duration::from_secs(30);
/// How long a name had an address and has it no more until it is forgotten.
const FORMER: Duration = Duration::from_mins(1);
const CAP: usize = 4096;
const FEW: usize = 64;

/// The way to an address from a node.
type Way = (Arc<str>, IpAddr);

#[derive(Debug, Default)]
pub(crate) struct Paths {
    trips: RoundTrips,
    ways: Capped<Way, Usual, CAP>,
    names: Capped<String, Named, 1024>,
    /// The names that lead to an address.
    of: Capped<IpAddr, BTreeSet<String>, CAP>,
}

/// What is usual on a way, and whether it still is.
#[derive(Debug, Default)]
struct Usual {
    handshakes: VecDeque<Duration>,
    data: VecDeque<Duration>,
    run: Run,
    last: Time,
}

#[derive(Debug, Default)]
struct Named {
    since: Time,
    last: Time,
    /// Addresses that belong to it, and those on trial, with the latest use of each.
    addresses: Capped<IpAddr, Address, FEW>,
    trials: Capped<Way, Run, FEW>,
}

#[derive(Debug, Default)]
struct Address {
    usual: bool,
    used: Time,
    /// Uses of other addresses since.
    others: u32,
    left: bool,
}

/// Round trips in a row.
#[derive(Debug, Clone, Default)]
pub(crate) struct Run {
    slow: u32,
    fast: u32,
    ended: Time,
    is_slow: bool,
    /// When the first of the slow ones began, what the last took, and what is usual.
    pub since: Time,
    pub took: Duration,
    pub usual: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    Fast,
    Between,
    Slow,
}

fn beyond(time: Duration, usual: Duration, (tenths, more): (u32, Duration)) -> bool {
    time >= usual * tenths / 10 && time >= usual + more
}

fn pace(trip: &RoundTrip, usual: Duration) -> Pace {
    let time = trip.time();
    let certain = trip.handshake || trip.rise >= RISE || beyond(time.saturating_sub(DELAYED), usual, SLOW);
    match () {
        () if !beyond(time, usual, FAST) => Pace::Fast,
        () if certain && beyond(time, usual, SLOW) => Pace::Slow,
        () => Pace::Between,
    }
}

impl Run {
    fn add(&mut self, trip: &RoundTrip, usual: Duration) -> Pace {
        let pace = pace(trip, usual);
        match pace {
            Pace::Slow => {
                self.fast = 0;
                if self.slow == 0 {
                    self.since = trip.began;
                }
                if self.slow == 0 || trip.ended >= self.ended + TOGETHER {
                    self.slow += 1;
                    self.ended = trip.ended;
                }
                (self.took, self.usual) = (trip.time(), usual);
                self.is_slow |= self.slow >= IN_A_ROW;
            }
            Pace::Fast => {
                self.slow = 0;
                self.fast += 1;
                self.is_slow &= self.fast < IN_A_ROW;
            }
            // Data that may have been acknowledged late says nothing.
            Pace::Between if !trip.handshake => {}
            Pace::Between => self.slow = 0,
        }
        pace
    }
}

impl Usual {
    fn time(&self) -> Option<Duration> {
        median(&self.handshakes).or_else(|| median(&self.data))
    }

    fn add(&mut self, trip: &RoundTrip) -> Pace {
        self.last = trip.ended;
        let by_kind = if trip.handshake { None } else { median(&self.data) };
        let usual = self.time().max(by_kind);
        let pace = usual.map_or(Pace::Fast, |usual| self.run.add(trip, usual));
        if pace != Pace::Slow {
            let kept = if trip.handshake { &mut self.handshakes } else { &mut self.data };
            if kept.len() >= KEPT {
                kept.pop_front();
            }
            kept.push_back(trip.time());
        }
        pace
    }
}

fn median(times: &VecDeque<Duration>) -> Option<Duration> {
    let mut sorted: Vec<_> = times.iter().copied().collect();
    sorted.sort_unstable();
    (sorted.len() >= ENOUGH).then(|| sorted[sorted.len() / 2])
}

impl Paths {
    /// Takes a signal in; whether it may change what is slow.
    pub fn observe(&mut self, operator: &Operator, signal: &Signal) -> bool {
        if let Some(answer) = Answer::of(operator, signal, |name| self.names.contains_key(name)) {
            self.answer(&answer);
            return false;
        }
        let Some(trip) = self.trips.observe(operator, signal) else { return false };
        self.trip(&trip);
        true
    }

    fn answer(&mut self, answer: &Answer<'_>) {
        if answer.addresses.is_empty() {
            return;
        }
        let ways = &self.ways;
        let is_measured = |address: IpAddr| ways.iter().any(|((_, at), way)| *at == address && way.time().is_some());
        let first = || Named { since: answer.at, ..Named::default() };
        let Some(named) = self.names.entry_or(answer.name.clone(), first) else { return };
        named.last = named.last.max(answer.at);
        let nothing_usual = !named.addresses.iter().any(|(address, known)| known.usual && is_measured(*address));
        let is_first = answer.at.since(named.since) <= FIRST || nothing_usual;
        named.use_of(answer.addresses, answer.at);
        for address in answer.addresses {
            let new = || Address { usual: is_first, used: answer.at, ..Address::default() };
            named.addresses.entry_or(*address, new);
            if let Some(names) = self.of.entry(*address) {
                names.insert(answer.name.clone());
            }
        }
    }

    fn trip(&mut self, trip: &RoundTrip) {
        let (node, address) = (Arc::clone(&trip.connection.0), trip.peer());
        let way = (node, address);
        let Some(usual) = self.ways.entry(way.clone()) else { return };
        if usual.add(trip) == Pace::Fast {
            self.trips.anchor(trip);
        }
        for name in self.of.get(&address).into_iter().flatten() {
            let Some(named) = self.names.get_mut(name) else { continue };
            named.use_of(&[address], trip.ended);
            if named.addresses.get(&address).is_none_or(|known| known.usual) {
                continue;
            }
            let usual = self.ways.iter().filter(|((_, at), _)| named.addresses.get(at).is_some_and(|a| a.usual));
            let Some(usual) = usual.filter_map(|(_, way)| way.time()).max() else { continue };
            let Some(run) = named.trials.entry(way.clone()) else { continue };
            run.add(trip, usual);
            if run.fast >= IN_A_ROW {
                named.trials.retain(|(_, at), _| *at != address);
                if let Some(known) = named.addresses.get_mut(&address) {
                    known.usual = true;
                }
            }
        }
    }

    /// Names that lead to a slow address, and slow addresses that no name leads to.
    pub fn slow(&self) -> impl Iterator<Item = (Option<&str>, &Way, &Run)> {
        let named = self.names.iter().flat_map(|(name, named)| {
            let trials = named.trials.iter().map(|(way, run)| (way, run));
            let known = |(_, address): &&Way| named.addresses.get(address).is_some_and(|known| known.usual);
            let ways = self.ways.iter().filter(move |(way, _)| known(way)).map(|(way, usual)| (way, &usual.run));
            let is_in_use = |(_, address): &Way| named.addresses.get(address).is_some_and(|known| !known.left);
            let slow = trials.chain(ways).filter(move |(way, run)| run.is_slow && is_in_use(way));
            slow.map(move |(way, run)| (Some(name.as_str()), way, run))
        });
        let is_named = |address: &IpAddr| self.of.get(address).is_some_and(|names| !names.is_empty());
        let bare = self.ways.iter().filter(move |((_, address), usual)| usual.run.is_slow && !is_named(address));
        named.chain(bare.map(|(way, usual)| (None, way, &usual.run)))
    }

    /// Whether the name is slow for it leads to one of these addresses.
    pub fn is_slow(&self, name: &str, addresses: &BTreeSet<IpAddr>) -> bool {
        self.slow().any(|(slow, (_, address), _)| slow == Some(name) && addresses.contains(address))
    }

    /// Whether the name's way to one of these addresses is known to be as fast as it ever was.
    pub fn is_usual(&self, name: &str, addresses: &BTreeSet<IpAddr>) -> bool {
        let known = |address: &IpAddr| self.names.get(name)?.addresses.get(address);
        let measured = |address: &IpAddr| self.ways.keys().any(|(_, at)| at == address);
        addresses.iter().any(|address| measured(address) && known(address).is_some_and(|known| known.usual))
    }

    /// Lets go of what names do not lead to any more, and of what is silent.
    pub fn tick(&mut self, now: Time) {
        for named in self.names.values_mut() {
            for known in named.addresses.values_mut() {
                known.left = known.others >= IN_A_ROW && now.since(known.used) >= LEFT;
            }
            let is_left = |address: &IpAddr| named.addresses.get(address).is_none_or(|known: &Address| known.left);
            named.trials.retain(|(_, address), run| !run.is_slow || !is_left(address));
        }
        for usual in self.ways.values_mut().filter(|usual| now.since(usual.last) >= SILENT) {
            usual.run = Run::default();
        }
    }

    pub fn forget(&mut self, now: Time) {
        self.trips.forget(now);
        for (name, named) in self.names.iter_mut() {
            let latest = named.last;
            let former: Vec<IpAddr> = (named.addresses.iter())
                .filter(|(_, known)| latest.since(known.used) >= FORMER)
                .map(|(address, _)| *address)
                .collect();
            for address in former {
                named.addresses.remove(&address);
                named.trials.retain(|(_, at), _| *at != address);
                if let Some(names) = self.of.get_mut(&address) {
                    names.remove(name);
                }
            }
        }
        self.of.retain(|_, names| !names.is_empty());
        let hour = Duration::from_hours(1);
        self.names.retain(|_, named| now.since(named.last) < hour);
        self.ways.retain(|_, usual| now.since(usual.last) < hour);
    }
}

impl Named {
    fn use_of(&mut self, addresses: &[IpAddr], at: Time) {
        for (address, known) in self.addresses.iter_mut() {
            if addresses.contains(address) {
                (known.used, known.others, known.left) = (known.used.max(at), 0, false);
            } else {
                known.others = known.others.saturating_add(1);
            }
        }
    }
}
