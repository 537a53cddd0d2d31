//! How long something usually takes, by the last times that were seen.

use std::collections::VecDeque;
use std::time::Duration;

/// What is slow: so many times the usual time, and by so much longer.
const TIMES: u32 = 5;
const ABOVE: Duration = Duration::from_millis(200);

/// The last `KEPT` times. `ENOUGH` must be known before anything is unusual.
#[derive(Debug, Default)]
pub(crate) struct Usual<const ENOUGH: usize, const KEPT: usize>(VecDeque<Duration>);

impl<const ENOUGH: usize, const KEPT: usize> Usual<ENOUGH, KEPT> {
    pub fn add(&mut self, took: Duration) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(took);
    }

    /// None until enough is known.
    pub fn median(&self) -> Option<Duration> {
        let mut times: Vec<_> = self.0.iter().copied().collect();
        let middle = times.len() / 2;
        (times.len() >= ENOUGH).then(|| *times.select_nth_unstable(middle).1)
    }

    /// From here on it is slow; none until enough is known.
    pub fn threshold(&self) -> Option<Duration> {
        self.median().map(|median| (median * TIMES).max(median + ABOVE))
    }

    /// How many times were about as long as `took`: two thirds of it or more.
    pub fn as_slow_as(&self, took: Duration) -> usize {
        self.0.iter().filter(|time| **time * 3 >= took * 2).count()
    }
}
