//! The summary of a run, folded from its events.
//!
//! Job: turns a complete or partial stream of [`RunEvent`]s into one [`RunSummary`], from which every report is made.
//! Invariants: pure; folding a prefix of a run never fails; a trial without an end is *not finished*, which counts as
//! inconclusive and never as passed; no event is dropped. Left out: judging. Outcomes and verdicts are those of the
//! run.

use std::cmp::Reverse;
use std::time::Duration;

use relapse_detectors::time::Time;

use crate::event::{
    DatabaseReport, Decided, EffectSeen, FindingReceived, FlowSample, Injected, Outcome, Phase, RunEvent, RunStarted,
    TriageDecided, TrialEnded, TrialId, TrialInfo, Visible, What,
};
use crate::{units, words};

/// A run, or as much of it as was recorded.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunSummary {
    /// `None` if the start of the file is lost.
    pub run: Option<RunStarted>,
    /// In the order of the plan; unplanned trials follow in order of appearance.
    pub trials: Vec<TrialSummary>,
    pub notices: Vec<String>,
    pub ended: Option<RunEnd>,
    /// Times of the first and the last event.
    pub first: Option<Time>,
    pub last: Option<Time>,
}

/// The end of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunEnd {
    pub outcome: Outcome,
    pub took: Duration,
}

/// One trial and all of its events.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TrialSummary {
    pub info: TrialInfo,
    pub started: Option<Time>,
    /// Time of its last event.
    pub last: Option<Time>,
    pub skipped: Option<String>,
    /// What it waited for, in order.
    pub waited: Vec<String>,
    pub phases: Vec<PhaseSpan>,
    pub reduced: Vec<Reduced>,
    pub injected: Vec<Injected>,
    pub visible: Vec<Visible>,
    pub effects: Vec<EffectSeen>,
    pub findings: Vec<FindingReceived>,
    pub blind: Vec<Blind>,
    pub verdicts: Vec<Decided>,
    pub healed: Vec<Healed>,
    pub left_behind: Vec<String>,
    pub host_changed: Vec<String>,
    pub flows: Vec<FlowAt>,
    pub triage: Vec<TriageDecided>,
    /// Reports of databases outside, and when each was read.
    pub databases: Vec<(Time, DatabaseReport)>,
    pub ended: Option<TrialEnded>,
}

/// A phase with its start, and its end if it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhaseSpan {
    pub phase: Phase,
    /// Of a chain: the step that is watched or healed.
    pub step: Option<String>,
    pub from: Time,
    pub to: Option<Time>,
    /// Number of verdicts given, and of findings received, before it. Instants of events are those of their arrival.
    pub verdicts: usize,
    pub findings: usize,
}

/// A part of a trial that was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reduced {
    pub what: String,
    pub why: String,
}

/// A blind detector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blind {
    pub at: Time,
    pub detector: String,
    pub why: String,
}

/// The undo of a mutation, read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Healed {
    pub at: Time,
    pub what: String,
    pub error: Option<String>,
}

/// A flow sample with its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowAt {
    pub at: Time,
    pub sample: FlowSample,
}

/// Counts equal items, in order of appearance.
#[must_use]
pub fn tally<T: PartialEq>(all: impl IntoIterator<Item = T>) -> Vec<(T, usize)> {
    let mut tally: Vec<(T, usize)> = Vec::new();
    for one in all {
        match tally.iter_mut().find(|(other, _)| *other == one) {
            Some((_, n)) => *n += 1,
            None => tally.push((one, 1)),
        }
    }
    tally
}

/// Counts trials by outcome, worst first.
#[must_use]
pub fn counts(outcomes: impl IntoIterator<Item = Outcome>) -> Vec<(Outcome, usize)> {
    let mut counts = tally(outcomes);
    counts.sort_unstable_by_key(|(outcome, _)| Reverse(*outcome));
    counts
}

/// "2 fail, 1 skipped, 9 pass".
#[must_use]
pub fn sentence(counts: &[(Outcome, usize)]) -> String {
    let each: Vec<String> = counts.iter().map(|(outcome, n)| format!("{n} {}", outcome.name())).collect();
    each.join(", ")
}

/// Distinct names, in order of appearance.
fn distinct<'a>(names: impl IntoIterator<Item = &'a String>) -> Vec<&'a str> {
    tally(names.into_iter().map(String::as_str)).into_iter().map(|(name, _)| name).collect()
}

impl RunSummary {
    /// Folds all events of a run.
    #[must_use]
    pub fn of<'a>(events: impl IntoIterator<Item = &'a RunEvent>) -> Self {
        let mut summary = Self::default();
        for event in events {
            summary.push(event);
        }
        summary
    }

    /// Folds one more event; returns the place of its trial in [`RunSummary::trials`], if it has one.
    pub fn push(&mut self, event: &RunEvent) -> Option<usize> {
        self.first.get_or_insert(event.at);
        self.last = Some(self.last.map_or(event.at, |last| last.max(event.at)));
        match &event.what {
            What::RunStarted(run) => {
                for info in &run.trials {
                    let place = self.place(&info.trial);
                    let trial = self.trials[place].info.trial.clone();
                    self.trials[place].info = TrialInfo { trial, ..info.clone() };
                }
                self.run = Some(run.clone());
                None
            }
            What::RunEnded { outcome, took } => {
                self.ended = Some(RunEnd { outcome: *outcome, took: *took });
                None
            }
            What::Notice { text } => {
                self.notices.push(text.clone());
                None
            }
            What::Trial { trial, event: what } => {
                let place = self.place(trial);
                self.trials[place].push(event.at, what);
                Some(place)
            }
        }
    }

    /// Reports treat a backend with other facts of the operator as another backend: its results are never mixed with
    /// those of the right facts, and stand side by side with them.
    fn place(&mut self, id: &TrialId) -> usize {
        let mut id = id.clone();
        if !id.operator.is_right() {
            id.backend = words::with_facts(&id.backend, id.operator);
        }
        self.trials.iter().position(|trial| trial.info.trial == id).unwrap_or_else(|| {
            let info = TrialInfo { trial: id, ..TrialInfo::default() };
            self.trials.push(TrialSummary { info, ..TrialSummary::default() });
            self.trials.len() - 1
        })
    }

    /// The outcome of the run; if it has no end, the worst of its trials and at least inconclusive.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let seen = || self.trials.iter().map(TrialSummary::outcome).fold(Outcome::Inconclusive, Outcome::max);
        self.ended.map_or_else(seen, |end| end.outcome)
    }

    /// How long the run took, or the time between its first and last event.
    #[must_use]
    pub fn took(&self) -> Duration {
        let seen = || self.last.zip(self.first).map_or(Duration::ZERO, |(last, first)| last.since(first));
        self.ended.map_or_else(seen, |end| end.took)
    }

    #[must_use]
    pub fn counts(&self) -> Vec<(Outcome, usize)> {
        counts(self.trials.iter().map(TrialSummary::outcome))
    }

    /// Whether any trial has repetitions.
    #[must_use]
    pub fn is_repeated(&self) -> bool {
        self.trials.iter().any(|trial| trial.info.trial.repetition > 1)
    }

    /// The backends of this run, in order of appearance.
    #[must_use]
    pub fn backends(&self) -> Vec<&str> {
        distinct(self.trials.iter().map(|trial| &trial.info.trial.backend))
    }

    /// All detectors: armed ones, then any others with findings or verdicts.
    #[must_use]
    pub fn detectors(&self) -> Vec<&str> {
        let armed = self.run.iter().flat_map(|run| run.detectors.iter());
        let reported = self.trials.iter().flat_map(|trial| trial.findings.iter().map(|f| &f.finding.detector));
        let judged = self.trials.iter().flat_map(|t| t.verdicts.iter().map(|d| &d.expectation.detector));
        distinct(armed.chain(reported).chain(judged))
    }

    /// "on kind", "in the lab and on kind"; `None` for a run in the lab only.
    #[must_use]
    pub fn on(&self) -> Option<String> {
        match self.backends().as_slice() {
            [] | ["netns"] => None,
            all => Some(all.iter().map(|backend| words::on(backend)).collect::<Vec<_>>().join(" and ")),
        }
    }

    /// The trial's name, with its backend if this run has several.
    #[must_use]
    pub fn name(&self, trial: &TrialSummary) -> String {
        let on = words::on(&trial.info.trial.backend);
        if self.backends().len() > 1 { format!("{} {on}", trial.name()) } else { trial.name() }
    }

    /// The same, with its repetition if there are several.
    #[must_use]
    pub fn label(&self, trial: &TrialSummary) -> String {
        let name = self.name(trial);
        if self.is_repeated() { format!("{name} #{}", trial.info.trial.repetition) } else { name }
    }

    /// "12 trials: 2 fail, 1 skipped, 9 pass in 41.3 s".
    #[must_use]
    pub fn headline(&self) -> String {
        let trials = units::count(self.trials.len(), "trial");
        let counts = sentence(&self.counts());
        let took = units::span(self.took());
        let cut = if self.ended.is_none() { ", then the events end: the run did not finish" } else { "" };
        format!("{trials}: {}in {took}{cut}", if counts.is_empty() { counts } else { counts + " " })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn a_whole_run_is_as_it_said() {
        let events = sample::run();
        let run = RunSummary::of(&events);
        assert_eq!(run.trials.len(), 10);
        assert_eq!(run.outcome(), Outcome::InternalError);
        let counted = "1 internal-error, 1 dirty, 1 inconclusive, 2 fail, 2 skipped, 3 pass";
        assert_eq!(sentence(&run.counts()), counted);
        let lost = run.trials.iter().find(|t| t.name() == "I4 policy-route-lost").expect("the trial");
        assert_eq!(lost.t1().expect("t1").since(lost.t0().expect("t0")), Duration::from_micros(400));
        assert_eq!(lost.phases.len(), 8);
        assert!(lost.phases.iter().all(|span| span.to.is_some()));
        let cause = lost.finding_behind(&lost.verdicts[0]).expect("its finding");
        assert!(cause.finding.evidence.contains("table 2"));
        assert!(lost.standing().iter().all(|standing| standing.cleared.is_some()));
    }

    /// A killed run may end anywhere. An unfinished trial must not look like a pass.
    #[test]
    fn every_prefix_of_a_run_can_be_folded() {
        let events = sample::run();
        for length in 0..events.len() {
            let run = RunSummary::of(&events[..length]);
            assert_eq!(run.outcome().max(Outcome::Inconclusive), run.outcome(), "after {length} events");
            for trial in run.trials.iter().filter(|trial| trial.is_unfinished()) {
                assert_eq!(trial.outcome(), Outcome::Inconclusive);
                assert!(trial.reasons()[0].starts_with("not finished"), "{:?}", trial.reasons());
            }
        }
    }

    #[test]
    fn a_stream_without_its_beginning_still_tells_its_trials() {
        let events = sample::run();
        let run = RunSummary::of(&events[1..]);
        assert!(run.run.is_none());
        assert!(run.trials.iter().any(|trial| trial.name() == "policy-route-lost"));
        assert!(run.detectors().contains(&"policy-route"));
    }
}
