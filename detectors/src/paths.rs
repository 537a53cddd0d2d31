//! The usual round-trip time to each address, the names that resolve to it, and paths that have become slow.
//!
//! A path is slow after three slow round trips in a row. Round trips that end together count once: a busy machine
//! delays all of them. Slow round trips never become usual. One address may stand for clients near and far (source NAT,
//! a load balancer): what is slow while fast round trips go on as before is another client. A new address of a name is
//! compared with the slowest of the addresses that the name had.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::capped::Capped;
use crate::hidden_clients::HiddenClients;
use crate::names::Answer;
use crate::operator::Operator;
use crate::round_trips::{RoundTrip, RoundTrips};
use crate::signal::Signal;
use crate::time::Time;
use crate::usual::Usual;

/// Slow: so many tenths of the usual time, and this much more. An incident is 3 times and 20 ms, a benign change is
/// below 1.5 times or 5 ms; the limits lie between.
const SLOW: (u32, Duration) = (22, Duration::from_millis(15));
/// The same limits, below which a round trip is fast.
const FAST: (u32, Duration) = (17, Duration::from_millis(9));
/// Round trips in a row after which a path is slow, or fast again.
const IN_A_ROW: u32 = 3;
/// Round trips that end within this time of each other count once.
const TOGETHER: Duration = Duration::from_millis(15);
/// Longest delay of an acknowledgment (`TCP_DELACK_MIN` in include/net/tcp.h is 40 ms, plus a tick).
const DELAYED: Duration = Duration::from_millis(50);
/// Rise of the way back from which on a segment is late by the peer's clock.
const RISE: Duration = Duration::from_millis(7);
/// Fewest round trips from which the usual time is computed, and most.
const ENOUGH: usize = 2;
const KEPT: usize = 32;
/// Round trips within this time of a path's first one are its usual ones.
const LEARNING: Duration = Duration::from_secs(1);
/// Addresses that a name has within this time of its first answer are its usual ones.
const FIRST: Duration = Duration::from_secs(1);
/// An address that has not been in answers for this long, and not in the last three, is left.
const LEFT: Duration = Duration::from_secs(2);
/// A path without round trips for this long is not slow any more.
const SILENT: Duration = Duration::from_secs(30);
/// An address that has not been in answers for this long is removed from its name.
const FORMER: Duration = Duration::from_mins(1);
const CAP: usize = 4096;
const FEW: usize = 64;

/// The path to an address from a node. In this order, so that those to one address are side by side.
pub(crate) type PathKey = (IpAddr, Arc<str>);

#[derive(Debug, Default)]
pub(crate) struct Paths {
    trips: RoundTrips,
    /// A node in front of clients of many distances is no path.
    hidden: HiddenClients,
    paths: Capped<PathKey, Path, CAP>,
    names: Capped<String, Named, 1024>,
    /// The names that resolve to an address.
    of: Capped<IpAddr, BTreeSet<String>, CAP>,
}

/// The usual time of a path, and whether it is slow.
#[derive(Debug, Default)]
struct Path {
    handshakes: Usual<ENOUGH, KEPT>,
    data: Usual<ENOUGH, KEPT>,
    run: Run,
    first: Option<Time>,
    last: Time,
}

#[derive(Debug, Default)]
struct Named {
    since: Time,
    last: Time,
    /// Its addresses: usual ones, and new ones that are still compared with them.
    addresses: Capped<IpAddr, Address, FEW>,
    trials: Capped<PathKey, Run, FEW>,
}

#[derive(Debug, Default)]
struct Address {
    usual: bool,
    answered: Time,
    /// Answers without it since.
    missing: u32,
    left: bool,
}

/// A usual address of a name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UsualAddress {
    pub address: IpAddr,
    pub time: Duration,
}

/// Round trips in a row.
#[derive(Debug, Clone, Default)]
pub(crate) struct Run {
    slow: u32,
    fast: u32,
    ended: Time,
    latest: Time,
    is_slow: bool,
    last_fast: Option<Time>,
    /// The longest recent time between two fast round trips.
    gap: Duration,
    /// Start of the first slow round trip, time of the last one, and the usual time.
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
        self.latest = trip.ended;
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
                let others_go_on = self.last_fast.is_some_and(|last| trip.ended.since(last) < self.gap * 2);
                self.is_slow |= self.slow >= IN_A_ROW && !others_go_on;
            }
            Pace::Fast => {
                self.slow = 0;
                self.fast += 1;
                self.fast_at(trip.ended);
                self.is_slow &= self.fast < IN_A_ROW;
            }
            // Possibly a delayed acknowledgment.
            Pace::Between if !trip.handshake => {}
            Pace::Between => self.slow = 0,
        }
        pace
    }

    /// A fast round trip ended.
    fn fast_at(&mut self, at: Time) {
        if let Some(last) = self.last_fast.filter(|_| !self.is_slow) {
            self.gap = at.since(last).max(self.gap * 15 / 16);
        }
        self.last_fast = Some(at);
    }
}

impl Path {
    fn time(&self) -> Option<Duration> {
        self.handshakes.median().or_else(|| self.data.median())
    }

    fn add(&mut self, trip: &RoundTrip) -> Pace {
        self.last = trip.ended;
        let by_kind = if trip.handshake { None } else { self.data.median() };
        let usual = self.time().max(by_kind);
        let is_within = |limits| usual.is_none_or(|usual| !beyond(trip.time(), usual, limits));
        let learns = trip.ended.since(*self.first.get_or_insert(trip.began)) < LEARNING;
        if learns && is_within(FAST) {
            self.run.fast_at(trip.ended);
        }
        let pace = usual.filter(|_| !learns).map_or(Pace::Fast, |usual| self.run.add(trip, usual));
        // A data segment may wait for a delayed acknowledgment, and does not prove a slow path; still it is not usual.
        if learns || is_within(SLOW) {
            let kept = if trip.handshake { &mut self.handshakes } else { &mut self.data };
            kept.add(trip.time());
        }
        pace
    }
}

/// The paths to an address.
fn to(paths: &Capped<PathKey, Path, CAP>, address: IpAddr) -> impl Iterator<Item = (&PathKey, &Path)> {
    paths.range((address, Arc::from(""))..).take_while(move |((at, _), _)| *at == address)
}

impl Paths {
    /// Observes a signal. Returns whether [`Paths::slow`] differs.
    pub fn observe(&mut self, operator: &Operator, signal: &Signal) -> bool {
        if let Some(answer) = Answer::of(operator, signal, |name| self.names.contains_key(name)) {
            self.answer(&answer);
            return false;
        }
        self.hidden.observe(operator, signal);
        let trip = self.trips.observe(operator, signal).filter(|trip| !self.hidden.hides(trip.peer()));
        trip.is_some_and(|trip| self.trip(&trip))
    }

    fn answer(&mut self, answer: &Answer<'_>) {
        if answer.addresses.is_empty() {
            return;
        }
        let paths = &self.paths;
        let is_measured = |address: IpAddr| to(paths, address).any(|(_, path)| path.time().is_some());
        let first = || Named { since: answer.at, ..Named::default() };
        let Some(named) = self.names.entry_or(answer.name.clone(), first) else { return };
        named.last = named.last.max(answer.at);
        let nothing_usual = !named.addresses.iter().any(|(address, known)| known.usual && is_measured(*address));
        let is_first = answer.at.since(named.since) <= FIRST || nothing_usual;
        named.answered(answer.addresses, answer.at);
        for address in answer.addresses {
            let new = || Address { usual: is_first, answered: answer.at, ..Address::default() };
            named.addresses.entry_or(*address, new);
            if let Some(names) = self.of.entry(*address) {
                names.insert(answer.name.clone());
            }
        }
    }

    fn trip(&mut self, trip: &RoundTrip) -> bool {
        let address = trip.peer();
        let key = (address, Arc::clone(&trip.connection.0));
        let Some(path) = self.paths.entry(key.clone()) else { return false };
        let was_slow = path.run.is_slow;
        if path.add(trip) == Pace::Fast {
            self.trips.anchor(trip);
        }
        let mut changed = path.run.is_slow != was_slow;
        for name in self.of.get(&address).into_iter().flatten() {
            let Some(named) = self.names.get_mut(name) else { continue };
            if named.addresses.get(&address).is_none_or(|known| known.usual) {
                continue;
            }
            let usual = named.addresses.iter().filter(|(_, known)| known.usual);
            let usual = usual.flat_map(|(address, _)| to(&self.paths, *address));
            let Some(usual) = usual.filter_map(|(_, path)| path.time()).max() else { continue };
            let Some(run) = named.trials.entry(key.clone()) else { continue };
            let was_slow = run.is_slow;
            run.add(trip, usual);
            changed |= run.is_slow != was_slow;
            if run.fast >= IN_A_ROW {
                named.trials.retain(|(at, _), _| *at != address);
                if let Some(known) = named.addresses.get_mut(&address) {
                    known.usual = true;
                }
            }
        }
        changed
    }

    /// Slow paths: each with the name that resolves to its address, or without one.
    pub fn slow(&self) -> Vec<(Option<&str>, &PathKey, &Run)> {
        let mut slow = Vec::new();
        for (key, path) in self.paths.iter().filter(|(_, path)| path.run.is_slow) {
            let names = self.of.get(&key.0);
            let uses = |name: &&String| self.names.get(*name).is_some_and(|named| named.uses(key.0, true));
            slow.extend(names.into_iter().flatten().filter(uses).map(|name| (Some(name.as_str()), key, &path.run)));
            if names.is_none_or(BTreeSet::is_empty) {
                slow.push((None, key, &path.run));
            }
        }
        for (name, named) in self.names.iter() {
            let trials = named.trials.iter().filter(|(key, run)| run.is_slow && named.uses(key.0, false));
            slow.extend(trials.map(|(key, run)| (Some(name.as_str()), key, run)));
        }
        slow
    }

    /// Whether the name's path to one of these addresses is slow.
    pub fn is_slow(&self, name: &str, addresses: &BTreeSet<IpAddr>) -> bool {
        let Some(named) = self.names.get(name) else { return false };
        let is_usual = |address: &IpAddr| {
            let known = self.of.get(address).is_some_and(|names| names.contains(name)) && named.uses(*address, true);
            known && to(&self.paths, *address).any(|(_, path)| path.run.is_slow)
        };
        let mut trials = named.trials.iter().filter(|((at, _), run)| run.is_slow && addresses.contains(at));
        addresses.iter().any(is_usual) || trials.any(|((at, _), _)| named.uses(*at, false))
    }

    /// Whether one of these addresses is a usual one of the name and its path has been measured.
    pub fn is_usual(&self, name: &str, addresses: &BTreeSet<IpAddr>) -> bool {
        let known = |address: &IpAddr| self.names.get(name)?.addresses.get(address);
        let measured = |address: &IpAddr| to(&self.paths, *address).next().is_some();
        addresses.iter().any(|address| measured(address) && known(address).is_some_and(|known| known.usual))
    }

    /// The measured addresses that the name usually has, each with the usual time to it.
    pub fn usual_of(&self, name: &str) -> Vec<UsualAddress> {
        let Some(named) = self.names.get(name) else { return Vec::new() };
        let usual = named.addresses.iter().filter(|(_, known)| known.usual);
        let time = |address: IpAddr| to(&self.paths, address).filter_map(|(_, path)| path.time()).min();
        usual.filter_map(|(address, _)| Some(UsualAddress { address: *address, time: time(*address)? })).collect()
    }

    /// Drops slow paths that are not used any more.
    pub fn tick(&mut self, now: Time) {
        for named in self.names.values_mut() {
            for known in named.addresses.values_mut() {
                known.left = known.missing >= IN_A_ROW && now.since(known.answered) >= LEFT;
            }
            let is_left = |address: &IpAddr| named.addresses.get(address).is_none_or(|known: &Address| known.left);
            named.trials.retain(|(address, _), run| !is_left(address) && now.since(run.latest) < SILENT);
        }
        for path in self.paths.values_mut().filter(|path| now.since(path.last) >= SILENT) {
            path.run = Run::default();
        }
    }

    pub fn forget(&mut self, now: Time) {
        self.trips.forget(now);
        self.hidden.forget(now);
        for (name, named) in self.names.iter_mut() {
            let latest = named.last;
            let former: Vec<IpAddr> = (named.addresses.iter())
                .filter(|(_, known)| latest.since(known.answered) >= FORMER)
                .map(|(address, _)| *address)
                .collect();
            for address in former {
                named.addresses.remove(&address);
                named.trials.retain(|(at, _), _| *at != address);
                if let Some(names) = self.of.get_mut(&address) {
                    names.remove(name);
                }
            }
        }
        let hour = Duration::from_hours(1);
        self.names.retain(|_, named| now.since(named.last) < hour);
        self.of.retain(|_, names| {
            names.retain(|name| self.names.contains_key(name));
            !names.is_empty()
        });
        self.paths.retain(|_, path| now.since(path.last) < hour);
    }
}

impl Named {
    /// Whether it still has this address, as a usual one or as a new one.
    fn uses(&self, address: IpAddr, usual: bool) -> bool {
        self.addresses.get(&address).is_some_and(|known| known.usual == usual && !known.left)
    }

    fn answered(&mut self, addresses: &[IpAddr], at: Time) {
        for (address, known) in self.addresses.iter_mut() {
            if addresses.contains(address) {
                (known.answered, known.missing, known.left) = (known.answered.max(at), 0, false);
            } else if addresses.iter().any(|other| other.is_ipv4() == address.is_ipv4()) {
                known.missing = known.missing.saturating_add(1);
            }
        }
    }
}
