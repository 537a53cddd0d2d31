//! A recording made long enough for `for: 15m` and `[30m]`.
//!
//! `history | baseline | fault | hold | heal | healthy hold`: the history repeats the baseline backwards; each hold
//! repeats the last window before it. Counters go on by the window's rises and never fall; gauges repeat its values, so
//! that bursts survive; what changed or vanished once in the window stays so. Times are seconds of the recording:
//! negative in the history, and later by the length of the hold from healing on.

use crate::recording::{Header, Phases, Samples};

/// A probe gives up after so many seconds (`timeout` of the blackbox exporter's modules, with the time of an answer). The
/// last ones before a change may have seen it, and are not repeated.
const UNDER_WAY: usize = 6;

/// How long each part is, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeline {
    pub phases: Phases,
    pub history: u32,
    pub hold: u32,
    pub healthy: u32,
    /// Windows are a multiple of this where they are long enough: of the scrape and the evaluation interval.
    pub period: u32,
}

impl Timeline {
    #[must_use]
    pub const fn held_from(&self) -> i64 {
        self.phases.heal as i64
    }

    #[must_use]
    pub const fn heal(&self) -> i64 {
        self.phases.heal as i64 + self.hold as i64
    }

    #[must_use]
    pub const fn end(&self) -> i64 {
        self.phases.end as i64 + self.hold as i64 + self.healthy as i64
    }
}

/// A series at any second of a timeline.
#[derive(Debug)]
pub struct Extended<'a> {
    timeline: &'a Timeline,
    samples: &'a Samples,
    /// Of a counter: how far it rose since the start, at each second. Resets are no falls.
    rises: Option<Vec<f64>>,
    hold: Option<Window>,
    healthy: Option<Window>,
    /// What the hold adds to a counter, and the second of its first reset after it.
    added: f64,
    reset: usize,
    /// It rises or falls all the time before healing.
    pub trends: bool,
}

/// Seconds of the recording that repeat.
#[derive(Debug, Clone, Copy)]
struct Window {
    from: usize,
    to: usize,
}

impl<'a> Extended<'a> {
    #[must_use]
    pub fn new(counter: bool, samples: &'a Samples, timeline: &'a Timeline) -> Self {
        let rises = counter.then(|| rises(samples));
        let Phases { fault, heal, end } = timeline.phases;
        let [fault, heal, end] = [fault, heal, end].map(|second| second as usize);
        let window = |from: usize, to: usize, under_way: usize| {
            let (half, period) = (to.saturating_sub(from) / 2, timeline.period as usize);
            let whole = if half >= period && period > 0 { half - half % period } else { half };
            let to = to.saturating_sub(under_way).max(from);
            let window = Window { from: to.saturating_sub(whole.max(1)), to };
            lasting(samples, window, counter)
        };
        // No probe is a counter, and each leaves a sample.
        let probed = !counter && sample(samples, heal.wrapping_sub(1)).is_some();
        let hold = window(fault, heal, if probed { UNDER_WAY } else { 0 });
        let trends = !counter && hold.is_some_and(|window| is_trend(samples, window));
        // Past the end of a trend its last value is kept: nothing recorded says how far it would go.
        let last = |window: Option<Window>, to: usize| {
            window.map(|w| if !counter && is_trend(samples, w) { Window { from: to - 1, to } } else { w })
        };
        let mut extended = Self {
            timeline,
            samples,
            rises,
            hold: last(hold, heal),
            healthy: last(window(heal, end, 0), end),
            added: 0.0,
            reset: reset_after(samples, heal),
            trends,
        };
        if timeline.hold > 0 && sample(samples, heal.wrapping_sub(1)).is_some() {
            extended.added = extended.hold.map_or(0.0, |window| extended.risen(window, timeline.hold as usize - 1));
        }
        extended
    }

    /// The value at a second of the timeline; `None` where there is no such series.
    #[must_use]
    pub fn at(&self, second: i64) -> Option<f64> {
        let (heal, hold) = (self.timeline.held_from(), i64::from(self.timeline.hold));
        let end = i64::from(self.timeline.phases.end);
        let index = |second: i64| usize::try_from(second).unwrap_or_default();
        if second < 0 {
            self.before(index(-second))
        } else if second < heal {
            sample(self.samples, index(second))
        } else if second < heal + hold {
            self.repeated(self.hold?, index(second - heal))
        } else if second < end + hold {
            self.healed(index(second - hold))
        } else {
            let n = index(second - hold - end);
            let value = self.repeated(self.healthy?, n)?;
            Some(if self.rises.is_some() && self.reset >= index(end) { value + self.added } else { value })
        }
    }

    /// Seconds before the start. Presence is that of the start: what appears later did not come and go before.
    fn before(&self, seconds: usize) -> Option<f64> {
        let first = sample(self.samples, 0)?;
        let last = (self.timeline.phases.fault as usize).saturating_sub(1);
        if last == 0 {
            return Some(first);
        }
        match &self.rises {
            None => {
                let last = (last + 1).saturating_sub(UNDER_WAY).max(1);
                Some(sample(self.samples, last - (seconds - 1) % last).unwrap_or(first))
            }
            Some(rises) => {
                let rise = |second: usize| rises.get(second).copied().unwrap_or_default();
                let (times, rest) = (seconds / last, seconds % last);
                Some(first - times as f64 * rise(last) - (rise(last) - rise(last - rest)))
            }
        }
    }

    /// The `n`th second of a hold.
    fn repeated(&self, window: Window, n: usize) -> Option<f64> {
        let value = sample(self.samples, window.from + n % (window.to - window.from))?;
        if self.rises.is_none() {
            return Some(value);
        }
        let base = self.samples.get(..window.to)?.iter().rev().find_map(|sample| *sample)?;
        Some(base + self.risen(window, n))
    }

    /// How far a counter rises in the first `n + 1` seconds of a hold.
    fn risen(&self, window: Window, n: usize) -> f64 {
        let Some(rises) = &self.rises else { return 0.0 };
        let rise = |second: usize| rises.get(second).copied().unwrap_or_default();
        let (length, start) = (window.to - window.from, rise(window.from.saturating_sub(1)));
        (n / length) as f64 * (rise(window.to - 1) - start) + rise(window.from + n % length) - start
    }

    fn healed(&self, index: usize) -> Option<f64> {
        let value = sample(self.samples, index)?;
        Some(if self.rises.is_some() && index < self.reset { value + self.added } else { value })
    }
}

fn sample(samples: &Samples, second: usize) -> Option<f64> {
    samples.get(second).copied().flatten()
}

/// Whether a metric of a recording only grows: as its exporter declares it, or by a suffix that only counters have.
#[must_use]
pub fn is_counter(header: &Header, name: &str) -> bool {
    header.counters.contains(name) || ["_total", "_sum", "_bucket"].iter().any(|suffix| name.ends_with(suffix))
}

fn rises(samples: &Samples) -> Vec<f64> {
    let mut last = None;
    let mut total = 0.0;
    let add = |sample: &Option<f64>| {
        if let Some(value) = *sample {
            let rise = last.map_or(0.0, |last| if value < last { value } else { value - last });
            if rise.is_finite() {
                total += rise;
            }
            last = Some(value);
        }
        total
    };
    samples.iter().map(add).collect()
}

/// The second of the first fall from `from` on; the end if it never falls.
fn reset_after(samples: &Samples, from: usize) -> usize {
    let mut last = samples.iter().take(from).rev().find_map(|sample| *sample);
    for (second, value) in samples.iter().enumerate().skip(from).filter_map(|(second, value)| Some((second, (*value)?)))
    {
        if last.is_some_and(|last| value < last) {
            return second;
        }
        last = Some(value);
    }
    samples.len()
}

/// The part of the window that lasts: after a change that happened once. `None` if the series is gone.
fn lasting(samples: &Samples, window: Window, counter: bool) -> Option<Window> {
    let seconds = || window.from + 1..window.to;
    let came = |second: &usize| sample(samples, *second).is_some() && sample(samples, *second - 1).is_none();
    let left = |second: &usize| sample(samples, *second).is_none() && sample(samples, *second - 1).is_some();
    let mut from = window.from;
    if window.to == 0 {
        return None;
    }
    if sample(samples, window.to - 1).is_none() {
        return seconds().any(|second| came(&second)).then_some(window);
    }
    match (seconds().find(came), seconds().any(|second| left(&second))) {
        (Some(_), true) => return Some(window),
        (Some(second), false) => from = second,
        (None, _) => {}
    }
    if !counter {
        let bits = |second: usize| sample(samples, second).map(f64::to_bits);
        let mut changes = (from + 1..window.to).filter(|&second| bits(second) != bits(second - 1));
        if let (Some(second), None) = (changes.next(), changes.next()) {
            from = second;
        }
    }
    Some(Window { from, to: window.to })
}

/// Whether a gauge rises or falls through the window: the means of its thirds go one way, by more than what each third
/// spreads without its own slope, and by more than a hundredth of the value.
fn is_trend(samples: &Samples, window: Window) -> bool {
    let values: Vec<f64> = samples
        .get(window.from..window.to)
        .unwrap_or_default()
        .iter()
        .flatten()
        .copied()
        .filter(|v| v.is_finite())
        .collect();
    let third = values.len() / 3;
    if third < 3 {
        return false;
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let parts: Vec<f64> = values.chunks_exact(third).take(3).map(mean).collect();
    let [first, middle, last] = parts[..] else { return false };
    let change = last - first;
    let one_way = (middle - first) * change > 0.0 && (last - middle) * change > 0.0;
    // Around the straight line through the means of the first and the last third.
    let slope = change / (2 * third) as f64;
    let centre = first - slope * (third as f64 - 1.0) / 2.0;
    let spread = values.iter().enumerate().map(|(at, value)| (value - centre - slope * at as f64).abs()).sum::<f64>()
        / values.len() as f64;
    one_way && change.abs() > 2.0 * spread && change.abs() > mean(&values).abs() / 100.0
}

#[cfg(test)]
mod tests;
