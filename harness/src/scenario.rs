//! The scenario file as strict types, with the places of values that planning may refuse.
//!
//! These are the types that [`relapse_model::yaml`] reads. [`cluster`] and [`trial`] are parts of a file; faults are in
//! [`relapse_lab::faults`], flows in [`relapse_lab::workload`], effects in [`crate::effects`].
//!
//! Invariants: unknown and duplicate keys are refused; enums are externally tagged, because all other representations
//! lose places. References and numbers are checked in [`crate::plan`].

pub mod cluster;
pub mod operator;
pub mod trial;
pub mod vary;

use std::collections::BTreeMap;

use relapse_lab::faults::Injection;
use relapse_lab::workload::Flow;
use relapse_model::spanned::Spanned;
use relapse_model::values::{LongDuration, Name};
use relapse_model::yaml::Document;
use schemars::JsonSchema;
use serde::Deserialize;

use cluster::Cluster;
use trial::{Also, Control, Detect, Effect, Observe, Recover, Risk, SteadyState, Step, Triage};
use vary::Variable;

/// A published incident: the cluster it needs, the faults, their effect on the workload, which detectors must
/// report it and by when, and the benign changes during which they must stay silent.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("if" = { "required": ["steps"] }, "else" = { "required": ["inject", "effect", "detect"] }))]
pub struct Scenario {
    /// Version of this format.
    pub api_version: ApiVersion,
    pub kind: Kind,
    pub metadata: Metadata,
    pub cluster: Cluster,
    /// Clients that run for the whole trial.
    pub workload: Vec<Flow>,
    #[serde(default)]
    pub steady_state: SteadyState,
    /// For how long the original went on, up to ten years; left out where its source does not say. `relapse alerts` calls
    /// an alert late that fires after that.
    pub lasted: Option<Spanned<LongDuration>>,
    /// When detectors are armed.
    #[serde(default)]
    pub observe: Observe,
    /// Faults to inject, in this order.
    pub inject: Option<Spanned<Vec<Injection>>>,
    /// Effect on the workload. A run in which it is not seen is inconclusive.
    pub effect: Option<Spanned<Effect>>,
    /// Findings that detectors must report, and by when.
    pub detect: Option<Spanned<Vec<Detect>>>,
    /// Findings that may follow from the incident without being required; any other warning fails the trial.
    #[serde(default)]
    pub also: Vec<Also>,
    /// Where triage must lead.
    pub triage: Option<Spanned<Triage>>,
    /// A chain, instead of `inject`, `effect` and `detect`: steps that are injected one after another and then healed
    /// in the same order.
    pub steps: Option<Spanned<Vec<Step>>>,
    /// Effect on the workload when everything is healed. Default: every flow works.
    pub healed: Option<Spanned<Effect>>,
    /// Existing weaknesses that detectors must report before the fault.
    #[serde(default)]
    pub risks: Vec<Risk>,
    /// Benign changes that look like the incident. Detectors must stay silent during each.
    pub controls: Spanned<Vec<Control>>,
    #[serde(default)]
    pub recover: Recover,
    /// Numbers that `relapse run --vary` draws anew, by the YAML anchor before them: incidents and twins stay what they
    /// are, outside the guard bands between them.
    #[serde(default)]
    pub vary: BTreeMap<Spanned<String>, Spanned<Variable>>,
}

impl Document for Scenario {
    const NOUN: &'static str = "scenario";
    const BEGIN: &'static str =
        "begin with `apiVersion: relapse/v1` and `kind: Scenario`; `relapse schema` prints what may follow";
}

/// The version of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum ApiVersion {
    #[serde(rename = "relapse/v1")]
    V1,
}

/// What the file describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Kind {
    Scenario,
}

/// Name and title of the scenario.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// Name on the command line and in reports.
    pub name: Spanned<Name>,
    /// The published incident it replays: I1 to I7, or an identifier of your own.
    pub incident: Spanned<String>,
    /// The incident in one line.
    pub title: Spanned<String>,
    /// Replayed only on request, because it takes long: if it is named, or with `--nightly`. Default false.
    #[serde(default)]
    pub nightly: bool,
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use relapse_model::yaml::{Document, schema};

    use super::Scenario;
    use super::operator::OperatorFacts;

    fn is_current<T: Document>(path: &str) {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios").join(path);
        let current = serde_json::to_string_pretty(&schema::<T>()).unwrap() + "\n";
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&file, &current).unwrap();
        }
        let found = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(found == current, "{} is not current: run `UPDATE=1 cargo test -p relapse schema`", file.display());
    }

    #[test]
    fn the_schemas_beside_the_scenarios_are_current() {
        is_current::<Scenario>("schema.json");
        is_current::<OperatorFacts>("operators/schema.json");
    }

    #[test]
    fn no_key_may_be_empty() {
        assert!(!schema::<Scenario>().to_string().contains("\"null\""));
        assert!(!schema::<OperatorFacts>().to_string().contains("\"null\""));
    }
}
