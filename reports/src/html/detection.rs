//! The chart of times to detect, from t0 on.
//!
//! Job: one lane per verdict on a logarithmic axis, because times range from 0.1 ms to 10 s.
//! Invariants: a bar ends where the finding was received, the tick is the deadline, and the two vertical lines are t1
//! (in force) and t2 (first effect) for all lanes; a short one in a lane is when clients could first see the fault. Left out: events before t0 and after healing, which the
//! timeline shows; evidence, which is in the table of verdicts.

use std::time::Duration;

use maud::Markup;
use relapse_detectors::time::Time;

use super::svg::{Svg, down};
use crate::event::{Decided, Verdict};
use crate::summary::TrialSummary;
use crate::trial::Standing;
use crate::units::{self, span};
use crate::words;

const WIDTH: f64 = 1_000.0;
const LEFT: f64 = 218.0;
const RIGHT: f64 = 84.0;
const TOP: f64 = 34.0;
const LANE: f64 = 26.0;
/// The left edge of the axis: no detection is faster, and t0 itself has no position on it.
const LEAST: f64 = 0.000_1;

struct Axis {
    decades: f64,
}

impl Axis {
    fn x(&self, seconds: f64) -> f64 {
        let decades = (seconds.max(LEAST) / LEAST).log10();
        LEFT + (WIDTH - LEFT - RIGHT) * (decades / self.decades).min(1.0)
    }
}

/// The chart, if there is any verdict to show.
#[must_use]
pub fn chart(trial: &TrialSummary) -> Option<Markup> {
    let t0 = trial.t0()?;
    let lanes: Vec<&Decided> = trial.verdicts.iter().filter(|d| d.verdict != Verdict::Silent).collect();
    if lanes.is_empty() || trial.is_control() {
        return None;
    }
    let unexpected = unexpected(trial, t0);
    let furthest = lanes
        .iter()
        .map(|d| after(d).unwrap_or(0.0).max(deadline(d)))
        .chain(unexpected.iter().map(|(after, _)| after.as_secs_f64()))
        .chain(trial.t2().map(|t2| t2.since(t0).as_secs_f64()))
        .fold(0.1, f64::max);
    let axis = Axis { decades: (furthest * 1.15 / LEAST).log10() };
    #[expect(clippy::cast_precision_loss, reason = "a handful of lanes")]
    let bottom = TOP + LANE * (lanes.len() + unexpected.len()) as f64 + 4.0;

    let mut svg = Svg::default();
    grid(&mut svg, &axis, bottom);
    let mut y = TOP;
    for decided in lanes {
        svg.group("", y + LANE / 2.0, "", |svg| lane(svg, &axis, decided));
        y += LANE;
    }
    for (after, finding) in &unexpected {
        let x = axis.x(after.as_secs_f64());
        let title = format!("{} about {}: {}", words::severity(finding.severity), finding.subject, finding.evidence);
        let also = trial.info.also.iter().find(|also| {
            (&also.detector, also.level, &also.subject) == (&finding.detector, finding.level, &finding.subject)
        });
        let (short, long) = match also {
            Some(also) => ("follows", format!("follows: {}", also.why)),
            None => ("not expected", "not expected by the scenario".to_owned()),
        };
        svg.group("", y + LANE / 2.0, &format!("{long}: {title}"), |svg| {
            svg.text("muted", (LEFT - 12.0, 4.0), &finding.detector);
            svg.dot("dot note", (x, 0.0), 4.0);
            svg.text("value muted", (x + 9.0, 4.0), &format!("{} ({short})", span(*after)));
        });
        y += LANE;
    }
    // In a chain each lane has its own origin.
    if !trial.is_chain() {
        instants(&mut svg, &axis, trial, t0, bottom);
    }
    Some(svg.end(WIDTH, bottom + 22.0, "time to detect"))
}

fn grid(svg: &mut Svg, axis: &Axis, bottom: f64) {
    let (mut lines, mut names) = (String::new(), Vec::new());
    for (seconds, name) in
        [(0.001, "1 ms"), (0.01, "10 ms"), (0.1, "100 ms"), (1.0, "1 s"), (10.0, "10 s"), (100.0, "100 s")]
    {
        if (seconds / LEAST).log10() <= axis.decades {
            lines += &down(axis.x(seconds), TOP - 6.0, bottom);
            names.push((axis.x(seconds), name));
        }
    }
    svg.path("grid", &lines);
    svg.path("instant", &down(LEFT, TOP - 12.0, bottom));
    svg.group("axis", bottom + 15.0, "t0: immediately before the fault was injected", |svg| {
        svg.text("strong", (LEFT, 0.0), "t0");
        for (x, name) in names {
            svg.text("", (x, 0.0), name);
        }
    });
}

/// t1 and t2, drawn over the lanes, with their names at different heights above.
fn instants(svg: &mut Svg, axis: &Axis, trial: &TrialSummary, t0: Time, bottom: f64) {
    let in_force = "the fault was read back as in force; before that, time to detect is uncertain by this much";
    for (at, class, y, name, title) in [
        (trial.t1(), "force", 11.0, "in force", in_force),
        (trial.t2(), "impact", 25.0, "first effect", "first attempt of the workload that the fault affected"),
    ] {
        let Some(after) = at.map(|at| at.since(t0)) else { continue };
        let x = axis.x(after.as_secs_f64());
        svg.group("", 0.0, title, |svg| {
            svg.path(&format!("instant {class}"), &down(x, TOP - 12.0, bottom));
            svg.text(&format!("mark {class}"), (x + 4.0, y), &format!("{name} {}", span(after)));
        });
    }
}

/// Draws a verdict, relative to the middle of its lane.
fn lane(svg: &mut Svg, axis: &Axis, decided: &Decided) {
    let expected = &decided.expectation;
    let tone = words::verdict_tone(&decided.verdict).class();
    let deadline = axis.x(deadline(decided));
    svg.text("", (LEFT - 12.0, 4.0), &expected.detector);
    svg.rect("track", (LEFT, -4.0), (deadline - LEFT, 8.0));
    svg.path("deadline", &down(deadline, -9.0, 9.0));
    if let Some(visible) = decided.visible {
        let title = format!("visible to clients after {}; the deadline counts from then", span(visible));
        svg.group("", 0.0, &title, |svg| {
            svg.path("instant force", &down(axis.x(visible.as_secs_f64()), -9.0, 9.0));
        });
    }
    let text = words::short(decided);
    let Some(seconds) = after(decided) else {
        svg.text(&format!("value {tone}"), (deadline + 6.0, 4.0), &text);
        return;
    };
    let x = axis.x(seconds);
    svg.rect(&format!("bar {tone}"), (LEFT, -4.0), (x - LEFT, 8.0));
    svg.dot(&format!("dot {tone}"), (x, 0.0), 5.5);
    // Next to its dot, unless it would overlap the deadline's tick.
    let room = deadline - x;
    if (-70.0..62.0).contains(&room) {
        svg.text(&format!("value {tone}"), (deadline.max(x) + 10.0, 4.0), &text);
    } else {
        svg.text(&format!("value halo {tone}"), (x + 11.0, 4.0), &text);
        if room > 0.0 {
            svg.text("value muted", (deadline + 6.0, 4.0), &units::limit(expected.within));
        }
    }
}

/// Seconds from t0 to the deadline, which counts from when clients could first see the fault.
fn deadline(decided: &Decided) -> f64 {
    (decided.visible.unwrap_or_default() + decided.expectation.within).as_secs_f64()
}

/// Seconds from t0 to the finding, for verdicts with a time.
fn after(decided: &Decided) -> Option<f64> {
    decided.verdict.after().filter(|after| !after.is_zero()).map(|after| after.as_secs_f64())
}

/// Warnings after t0 from detectors without an expectation, with their time after t0.
fn unexpected(trial: &TrialSummary, t0: Time) -> Vec<(Duration, Standing)> {
    let expected = |name: &str| trial.verdicts.iter().any(|d| d.expectation.detector == name);
    let standing = trial.standing().into_iter().filter(|finding| !expected(&finding.detector));
    standing.filter_map(|finding| Some((finding.warned.filter(|at| *at >= t0)?.since(t0), finding))).collect()
}
