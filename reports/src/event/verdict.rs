//! How an expectation or a control was decided.

use std::time::Duration;

use relapse_detectors::finding::{Severity, Subject};
use serde::{Deserialize, Serialize};

/// The verdict on an expectation or a control.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Detected in time, with the right subject. `after` is counted from t0.
    Detected {
        after: Duration,
    },
    /// Detected, but after the deadline.
    Late {
        after: Duration,
    },
    Missed,
    /// Reported only about another subject, or about another one first.
    WrongSubject {
        said: Subject,
    },
    /// Reported before the fault was injected.
    PreExisting,
    /// Reported where nothing is wrong: in a control, in the baseline, or with evidence from after the healing.
    FalseAlarm {
        severity: Severity,
        subject: Subject,
        evidence: String,
    },
    /// Reported in an incident, although the scenario neither expects it nor says that it follows.
    Unexpected {
        severity: Severity,
        subject: Subject,
        evidence: String,
    },
    /// Silent, as expected.
    Silent,
    /// The detector or all its collectors were blind.
    Blind {
        why: String,
    },
    /// The cause is proved by history alone, and its detector was armed after the change: accepted where
    /// `relapse_detectors::history` says so.
    StartedLate,
    /// Detected, but still standing after the recovery deadline.
    NotCleared,
    /// Detected, but cleared while its fault was still in force (chains).
    ClearedEarly,
    /// Missed, as expected in `relapse.yaml`.
    ExpectedMiss {
        reason: String,
    },
    /// Detected although a miss was expected: the expectation is out of date.
    UnexpectedlyDetected {
        after: Duration,
    },
    /// The trial ended before this could be decided.
    Undecided {
        why: String,
    },
}

impl Verdict {
    /// Whether this verdict lets the trial pass.
    #[must_use]
    pub const fn passes(&self) -> bool {
        matches!(self, Self::Detected { .. } | Self::Silent | Self::StartedLate | Self::ExpectedMiss { .. })
    }

    /// Time to detect, counted from t0, if there is one.
    #[must_use]
    pub const fn after(&self) -> Option<Duration> {
        match self {
            Self::Detected { after } | Self::Late { after } | Self::UnexpectedlyDetected { after } => Some(*after),
            _ => None,
        }
    }

    /// The verdict's name in reports.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Detected { .. } => "detected",
            Self::Late { .. } => "late",
            Self::Missed => "missed",
            Self::WrongSubject { .. } => "wrong-subject",
            Self::PreExisting => "pre-existing",
            Self::FalseAlarm { .. } => "false-alarm",
            Self::Unexpected { .. } => "unexpected",
            Self::Silent => "silent",
            Self::Blind { .. } => "blind",
            Self::StartedLate => "blind: started after the change",
            Self::NotCleared => "not-cleared",
            Self::ClearedEarly => "cleared-early",
            Self::ExpectedMiss { .. } => "expected-miss",
            Self::UnexpectedlyDetected { .. } => "unexpectedly-detected",
            Self::Undecided { .. } => "undecided",
        }
    }
}
