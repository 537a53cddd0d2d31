//! What each agent asked cluster DNS, and how often it got no answer.

use std::net::IpAddr;
use std::time::Duration;

use crate::capped::Capped;
use crate::signal::{Endpoint, Probe};
use crate::time::Time;

/// Consecutive misses required, and the number required while other sources get answers.
const MISSES: u32 = 2;
const MISSES_AMONG_ANSWERS: u32 = 4;
/// A run of misses that has not grown for this long is ignored.
pub(super) const STALE: Duration = Duration::from_secs(5);
pub(super) const CAP: usize = 1024;

/// An external name that was asked; `None` if the probe asked only one name and does not state it.
pub(super) type Name = Option<String>;

/// An agent that asks cluster DNS.
#[derive(Default)]
pub(super) struct Source {
    pub asked: Capped<Name, Asked, CAP>,
    /// When it last got an answer that cannot come from its own node, and when the first of those without a miss since.
    pub answered: Time,
    pub well_since: Option<Time>,
    /// The last answer for a name of the cluster's own.
    pub own_answered: Time,
}

/// Queries of a source for one external name.
#[derive(Default)]
pub(super) struct Asked {
    pub service: Run,
    pub endpoints: Capped<IpAddr, Run, CAP>,
    pub failing: bool,
}

/// EPERM, the end of the operating system's message: netfilter dropped the query on the node that sent it, for example
/// because the node's connection table is full.
const NEVER_LEFT: &str = "(os error 1)";

/// Consecutive misses, or answers where there are none.
#[derive(Default)]
pub(super) struct Run {
    pub misses: u32,
    pub first: Time,
    pub last: Time,
    pub error: Option<String>,
    /// At least one of them did not leave its node.
    pub never_left: bool,
}

impl Run {
    pub fn add(&mut self, at: Time, probe: &Probe) {
        if probe.ok {
            let first = if self.misses == 0 && self.last > Time::default() { self.first } else { at };
            *self = Self { first, last: at, ..Self::default() };
            return;
        }
        if at.since(self.last) >= STALE {
            self.misses = 0;
        }
        if self.misses == 0 {
            (self.first, self.never_left) = (at, false);
        }
        self.misses += 1;
        self.last = self.last.max(at);
        self.never_left |= probe.error.as_deref().is_some_and(|error| error.ends_with(NEVER_LEFT));
        self.error.clone_from(&probe.error);
    }

    pub fn fails(&self, now: Time, misses: u32) -> bool {
        self.misses >= misses && now.since(self.last) < STALE
    }
}

impl Asked {
    /// Evaluates recent queries: whether neither the Service nor any endpoint answers. `answered`: when any
    /// source last got an answer.
    pub fn judge(&mut self, now: Time, answered: Time, ready: Option<&[Endpoint]>) {
        let others_answered = self.service.misses > 0 && answered > self.service.first;
        let no_endpoints_known = ready.is_none() && self.endpoints.is_empty();
        let misses = if others_answered || no_endpoints_known { MISSES_AMONG_ANSWERS } else { MISSES };
        let endpoints_fail = match ready {
            Some(ready) => {
                ready.iter().all(|e| self.endpoints.get(&e.address).is_some_and(|run| run.fails(now, misses)))
            }
            // Without an inventory, recently probed endpoints count.
            None => self.endpoints.values().all(|run| run.fails(now, misses) || now.since(run.last) >= STALE),
        };
        let fails = self.service.fails(now, misses) && endpoints_fail;
        // A name that is no longer asked fails no more.
        let stands = self.failing && now.since(self.service.last) < STALE;
        self.failing = self.service.misses > 0 && (stands || fails);
    }
}
