//! Whether the machine has processor time to spare: labs side by side must not starve each other, nor
//! be starved by what else runs here.

use std::time::{Duration, Instant};

/// Shorter than this says little: the kernel counts in ticks of 1 to 10 ms.
const SPAN: Duration = Duration::from_millis(50);
/// Idle for less than this share of the time is busy.
const IDLE: f64 = 0.1;

/// Watches the idle time of all processors.
pub struct Spare {
    at: Instant,
    before: Option<Ticks>,
}

/// Processor time since the start of the machine.
#[derive(Clone, Copy)]
struct Ticks {
    idle: u64,
    all: u64,
}

impl Spare {
    pub fn new() -> Self {
        Self { at: Instant::now(), before: Ticks::read() }
    }

    /// The machine was idle for a good part of the time since this was last said; always where the
    /// kernel does not tell.
    pub fn is_there(&mut self) -> bool {
        if self.at.elapsed() < SPAN {
            return false;
        }
        let now = Ticks::read();
        let (Some(before), Some(after)) = (self.before, now) else { return true };
        (self.at, self.before) = (Instant::now(), now);
        let (idle, all) = (after.idle.saturating_sub(before.idle), after.all.saturating_sub(before.all));
        #[expect(clippy::cast_precision_loss, reason = "a few hundred ticks")]
        let share = idle as f64 / all.max(1) as f64;
        share >= IDLE
    }
}

impl Ticks {
    fn read() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/stat").ok()?)
    }

    /// `cpu  user nice system idle iowait irq softirq steal guest guest_nice` (proc_stat(5)).
    fn parse(text: &str) -> Option<Self> {
        let fields = text.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
        let ticks: Vec<u64> = fields.take(8).map_while(|field| field.parse().ok()).collect();
        let idle = ticks.get(3)? + ticks.get(4)?;
        Some(Self { idle, all: ticks.iter().sum() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_is_idle_and_waiting_for_disks() {
        let ticks = Ticks::parse("cpu  10 1 20 300 40 5 6 7 0 0\ncpu0 1 2 3 4 5\n").unwrap();
        assert_eq!((ticks.idle, ticks.all), (340, 389));
        assert!(Ticks::parse("intr 1 2 3").is_none());
    }
}
