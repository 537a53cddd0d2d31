//! The story of a trial on a linear axis, from its beginning to its end.
//!
//! Job: phases, attempts of the workload, and what each detector said from when to when; the window
//! in which the fault was in force is shaded, as in Jepsen's plots. Invariants: every lane shares
//! the axis; times are relative to t0, or to the start where nothing was injected. Left out: the
//! first milliseconds, too narrow to see here; that is the race.

use maud::Markup;
use relapse_detectors::finding::Severity;
use relapse_detectors::time::Time;

use super::svg::{Anchor, Svg};
use crate::summary::{FlowAt, TrialSummary};
use crate::units::{Offset, span};
use crate::words;

const WIDTH: f64 = 1_000.0;
const LEFT: f64 = 218.0;
const RIGHT: f64 = 20.0;
const PHASES: f64 = 18.0;
const LANE: f64 = 22.0;
const GAP: f64 = 8.0;

struct Axis {
    from: Time,
    seconds: f64,
}

impl Axis {
    fn x(&self, at: Time) -> f64 {
        let share = at.since(self.from).as_secs_f64() / self.seconds;
        LEFT + (WIDTH - LEFT - RIGHT) * share.clamp(0.0, 1.0)
    }
}

/// The picture, if the trial ran for any time at all.
#[must_use]
pub fn story(trial: &TrialSummary) -> Option<Markup> {
    let (from, to) = trial.bounds()?;
    let seconds = to.since(from).as_secs_f64();
    if seconds <= 0.0 || trial.phases.is_empty() {
        return None;
    }
    let axis = Axis { from, seconds };
    let flows = flows(trial);
    let standing = trial.standing();
    let top = PHASES + GAP;
    #[expect(clippy::cast_precision_loss, reason = "a handful of lanes")]
    let bottom = top + LANE * (flows.len() + standing.len()) as f64 + GAP;

    let mut svg = Svg::default();
    window(&mut svg, &axis, trial, to, bottom);
    phases(&mut svg, &axis, trial, to);
    ticks(&mut svg, &axis, trial.t0().unwrap_or(from), to, bottom);
    let mut y = top;
    for (name, samples) in &flows {
        flow(&mut svg, &axis, name, samples, y);
        y += LANE;
    }
    for said in &standing {
        let tone = match said.severity {
            Severity::Info => "note",
            Severity::Warning => "unsure",
            Severity::Critical => "bad",
        };
        let title = format!(
            "{} ({}) {} about {}: {}{}",
            said.detector,
            words::level(said.level),
            words::severity(said.severity),
            said.subject,
            said.evidence,
            if said.cleared.is_some() { "" } else { " (not cleared)" }
        );
        svg.text("name", (LEFT - 12.0, y + 15.0), Anchor::End, &said.detector, &title);
        let (x, end) = (axis.x(said.from), axis.x(said.cleared.unwrap_or(to)));
        svg.rect(&format!("said {tone}"), (x, y + 7.0), (end - x, 8.0), &title);
        svg.dot(&format!("dot {tone}"), (x, y + 11.0), 4.5, &title);
        y += LANE;
    }
    for (at, class) in [(trial.t0(), "instant force"), (trial.t2(), "instant felt")] {
        if let Some(at) = at {
            svg.line(class, (axis.x(at), PHASES), (axis.x(at), bottom));
        }
    }
    Some(svg.end(WIDTH, bottom + 20.0, &format!("phases, flows and findings of {}", trial.name())))
}

/// From t0 until healed; a benign twin has a window too, in another colour.
fn window(svg: &mut Svg, axis: &Axis, trial: &TrialSummary, to: Time, bottom: f64) {
    let Some(t0) = trial.t0() else { return };
    let healed = trial.healed_at().unwrap_or(to).max(t0);
    let class = if trial.is_control() { "window twin" } else { "window" };
    let what: Vec<&str> = trial.injected.iter().map(|injected| injected.what.as_str()).collect();
    let title = format!("in force for {}: {}", span(healed.since(t0)), what.join("; "));
    let (x, end) = (axis.x(t0), axis.x(healed));
    svg.rect(class, (x, PHASES), (end - x, bottom - PHASES), &title);
}

fn phases(svg: &mut Svg, axis: &Axis, trial: &TrialSummary, to: Time) {
    for (n, phase) in trial.phases.iter().enumerate() {
        let end = phase.to.unwrap_or(to);
        let (x, width) = (axis.x(phase.from), axis.x(end) - axis.x(phase.from));
        let name = phase.phase.as_str();
        let title = format!("{name}: {}", span(end.since(phase.from)));
        let class = if n % 2 == 0 { "phase" } else { "phase odd" };
        svg.rect(class, (x, 0.0), (width - 1.0, PHASES - 3.0), &title);
        // Seven units a letter, roughly: a name that does not fit is in the hover title.
        #[expect(clippy::cast_precision_loss, reason = "names of phases are short")]
        if width > name.len() as f64 * 7.0 {
            svg.text("phase-name", (x + width / 2.0, 11.5), Anchor::Middle, name, &title);
        }
    }
}

fn ticks(svg: &mut Svg, axis: &Axis, zero: Time, to: Time, bottom: f64) {
    let steps = [0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];
    let step = steps.into_iter().find(|step| axis.seconds / step <= 12.0).unwrap_or(1_800.0);
    let first = (Offset::between(zero, axis.from).seconds() / step).ceil();
    let last = (Offset::between(zero, to).seconds() / step).floor();
    let mut n = first;
    while n <= last {
        let seconds = n * step;
        let share = (seconds - Offset::between(zero, axis.from).seconds()) / axis.seconds;
        let x = LEFT + (WIDTH - LEFT - RIGHT) * share;
        let text = if n == 0.0 {
            "t0".to_owned()
        } else {
            format!("{}{} s", if n < 0.0 { "−" } else { "" }, round(seconds))
        };
        svg.line("grid", (x, PHASES), (x, bottom));
        svg.text(if n == 0.0 { "axis strong" } else { "axis" }, (x, bottom + 14.0), Anchor::Middle, &text, "");
        n += 1.0;
    }
}

fn round(seconds: f64) -> String {
    let text = format!("{:.2}", seconds.abs());
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Samples by flow, flows in order of appearance.
fn flows(trial: &TrialSummary) -> Vec<(&str, Vec<&FlowAt>)> {
    let mut flows: Vec<(&str, Vec<&FlowAt>)> = Vec::new();
    for at in &trial.flows {
        match flows.iter_mut().find(|(name, _)| *name == at.sample.flow) {
            Some((_, samples)) => samples.push(at),
            None => flows.push((&at.sample.flow, vec![at])),
        }
    }
    flows
}

/// A column a sample: its height is the median time, its colour the share that failed. Runs of
/// samples that look the same are drawn as one, or a long trial would make a heavy page.
fn flow(svg: &mut Svg, axis: &Axis, name: &str, samples: &[&FlowAt], y: f64) {
    svg.text("name", (LEFT - 12.0, y + 15.0), Anchor::End, name, "attempts of the workload");
    let slowest = samples.iter().filter_map(|s| s.sample.median).max().unwrap_or_default().as_secs_f64();
    let looks = |s: &FlowAt| {
        let share = f64::from(s.sample.failures) / f64::from(s.sample.attempts.max(1));
        let class = match share {
            0.0 => "flow good",
            s if s < 0.5 => "flow unsure",
            _ => "flow bad",
        };
        let median = s.sample.median.map_or(0.0, |m| m.as_secs_f64());
        // Nothing is lower than a third, so that a fast flow can still be seen and pointed at.
        let height = if share >= 0.5 || slowest <= 0.0 { 1.0 } else { 0.35 + 0.65 * median / slowest };
        (class, if s.sample.attempts == 0 { 0.0 } else { (height * 8.0).round() / 8.0 })
    };
    let mut from = axis.from;
    for alike in samples.chunk_by(|one, next| looks(one) == looks(next)) {
        let (class, height) = looks(alike[0]);
        let to = alike[alike.len() - 1].at;
        let attempts: u32 = alike.iter().map(|s| s.sample.attempts).sum();
        let failures: u32 = alike.iter().map(|s| s.sample.failures).sum();
        let median = alike.iter().filter_map(|s| s.sample.median).max();
        let median = median.map_or_else(String::new, |median| format!(", median at most {}", span(median)));
        let title = format!("{name}: {failures} of {attempts} failed{median}");
        let tall = (LANE - 8.0) * height;
        if tall > 0.0 {
            svg.rect(class, (axis.x(from), y + LANE - 4.0 - tall), (axis.x(to) - axis.x(from) - 0.6, tall), &title);
        }
        from = to;
    }
}
