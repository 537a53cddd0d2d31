//! When each packet of a line is due, and whether it is dropped. No I/O, no clock.

use std::collections::VecDeque;

use super::Shape;

/// How long a due packet waits for others, so that verdicts come in batches. Nanoseconds.
const GRAIN: u64 = 100_000;
/// Transmission time of the traffic that may wait for a limited rate. Nanoseconds.
const BUFFER: u64 = 200_000_000;

/// Waiting packets in order of arrival. Times are nanoseconds.
#[derive(Default)]
pub(super) struct Schedule {
    waiting: VecDeque<Waiting>,
    /// When the newest packet is due.
    last: u64,
    /// When the last byte has been transmitted, if the rate is limited.
    sent: u64,
}

struct Waiting {
    id: u32,
    due: u64,
    lost: bool,
}

/// Verdicts on the packets that are due.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdicts {
    pub lost: Vec<u32>,
    /// The newest packet to accept, with all before it except those lost.
    pub passed: Option<u32>,
    /// For how long the oldest has been due. Nanoseconds.
    pub late: u64,
}

impl Schedule {
    /// Adds a packet that arrived at this time.
    pub(super) fn arrive(&mut self, shape: &Shape, now: u64, id: u32, bytes: u32) {
        let mut lost = shape.loss > 0.0 && fastrand::f64() < shape.loss;
        let mut leaves = now;
        if let Some(rate) = shape.rate {
            let begins = self.sent.max(now);
            if begins - now > BUFFER {
                lost = true;
            } else {
                self.sent = begins + u64::from(bytes) * 8 * 1_000_000_000 / rate.max(1);
                leaves = self.sent;
            }
        }
        let [delay, jitter] = [shape.delay, shape.jitter].map(|time| u64::try_from(time.as_nanos()).unwrap_or(0));
        let varied = (delay + fastrand::u64(0..=2 * jitter)).saturating_sub(jitter);
        self.last = self.last.max(leaves + varied);
        self.waiting.push_back(Waiting { id, due: self.last, lost });
    }

    /// When to call [`Schedule::due`], if a packet waits.
    pub(super) fn next(&self) -> Option<u64> {
        self.waiting.front().map(|first| first.due + GRAIN)
    }

    /// Removes the packets that are due.
    pub(super) fn due(&mut self, now: u64) -> Verdicts {
        let mut verdicts = Verdicts::default();
        while let Some(first) = self.waiting.pop_front_if(|first| first.due <= now) {
            verdicts.late = verdicts.late.max(now - first.due);
            if first.lost {
                verdicts.lost.push(first.id);
            } else {
                verdicts.passed = Some(first.id);
            }
        }
        verdicts
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MS: u64 = 1_000_000;

    fn shape(delay: u64) -> Shape {
        Shape { delay: Duration::from_millis(delay), ..Shape::default() }
    }

    fn passed(id: u32, late: u64) -> Verdicts {
        Verdicts { lost: Vec::new(), passed: Some(id), late }
    }

    #[test]
    fn packets_are_due_after_the_delay_and_what_is_due_together_goes_together() {
        let mut line = Schedule::default();
        for (id, at) in [(1, 0), (2, MS / 10), (3, 5 * MS)] {
            line.arrive(&shape(10), at, id, 1500);
        }
        assert_eq!(line.next(), Some(10 * MS + GRAIN));
        assert_eq!(line.due(10 * MS - 1), Verdicts::default());
        assert_eq!(line.due(10 * MS + GRAIN), passed(2, GRAIN));
        assert_eq!(line.due(15 * MS), passed(3, 0));
        assert_eq!(line.next(), None);
    }

    #[test]
    fn a_smaller_delay_overtakes_nothing() {
        let mut line = Schedule::default();
        line.arrive(&shape(150), 0, 1, 1500);
        line.arrive(&shape(1), 10 * MS, 2, 1500);
        assert_eq!(line.due(149 * MS), Verdicts::default());
        assert_eq!(line.due(152 * MS), passed(2, 2 * MS));
        line.arrive(&shape(0), 200 * MS, 3, 1500);
        assert_eq!(line.due(200 * MS), passed(3, 0));
    }

    #[test]
    fn jitter_keeps_the_order_and_its_bounds() {
        let mut line = Schedule::default();
        let shape = Shape { jitter: Duration::from_millis(5), ..shape(10) };
        let mut last = 0;
        for id in 0..1000 {
            line.arrive(&shape, u64::from(id) * MS, id, 1500);
            let due = line.waiting.back().expect("it waits").due;
            let early = u64::from(id) * MS + 5 * MS;
            assert!(due >= last && (early..=early + 10 * MS).contains(&due), "{due}");
            last = due;
        }
    }

    #[test]
    fn a_share_is_lost_and_the_rest_goes_on() {
        let mut line = Schedule::default();
        let shape = Shape { loss: 0.05, ..shape(0) };
        (0..10_000).for_each(|id| line.arrive(&shape, 0, id, 1500));
        let lost = line.due(0).lost.len();
        assert!((350..=650).contains(&lost), "{lost}");
        let all = Shape { loss: 1.0, ..shape };
        line.arrive(&all, 1, 10_000, 1500);
        assert_eq!(line.due(1), Verdicts { lost: vec![10_000], passed: None, late: 0 });
    }

    #[test]
    fn a_rate_spaces_packets_and_loses_what_would_wait_too_long() {
        let mut line = Schedule::default();
        // 1500 bytes take 12 ms.
        let shape = Shape { rate: Some(1_000_000), ..shape(10) };
        (0..100).for_each(|id| line.arrive(&shape, 0, id, 1500));
        assert_eq!(line.due(22 * MS), passed(0, 0));
        assert_eq!(line.due(34 * MS), passed(1, 0));
        let rest = line.due(1000 * MS);
        assert_eq!(rest.passed, Some(16), "the next would have waited for 204 ms");
        assert_eq!(rest.lost.len(), 83);
        line.arrive(&shape, 2000 * MS, 100, 125);
        assert_eq!(line.next(), Some(2011 * MS + GRAIN), "the line is free again");
    }
}
