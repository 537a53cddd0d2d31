//! Monotonic time, the same in every namespace, and conversion from kernel timestamps.

use rustix::time::{ClockId, clock_gettime};

/// `CLOCK_MONOTONIC`, nanoseconds.
#[must_use]
pub fn now() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

/// A `CLOCK_REALTIME` timestamp (as on captured packets), converted to the monotonic clock.
#[must_use]
pub fn from_realtime(stamp: u64) -> u64 {
    let age = nanoseconds(ClockId::Realtime).saturating_sub(stamp);
    now().saturating_sub(age)
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}
