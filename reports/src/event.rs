//! The events of a run.
//!
//! Job: the only interface between a run and its reports. A run is recorded as JSON lines of [`RunEvent`]; every report
//! (terminal, matrix, JUnit, Markdown, HTML) is made from them alone and can be recreated later from the file. Times
//! are nanoseconds of `CLOCK_MONOTONIC`; a report shows them relative to the trial's t0 or to the start of the run.

mod expectation;
mod outcome;
mod verdict;

use std::net::SocketAddr;
use std::time::Duration;

use relapse_detectors::finding::{Finding, Subject};
use relapse_detectors::operator::Knowledge;
use relapse_detectors::signal::{DatabaseMemory, Observed, SlowQuery};
use relapse_detectors::time::Time;
use relapse_detectors::triage::Triaged;
use serde::{Deserialize, Serialize};

pub use expectation::{Also, Expectation, OfStep};
pub use outcome::Outcome;
pub use verdict::Verdict;

/// One event of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunEvent {
    pub at: Time,
    pub what: What,
}

/// Which trial an event belongs to: one scenario, or one of its controls, on one backend, once.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TrialId {
    /// Name of the scenario.
    pub scenario: String,
    /// Name of the benign twin; `None` for the incident itself.
    pub control: Option<String>,
    /// "netns" or "kind".
    pub backend: String,
    /// What its detectors got of the operator's facts.
    #[serde(default, skip_serializing_if = "Knowledge::is_right")]
    pub operator: Knowledge,
    /// Counted from 1, for `--repeat`.
    pub repetition: u32,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// First event of a run.
    RunStarted(RunStarted),
    /// Last event of a run.
    RunEnded { outcome: Outcome, took: Duration },
    /// An event of one trial.
    Trial { trial: TrialId, event: TrialEvent },
    /// A message that belongs to no trial (a journal was replayed, a lock was awaited).
    Notice { text: String },
}

/// The plan of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunStarted {
    pub run_id: String,
    /// RFC 3339, UTC.
    pub started: String,
    /// Version of relapse.
    pub version: String,
    /// Kernel release.
    pub kernel: String,
    /// uid is 0.
    pub root: bool,
    /// Writing machine-wide settings is allowed.
    pub host_writes: bool,
    /// The factor by which all deadlines of the scenarios are multiplied.
    #[serde(default = "as_stated")]
    pub deadline_factor: f64,
    /// All trials, in order.
    pub trials: Vec<TrialInfo>,
    /// Names of all armed detectors, outside detectors last.
    pub detectors: Vec<String>,
    /// The runs merged into this one, oldest first; empty for a single run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<RunPart>,
}

/// A run that was merged into a report of several runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunPart {
    pub run_id: String,
    /// RFC 3339, UTC.
    pub started: String,
}

const fn as_stated() -> f64 {
    1.0
}

/// A planned trial.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialInfo {
    pub trial: TrialId,
    /// "I4".
    pub incident: String,
    pub title: String,
    pub expectations: Vec<Expectation>,
    /// Findings that follow from the incident without being expected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<Also>,
    /// When its detectors are armed, if not before the fault: `after-injection` or `restarted`. Times to detect then count
    /// from the late start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub armed: Option<String>,
    /// The part of a merged run it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<usize>,
}

/// The phases of a trial, in order. Of a chain, `detect` and `heal` come once for each step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    Up,
    Settle,
    Baseline,
    Inject,
    Detect,
    Heal,
    Recover,
    Down,
}

impl Phase {
    pub const ALL: [Self; 8] =
        [Self::Up, Self::Settle, Self::Baseline, Self::Inject, Self::Detect, Self::Heal, Self::Recover, Self::Down];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Settle => "settle",
            Self::Baseline => "baseline",
            Self::Inject => "inject",
            Self::Detect => "detect",
            Self::Heal => "heal",
            Self::Recover => "recover",
            Self::Down => "down",
        }
    }
}

/// Events of one trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrialEvent {
    Started,
    /// The trial does not run, and why. Skipped trials are never shown as passed.
    Skipped {
        reason: String,
    },
    /// The trial waits for something outside it (the host-write lock and its holder).
    Waiting {
        reason: String,
    },
    Phase {
        phase: Phase,
        /// Of a chain: the step that is watched or healed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<String>,
    },
    /// A part of the trial that this machine does not support and that is left out, and why.
    Reduced {
        what: String,
        why: String,
    },
    /// One mutation was made and read back.
    Injected(Injected),
    /// Clients saw a change later than it was made.
    Visible(Visible),
    /// A stated effect was seen in the workload, or ruled out.
    Effect(EffectSeen),
    /// A detector reported a finding.
    Finding(FindingReceived),
    /// A collector or detector is blind.
    Blind {
        detector: String,
        why: String,
    },
    /// An expectation, or a control, was decided.
    Verdict(Decided),
    /// A mutation was undone and read back.
    Healed {
        what: String,
        error: Option<String>,
    },
    /// Something created by relapse is still there.
    LeftBehind {
        what: String,
    },
    /// Another process changed the host during the trial; never fails a run.
    HostChanged {
        what: String,
    },
    /// The verdict of triage changed; none when users no longer complain.
    Triage(Option<Triaged>),
    /// Triage of a trial, or of one stage of a chain, was decided.
    TriageDecided(TriageDecided),
    /// Sample of a workload flow, for timelines: attempts and failures in the last span.
    Flow(FlowSample),
    /// A third party's database outside reported something about itself, for comparison; never judged.
    Database {
        /// When it was read, at most half a second later.
        read: Time,
        report: DatabaseReport,
    },
    Ended(TrialEnded),
}

/// A mutation and its proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Injected {
    pub fault: String,
    /// What was done, in terms of the mechanism.
    pub what: String,
    /// Immediately before the mutating call.
    pub t0: Time,
    /// When it was read back as in force.
    pub t1: Time,
    /// What was read back.
    pub read_back: String,
    /// Of a chain: the step it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
}

/// A change that a cache or kept connections hid from clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Visible {
    /// The name whose record was changed.
    pub what: String,
    /// Of a fault: the first answer with the change that any client got. Of its healing: the last answer with the fault.
    pub at: Time,
    /// False if no client got one, and `at` is when caches expired.
    pub observed: bool,
    /// It is the healing.
    #[serde(default)]
    pub healing: bool,
    /// Of a chain: the step it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
}

/// An effect stated by the scenario.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EffectSeen {
    /// As stated by the scenario: "app-database fails: timeout", "ping-database works".
    pub effect: String,
    pub holds: bool,
    /// First affected attempt or packet, if any.
    pub t2: Option<Time>,
    /// Numbers: "5 of 5 attempts timed out".
    pub evidence: String,
    /// Of a chain: the first step that was not healed, none when all were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
}

/// A finding as the judge received it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindingReceived {
    pub phase: Phase,
    pub received: Time,
    pub finding: Finding,
}

/// How one expectation was decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided {
    pub expectation: Expectation,
    pub verdict: Verdict,
    /// Of a chain: the instant its times count from. Default: t0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Time>,
    /// Time from there, or from t0, until clients could first see the fault, if a cache or kept connections hid it. The
    /// deadline counts from then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visible: Option<Duration>,
}

impl Decided {
    /// Time to detect, counted from when clients could first see the fault.
    #[must_use]
    pub fn since_visible(&self) -> Option<Duration> {
        Some(self.verdict.after()?.saturating_sub(self.visible.unwrap_or_default()))
    }
}

/// Where triage must lead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TriageExpected {
    /// 1 to 6.
    pub step: u8,
    pub at: Subject,
    /// Other steps that are faulty as well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contributing: Vec<u8>,
    /// Deadline, counted from the end of the first failed or slow request.
    pub within: Duration,
}

/// How triage was decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TriageDecided {
    /// Of a chain: the first step that was not healed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// None if it must find nothing.
    pub expected: Option<TriageExpected>,
    /// The last verdict that explains something, otherwise the last one.
    pub found: Option<Triaged>,
    /// Time from the end of the first failed or slow request until the verdict was right for good.
    pub after: Option<Duration>,
    /// Why it is not as expected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrong: Option<String>,
}

/// Attempts of one workload flow over a short span.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowSample {
    pub flow: String,
    pub attempts: u32,
    pub failures: u32,
    /// Median duration of successful attempts.
    pub median: Option<Duration>,
}

/// A signal of a database about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DatabaseReport {
    SlowQuery(SlowQuery),
    Memory(DatabaseMemory),
}

impl DatabaseReport {
    /// The report in a signal, if it is one.
    #[must_use]
    pub fn of(observed: &Observed) -> Option<Self> {
        match observed {
            Observed::SlowQuery(query) => Some(Self::SlowQuery(query.clone())),
            Observed::DatabaseMemory(memory) => Some(Self::Memory(memory.clone())),
            _ => None,
        }
    }

    #[must_use]
    pub const fn server(&self) -> SocketAddr {
        match self {
            Self::SlowQuery(query) => query.server,
            Self::Memory(memory) => memory.server,
        }
    }
}

/// The end of a trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialEnded {
    pub outcome: Outcome,
    /// Why it is not a pass; every reason, worst first.
    pub reasons: Vec<String>,
    pub took: Duration,
    /// Time from the first mutation of the host or lab until all was up, and from the start of `down` until all was
    /// proved gone.
    pub up: Option<Duration>,
    pub down: Option<Duration>,
    /// Largest resident set of the lab, bytes.
    pub peak_memory: Option<u64>,
    /// Processor time of the lab.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Duration>,
}
