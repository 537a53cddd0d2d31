//! What is expected of a trial: quiet first, then the effect, the findings, and recovery.

use relapse_detectors::finding::Level;
use relapse_lab::faults::Injection;
use relapse_model::spanned::Spanned;
use relapse_model::values::{Duration, Name};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::effects::Observation;

/// What must hold before anything is injected.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SteadyState {
    /// How long every flow must have worked. Default 500ms.
    #[serde(rename = "for")]
    pub for_: Option<Spanned<Duration>>,
    /// How long it is then watched with all detectors armed. Default 500ms.
    pub baseline: Option<Spanned<Duration>>,
    /// How many connections of `hold` flows must be open. Default 0.
    pub held: Option<Spanned<u32>>,
}

/// What the injection does to the workload, and what it leaves alone.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Effect {
    /// All of it must have been seen by then. Default 3s.
    pub within: Option<Spanned<Duration>>,
    /// Flows that fail, flows that go on working, packets that are seen.
    pub all: Vec<Observation>,
}

/// What one detector must say, and by when.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Detect {
    /// Name of a built-in detector.
    pub detector: Spanned<String>,
    /// What a finding says: what is wrong, or what that does to traffic. A standing weakness is stated in `risks`.
    #[schemars(with = "String", extend("enum" = ["cause", "symptom"]))]
    pub level: Spanned<Level>,
    /// What it must be about: `node/NAME`, `pod/NAME`, `service/NAME` or `path/PREFIX`. Default: anything.
    pub subject: Option<Spanned<String>>,
    /// Counted from the moment before the injection.
    pub within: Spanned<Duration>,
    /// The same in a real cluster, where some news passes kubelet and API server first. Default: `within`.
    pub in_real_cluster: Option<Spanned<Duration>>,
}

/// A weakness that a detector must name in the baseline.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Risk {
    /// Name of a built-in detector.
    pub detector: Spanned<String>,
    /// `node/NAME`, `pod/NAME`, `service/NAME` or `path/PREFIX`.
    pub subject: Spanned<String>,
}

/// An innocent change that looks like the incident.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Control {
    /// Name of the control.
    pub name: Spanned<Name>,
    /// Why it is innocent, in a sentence.
    pub why: Spanned<String>,
    /// Other DNS replicas than the cluster's, for this control alone.
    pub dns: Option<Spanned<DnsOverride>>,
    /// The innocent change.
    pub inject: Spanned<Vec<Injection>>,
    #[serde(default)]
    pub effect: Effect,
    /// How long it is watched. Default: the incident's longest deadline, at least 2s.
    pub watch: Option<Spanned<Duration>>,
}

/// DNS replicas as one control wants them.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DnsOverride {
    #[schemars(range(min = 1, max = 16))]
    pub replicas: Option<Spanned<u16>>,
    /// Where they run, in turn. Default: the cluster's.
    pub nodes: Option<Spanned<Vec<Spanned<String>>>>,
}

/// How recovery is judged.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Recover {
    /// Every flow works again and every finding is cleared by then. Default 5s.
    pub within: Option<Spanned<Duration>>,
}
