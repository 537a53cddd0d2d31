//! Verdicts on rules, in one recorded trial or in all.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::rule::RuleId;

/// The verdicts on all rules.
#[derive(Debug, Clone, Default)]
pub struct Verdicts {
    /// Verdicts that hold in every trial.
    pub rules: BTreeMap<RuleId, OfRule>,
    /// Verdicts in a trial, by the index of its recording.
    pub trials: BTreeMap<(RuleId, usize), OfTrial>,
}

impl Verdicts {
    /// The alerts that are ever active in a trial.
    #[must_use]
    pub fn active(&self, trial: usize) -> Vec<RuleId> {
        let always = self.rules.iter().filter(|(_, verdict)| matches!(verdict, OfRule::AlwaysOn { .. }));
        let here = self.trials.iter().filter(|((_, of), verdict)| *of == trial && verdict.is_active());
        always.map(|(id, _)| *id).chain(here.map(|((id, _), _)| *id)).collect()
    }
}

/// A verdict that no trial can change.
#[derive(Debug, Clone, PartialEq)]
pub enum OfRule {
    /// No exporter that was recorded has these metrics at all.
    NotCovered {
        metrics: Vec<String>,
    },
    /// An exporter that was recorded does not have this metric or label.
    CannotFire {
        why: String,
        nearest: Option<String>,
    },
    /// Fires in a baseline, so that it says nothing about an incident.
    AlwaysOn {
        /// "fires in the baseline of 2 of 5 recordings", or what can be seen by reading the rule: "no recorded target has
        /// the job `kube-dns`".
        why: String,
    },
    Undecided {
        why: String,
    },
    Error {
        message: String,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum OfTrial {
    Fires(Vec<Firing>),
    /// Its condition was true, and not for long enough.
    Pending {
        at: Duration,
        lasted: Duration,
        wait: Duration,
    },
    /// Its condition was never true. How close it came, for a comparison at the top of the expression.
    NeverTrue {
        close: Option<Close>,
    },
    /// What was recorded here lacks these metrics, or the targets that are meant, and recordings of other trials have them.
    NotRecorded {
        metrics: Vec<String>,
    },
    Undecided {
        why: String,
    },
    Error {
        message: String,
    },
}

impl OfTrial {
    /// Whether the alert is ever pending or firing.
    #[must_use]
    pub const fn is_active(&self) -> bool {
        matches!(self, Self::Fires(_) | Self::Pending { .. })
    }
}

/// One alert of a rule: a set of labels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Firing {
    pub labels: BTreeMap<String, String>,
    /// From the injection of the fault, or from the start of the recorded baseline (`in_baseline`).
    pub after: Duration,
    pub in_baseline: bool,
    pub split: Split,
    /// The time rests on the extended recording.
    pub held: bool,
    /// After the original was over (`lasted`).
    pub late: bool,
    /// From healing until it was over; `None` if it still fires at the end.
    pub cleared: Option<Duration>,
    /// It was over this long after it fired, while the fault was still in force.
    pub ended_early: Option<Duration>,
    /// At how many of the three positions of scrapes and evaluations it fires. Times are those of the middle one.
    pub positions: u8,
    pub subject: Subject,
    /// It fires because there are few targets: "1 of 3 targets down is enough here; of 100 it takes 11".
    pub few: Option<String>,
}

/// Where the time to fire goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Split {
    /// Until the condition is true in the recorded samples.
    pub condition: Duration,
    pub scrape: Duration,
    pub evaluation: Duration,
    pub wait: Duration,
}

/// Who an alert is about, and the labels that say so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Subject {
    /// As relapse writes subjects: `node/worker-1`, `service/kube-dns`, `pod/app`.
    Is { subject: String, labels: Vec<String> },
    /// No label is left that says where.
    NotSaid,
}

/// How close a comparison came: "peaked at 0.62 of 0.75".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Close {
    pub value: f64,
    pub threshold: f64,
    /// The value must rise above the threshold; otherwise fall below it.
    pub above: bool,
    pub labels: BTreeMap<String, String>,
}
