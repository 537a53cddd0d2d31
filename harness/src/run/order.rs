//! What passes between the command line and a lab process: one order in, messages out.

use std::path::PathBuf;
use std::time::Duration;

use relapse_detectors::signal::CollectorKind;
use relapse_detectors::time::Time;
use relapse_lab::cluster::backend::Ground;
use relapse_lab::host::LimitRequest;
use relapse_lab::host_limit::Answer;
use relapse_reports::event::{Expectation, Outcome, TrialEnded, TrialEvent, TrialId};
use serde::{Deserialize, Serialize};

use crate::outside_detector::ExecSpec;

/// What a lab process is asked to run. Sent as the first line on its control pipe.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    pub trial: TrialId,
    /// The scenario file, read again inside.
    pub file: PathBuf,
    /// Every deadline is so many times as long as it says.
    pub deadline_factor: f64,
    /// What the cluster is built on.
    pub ground: Ground,
    /// `nf_conntrack_max` may be written, through the guardian.
    pub host_writes: bool,
    /// Where to record all signals.
    pub record: Option<PathBuf>,
    /// Stop with the fault in force, until told to heal.
    pub hold: bool,
    /// Detectors of the user that run beside the built-in ones.
    pub outside_detectors: Vec<ExecSpec>,
    /// What those must say in this trial.
    pub outside_expectations: Vec<Expectation>,
    #[serde(default)]
    pub sabotage: Option<Sabotage>,
}

/// Deliberate defects of the harness, for its own tests: each must change the verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sabotage {
    /// The fault is left out: inconclusive.
    SkipInject,
    /// A detector is taken away: missed.
    RemoveDetector(String),
    /// A benign twin is injected under the incident's expectations: missed.
    TwinAsIncident(String),
    /// The incident is injected under the control's expectations: false alarm.
    IncidentAsTwin,
    /// A collector is taken away: blind.
    KillCollector(CollectorKind),
    /// The read-back fails although the mutation was made: inconclusive.
    LyingReadBack,
    /// The newest undo is dropped: dirty.
    FailUndo,
}

/// From the lab.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FromLab {
    Event {
        at: Time,
        event: TrialEvent,
    },
    /// Asks the guardian for the machine-wide limit.
    HostLimit(LimitRequest),
    /// All namespaces are made: their inodes, by which the machine knows them. Processes may live there
    /// (shells of `reproduce`).
    Up {
        inodes: Vec<u64>,
    },
    /// While it is held with the fault in force (`reproduce`).
    Hold(HoldNews),
    /// The last message.
    Done(TrialEnded),
}

/// How a trial ended of which nothing else is known.
#[must_use]
pub fn ended(outcome: Outcome, reasons: Vec<String>) -> TrialEnded {
    TrialEnded { outcome, reasons, took: Duration::ZERO, up: None, down: None, peak_memory: None, cpu: None }
}

/// To the lab, after its order.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ToLab {
    HostLimit(Answer),
    /// Heal and tear down now.
    Heal,
    /// Start a program in a place of the lab (`reproduce`): a shell, or this line in one.
    Shell {
        place: String,
        command: Option<String>,
    },
    /// Heal one step of a chain and stop again at the next.
    Next,
    /// Nobody looks any more: heal, recover and go down in good order.
    Leave,
}

/// What happens while a trial is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HoldNews {
    /// The fault is in force and stays. The places programs can be started in.
    Holding { places: Vec<String> },
    /// A program has ended, with this status as a shell tells it, or could not be started.
    Ended { status: Result<i32, String> },
    /// The machine-wide limit was set back early, and why.
    LimitRestored { why: String },
}
