//! Instants and spans, passed in by the caller: nothing in this crate reads a clock.

use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// An instant on `CLOCK_MONOTONIC`, nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Time(pub u64);

impl Time {
    /// Time since `earlier`, zero if it is in the future.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Self;
    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Time {
    type Output = Self;
    fn sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// A measured span: "640 ns", "85 µs", "0.4 ms", "12 ms", "1.02 s", "41.3 s", "1 min 48 s".
#[must_use]
pub fn span(measured: Duration) -> String {
    let ns = measured.as_nanos();
    let ms = measured.as_secs_f64() * 1e3;
    let s = measured.as_secs_f64();
    match ns {
        0 => "0 ms".to_owned(),
        1..=999 => format!("{ns} ns"),
        // Whole microseconds are more precise here than one decimal of a millisecond.
        1_000..=99_499 => format!("{} µs", (ns + 500) / 1_000),
        _ if ms < 9.95 => format!("{ms:.1} ms"),
        _ if ms < 999.5 => format!("{ms:.0} ms"),
        _ if s < 9.995 => format!("{s:.2} s"),
        _ if s < 59.95 => format!("{s:.1} s"),
        _ => long(measured),
    }
}

fn long(measured: Duration) -> String {
    let s = (measured.as_millis() + 500) / 1_000;
    if s < 3_600 { format!("{} min {} s", s / 60, s % 60) } else { format!("{} h {} min", s / 3_600, s % 3_600 / 60) }
}

/// A configured time: "500 ms", "3 s", "1.5 s", without extra digits.
#[must_use]
pub fn limit(set: Duration) -> String {
    let ms = set.as_millis();
    match ms {
        _ if !set.subsec_nanos().is_multiple_of(1_000_000) => span(set),
        0..=999 => format!("{ms} ms"),
        1_000..=59_999 => format!("{} s", set.as_secs_f64()),
        _ => span(set),
    }
}
