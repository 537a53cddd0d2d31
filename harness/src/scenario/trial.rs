//! The expectations of a trial: steady state, effect, findings, recovery.

use clap::ValueEnum;
use relapse_detectors::finding::Level;
use relapse_lab::faults::Injection;
use relapse_model::spanned::Spanned;
use relapse_model::values::{Duration, LongDuration, Name};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::effects::Observation;

/// Conditions that must hold before the fault is injected.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SteadyState {
    /// How long every flow must have worked. Default 500ms.
    #[serde(rename = "for")]
    pub for_: Option<Spanned<Duration>>,
    /// How long the workload is then watched with all detectors running. Default 500ms.
    pub baseline: Option<Spanned<Duration>>,
    /// Number of connections of `hold` flows that must be open. Default 0.
    pub held: Option<Spanned<u32>>,
}

/// When the agents of the nodes start, and with them all detectors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Observe {
    /// Default `before`. Otherwise deadlines count from the late start and are at least 5s, `risks` count only where
    /// detectors are armed before, and triage is not judged.
    #[serde(default)]
    pub armed: Armed,
}

/// When detectors are armed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Armed {
    /// Before the baseline.
    #[default]
    Before,
    /// When the faults are in force.
    AfterInjection,
    /// Before the baseline, and once more when all has been found: every finding must be reported again.
    Restarted,
}

impl Armed {
    /// As in a scenario.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::AfterInjection => "after-injection",
            Self::Restarted => "restarted",
        }
    }
}

/// What the fault does to the workload, and what it does not affect.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Effect {
    /// Time within which all of it must be seen. If a cache hides the fault, counted from when it hides it from no client.
    /// Default 3s.
    pub within: Option<Spanned<Duration>>,
    /// Flows that fail, flows that keep working, packets that are seen.
    pub all: Vec<Observation>,
}

/// One step of a chain: faults that are healed together, and what becomes visible until then.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Name of the step.
    pub name: Spanned<Name>,
    /// Faults to inject, in this order. The faults of all steps are in force before the first step is healed.
    pub inject: Spanned<Vec<Injection>>,
    /// Changes that are in force only from the healing of the step before until this step is healed.
    #[serde(default)]
    pub meanwhile: Vec<Injection>,
    /// Effect on the workload while this step is the first that is not healed.
    pub effect: Spanned<Effect>,
    /// Findings about this step. Each must stand until the step is healed, and be cleared after that.
    pub detect: Spanned<Vec<Detect>>,
    /// Findings that may follow from this step until it is healed.
    #[serde(default)]
    pub also: Vec<Also>,
    /// Where triage must lead while this step is the first that is not healed.
    pub triage: Option<Spanned<Triage>>,
    /// Changes that heal the step, made before its faults are undone. They are undone when every step is healed.
    #[serde(default)]
    pub heal: Vec<Injection>,
}

/// Where triage must lead, 5 s after the end of the first failed or slow request at the latest, and until healing.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Triage {
    /// The first step that explains what users see: 1 nodes and pods, 2 back end, 3 DNS, 4 Service, 5 ingress, 6 hop by
    /// hop.
    #[schemars(range(min = 1, max = 6))]
    pub step: Spanned<u8>,
    /// The place: a subject, such as `path/192.168.40.0/24` or `node/worker-1`.
    pub at: Spanned<String>,
    /// Other steps that are faulty as well.
    #[serde(default)]
    #[schemars(inner(range(min = 1, max = 6)))]
    pub contributing: Vec<Spanned<u8>>,
}

/// A finding that a detector must report, and by when.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Detect {
    /// Name of a built-in detector.
    pub detector: Spanned<String>,
    /// `cause`: what is wrong. `symptom`: its effect on traffic. Weaknesses that exist before the fault go in `risks`.
    #[schemars(with = "String", extend("enum" = ["cause", "symptom"]))]
    pub level: Spanned<Level>,
    /// Subject of the finding: `node/NAME`, `pod/NAME`, `service/NAME`, `path/PREFIX`, `name/DOMAIN` or
    /// `server/ADDRESS:PORT`, of a kind that the detector names (`relapse list --detectors`).
    pub subject: Spanned<String>,
    /// Deadline, counted from immediately before the injection, or before the healing of the step named by `after`. If a
    /// cache or kept connections hide the fault, counted from when a client first sees it.
    pub within: Spanned<Duration>,
    /// The deadline on a real cluster, where some signals pass kubelet and API server first. Default: `within`.
    pub in_real_cluster: Option<Spanned<Duration>>,
    /// In a chain: the earlier step whose healing uncovers it. Default: none, it is visible from the injection on.
    pub after: Option<Spanned<String>>,
    /// In a chain: the step whose healing clears it. Default: the step it is about.
    pub clears: Option<Spanned<String>>,
}

/// A finding that may follow from the incident. Any other warning that is not expected fails the trial.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Also {
    /// Name of a built-in detector.
    pub detector: Spanned<String>,
    /// `risk`, `cause` or `symptom`: what the detector finds.
    #[schemars(with = "String", extend("enum" = ["risk", "cause", "symptom"]))]
    pub level: Spanned<Level>,
    /// Subject of the finding: `node/NAME`, `pod/NAME`, `service/NAME`, `path/PREFIX`, `name/DOMAIN` or
    /// `server/ADDRESS:PORT`, of a kind that the detector names (`relapse list --detectors`).
    pub subject: Spanned<String>,
    /// Why it follows from the incident, in one sentence.
    pub why: Spanned<String>,
    /// Whether it follows only on a real cluster (true) or only in labs (false). Default: on both.
    pub in_real_cluster: Option<bool>,
}

/// A weakness that a detector must report during the baseline.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Risk {
    /// Name of a built-in detector.
    pub detector: Spanned<String>,
    /// Subject of the finding: `node/NAME`, `pod/NAME`, `service/NAME`, `path/PREFIX`, `name/DOMAIN` or
    /// `server/ADDRESS:PORT`, of a kind that the detector names (`relapse list --detectors`).
    pub subject: Spanned<String>,
    /// In a chain: the step until whose healing it must stand, and whose healing clears it. Default: either may happen.
    pub clears: Option<Spanned<String>>,
}

/// A benign change that looks like the incident.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Control {
    /// Name of the control.
    pub name: Spanned<Name>,
    /// Why the change is benign, in one sentence.
    pub why: Spanned<String>,
    /// DNS replicas for this control only, instead of the cluster's.
    pub dns: Option<Spanned<DnsOverride>>,
    /// Existing weaknesses that detectors must report before the change: these and no others. Default: those that they
    /// report then may stand.
    pub risks: Option<Vec<Risk>>,
    /// The benign change.
    pub inject: Spanned<Vec<Injection>>,
    #[serde(default)]
    pub effect: Effect,
    /// Where triage must lead, if users see something. Default: nowhere, if no flow fails or is slow.
    pub triage: Option<Spanned<Triage>>,
    /// For how long the change goes on, where it ends by itself or is mended: an alert that fires after that is right.
    pub lasted: Option<Spanned<LongDuration>>,
    /// How long it is watched. Default: the incident's longest deadline, at least 2s.
    pub watch: Option<Spanned<Duration>>,
}

/// DNS replicas of one control.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DnsOverride {
    #[schemars(range(min = 1, max = 16))]
    pub replicas: Option<Spanned<u16>>,
    /// Nodes that run the replicas, in turn. Default: the cluster's.
    pub nodes: Option<Spanned<Vec<Spanned<String>>>>,
}

/// How recovery is judged.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Recover {
    /// Time within which every flow works again and every finding is cleared. If a cache hides the healing, counted from
    /// when it hides it from no client. Default 5s.
    pub within: Option<Spanned<Duration>>,
}
