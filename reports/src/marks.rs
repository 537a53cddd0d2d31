//! The result of one detector in one trial, as short marks.
//!
//! Job: the content of a matrix cell, the same in every report. Invariants: one mark per verdict, but only one for all
//! inconclusive verdicts; a detector without a verdict is represented by its unexpected findings, if any; an empty list
//! means silence, and only for a trial that ran. Left out: tables.

use relapse_detectors::finding::{Level, Severity};

use crate::event::{Decided, Outcome, Verdict};
use crate::statistics::{Group, Percentiles};
use crate::summary::{self, TrialSummary};
use crate::table::Mark;
use crate::units::{self, Offset};
use crate::words::{self, Tone};

/// The marks of `detector` over the repetitions of a trial.
#[must_use]
pub fn marks(group: &Group<'_>, detector: &str) -> Vec<Mark> {
    merged(of_group(group, detector, |_| true))
}

/// The wrong marks of `detector` in a control. An inconclusive control yields none.
#[must_use]
pub fn wrong(control: &Group<'_>, detector: &str) -> Vec<Mark> {
    let mut marks = of_group(control, detector, |verdict| !matches!(verdict, Verdict::Undecided { .. }));
    marks.retain(|mark| mark.tone >= Tone::Unsure);
    marks
}

/// Merges equal inconclusive marks of a cell.
#[must_use]
pub fn merged(marks: Vec<Mark>) -> Vec<Mark> {
    let mut all: Vec<Mark> = Vec::new();
    for mark in marks {
        match all.iter_mut().find(|other| mark.tone == Tone::Unsure && other.text == mark.text) {
            Some(other) => other.detail = format!("{} — {}", other.detail, mark.detail),
            None => all.push(mark),
        }
    }
    all
}

fn of_group(group: &Group<'_>, detector: &str, counts: impl Fn(&Verdict) -> bool) -> Vec<Mark> {
    let ran = group.trials.iter().filter(|trial| trial.outcome() != Outcome::Skipped);
    let all = ran.clone().flat_map(|trial| trial.verdicts.iter().map(move |decided| (*trial, decided)));
    let decided: Vec<(&TrialSummary, &Decided)> = all
        .filter(|(_, d)| d.expectation.detector == detector && d.verdict != Verdict::Silent && counts(&d.verdict))
        .collect();
    let only = group.trials.len() == 1;
    let mut marks = if only { each(&decided) } else { counted(&decided, group.trials.len()) };
    if marks.is_empty() {
        let blind = ran.clone().filter(|_| only).flat_map(|trial| &trial.blind).find(|b| b.detector == detector);
        marks.extend(blind.map(|blind| Mark {
            text: "blind".to_owned(),
            tone: Tone::Unsure,
            detail: blind.why.clone(),
        }));
        marks.extend(ran.filter_map(|trial| unexpected(trial, detector)).next());
    }
    marks
}

/// One mark per verdict.
fn each(decided: &[(&TrialSummary, &Decided)]) -> Vec<Mark> {
    let mark = |(trial, decided): &(&TrialSummary, &Decided)| {
        let expected = &decided.expectation;
        let mut detail = vec![format!("{}: {}", words::level(expected.level), words::sentence(decided))];
        if !trial.is_control() && !expected.within.is_zero() {
            detail.push(format!("deadline {}", words::deadline(expected)));
        }
        detail.extend(trial.lead_text(decided));
        detail.extend(trial.evidence(decided));
        Mark { text: words::short(decided), tone: words::verdict_tone(&decided.verdict), detail: detail.join(" · ") }
    };
    decided.iter().map(mark).collect()
}

/// The median time of each level, and counts of verdicts that do not pass.
fn counted(decided: &[(&TrialSummary, &Decided)], repetitions: usize) -> Vec<Mark> {
    let mut marks = Vec::new();
    for level in [Level::Risk, Level::Cause, Level::Symptom] {
        let times = decided.iter().filter(|(_, d)| d.expectation.level == level).filter_map(|(_, d)| match d.verdict {
            // Includes late detections: the median is of all measured times.
            Verdict::Detected { .. } | Verdict::Late { .. } => d.since_visible(),
            _ => None,
        });
        marks.extend(Percentiles::of(times.collect()).map(|times| Mark {
            text: if times.max.is_zero() { "standing".to_owned() } else { units::span(times.p50) },
            tone: Tone::Good,
            detail: format!(
                "{}: p50 {}, p95 {}, max {} of {}",
                words::level(level),
                units::span(times.p50),
                units::span(times.p95),
                units::span(times.max),
                times.samples
            ),
        }));
    }
    let rest = decided.iter().map(|(_, d)| &d.verdict).filter(|verdict| !matches!(verdict, Verdict::Detected { .. }));
    let rest = summary::tally(rest.map(|verdict| (verdict.name(), words::verdict_tone(verdict))));
    marks.extend(rest.into_iter().map(|((name, tone), n)| Mark {
        text: format!("{n}× {}", name.replace('-', " ")),
        tone,
        detail: format!("{name} in {n} of {repetitions} repetitions"),
    }));
    marks
}

/// The most severe finding that the scenario did not expect.
fn unexpected(trial: &TrialSummary, detector: &str) -> Option<Mark> {
    let standing = trial.standing();
    let own = standing.iter().filter(|standing| standing.detector == detector);
    let worst = own.max_by_key(|standing| standing.severity)?;
    let at = worst.warned.unwrap_or(worst.from);
    let when = match trial.t0().map(|t0| Offset::between(t0, at)) {
        Some(offset) if offset.is_before() => " standing".to_owned(),
        Some(offset) => format!(" {}", units::span(offset.distance())),
        None => String::new(),
    };
    let word = if worst.severity >= Severity::Warning { "also" } else { "info" };
    let (severity, level) = (words::severity(worst.severity), words::level(worst.level));
    Some(Mark {
        text: format!("{word}{when}"),
        tone: Tone::Note,
        detail: format!("{severity} ({level}) about {}: {}", worst.subject, worst.evidence),
    })
}
