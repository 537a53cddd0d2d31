//! What one detector did in one trial, in a word.
//!
//! Job: the content of a cell of the matrix, the same in every report. Invariants: verdicts come
//! first, one mark each (of those that say nothing is known, one in all); a detector without a verdict is shown by what it said unasked, if anything;
//! an empty list means silence, and only for a trial that ran. Left out: colours and tables.

use relapse_detectors::finding::Severity;

use crate::event::{Decided, Outcome, Verdict};
use crate::statistics::{Group, Percentiles};
use crate::summary::TrialSummary;
use crate::units::{self, Offset};
use crate::words::{self, Tone};

/// One entry of a cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    pub text: String,
    pub tone: Tone,
    /// More, for where there is room (hover titles).
    pub detail: String,
}

/// What `detector` did over the repetitions of a trial.
#[must_use]
pub fn marks(group: &Group<'_>, detector: &str) -> Vec<Mark> {
    once(of_group(group, &|d| d.expectation.detector == detector, detector))
}

/// What `detector` did wrong in a control. A control that proved nothing says nothing of a detector.
#[must_use]
pub fn wrong(control: &Group<'_>, detector: &str) -> Vec<Mark> {
    let counts = |d: &Decided| d.expectation.detector == detector && !matches!(d.verdict, Verdict::Undecided { .. });
    let mut marks = of_group(control, &counts, detector);
    marks.retain(|mark| mark.tone >= Tone::Unsure);
    marks
}

/// That nothing is known need not be said twice in one cell.
#[must_use]
pub fn once(marks: Vec<Mark>) -> Vec<Mark> {
    let mut all: Vec<Mark> = Vec::new();
    for mark in marks {
        match all.iter_mut().find(|other| mark.tone == Tone::Unsure && other.text == mark.text) {
            Some(other) => other.detail = format!("{} — {}", other.detail, mark.detail),
            None => all.push(mark),
        }
    }
    all
}

fn of_group(group: &Group<'_>, counts: &dyn Fn(&Decided) -> bool, detector: &str) -> Vec<Mark> {
    match group.trials.as_slice() {
        [only] => of_trial(only, counts, detector),
        several => over_repetitions(several, counts, detector),
    }
}

fn of_trial(trial: &TrialSummary, counts: &dyn Fn(&Decided) -> bool, detector: &str) -> Vec<Mark> {
    if trial.outcome() == Outcome::Skipped {
        return Vec::new();
    }
    let decided = trial.verdicts.iter().filter(|d| counts(d));
    let mut marks: Vec<Mark> = decided
        .filter(|d| d.verdict != Verdict::Silent)
        .map(|d| Mark { text: words::short(d), tone: words::verdict_tone(&d.verdict), detail: detail(trial, d) })
        .collect();
    if marks.is_empty() {
        let blind = trial.blind.iter().find(|blind| blind.detector == detector);
        marks.extend(blind.map(|blind| Mark {
            text: "blind".to_owned(),
            tone: Tone::Unsure,
            detail: blind.why.clone(),
        }));
        marks.extend(unasked(trial, detector));
    }
    marks
}

/// The loudest thing it said without being asked.
fn unasked(trial: &TrialSummary, detector: &str) -> Option<Mark> {
    let standing = trial.standing();
    let said = standing.iter().filter(|standing| standing.detector == detector);
    let loudest = said.max_by_key(|standing| standing.severity)?;
    let at = loudest.warned.unwrap_or(loudest.from);
    let place = trial.t0().map(|t0| Offset::between(t0, at));
    let when = match place {
        Some(offset) if offset.is_before() => "standing".to_owned(),
        Some(offset) => units::span(offset.distance()),
        None => String::new(),
    };
    let word = if loudest.severity >= Severity::Warning { "also" } else { "info" };
    Some(Mark {
        text: format!("{word} {when}").trim_end().to_owned(),
        tone: Tone::Note,
        detail: format!(
            "{} ({}) about {}: {}",
            words::severity(loudest.severity),
            words::level(loudest.level),
            loudest.subject,
            loudest.evidence
        ),
    })
}

fn detail(trial: &TrialSummary, decided: &Decided) -> String {
    let expected = &decided.expectation;
    let mut parts = vec![format!("{}: {}", words::level(expected.level), words::sentence(decided))];
    if !trial.is_control() {
        parts.push(format!("deadline {}", units::limit(expected.within)));
    }
    parts.extend(trial.felt(&decided.verdict));
    parts.extend(trial.evidence(decided));
    parts.join(" · ")
}

/// The median of the times and every verdict that does not pass, counted.
fn over_repetitions(trials: &[&TrialSummary], counts: &dyn Fn(&Decided) -> bool, detector: &str) -> Vec<Mark> {
    let decided = || trials.iter().flat_map(|trial| &trial.verdicts).filter(|d| counts(d));
    let mut marks = Vec::new();
    let mut levels: Vec<_> = decided().map(|d| d.expectation.level).collect();
    levels.sort_unstable();
    levels.dedup();
    for level in levels {
        let times = decided().filter(|d| d.expectation.level == level).filter_map(|d| match &d.verdict {
            // Late ones too: the median is of what happened, not of what went well.
            Verdict::Detected { after } | Verdict::Late { after } => Some(*after),
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
    let mut rest: Vec<(&'static str, Tone, usize)> = Vec::new();
    for verdict in decided().map(|d| &d.verdict) {
        if matches!(verdict, Verdict::Detected { .. } | Verdict::Silent) {
            continue;
        }
        match rest.iter_mut().find(|(name, ..)| *name == verdict.name()) {
            Some((.., n)) => *n += 1,
            None => rest.push((verdict.name(), words::verdict_tone(verdict), 1)),
        }
    }
    let of = trials.len();
    marks.extend(rest.into_iter().map(|(name, tone, n)| Mark {
        text: format!("{n}× {}", name.replace('-', " ")),
        tone,
        detail: format!("{name} in {n} of {of} repetitions"),
    }));
    if marks.is_empty() {
        marks.extend(trials.iter().find_map(|trial| unasked(trial, detector)));
    }
    marks
}

/// The tone of a whole cell: its worst mark.
#[must_use]
pub fn worst(marks: &[Mark]) -> Tone {
    marks.iter().map(|mark| mark.tone).max().unwrap_or(Tone::Muted)
}
