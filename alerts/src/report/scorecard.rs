//! The result of grading, as data.
//!
//! This is what `relapse alerts --json` prints. Names and meanings of fields stay as they are within one [`FORMAT`].
//! All times are in seconds; those of a trial count from the injection of its fault unless a field says otherwise.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::level::{Level, Outcome, Source};
use crate::rule::Severity;

/// Version of the format.
pub const FORMAT: u32 = 1;

/// Labels of a series or an alert.
pub type Labels = BTreeMap<String, String>;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scorecard {
    pub format: u32,
    /// The version of relapse that graded.
    pub relapse: String,
    /// The name of the set in `relapse.yaml`.
    pub name: Option<String>,
    /// The version of promtool that decided; `None` if there was none, so that only `rules` holds verdicts.
    pub promtool: Option<String>,
    /// Intervals of scraping and of evaluating rules.
    pub scrape: f64,
    pub evaluate: f64,
    pub input: Input,
    /// Labels of the targets of each exporter, as templates.
    pub labels: BTreeMap<String, Labels>,
    /// Those that were inferred from the rules: "job=kube-dns (cluster DNS)".
    pub inferred: Vec<String>,
    /// Alerts whose verdicts rest on series that were derived from API objects, as kube-state-metrics derives them.
    #[serde(default)]
    pub derived: usize,
    /// Rules whose verdict is the same in every trial, in the order of the files.
    pub rules: Vec<Settled>,
    /// One entry per scenario of an incident, in the order of incidents.
    pub incidents: Vec<Incident>,
    /// One entry per recording: incidents and twins.
    pub trials: Vec<Trial>,
    /// Of the base scenarios of incidents, chains excepted, how many are caught, and how many at their cause.
    pub caught: Caught,
    /// The expectations of `relapse.yaml`.
    pub expected: Vec<Expected>,
    /// Seconds that grading took.
    pub took: f64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    pub alerts: usize,
    pub recording_rules: usize,
    /// Files with at least one rule.
    pub files: usize,
    /// Objects of other kinds: how many of each.
    pub skipped: BTreeMap<String, usize>,
}

/// A rule, by name and place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Named {
    pub name: String,
    pub file: String,
    pub line: usize,
}

/// A verdict that no trial changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settled {
    #[serde(flatten)]
    pub rule: Named,
    pub severity: Option<Severity>,
    pub verdict: SettledVerdict,
    /// In one sentence.
    pub why: String,
    /// The nearest recorded metric or label.
    pub nearest: Option<String>,
    /// `not-covered`: the missing metrics.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SettledVerdict {
    /// No exporter that was recorded has these metrics.
    NotCovered,
    /// An exporter that was recorded does not have this metric or label.
    CannotFire,
    /// Fires in a baseline, so that it says nothing about an incident.
    AlwaysOn,
    /// Its condition was true in no recording. `nearest` is a recorded value of a label, if it asks for another.
    NeverTrue,
    Undecided,
    Error,
}

/// The result of one scenario of an incident, over its recordings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// `I2`.
    pub incident: String,
    pub scenario: String,
    pub title: String,
    /// The scenario by which the incident is graded without `--all`.
    pub base: bool,
    /// Indices of `trials`.
    pub trials: Vec<usize>,
    /// The earliest warning that earns credit, otherwise the earliest of any level.
    pub first: Option<First>,
    /// The best level that an alert in time earns: `cause`, `symptom`, or none.
    pub caught: Option<Level>,
}

/// A warning by the indices of its trial and, there, of `warnings`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct First {
    pub trial: usize,
    pub warning: usize,
}

/// One recorded trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    pub incident: String,
    pub scenario: String,
    /// The benign twin; `None` for the incident.
    pub control: Option<String>,
    pub title: String,
    pub base: bool,
    pub backend: String,
    pub phases: Phases,
    /// For how long the original went on.
    pub lasted: Option<f64>,
    /// Alerts of any severity that fire, earliest first; in a twin each of severity warning or worse that is not `late`
    /// is a false alarm.
    pub warnings: Vec<Warning>,
    /// Rules that were true, and not for long enough.
    pub pending: Vec<Pending>,
    /// Rules that were never true, with how close they came, closest first.
    pub close: Vec<Close>,
    /// Rules that err, or are undecided, in this trial alone.
    pub open: Vec<Open>,
}

/// Seconds that each phase of the recording takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phases {
    pub baseline: u32,
    pub fault: u32,
    pub healed: u32,
}

/// An alert that fires.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Warning {
    #[serde(flatten)]
    pub rule: Named,
    pub severity: Severity,
    /// Seconds until it fires: the sum of the next four.
    pub after: f64,
    pub condition: f64,
    pub scrape: f64,
    pub evaluation: f64,
    #[serde(rename = "for")]
    pub wait: f64,
    /// `after` lies beyond what was recorded: the end of the fault was repeated.
    pub held: bool,
    /// It fires after the original was over.
    pub late: bool,
    /// Seconds from healing until it was over; `None` if it still fires at the end.
    pub cleared: Option<f64>,
    /// It was over this many seconds after it fired, while the fault was still in force.
    pub ended_early: Option<f64>,
    /// It fires because the recorded cluster has few targets: how many are enough here, and would be of 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub few: Option<String>,
    /// At how many of three positions of scrapes and evaluations relative to the fault it fires.
    pub positions: u8,
    pub labels: Labels,
    /// `node/worker-1`; `None` if no label says where.
    pub subject: Option<String>,
    /// The labels that say so.
    pub by: Vec<String>,
    /// Whether the scenario's expectations have this subject; `None` in a twin.
    pub right: Option<bool>,
    /// What it counts as; `None` in a twin.
    pub level: Option<Level>,
    /// Who says so.
    pub source: Option<Source>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pending {
    #[serde(flatten)]
    pub rule: Named,
    pub severity: Severity,
    /// Seconds until the condition is true, and for how long it stays so.
    pub after: f64,
    pub lasted: f64,
    /// The `for` of the rule.
    #[serde(rename = "for")]
    pub wait: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Close {
    #[serde(flatten)]
    pub rule: Named,
    pub value: f64,
    pub threshold: f64,
    /// It must rise above the threshold; otherwise fall below it.
    pub above: bool,
    pub labels: Labels,
}

impl Close {
    /// How much of the way it went, up to 1; 0 where that has no meaning.
    #[must_use]
    pub fn share(&self) -> f64 {
        let (part, whole) = if self.above { (self.value, self.threshold) } else { (self.threshold, self.value) };
        let share = part / whole;
        if whole > 0.0 && share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 }
    }
}

/// Why a rule is not decided in a trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    #[serde(flatten)]
    pub rule: Named,
    /// promtool refused the rule; otherwise it is undecided.
    pub error: bool,
    pub why: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caught {
    pub incidents: usize,
    pub caught: usize,
    pub at_cause: usize,
}

/// An expectation, and whether it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// As it reads: "NodeDown in I2 as symptom within 2m".
    pub what: String,
    #[serde(flatten)]
    pub outcome: Outcome,
}

impl Trial {
    /// Alerts of severity warning or worse that fire in a twin. One that fires when the original change was over says
    /// something true about it.
    pub fn false_alarms(&self) -> impl Iterator<Item = &Warning> {
        let is_twin = self.control.is_some();
        self.warnings.iter().filter(move |warning| is_twin && warning.pages() && !warning.late)
    }
}

impl Warning {
    #[must_use]
    pub fn pages(&self) -> bool {
        self.severity >= Severity::Warning
    }

    /// Whether somebody would have learnt of the incident by it.
    #[must_use]
    pub fn earns(&self) -> bool {
        self.pages() && !self.late && self.level.is_some_and(|level| level <= Level::Symptom)
    }
}

impl Scorecard {
    /// Whether every expectation holds.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.expected.iter().all(|expected| expected.outcome == Outcome::Holds)
    }

    /// The first warning of an incident, with its trial.
    #[must_use]
    pub fn first(&self, incident: &Incident) -> Option<(&Trial, &Warning)> {
        let first = incident.first?;
        let trial = self.trials.get(first.trial)?;
        Some((trial, trial.warnings.get(first.warning)?))
    }

    pub fn settled(&self, verdict: SettledVerdict) -> impl Iterator<Item = &Settled> {
        self.rules.iter().filter(move |rule| rule.verdict == verdict)
    }
}
