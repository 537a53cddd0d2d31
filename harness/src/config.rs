//! `relapse.yaml`: the user's detectors and alerting rules, and what each must report.
//!
//! ```yaml
//! apiVersion: relapse/v1
//! kind: Config
//! detectors:
//!   - name: my-agent
//!     exec: { command: [./my-agent, --json], signals: true, env: { LOG: debug } }
//!     expect:
//!       - { incident: I4, level: cause, subject: node/worker-2, within: 30s }
//!       - { scenario: conntrack-cap-reset, level: symptom, within: 1m }
//!       - { incident: I1, miss: "no SYN collector yet", until: 2027-03-01 }
//!       - { scenario: four-twists, step: route, after: dns, level: symptom, within: 30s }
//! alerts:
//!   - name: platform
//!     rules: [rules/*.yaml]
//!     scrape: 15s
//!     evaluate: 30s
//!     labels: { node: { job: node-exporter, instance: "{node}:9100" }, dns: { job: kube-dns } }
//!     expect:
//!       - { alert: NodeHighNumberConntrackEntriesUsed, incident: I2, level: symptom, within: 2m }
//!       - { incident: I7, miss: no rule yet, until: 2027-03-01 }
//! ```
//!
//! An entry under `expect` applies to every scenario of an incident, or to one scenario. If a detector has entries for
//! a scenario, those for its incident do not apply there. A miss states why and until which day, inclusive, it is
//! accepted; without `level` it covers cause and symptom, without `within` it is watched until the scenario's longest
//! deadline. A risk has no deadline: it must be reported before the fault. In a chain, `step` names the step an entry is
//! about: its deadline counts from the injection of that step, or from the healing of the step named by `after`.
//! `relapse alerts` grades the rules under `alerts`; paths are relative to the file.
//!
//! `file` and `alerts` define the format and check it. Invariants: all syntax errors are reported at once, then all semantic
//! errors, each at its place; no program is run here, but one that cannot be run is reported. Programs are run by
//! [`crate::outside_detector`]. Scenarios and subjects are not checked for existence, because scenarios are independent
//! of this file.

mod alerts;
mod check;
mod file;

#[cfg(test)]
mod tests;

use std::path::Path;

use jiff::civil::Date;
use relapse_model::diagnostics::{Diagnostics, Source};
use relapse_model::spanned::Spanned;
use relapse_model::yaml::{self, Document};

use crate::event::{Expectation, OfStep};
use crate::outside_detector::ExecSpec;
pub use alerts::{AlertRules, EVALUATE, SCRAPE};
use file::Line;

/// The default file, in the current directory.
pub const FILE: &str = "relapse.yaml";

/// The user's detectors and alerting rules.
#[derive(Debug, Clone, Default)]
pub struct Config {
    pub detectors: Vec<Outside>,
    pub alerts: Vec<AlertRules>,
}

/// A detector that is the user's program.
#[derive(Debug, Clone)]
pub struct Outside {
    pub exec: ExecSpec,
    expect: Vec<Line>,
}

impl Config {
    /// Reads the named file, otherwise `relapse.yaml` in the current directory; if that does not exist, there are no
    /// outside detectors. `today` determines which expected misses have expired.
    ///
    /// # Errors
    /// If the named file does not exist or a file cannot be read; otherwise all errors in it.
    pub fn load(path: Option<&Path>, today: Date) -> Result<Self, Diagnostics> {
        let file = path.unwrap_or(Path::new(FILE));
        if path.is_none() && !file.exists() {
            return Ok(Self::default());
        }
        Self::parse(&yaml::read(file, file::File::NOUN)?, today)
    }

    /// Parses the text of a file. Programs given by path are relative to it.
    ///
    /// # Errors
    /// All errors in it.
    pub fn parse(source: &Source, today: Date) -> Result<Self, Diagnostics> {
        file::resolve(source, yaml::parse(source)?, today)
    }

    /// Names of all outside detectors, in file order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.detectors.iter().map(|detector| detector.exec.name.as_str())
    }

    /// What outside detectors must report in one scenario, including risks.
    #[must_use]
    pub fn expectations_for(&self, incident: &str, scenario: &str) -> Vec<Expectation> {
        self.detectors.iter().flat_map(|detector| detector.expectations_for(incident, scenario)).collect()
    }
}

impl Outside {
    fn expectations_for(&self, incident: &str, scenario: &str) -> Vec<Expectation> {
        let about = |name: &Option<Spanned<String>>, wanted: &str| name.as_ref().is_some_and(|name| **name == wanted);
        let own: Vec<&Line> = self.expect.iter().filter(|line| about(&line.scenario, scenario)).collect();
        let of_incident = self.expect.iter().filter(|line| about(&line.incident, incident));
        let lines = if own.is_empty() { of_incident.collect() } else { own };
        let all = lines.into_iter().flat_map(|line| line.levels().iter().map(move |level| (line, *level)));
        all.map(|(line, level)| Expectation {
            detector: self.exec.name.clone(),
            level,
            subject: line.subject.as_ref().map(|subject| subject.0.clone()),
            within: line.within.as_ref().map(|within| within.0).unwrap_or_default(),
            of: line.step.as_ref().map(|step| OfStep {
                step: Some(step.value.clone()),
                after: line.after.as_ref().map(|after| after.value.clone()),
                clears: None,
            }),
            expected_miss: line.miss.as_ref().map(|reason| reason.value.clone()),
            outside: true,
        })
        .collect()
    }
}
