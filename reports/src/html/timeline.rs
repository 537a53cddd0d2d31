//! The timeline of a trial on a linear axis, from start to end.
//!
//! Job: phases, attempts of the workload, and when each finding stood; the time during which the fault was in force is
//! shaded, as in Jepsen's plots. Invariants: all lanes share the axis; times are relative to t0, or to the start if
//! nothing was injected. Left out: the first milliseconds, which are too narrow to see; the detection chart has them.

use std::fmt::Write as _;

use maud::Markup;
use relapse_detectors::finding::Severity;
use relapse_detectors::time::Time;

use super::svg::{Svg, down};
use crate::summary::{FlowAt, PhaseSpan, TrialSummary};
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

/// The chart, if the trial ran at all.
#[must_use]
pub fn chart(trial: &TrialSummary) -> Option<Markup> {
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
    for finding in &standing {
        let tone = match finding.severity {
            Severity::Info => "note",
            Severity::Warning => "unsure",
            Severity::Critical => "bad",
        };
        let title = format!(
            "{} {} about {}: {}{}",
            words::level(finding.level),
            words::severity(finding.severity),
            finding.subject,
            finding.evidence,
            if finding.cleared.is_some() { "" } else { " (not cleared)" }
        );
        let (x, end) = (axis.x(finding.from), axis.x(finding.cleared.unwrap_or(to)));
        svg.group(&format!("finding {tone}"), y, &title, |svg| {
            svg.text("", (LEFT - 12.0, 15.0), &finding.detector);
            svg.rect("", (x, 7.0), (end - x, 8.0));
            svg.dot("", (x, 11.0), 4.5);
        });
        y += LANE;
    }
    for (at, class) in [(trial.t0(), "instant force"), (trial.t2(), "instant impact")] {
        if let Some(at) = at {
            svg.path(class, &down(axis.x(at), PHASES, bottom));
        }
    }
    Some(svg.end(WIDTH, bottom + 20.0, "phases, flows and findings"))
}

/// Shades the time from t0 until healing, in another colour for a benign twin.
fn window(svg: &mut Svg, axis: &Axis, trial: &TrialSummary, to: Time, bottom: f64) {
    let Some(t0) = trial.t0() else { return };
    let healed = trial.healed_at().unwrap_or(to).max(t0);
    let class = if trial.is_control() { "window twin" } else { "window" };
    let (x, end) = (axis.x(t0), axis.x(healed));
    svg.group("", 0.0, &format!("in force for {}", span(healed.since(t0))), |svg| {
        svg.rect(class, (x, PHASES), (end - x, bottom - PHASES));
    });
}

/// "detect", "heal dns".
fn named(phase: &PhaseSpan) -> String {
    let step = phase.step.as_ref().map(|step| format!(" {step}"));
    format!("{}{}", phase.phase.as_str(), step.unwrap_or_default())
}

/// Phases in alternating shades. All durations are in one title, because short phases are hard to point at.
fn phases(svg: &mut Svg, axis: &Axis, trial: &TrialSummary, to: Time) {
    let took = |phase: &PhaseSpan| span(phase.to.unwrap_or(to).since(phase.from));
    let title: Vec<String> = trial.phases.iter().map(|p| format!("{} {}", named(p), took(p))).collect();
    svg.group("phases", 0.0, &title.join(" · "), |svg| {
        let mut shades = [String::new(), String::new()];
        for (n, phase) in trial.phases.iter().enumerate() {
            let (x, end) = (axis.x(phase.from), axis.x(phase.to.unwrap_or(to)));
            _ = write!(shades[n % 2], "M{x:.0} 0H{:.0}V{:.0}H{x:.0}z", (end - 1.0).max(x + 1.0), PHASES - 3.0);
        }
        svg.path("", &shades[0]);
        svg.path("odd", &shades[1]);
        for phase in &trial.phases {
            let (x, end) = (axis.x(phase.from), axis.x(phase.to.unwrap_or(to)));
            let name = named(phase);
            // Roughly seven units per letter. Names that do not fit are in the hover title.
            #[expect(clippy::cast_precision_loss, reason = "names of phases are short")]
            if end - x > name.len() as f64 * 7.0 {
                svg.text("", (f64::midpoint(x, end), 11.0), &name);
            }
        }
    });
}

fn ticks(svg: &mut Svg, axis: &Axis, zero: Time, to: Time, bottom: f64) {
    let steps = [0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];
    let step = steps.into_iter().find(|step| axis.seconds / step <= 10.0).unwrap_or(1_800.0);
    let first = (Offset::between(zero, axis.from).seconds() / step).ceil();
    let last = (Offset::between(zero, to).seconds() / step).floor();
    let (mut lines, mut names) = (String::new(), Vec::new());
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
        lines += &down(x, PHASES, bottom);
        names.push((if n == 0.0 { "strong" } else { "" }, x, text));
        n += 1.0;
    }
    svg.path("grid", &lines);
    svg.group("axis", bottom + 14.0, "", |svg| {
        for (class, x, text) in names {
            svg.text(class, (x, 0.0), &text);
        }
    });
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

/// A column per sample: its height is the median time, its colour the share of failures. Samples of one colour share a
/// shape, which keeps the page small; each stretch of failures has a title with its count.
fn flow(svg: &mut Svg, axis: &Axis, name: &str, samples: &[&FlowAt], y: f64) {
    let slowest = samples.iter().filter_map(|s| s.sample.median).max().unwrap_or_default().as_secs_f64();
    svg.group("", y, &failures(samples), |svg| {
        svg.text("", (LEFT - 12.0, 15.0), name);
        let mut good = String::new();
        let mut from = axis.from;
        for alike in samples.chunk_by(|one, next| class(one) == class(next)) {
            let outline = outline(axis, alike, from, slowest);
            match class(alike[0]) {
                "good" => good += &outline,
                class => svg.group("", 0.0, &failures(alike), |svg| svg.path(&format!("flow {class}"), &outline)),
            }
            from = alike[alike.len() - 1].at;
        }
        svg.path("flow good", &good);
    });
}

/// "3 of 40 failed, median at most 12 ms".
fn failures(samples: &[&FlowAt]) -> String {
    let attempts: u32 = samples.iter().map(|s| s.sample.attempts).sum();
    let failures: u32 = samples.iter().map(|s| s.sample.failures).sum();
    let median = samples.iter().filter_map(|s| s.sample.median).max();
    let median = median.map_or_else(String::new, |median| format!(", median at most {}", span(median)));
    format!("{failures} of {attempts} failed{median}")
}

fn failed(at: &FlowAt) -> f64 {
    f64::from(at.sample.failures) / f64::from(at.sample.attempts.max(1))
}

fn class(at: &FlowAt) -> &'static str {
    match failed(at) {
        0.0 => "good",
        share if share < 0.5 => "unsure",
        _ => "bad",
    }
}

/// The height in eighths of a lane, so that columns of similar height are drawn as one.
fn height(at: &FlowAt, slowest: f64) -> f64 {
    if at.sample.attempts == 0 {
        return 0.0;
    }
    let median = at.sample.median.map_or(0.0, |median| median.as_secs_f64());
    // At least a third, so that a fast flow remains visible.
    let height = if failed(at) >= 0.5 || slowest <= 0.0 { 1.0 } else { 0.35 + 0.65 * median / slowest };
    (height * 8.0).round() / 8.0
}

/// Steps around the columns of `samples`, the first of which begins at `from`.
fn outline(axis: &Axis, samples: &[&FlowAt], from: Time, slowest: f64) -> String {
    let base = LANE - 4.0;
    let mut steps = format!("M{:.0} {base:.0}", axis.x(from));
    for alike in samples.chunk_by(|one, next| (height(one, slowest) - height(next, slowest)).abs() < 0.01) {
        let top = base - (LANE - 8.0) * height(alike[0], slowest);
        _ = write!(steps, "V{top:.0}H{:.0}", axis.x(alike[alike.len() - 1].at));
    }
    _ = write!(steps, "V{base:.0}z");
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;
    use crate::summary::RunSummary;

    /// A shape with a title for each sample would double the size of the page.
    #[test]
    fn a_flow_is_a_shape_a_colour_and_a_title_a_stretch_of_failures() {
        let run = RunSummary::of(&sample::run());
        let timeline = chart(&run.trials[0]).expect("a timeline").into_string();
        assert_eq!(timeline.matches("class=\"flow good\"").count(), 2);
        assert_eq!(timeline.matches("class=\"flow bad\"").count(), 1);
        assert_eq!(timeline.matches("failed").count(), 3);
    }
}
