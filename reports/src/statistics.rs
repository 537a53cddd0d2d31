//! Times to detect over repetitions, and how often a trial did not pass.
//!
//! Job: p50, p95 and maximum time to detect for each expectation, from t0 and (for symptoms) from t2, and the count of
//! flakes by name. Invariants: pure; percentiles are nearest-rank, so each is a measured value; a miss is a flake and
//! never a time; a skipped trial counts as neither. Left out: averages, which hide single slow runs.

use std::time::Duration;

use relapse_detectors::finding::Level;

use crate::event::{Decided, Expectation, Outcome, Verdict};
use crate::summary::{self, RunSummary, TrialSummary};
use crate::units::Offset;

/// Nearest-rank percentiles of measured values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percentiles<T> {
    pub samples: usize,
    pub p50: T,
    pub p95: T,
    pub max: T,
}

impl<T: Ord + Copy> Percentiles<T> {
    /// `None` without samples.
    #[must_use]
    pub fn of(mut samples: Vec<T>) -> Option<Self> {
        samples.sort_unstable();
        let max = *samples.last()?;
        let rank = |percent: usize| samples[(percent * samples.len()).div_ceil(100).max(1) - 1];
        Some(Self { samples: samples.len(), p50: rank(50), p95: rank(95), max })
    }
}

/// The repetitions of one trial.
#[derive(Debug, Clone)]
pub struct Group<'a> {
    pub trials: Vec<&'a TrialSummary>,
}

impl<'a> Group<'a> {
    /// The first repetition, which has the plan of all.
    #[must_use]
    pub fn first(&self) -> &'a TrialSummary {
        self.trials[0]
    }

    /// The number of trials that were not skipped.
    #[must_use]
    pub fn ran(&self) -> usize {
        self.trials.iter().filter(|trial| trial.outcome() != Outcome::Skipped).count()
    }

    #[must_use]
    pub fn passed(&self) -> usize {
        self.trials.iter().filter(|trial| trial.outcome() == Outcome::Pass).count()
    }

    /// "9 of 10 pass, 1 inconclusive".
    #[must_use]
    pub fn outcomes(&self) -> String {
        let ran = self.ran();
        if ran == 0 {
            return "skipped".to_owned();
        }
        let mut wrong = summary::counts(self.trials.iter().map(|trial| trial.outcome()));
        wrong.retain(|(outcome, _)| !matches!(outcome, Outcome::Pass | Outcome::Skipped));
        let wrong = wrong.iter().rev().map(|(outcome, n)| format!(", {n} {}", outcome.name())).collect::<String>();
        format!("{} of {ran} pass{wrong}", self.passed())
    }

    /// The worst outcome of all repetitions.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.trials.iter().map(|trial| trial.outcome()).max().unwrap_or(Outcome::Inconclusive)
    }
}

/// Groups trials by scenario, control and backend, in order of appearance.
#[must_use]
pub fn groups(run: &RunSummary) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for trial in &run.trials {
        let id = &trial.info.trial;
        let same = groups.iter_mut().find(|group| {
            let other = &group.first().info.trial;
            other.scenario == id.scenario && other.control == id.control && other.backend == id.backend
        });
        match same {
            Some(group) => group.trials.push(trial),
            None => groups.push(Group { trials: vec![trial] }),
        }
    }
    groups
}

/// One expectation over all repetitions of its trial.
#[derive(Debug, Clone)]
pub struct Times<'a> {
    pub trial: &'a TrialSummary,
    pub expectation: &'a Expectation,
    /// Repetitions in which it was decided.
    pub decided: usize,
    pub from_t0: Option<Percentiles<Duration>>,
    /// From when clients could first see the fault, if that was later in any repetition.
    pub from_visible: Option<Percentiles<Duration>>,
    /// Symptoms only, which cannot be detected before they occur.
    pub from_t2: Option<Percentiles<Offset>>,
    /// Names and counts of verdicts that do not pass.
    pub flakes: Vec<(&'static str, usize)>,
}

impl Times<'_> {
    /// The verdict in the first repetition.
    #[must_use]
    pub fn verdict(&self) -> Option<&Decided> {
        self.trial.verdicts.iter().find(|decided| decided.expectation == *self.expectation)
    }

    /// "1 late, 2 missed", or nothing.
    #[must_use]
    pub fn flakes_sentence(&self) -> String {
        let all = self.flakes.iter().map(|(name, n)| format!("{n} {name}"));
        all.collect::<Vec<_>>().join(", ")
    }
}

/// The times of every expectation of every incident in the run; controls have none.
#[must_use]
pub fn times(run: &RunSummary) -> Vec<Times<'_>> {
    let mut all: Vec<Times<'_>> = Vec::new();
    for group in groups(run).iter().filter(|group| !group.first().is_control()) {
        let mut expectations: Vec<&Expectation> = Vec::new();
        for decided in group.trials.iter().flat_map(|trial| &trial.verdicts) {
            // These verdicts have no expectation and no deadline.
            if matches!(decided.verdict, Verdict::Silent | Verdict::FalseAlarm { .. } | Verdict::Unexpected { .. }) {
                continue;
            }
            if !expectations.contains(&&decided.expectation) {
                expectations.push(&decided.expectation);
            }
        }
        all.extend(expectations.into_iter().map(|expectation| times_of(group, expectation)));
    }
    all
}

fn times_of<'a>(group: &Group<'a>, expectation: &'a Expectation) -> Times<'a> {
    let all = group.trials.iter().flat_map(|trial| trial.verdicts.iter().map(move |decided| (trial, decided)));
    let decided = all.filter(|(_, decided)| decided.expectation == *expectation);
    let after = decided.clone().filter_map(|(_, decided)| decided.verdict.after());
    let is_hidden = decided.clone().any(|(_, decided)| decided.visible.is_some());
    let visible = decided.clone().filter_map(|(_, decided)| decided.since_visible());
    let lead = decided.clone().filter_map(|(trial, decided)| trial.lead(decided));
    let symptom = expectation.level == Level::Symptom;
    let wrong = decided.clone().map(|(_, decided)| &decided.verdict).filter(|verdict| !verdict.passes());
    Times {
        trial: group.first(),
        expectation,
        decided: decided.count(),
        from_t0: Percentiles::of(after.collect()),
        from_visible: Percentiles::of(visible.filter(|_| is_hidden).collect()),
        from_t2: Percentiles::of(lead.filter(|_| symptom).collect()),
        flakes: summary::tally(wrong.map(Verdict::name)),
    }
}

/// The result of each trial's repetitions: its worst outcome, its name, and "9 of 10 pass, 1 inconclusive"; empty for a
/// run without repetitions.
#[must_use]
pub fn repetitions(run: &RunSummary) -> Vec<(Outcome, String, String)> {
    let groups = if run.is_repeated() { groups(run) } else { Vec::new() };
    groups.iter().map(|group| (group.outcome(), run.name(group.first()), group.outcomes())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_rank() {
        assert_eq!(Percentiles::<u32>::of(Vec::new()), None);
        assert_eq!(Percentiles::of(vec![7]), Some(Percentiles { samples: 1, p50: 7, p95: 7, max: 7 }));
        // Of five values, p50 is the third.
        let five = Percentiles::of(vec![50, 15, 35, 20, 40]);
        assert_eq!(five, Some(Percentiles { samples: 5, p50: 35, p95: 50, max: 50 }));
        let hundred = Percentiles::of((1..=100).collect());
        assert_eq!(hundred, Some(Percentiles { samples: 100, p50: 50, p95: 95, max: 100 }));
        // An even count takes the lower middle value, not a mean.
        let four = Percentiles::of(vec![1, 2, 3, 4]);
        assert_eq!(four, Some(Percentiles { samples: 4, p50: 2, p95: 4, max: 4 }));
    }
}
