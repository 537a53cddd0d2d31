//! Findings that a scenario lists as following from its incident, and whether they ever occurred.
//!
//! Job: finds entries of `also` without an occurrence in the repetitions of a run. An entry that never occurs would
//! excuse a wrong finding.

use relapse_detectors::finding::Severity;

use crate::event::{Also, Outcome};
use crate::statistics;
use crate::summary::{RunSummary, TrialSummary};

/// Repetitions from which an entry that never occurred is an error.
const ENOUGH: usize = 50;

/// An entry that did not occur.
#[derive(Debug)]
pub struct Absent<'a> {
    also: &'a Also,
    /// The trial's name.
    trial: String,
    /// The number of judged repetitions.
    runs: usize,
}

/// The entries that occurred in no judged repetition of their trial.
#[must_use]
pub fn absent(run: &RunSummary) -> Vec<Absent<'_>> {
    let mut absent = Vec::new();
    for group in statistics::groups(run) {
        let judged = |trial: &&&TrialSummary| matches!(trial.outcome(), Outcome::Pass | Outcome::Fail);
        let runs = group.trials.iter().filter(judged).count();
        let first = group.first();
        let never = |also: &&Also| runs > 0 && !group.trials.iter().any(|trial| occurs(also, trial));
        let entries = first.info.also.iter().filter(never);
        absent.extend(entries.map(|also| Absent { also, trial: run.name(first), runs }));
    }
    absent
}

fn occurs(also: &Also, trial: &TrialSummary) -> bool {
    let received = trial.findings.iter().filter(|received| trial.t0().is_some_and(|t0| t0 <= received.received));
    received
        .map(|received| &received.finding)
        .any(|finding| also.is(finding) && finding.severity >= Severity::Warning && !finding.cleared)
}

impl Absent<'_> {
    /// Whether there were enough repetitions to call the entry wrong.
    #[must_use]
    pub const fn is_error(&self) -> bool {
        self.runs >= ENOUGH
    }

    /// The entry, and how often it did not occur.
    #[must_use]
    pub fn text(&self) -> String {
        let Self { also: Also { detector, subject, .. }, trial, runs } = self;
        let never =
            format!("{trial}: `also` lists {detector} about {subject}, which occurred in none of {runs} repetitions");
        if self.is_error() { format!("{never}: remove it") } else { never }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    /// What is absent from so many repetitions of the sample's I4, whose detector reported about node/worker-2.
    fn texts(repetitions: u32, subject: &str) -> Vec<(bool, String)> {
        let mut run = RunSummary::of(&sample::run());
        let mut first = run.trials.iter().find(|trial| trial.name() == "I4 policy-route-lost").expect("I4").clone();
        let finding = first.findings.iter().map(|received| &received.finding).find(|f| f.severity >= Severity::Warning);
        let (detector, level) = finding.map(|finding| (finding.detector.clone(), finding.level)).expect("a finding");
        first.info.also =
            vec![Also { detector, level, subject: subject.parse().unwrap(), why: String::new(), step: None }];
        run.trials = (1..=repetitions)
            .map(|repetition| {
                let mut trial = first.clone();
                trial.info.trial.repetition = repetition;
                trial
            })
            .collect();
        absent(&run).iter().map(|absent| (absent.is_error(), absent.text())).collect()
    }

    #[test]
    fn an_entry_that_never_occurs_is_noted_and_from_fifty_repetitions_on_an_error() {
        let never = |n: u32| {
            format!(
                "I4 policy-route-lost: `also` lists policy-route about node/other, which occurred in none of {n} repetitions"
            )
        };
        assert_eq!(texts(49, "node/other"), [(false, never(49))]);
        assert_eq!(texts(50, "node/other"), [(true, never(50) + ": remove it")]);
        assert_eq!(texts(50, "node/worker-2"), []);
    }
}
