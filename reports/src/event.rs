//! What leaves a run: events, and nothing else.
//!
//! Job: the one interface between a run and its reports. A run is written down as JSON lines of
//! [`RunEvent`]; every report (terminal, matrix, JUnit, Markdown) is made from them alone and can be
//! made again later from the file. Times are nanoseconds of `CLOCK_MONOTONIC`; a report shows them
//! relative to the trial's t0 or to the start of the run.

use std::time::Duration;

use relapse_detectors::finding::{Finding, Level, Severity, Subject};
use relapse_detectors::time::Time;
use serde::{Deserialize, Serialize};

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
    /// Something the user should know that belongs to no trial (a journal replayed, a lock awaited).
    Notice { text: String },
}

/// What a run sets out to do.
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
    /// Consent to write machine-wide settings was given.
    pub host_writes: bool,
    /// Every deadline was so many times as long as its scenario says.
    #[serde(default = "as_stated")]
    pub deadline_factor: f64,
    /// All trials, in the order they are listed.
    pub trials: Vec<TrialInfo>,
    /// Names of all detectors that are armed, outside ones last.
    pub detectors: Vec<String>,
    /// The runs that this one was put together from, oldest first; none for a run of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<RunPart>,
}

/// A run that is part of a report of several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunPart {
    pub run_id: String,
    /// RFC 3339, UTC.
    pub started: String,
}

const fn as_stated() -> f64 {
    1.0
}

/// A trial as it was planned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialInfo {
    pub trial: TrialId,
    /// "I4".
    pub incident: String,
    pub title: String,
    pub expectations: Vec<Expectation>,
    /// Which of the run's parts it was in, where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<usize>,
}

/// What a trial expects of one detector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expectation {
    pub detector: String,
    pub level: Level,
    pub subject: Option<Subject>,
    /// Deadline, counted from t0; in a chain, from the injection of its step or the healing that uncovers it.
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

/// What a finding of a chain is about, and when it can be reported.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfStep {
    /// The step during which it stands; none for a risk, which stands from the baseline on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The step whose healing uncovers it, and from which its deadline counts. Default: the injection of its step.
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
    /// Will not run, and why. A skipped trial never looks like a passed one.
    Skipped {
        reason: String,
    },
    /// Waits for something outside the trial (the host-write lock and who holds it).
    Waiting {
        reason: String,
    },
    Phase {
        phase: Phase,
        /// Of a chain: the step that is watched or healed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<String>,
    },
    /// A part of the trial that this machine cannot do and that is left out, and why.
    Reduced {
        what: String,
        why: String,
    },
    /// One mutation was made and read back.
    Injected(Injected),
    /// A stated effect was seen in the workload, or ruled out.
    Effect(EffectSeen),
    /// A detector said something.
    Finding(FindingReceived),
    /// A collector or detector cannot see.
    Blind {
        detector: String,
        why: String,
    },
    /// An expectation, or a control, was decided.
    Verdict(Decided),
    /// Undo of a mutation, read back.
    Healed {
        what: String,
        error: Option<String>,
    },
    /// Something of ours is still there.
    LeftBehind {
        what: String,
    },
    /// Somebody else changed the host while the trial ran; fails nothing.
    HostChanged {
        what: String,
    },
    /// Sample of a workload flow, for timelines: attempts and failures in the last span.
    Flow(FlowSample),
    Ended(TrialEnded),
}

/// A mutation and its proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Injected {
    pub fault: String,
    /// What was done, in the words of the mechanism.
    pub what: String,
    /// Immediately before the mutating call.
    pub t0: Time,
    /// Read back as in force.
    pub t1: Time,
    /// What was read back.
    pub read_back: String,
    /// Of a chain: the step it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
}

/// An effect stated by the scenario.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EffectSeen {
    /// As the scenario states it: "app-database fails: timeout", "ping-database works".
    pub effect: String,
    pub holds: bool,
    /// First affected attempt or packet, where one was affected.
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
}

/// The verdicts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// In time, about the right subject. `after` is counted from t0.
    Detected {
        after: Duration,
    },
    /// Right, but past its deadline.
    Late {
        after: Duration,
    },
    Missed,
    /// In time, but only about something else.
    WrongSubject {
        said: Subject,
    },
    /// Already said before the fault was injected.
    PreExisting,
    /// Said in a control or in the baseline, where nothing is wrong; in a chain, anything that no step explains.
    FalseAlarm {
        severity: Severity,
        subject: Subject,
        evidence: String,
    },
    /// Silent where silence was asked for.
    Silent,
    /// The detector or all its collectors could not see.
    Blind {
        why: String,
    },
    /// Detected, but still standing after the recovery deadline.
    NotCleared,
    /// Detected, but cleared while what it is about was still in force (chains).
    ClearedEarly,
    /// Missed, as `relapse.yaml` said it would be.
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
        matches!(self, Self::Detected { .. } | Self::Silent | Self::ExpectedMiss { .. })
    }

    /// Time to detect, counted from t0, where there is one.
    #[must_use]
    pub const fn after(&self) -> Option<Duration> {
        match self {
            Self::Detected { after } | Self::Late { after } | Self::UnexpectedlyDetected { after } => Some(*after),
            _ => None,
        }
    }

    /// The verdict's name, as reports show it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Detected { .. } => "detected",
            Self::Late { .. } => "late",
            Self::Missed => "missed",
            Self::WrongSubject { .. } => "wrong-subject",
            Self::PreExisting => "pre-existing",
            Self::FalseAlarm { .. } => "false-alarm",
            Self::Silent => "silent",
            Self::Blind { .. } => "blind",
            Self::NotCleared => "not-cleared",
            Self::ClearedEarly => "cleared-early",
            Self::ExpectedMiss { .. } => "expected-miss",
            Self::UnexpectedlyDetected { .. } => "unexpectedly-detected",
            Self::Undecided { .. } => "undecided",
        }
    }
}

/// Attempts of one workload flow over a short span.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowSample {
    pub flow: String,
    pub attempts: u32,
    pub failures: u32,
    /// Median time of the successful ones.
    pub median: Option<Duration>,
}

/// How a trial, or a whole run, came out. Ordered from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Pass,
    /// Not run, with its reason. Alone it fails nothing; `--require` turns it into `Fail`.
    Skipped,
    /// A detection failed.
    Fail,
    /// No steady state, no effect, a collector lost: nothing was proved either way.
    Inconclusive,
    /// Something was left behind.
    Dirty,
    /// A defect of relapse itself.
    InternalError,
}

impl Outcome {
    /// Exit status of a run that came out like this (`sysexits.h` for the last).
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Pass | Self::Skipped => 0,
            Self::Fail => 1,
            Self::Inconclusive => 2,
            Self::Dirty => 3,
            Self::InternalError => 70,
        }
    }

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Skipped => "skipped",
            Self::Fail => "fail",
            Self::Inconclusive => "inconclusive",
            Self::Dirty => "dirty",
            Self::InternalError => "internal-error",
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
    /// Time from the first mutation of the host or lab until all was up, and from the start of
    /// `down` until the proof that all was gone.
    pub up: Option<Duration>,
    pub down: Option<Duration>,
    /// Largest resident set of the lab, bytes.
    pub peak_memory: Option<u64>,
    /// Processor time of the lab.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Duration>,
}
