//! For how long one pod waited for something of its own: an answer, a connect, a name, a transfer.
//!
//! Invariant: spans that overlap count once.

use std::time::Duration;

use relapse_detectors::time::Time;

/// The time that one pod, or the node itself, waited so far.
#[derive(Debug, Default)]
pub(super) struct Waits {
    /// Things it waits for now.
    open: u32,
    /// Up to here everything is in `total`.
    counted: Time,
    total: Duration,
}

impl Waits {
    pub fn begin(&mut self, at: Time) {
        self.count(at);
        if self.open == 0 {
            self.counted = self.counted.max(at);
        }
        self.open += 1;
    }

    pub fn end(&mut self, at: Time) {
        self.count(at);
        self.open = self.open.saturating_sub(1);
    }

    /// A part of a transfer, known only when it is over.
    pub fn span(&mut self, from: Time, to: Time) {
        if self.open == 0 && to > self.counted {
            self.total += to.since(from.max(self.counted));
            self.counted = to;
        }
    }

    /// All of it up to `now`.
    pub fn total(&mut self, now: Time) -> Duration {
        self.count(now);
        self.total
    }

    pub const fn is_over(&self) -> bool {
        self.open == 0
    }

    fn count(&mut self, now: Time) {
        if self.open > 0 && now > self.counted {
            self.total += now.since(self.counted);
            self.counted = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(at: u64) -> Time {
        Time(at * 1_000_000)
    }

    #[test]
    fn what_overlaps_counts_once() {
        let mut waits = Waits::default();
        let mut total = |change: &dyn Fn(&mut Waits), now| {
            change(&mut waits);
            waits.total(ms(now)).as_millis()
        };
        assert_eq!(total(&|w| w.begin(ms(10)), 20), 10);
        assert_eq!(total(&|w| w.begin(ms(30)), 30), 20);
        assert_eq!(total(&|w| w.end(ms(50)), 60), 50, "one of two is still open");
        assert_eq!(total(&|w| w.end(ms(60)), 100), 50);
        assert_eq!(total(&|w| w.span(ms(55), ms(110)), 120), 100, "of it 5 ms were counted");
        assert_eq!(total(&|w| w.span(ms(90), ms(105)), 120), 100, "all of it was");
        assert_eq!(total(&|w| w.begin(ms(130)), 140), 110);
        assert_eq!(total(&|w| w.span(ms(110), ms(140)), 140), 110, "a wait that is open counts already");
    }
}
