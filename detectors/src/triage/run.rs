//! Probes in a row, and how recent they must be.

use std::time::Duration;

use crate::signal::Probe;
use crate::time::Time;

/// Evidence that has to be recent is at most so old.
const FRESH: Duration = Duration::from_secs(3);
/// Probes are made once a second, or more often.
const STALE: Duration = Duration::from_millis(2500);

/// Probes in a row.
#[derive(Debug, Default)]
pub(super) struct Run {
    pub misses: u32,
    /// The first of them.
    pub first: Time,
    pub last: Time,
    pub answered: Option<Time>,
    /// The answer before that.
    pub before: Option<Time>,
    pub error: Option<String>,
}

impl Run {
    pub fn succeeded(&mut self, at: Time) {
        if at >= self.last {
            *self = Self { last: at, answered: Some(at), before: self.answered, ..Self::default() };
        }
    }

    pub fn failed(&mut self, at: Time, error: &str) {
        if self.misses == 0 {
            self.first = at;
        }
        self.misses += 1;
        self.last = self.last.max(at);
        self.error = Some(error.to_owned());
    }

    pub fn probe(&mut self, at: Time, probe: &Probe) {
        if probe.ok { self.succeeded(at) } else { self.failed(at, probe.error.as_deref().unwrap_or("no answer")) }
    }

    /// Whether it answers while another does not: twice since that other's first miss.
    pub fn answers_beside(&self, failing: &Self) -> bool {
        self.misses == 0 && self.before.is_some_and(|at| at >= failing.first)
    }

    /// Whether it answers; `None` if that is unknown.
    pub fn state(&self, now: Time, misses: u32) -> Option<bool> {
        let is_recent = now.since(self.last) < STALE;
        (is_recent && (self.misses == 0 || self.misses >= misses)).then_some(self.misses == 0)
    }
}

pub(super) fn fresh(at: Option<Time>, now: Time) -> bool {
    at.is_some_and(|at| now.since(at) < FRESH)
}
