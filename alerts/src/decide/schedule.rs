//! Where scrapes and evaluations fall, in milliseconds of a test.

use std::fmt::Write as _;
use std::time::Duration;

use crate::recording;
use crate::timeline::{Extended, Timeline};

/// For how long Prometheus takes the last sample for the present one (5 minutes), with some to spare; in milliseconds.
const LATEST: u64 = 240_000;

/// How many positions are tried.
pub const POSITIONS: u64 = 3;

/// One position of scrapes and evaluations relative to the fault.
///
/// Scrapes are never at the time of an evaluation: whether a range includes its start differs between 2.x and 3.x.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    pub timeline: Timeline,
    pub position: u64,
    pub scrape: u64,
    pub evaluate: u64,
    /// The first scrape.
    first: u64,
    /// The start of the recording.
    start: u64,
}

impl Schedule {
    pub fn new(timeline: Timeline, scrape: Duration, evaluate: Duration, position: u64) -> Self {
        let [scrape, evaluate] = [scrape, evaluate].map(milliseconds);
        let common = gcd(scrape, evaluate);
        // Modulo `common`, multiples of two fifths of the scrape interval are multiples of a fifth: half a `common` more
        // is never zero.
        let first = (position * scrape * 2 / 5 + common / 2) % scrape;
        let start = u64::from(timeline.history) * 1000;
        Self { timeline, position, scrape, evaluate, first, start: start + position * evaluate / POSITIONS }
    }

    /// Scrapes at every second: what the recording says, as directly as the expression can be asked.
    pub fn every_second(self) -> Self {
        Self { scrape: 1000, first: 500, ..self }
    }

    /// Between two values in the test file.
    pub fn interval(&self) -> u64 {
        gcd(self.scrape, if self.first == 0 { self.scrape } else { self.first })
    }

    /// The time of a second of the timeline.
    pub fn at(&self, second: i64) -> u64 {
        (i64::try_from(self.start).unwrap_or(i64::MAX) + second * 1000).try_into().unwrap_or_default()
    }

    pub fn fault(&self) -> u64 {
        self.at(self.timeline.phases.fault.into())
    }

    pub fn heal(&self) -> u64 {
        self.at(self.timeline.heal())
    }

    /// The last evaluation.
    pub fn end(&self) -> u64 {
        let end = self.at(self.timeline.end());
        end - end % self.evaluate
    }

    /// The evaluations after `from` up to `to`, as the range of a subquery that is evaluated at the last of them; `None`
    /// if there is none. Its start is between two evaluations, for the reason that scrapes are.
    pub fn evaluations(&self, from: u64, to: u64) -> Option<(u64, String)> {
        let first = from - from % self.evaluate + self.evaluate;
        let last = to - to % self.evaluate;
        let range = (last + self.evaluate / 2).checked_sub(first)?;
        Some((last, format!("[{range}ms:{}ms]", self.evaluate)))
    }

    /// As [`Self::evaluations`], in parts of at most `most` evaluations.
    pub fn parts(&self, mut from: u64, to: u64, most: usize) -> Vec<(u64, String)> {
        let mut parts = Vec::new();
        while let Some((last, range)) = self.evaluations(from, to.min(from + most as u64 * self.evaluate)) {
            parts.push((last, range));
            from = last;
        }
        parts
    }

    /// A series up to a time, in promtool's notation. A series that ends gets one stale marker, as Prometheus writes it.
    /// With `latest`, nothing but its latest value matters: a scrape that finds the same as before may be left out, which
    /// is most of what promtool has to read.
    pub fn values(&self, series: &Extended<'_>, until: u64, latest: bool) -> String {
        let interval = self.interval();
        let mut words = String::new();
        let mut skipped = self.first / interval;
        let mut was = false;
        let mut kept = (0, 0);
        let mut time = self.first;
        let start = i64::try_from(self.start).unwrap_or(i64::MAX);
        while time <= until {
            let second = (i64::try_from(time).unwrap_or(i64::MAX) - start).div_euclid(1000);
            let value = series.at(second);
            let bits = value.map_or(0, f64::to_bits);
            let same = latest && was && value.is_some() && kept.0 == bits && time + self.scrape - kept.1 <= LATEST;
            if !same && (value.is_some() || was) {
                match skipped {
                    0 => {}
                    1 => words.push_str("_ "),
                    _ => _ = write!(words, "_x{skipped} "),
                }
                match value {
                    Some(value) => words.push_str(&recording::number(value)),
                    None => words.push_str("stale"),
                }
                words.push(' ');
                skipped = 0;
                kept = (bits, time);
            } else {
                skipped += 1;
            }
            was = value.is_some();
            skipped += self.scrape / interval - 1;
            time += self.scrape;
        }
        if words.is_empty() { "_".to_owned() } else { words.trim_end().to_owned() }
    }
}

pub fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

const fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// The least common multiple of two intervals, in seconds; of windows that repeat.
pub fn period(scrape: Duration, evaluate: Duration) -> u32 {
    let [scrape, evaluate] = [scrape, evaluate].map(milliseconds);
    let common = gcd(scrape, evaluate).max(1);
    u32::try_from(scrape / common * evaluate / 1000).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::Phases;

    const TIMELINE: Timeline = Timeline {
        phases: Phases { fault: 60, heal: 180, end: 240 },
        history: 300,
        hold: 300,
        healthy: 300,
        period: 30,
    };

    #[test]
    fn no_scrape_is_at_an_evaluation() {
        for (scrape, evaluate) in [(15, 30), (15, 15), (30, 15), (10, 30), (60, 60), (1, 1), (60, 30), (30, 60), (7, 5)]
        {
            let schedules = (0..POSITIONS).map(|position| {
                Schedule::new(TIMELINE, Duration::from_secs(scrape), Duration::from_secs(evaluate), position)
            });
            let mut places = std::collections::BTreeSet::new();
            for schedule in schedules {
                let times = (0..1000).map(|n| schedule.first + n * schedule.scrape);
                assert!(times.clone().all(|time| time % schedule.evaluate != 0), "{scrape} {evaluate} {schedule:?}");
                assert!(times.clone().all(|time| time % schedule.interval() == 0));
                places.insert((schedule.fault() + schedule.scrape - schedule.first) % schedule.scrape);
                assert!(schedule.every_second().interval() <= 500);
            }
            assert_eq!(places.len(), 3, "scrape {scrape}, evaluate {evaluate}: {places:?}");
        }
    }

    #[test]
    fn a_series_that_ends_gets_one_stale_marker() {
        let samples = (0..240).map(|second| (!(100..=220).contains(&second)).then(|| f64::from(second))).collect();
        let timeline = Timeline { history: 30, hold: 0, healthy: 0, ..TIMELINE };
        let series = Extended::new(false, &samples, &timeline);
        let schedule = Schedule::new(timeline, Duration::from_secs(30), Duration::from_secs(30), 0);
        assert_eq!(schedule.interval(), 15_000);
        assert_eq!(schedule.values(&series, 270_000, false), "_ 40 _ 15 _ 45 _ 75 _ stale _x7 225");
        assert_eq!(schedule.values(&Extended::new(false, &vec![], &timeline), 270_000, false), "_");
    }

    #[test]
    fn where_only_the_latest_value_matters_a_repeated_one_is_left_out_for_four_minutes() {
        let samples = (0..240).map(|second| (second < 150).then(|| f64::from(second / 100))).collect();
        let timeline = Timeline { history: 300, hold: 0, healthy: 0, ..TIMELINE };
        let series = Extended::new(false, &samples, &timeline);
        let schedule = Schedule::new(timeline, Duration::from_secs(30), Duration::from_secs(30), 0);
        // Scrapes are at 15 s, 45 s, ...; the fault starts at 360 s.
        assert_eq!(schedule.values(&series, 600_000, true), "_ 0 _x15 0 _x9 1 _x3 stale");
        // Where scrapes are farther apart, each is there.
        let rare = Schedule::new(timeline, Duration::from_secs(300), Duration::from_secs(300), 0);
        assert_eq!(rare.values(&series, 600_000, true), rare.values(&series, 600_000, false));
    }

    #[test]
    fn evaluations_are_those_after_the_start() {
        let schedule = Schedule::new(TIMELINE, Duration::from_secs(15), Duration::from_secs(30), 0);
        assert_eq!(schedule.evaluations(60_000, 180_000), Some((180_000, "[105000ms:30000ms]".to_owned())));
        assert_eq!(schedule.evaluations(61_000, 100_000), Some((90_000, "[15000ms:30000ms]".to_owned())));
        assert_eq!(schedule.evaluations(60_000, 80_000), None);
        assert_eq!(
            schedule.parts(60_000, 200_000, 2),
            [(120_000, "[45000ms:30000ms]".to_owned()), (180_000, "[45000ms:30000ms]".to_owned())]
        );
    }
}
