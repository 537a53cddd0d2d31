//! Times to detect run by run, oldest first.
//!
//! Job: a line through one dot a run. Invariants: the axis begins at 0 and ends above the longest time, so that a change
//! is seen, with the deadline where it is that near; a run without a time leaves a gap and a cross. Left out: names of runs, which the head of the
//! table has.

use std::time::Duration;

use maud::Markup;

use super::svg::Svg;
use crate::units::{limit, span};

/// Of the axis, above the longest time.
const HEADROOM: f64 = 1.3;
const STEP: f64 = 18.0;
const HEIGHT: f64 = 30.0;
const EDGE: f64 = 5.0;

pub fn series(times: &[Option<Duration>], deadline: Duration) -> Markup {
    let most = times.iter().flatten().copied().max().unwrap_or_default().as_secs_f64() * HEADROOM;
    let y = |time: Duration| EDGE + (HEIGHT - 2.0 * EDGE) * (1.0 - time.as_secs_f64() / most.max(f64::MIN_POSITIVE));
    #[expect(clippy::cast_precision_loss, reason = "a handful of runs")]
    let x = |run: usize| EDGE + STEP * run as f64;
    let width = x(times.len().saturating_sub(1)) + EDGE;
    let mut svg = Svg::default();
    if deadline.as_secs_f64() <= most {
        svg.group("", 0.0, &format!("deadline {}", limit(deadline)), |svg| {
            svg.path("deadline", &format!("M0 {:.0}H{width:.0}", y(deadline)));
        });
    }
    let mut line = String::new();
    let mut pen = 'M';
    for (run, time) in times.iter().enumerate() {
        pen = time.map_or('M', |time| {
            line += &format!("{pen}{:.0} {:.0}", x(run), y(time));
            'L'
        });
    }
    svg.path("series", &line);
    for (run, time) in times.iter().enumerate() {
        let title = format!("run {}: {}", run + 1, time.map_or_else(|| "no time".to_owned(), span));
        svg.group("", 0.0, &title, |svg| match time {
            Some(time) => svg.dot(if *time > deadline { "dot bad" } else { "dot good" }, (x(run), y(*time)), 3.0),
            None => svg.text("value bad", (x(run) - 3.0, HEIGHT / 2.0 + 4.0), "×"),
        });
    }
    svg.end(width, HEIGHT, "time to detect run by run")
}
