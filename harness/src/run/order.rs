//! The protocol between the command line and a lab process: one order in, messages out.

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
use crate::scenario::trial::Armed;

/// The trial that a lab process must run. Sent as the first line on its control pipe.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    pub trial: TrialId,
    /// The scenario file, read again inside.
    pub file: PathBuf,
    /// Factor by which every deadline is multiplied.
    pub deadline_factor: f64,
    /// When detectors are armed.
    pub armed: Armed,
    /// The ground on which the cluster is built.
    pub ground: Ground,
    /// `nf_conntrack_max` may be written, through the guardian.
    pub host_writes: bool,
    /// Where to record all signals.
    pub record: Option<PathBuf>,
    /// Record series of exporters.
    pub series: Option<SeriesOrder>,
    /// Hold with the fault in force until a request to heal.
    pub hold: bool,
    /// The user's detectors.
    pub outside_detectors: Vec<ExecSpec>,
    /// What the user's detectors must report in this trial.
    pub outside_expectations: Vec<Expectation>,
    #[serde(default)]
    pub sabotage: Option<Sabotage>,
}

/// Where to record series, and what the lab does not know about them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SeriesOrder {
    pub file: PathBuf,
    /// Of the base scenario of its incident.
    pub base: bool,
}

/// Deliberate defects of the harness, for its own tests: each must change the verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sabotage {
    /// The fault is left out: inconclusive.
    SkipInject,
    /// A detector is removed: missed.
    RemoveDetector(String),
    /// A benign twin is injected under the incident's expectations: missed.
    TwinAsIncident(String),
    /// The incident is injected under the control's expectations: false alarm.
    IncidentAsTwin,
    /// A collector is removed: blind.
    KillCollector(CollectorKind),
    /// The read-back fails although the mutation was made: inconclusive.
    LyingReadBack,
    /// The newest undo is dropped: dirty.
    FailUndo,
}

/// Messages from the lab.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FromLab {
    Event {
        at: Time,
        event: TrialEvent,
    },
    /// A request to the guardian about the machine-wide limit.
    HostLimit(LimitRequest),
    /// All namespaces exist; their inodes, by which the machine identifies them. Processes may run there (shells of
    /// `reproduce`).
    Up {
        inodes: Vec<u64>,
    },
    /// An event while held with the fault in force (`reproduce`).
    Hold(HoldEvent),
    /// The last message.
    Done(TrialEnded),
}

/// The end of a trial without further data.
#[must_use]
pub fn ended(outcome: Outcome, reasons: Vec<String>) -> TrialEnded {
    TrialEnded { outcome, reasons, took: Duration::ZERO, up: None, down: None, peak_memory: None, cpu: None }
}

/// Messages to the lab, after its order.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ToLab {
    HostLimit(Answer),
    /// Heal and tear down immediately.
    Heal,
    /// Start a program in a place of the lab (`reproduce`): an interactive shell, or this shell command.
    Shell {
        place: String,
        command: Option<String>,
    },
    /// Heal one step of a chain and hold again at the next.
    Next,
    /// The visitor has left: heal, recover and tear down in order.
    Leave,
}

/// An event while a trial is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HoldEvent {
    /// The fault is in force and stays. Lists the places where programs can be started.
    Holding { places: Vec<String> },
    /// A program has ended, with the exit status of a shell, or could not be started.
    Ended { status: Result<i32, String> },
    /// The machine-wide limit was restored early, and why.
    LimitRestored { why: String },
}
