//! Names of outcomes, verdicts and backends, and their tones.
//!
//! Job: the words of every report and a [`Tone`] for each, which a report turns into a colour or a class. Invariant:
//! skipped and passed have different tones, and so do inconclusive and failed; colour never carries information that
//! the words do not. Left out: layout.

use std::borrow::Cow;

use relapse_detectors::finding::{Level, Severity};
use relapse_detectors::operator::Knowledge;

use crate::event::{Decided, Expectation, Outcome, Verdict};
use crate::units;

/// The meaning of a word, for its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tone {
    /// As expected.
    Good,
    /// Unremarkable.
    Muted,
    /// Informative; does not affect the outcome.
    Note,
    /// Not run.
    Skipped,
    /// Inconclusive.
    Unsure,
    /// A detection failed.
    Bad,
    /// Something was left behind, or relapse itself failed.
    Dirty,
}

impl Tone {
    /// Name of its class in the HTML report.
    #[must_use]
    pub const fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Muted => "muted",
            Self::Note => "note",
            Self::Skipped => "skipped",
            Self::Unsure => "unsure",
            Self::Bad => "bad",
            Self::Dirty => "dirty",
        }
    }
}

/// The label of an outcome at the start of a line.
#[must_use]
pub const fn label(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Pass => "PASS",
        Outcome::Skipped => "SKIP",
        Outcome::Fail => "FAIL",
        Outcome::Inconclusive => "INCONCLUSIVE",
        Outcome::Dirty => "DIRTY",
        Outcome::InternalError => "ERROR",
    }
}

#[must_use]
pub const fn outcome_tone(outcome: Outcome) -> Tone {
    match outcome {
        Outcome::Pass => Tone::Good,
        Outcome::Skipped => Tone::Skipped,
        Outcome::Fail => Tone::Bad,
        Outcome::Inconclusive => Tone::Unsure,
        Outcome::Dirty | Outcome::InternalError => Tone::Dirty,
    }
}

#[must_use]
pub const fn verdict_tone(verdict: &Verdict) -> Tone {
    match verdict {
        Verdict::Detected { .. } => Tone::Good,
        Verdict::Silent => Tone::Muted,
        Verdict::ExpectedMiss { .. } | Verdict::StartedLate => Tone::Note,
        Verdict::Late { .. }
        | Verdict::Missed
        | Verdict::WrongSubject { .. }
        | Verdict::PreExisting
        | Verdict::FalseAlarm { .. }
        | Verdict::Unexpected { .. }
        | Verdict::NotCleared
        | Verdict::ClearedEarly
        | Verdict::UnexpectedlyDetected { .. } => Tone::Bad,
        Verdict::Blind { .. } | Verdict::Undecided { .. } => Tone::Unsure,
    }
}

/// One character for a verdict.
#[must_use]
pub const fn sign(verdict: &Verdict) -> char {
    match verdict_tone(verdict) {
        Tone::Good => '✓',
        Tone::Muted => '·',
        Tone::Note => '○',
        Tone::Unsure => '?',
        Tone::Bad | Tone::Dirty | Tone::Skipped => '✗',
    }
}

#[must_use]
pub const fn level(level: Level) -> &'static str {
    match level {
        Level::Risk => "risk",
        Level::Cause => "cause",
        Level::Symptom => "symptom",
    }
}

#[must_use]
pub const fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Critical => "critical",
    }
}

/// A verdict for a cell: "1.9 ms", "late 5.1 s", "missed", "FALSE ALARM".
#[must_use]
pub fn short(decided: &Decided) -> String {
    match &decided.verdict {
        // A standing risk was reported before anything was injected, so it has no time.
        Verdict::Detected { after } if after.is_zero() => "standing".to_owned(),
        Verdict::Detected { .. } => time_to_detect(decided),
        Verdict::Late { .. } => format!("late {}", time_to_detect(decided)),
        Verdict::FalseAlarm { .. } => "FALSE ALARM".to_owned(),
        Verdict::Unexpected { .. } => "UNEXPECTED".to_owned(),
        Verdict::Silent => "·".to_owned(),
        Verdict::ExpectedMiss { .. } => "miss (known)".to_owned(),
        Verdict::UnexpectedlyDetected { .. } => format!("not missed {}", time_to_detect(decided)),
        Verdict::PreExisting | Verdict::StartedLate => decided.verdict.name().to_owned(),
        Verdict::Missed
        | Verdict::WrongSubject { .. }
        | Verdict::Blind { .. }
        | Verdict::NotCleared
        | Verdict::ClearedEarly
        | Verdict::Undecided { .. } => decided.verdict.name().replace('-', " "),
    }
}

/// "17 ms", from when clients could first see the fault, and when that was if it was later than t0: "17 ms (visible
/// after 4.20 s)". Empty without a time.
#[must_use]
pub fn time_to_detect(decided: &Decided) -> String {
    let time = decided.since_visible().map(units::span).unwrap_or_default();
    let visible = decided.visible.map(|visible| format!(" (visible after {})", units::span(visible)));
    time + &visible.unwrap_or_default()
}

/// A deadline; empty for a verdict on what nothing expected.
#[must_use]
pub fn deadline(expectation: &Expectation) -> String {
    if expectation.within.is_zero() { String::new() } else { units::limit(expectation.within) }
}

/// A verdict in a few words: "detected after 1.9 ms", "late: after 5.1 s".
#[must_use]
pub fn sentence(decided: &Decided) -> String {
    match &decided.verdict {
        Verdict::Detected { after } if !after.is_zero() => format!("detected after {}", time_to_detect(decided)),
        Verdict::Late { .. } => format!("late: after {}", time_to_detect(decided)),
        Verdict::FalseAlarm { severity: loud, .. } => format!("FALSE ALARM ({})", severity(*loud)),
        Verdict::Unexpected { severity: loud, .. } => format!("UNEXPECTED ({})", severity(*loud)),
        Verdict::Silent => "silent".to_owned(),
        Verdict::ExpectedMiss { .. } => "missed, as expected".to_owned(),
        Verdict::UnexpectedlyDetected { .. } => format!("detected after {}, not missed", time_to_detect(decided)),
        _ => short(decided),
    }
}

/// The user of a run.
#[must_use]
pub const fn user(root: bool) -> &'static str {
    if root { "root" } else { "ordinary user" }
}

/// Whether machine-wide settings could be written.
#[must_use]
pub const fn host_writes(allowed: bool) -> &'static str {
    if allowed { "host writes allowed" } else { "host writes not allowed" }
}

/// A backend in a word: "lab", "kind".
#[must_use]
pub fn backend(name: &str) -> Cow<'_, str> {
    match name.strip_prefix("netns") {
        Some(facts) => format!("lab{facts}").into(),
        None => name.into(),
    }
}

/// Where a trial ran: "in the lab", "on kind", "in the lab, operator none".
#[must_use]
pub fn on(backend: &str) -> String {
    match backend.strip_prefix("netns") {
        Some(facts) => format!("in the lab{facts}"),
        None => format!("on {backend}"),
    }
}

/// A backend and the facts that its detectors got: "netns, operator none".
#[must_use]
pub fn with_facts(backend: &str, facts: Knowledge) -> String {
    format!("{backend}, operator {facts}")
}

/// Capitalizes a text.
#[must_use]
pub fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// Joins a text into one line; evidence of outside detectors may have several.
#[must_use]
pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
