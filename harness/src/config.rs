//! `relapse.yaml`: the detectors a user brings, and what each must do.
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
//! ```
//!
//! An entry under `expect` is for every scenario of an incident, or for one scenario; where a detector
//! has entries for a scenario, those for its incident do not count there. A miss says why and until
//! what day, the last on which it is accepted; without `level` it stands for cause and symptom both,
//! without `within` it is watched for as long as the scenario's own deadlines last. A risk has no
//! deadline: it must be named before the fault.
//!
//! Job: read, check and keep; `file` is what may stand where, and what it means. Invariants: all errors of form at
//! once, then all of meaning, each at its place; nothing of the file is run here, but a program that could not be is
//! told. Left out: running one ([`crate::outside_detector`]), and whether a scenario or a subject exists (scenarios do
//! not know this file).

mod file;

#[cfg(test)]
mod tests;

use std::path::Path;

use jiff::civil::Date;
use relapse_model::diagnostics::{Diagnostics, Source};
use relapse_model::spanned::Spanned;
use relapse_model::yaml::{self, Document};

use crate::event::Expectation;
use crate::outside_detector::ExecSpec;
use file::Line;

/// Looked for in the current directory, unless another file is named.
pub const FILE: &str = "relapse.yaml";

/// A user's own detectors.
#[derive(Debug, Clone, Default)]
pub struct Config {
    pub detectors: Vec<Outside>,
}

/// A detector that is a program of the user.
#[derive(Debug, Clone)]
pub struct Outside {
    pub exec: ExecSpec,
    expect: Vec<Line>,
}

impl Config {
    /// Reads the named file, else `relapse.yaml` of the current directory; without one there are no
    /// outside detectors. `today` tells which expected misses are out of date.
    ///
    /// # Errors
    /// The named file does not exist, or a file cannot be read; else everything that is wrong in it.
    pub fn load(path: Option<&Path>, today: Date) -> Result<Self, Diagnostics> {
        let file = path.unwrap_or(Path::new(FILE));
        if path.is_none() && !file.exists() {
            return Ok(Self::default());
        }
        Self::parse(&yaml::read(file, file::File::NOUN)?, today)
    }

    /// Understands the text of a file. Programs named by a path are looked for beside it.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(source: &Source, today: Date) -> Result<Self, Diagnostics> {
        file::understand(source, yaml::parse(source)?, today)
    }

    /// Names of all outside detectors, in the order of the file.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.detectors.iter().map(|detector| detector.exec.name.as_str())
    }

    /// What outside detectors must do in one scenario. Expectations of level `risk` are among them.
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
            of: None,
            expected_miss: line.miss.as_ref().map(|reason| reason.value.clone()),
            outside: true,
        })
        .collect()
    }
}
