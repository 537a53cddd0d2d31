//! What a trial expects of detectors.

use std::time::Duration;

use relapse_detectors::finding::{Finding, Level, Subject};
use serde::{Deserialize, Serialize};

/// What a trial expects of one detector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expectation {
    pub detector: String,
    pub level: Level,
    pub subject: Option<Subject>,
    /// Deadline, counted from t0; in a chain, from the injection of its step or the healing that uncovers it. If clients
    /// could see the fault only later, from then ([`Decided::visible`](super::Decided::visible)).
    pub within: Duration,
    /// Its place in a chain of steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<OfStep>,
    /// A miss is expected, and why (outside detectors only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_miss: Option<String>,
    /// True for a detector named in `relapse.yaml`.
    #[serde(default)]
    pub outside: bool,
}

/// A finding that may follow from an incident: it is neither required nor a failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Also {
    pub detector: String,
    pub level: Level,
    pub subject: Subject,
    /// Why it follows, in a sentence.
    pub why: String,
    /// Of a chain: the step it follows from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
}

impl Also {
    /// Whether it is this finding.
    #[must_use]
    pub fn is(&self, finding: &Finding) -> bool {
        (&self.detector, self.level, &self.subject) == (&finding.detector, finding.level, &finding.subject)
    }
}

/// The place of an expectation in a chain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfStep {
    /// The step it is about. None for a risk, which stands from the baseline on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The step whose healing uncovers it and starts its deadline. Default: the injection of its step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// The step whose healing clears it. Default: its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clears: Option<String>,
}

impl OfStep {
    /// The step until whose healing it stands.
    #[must_use]
    pub fn until(&self) -> Option<&str> {
        self.clears.as_deref().or(self.step.as_deref())
    }
}
