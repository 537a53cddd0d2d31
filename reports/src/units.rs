//! Formats durations, time offsets and sizes.
//!
//! Job: formats all numbers, so that a measurement reads the same in every report. Invariant: a measured value keeps
//! about three significant digits, and rounding up to a larger unit changes the unit ("999.7 ms" is "1.00 s").
//! Left out: parsing.

use std::fmt;
use std::time::Duration;

use relapse_detectors::time::Time;
pub use relapse_detectors::time::{limit, span};

/// A bar for each time, from 0 to the longest; `x` where there is none.
#[must_use]
pub fn bars(times: &[Option<Duration>]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = times.iter().flatten().max().map_or(1, Duration::as_nanos).max(1);
    let bar = |time: Duration| BARS.get((time.as_nanos() * 8).div_ceil(most) as usize - 1).copied().unwrap_or('▁');
    times.iter().map(|time| time.map_or('x', |time| bar(time.max(Duration::from_nanos(1))))).collect()
}

/// A size in bytes: "820 B", "38 MiB", "1.2 GiB".
#[must_use]
pub fn bytes(size: u64) -> String {
    const NAMES: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if size < 1_024 {
        return format!("{size} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
    let mut value = size as f64 / 1_024.0;
    let mut name = 0;
    while value >= 1_023.5 && name + 1 < NAMES.len() {
        value /= 1_024.0;
        name += 1;
    }
    if value < 9.95 { format!("{value:.1} {}", NAMES[name]) } else { format!("{value:.0} {}", NAMES[name]) }
}

/// A count with its noun: "1 trial", "3 trials".
#[must_use]
pub fn count(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

/// The offset of one time from another; negative is earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset {
    nanos: i64,
}

impl Offset {
    /// The offset of `instant` from `origin`.
    #[must_use]
    pub fn between(origin: Time, instant: Time) -> Self {
        let nanos = i128::from(instant.0) - i128::from(origin.0);
        let limit = i128::from(i64::MAX);
        // Clamped first, so the conversion cannot fail.
        Self { nanos: i64::try_from(nanos.clamp(-limit, limit)).unwrap_or(i64::MAX) }
    }

    #[must_use]
    pub const fn is_before(self) -> bool {
        self.nanos < 0
    }

    /// The distance without its direction.
    #[must_use]
    pub const fn distance(self) -> Duration {
        Duration::from_nanos(self.nanos.unsigned_abs())
    }

    /// In seconds, for axes.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "positions on a picture")]
    pub fn seconds(self) -> f64 {
        self.nanos as f64 / 1e9
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}{}", if self.is_before() { '−' } else { '+' }, span(self.distance())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_keep_three_digits_and_change_unit_in_time() {
        let text_of = |ns: u64| span(Duration::from_nanos(ns));
        let cases = [
            (0, "0 ms"),
            (640, "640 ns"),
            (85_400, "85 µs"),
            (99_499, "99 µs"),
            (99_500, "0.1 ms"),
            (400_000, "0.4 ms"),
            (1_900_000, "1.9 ms"),
            (9_949_999, "9.9 ms"),
            (9_950_000, "10 ms"),
            (12_000_000, "12 ms"),
            (999_400_000, "999 ms"),
            (999_700_000, "1.00 s"),
            (1_020_000_000, "1.02 s"),
            (9_994_000_000, "9.99 s"),
            (9_996_000_000, "10.0 s"),
            (41_320_000_000, "41.3 s"),
            (59_960_000_000, "1 min 0 s"),
            (108_000_000_000, "1 min 48 s"),
            (7_260_000_000_000, "2 h 1 min"),
        ];
        for (ns, text) in cases {
            assert_eq!(text_of(ns), text, "{ns}");
        }
    }

    #[test]
    fn limits_show_what_was_written() {
        assert_eq!(limit(Duration::from_millis(500)), "500 ms");
        assert_eq!(limit(Duration::from_secs(3)), "3 s");
        assert_eq!(limit(Duration::from_millis(1_500)), "1.5 s");
        assert_eq!(limit(Duration::from_secs(300)), "5 min 0 s");
    }

    #[test]
    fn sizes() {
        assert_eq!(bytes(820), "820 B");
        assert_eq!(bytes(1_536), "1.5 KiB");
        assert_eq!(bytes(38 * 1_024 * 1_024), "38 MiB");
        assert_eq!(bytes(1_048_575), "1.0 MiB");
    }

    #[test]
    fn offsets_have_a_direction() {
        let early = Offset::between(Time(5_000_000), Time(3_000_000));
        assert!(early.is_before());
        assert_eq!(early.to_string(), "−2.0 ms");
        assert_eq!(Offset::between(Time(0), Time(1_020_000_000)).to_string(), "+1.02 s");
        assert!(early < Offset::between(Time(0), Time(0)));
        assert_eq!(Offset::between(Time(0), Time(u64::MAX)).distance(), Duration::from_nanos(i64::MAX as u64));
    }
}
