//! The MSS values announced on one path, by client.
//!
//! Invariant: a client is compared with itself. Another client's larger MSS is a rise of the path only
//! when the old value is no longer seen at all.

use std::net::IpAddr;
use std::time::Duration;

use crate::capped::Capped;
use crate::time::Time;

/// Limit on clients tracked per path.
const CAP: usize = 4096;
/// How many SYNs of new clients alone stand for the whole path, and the time they must span.
const NEW_CLIENTS: u32 = 8;
const SPAN: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct History {
    clients: Capped<IpAddr, Known, CAP>,
    largest: u16,
    /// When the last SYN was seen.
    pub last: Time,
    pub rise: Option<Rise>,
}

#[derive(Debug)]
struct Known {
    /// Largest MSS before any rise.
    settled: u16,
    last: u16,
    seen: Time,
}

/// A rise that still holds.
#[derive(Debug)]
pub(super) struct Rise {
    pub old: u16,
    pub new: u16,
    pub since: Time,
    pub client: IpAddr,
    /// It was there with the first SYN, which is compared with what fits a declared MTU.
    pub from_start: bool,
    /// The largest packet that can occur since, 0 until a connection with a larger MSS is accepted.
    pub packet: u32,
    /// A client with a smaller MSS before announced a larger one.
    own_history: bool,
    /// SYNs with a larger MSS since, and whether an old value was seen between them.
    syns: u32,
    old_seen: bool,
}

impl Rise {
    /// Whether the path itself changed, not just its set of clients.
    pub fn established(&self, now: Time) -> bool {
        let replaced = self.syns >= NEW_CLIENTS && !self.old_seen && now.since(self.since) >= SPAN;
        self.own_history || replaced && !self.from_start
    }
}

impl History {
    /// `fits`: the largest MSS that fits the declared MTU of the path.
    pub fn syn(&mut self, at: Time, client: IpAddr, mss: u16, fits: Option<u16>) {
        self.last = self.last.max(at);
        let first = self.clients.is_empty();
        let known = self.clients.get(&client).map(|known| (known.settled, known.last));
        let before = match known {
            Some((settled, _)) => settled,
            None if first => fits.unwrap_or(mss).min(mss),
            None => self.largest,
        };
        if mss > before {
            self.rose(at, client, before, mss, known.is_some(), first);
        } else if let Some(rise) = self.rise.as_mut().filter(|rise| mss <= rise.old) {
            rise.old_seen = true;
            // The client is back at its old MSS, and so is the clamp.
            if known.is_some_and(|(_, last)| last > mss) || !rise.own_history && rise.client == client {
                self.rise = None;
            }
        }
        if let Some(known) = self.clients.entry_or(client, || Known { settled: mss, last: mss, seen: at }) {
            (known.last, known.seen) = (mss, at);
        }
        // The reference stays what the path announced before the rise, while the rise holds.
        if self.rise.is_none() {
            self.largest = self.largest.max(mss);
        }
    }

    pub fn forget(&mut self) {
        self.clients.make_room(|known| known.seen);
    }

    fn rose(&mut self, at: Time, client: IpAddr, old: u16, new: u16, own_history: bool, from_start: bool) {
        let Some(rise) = &mut self.rise else {
            self.rise = Some(Rise {
                old,
                new,
                since: at,
                client,
                from_start,
                packet: 0,
                own_history,
                syns: 1,
                old_seen: false,
            });
            return;
        };
        rise.syns += 1;
        rise.new = rise.new.max(new);
        if own_history && !rise.own_history {
            (rise.own_history, rise.from_start, rise.old, rise.client) = (true, false, old, client);
        }
    }
}
