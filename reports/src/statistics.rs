//! Times to detect over repetitions, and how often a trial did not pass.
//!
//! Job: p50, p95 and the largest time to detect for each expectation, from t0 and (for symptoms)
//! from t2, and the count of flakes with their names. Invariants: pure; percentiles are nearest-rank,
//! so each is a value that was measured; a miss is a flake and never a time; a skipped trial counts
//! as neither. Left out: averages, which hide the one slow run that matters.

use std::time::Duration;

use relapse_detectors::finding::Level;

use crate::event::{Expectation, Outcome, Verdict};
use crate::summary::{RunSummary, TrialSummary};
use crate::units::{self, Offset};
use crate::words;

/// Nearest-rank percentiles of what was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percentiles<T> {
    pub samples: usize,
    pub p50: T,
    pub p95: T,
    pub max: T,
}

impl<T: Ord + Copy> Percentiles<T> {
    /// `None` of nothing.
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
    /// The first repetition stands for the plan of all.
    #[must_use]
    pub fn first(&self) -> &'a TrialSummary {
        self.trials[0]
    }

    /// Trials that ran, that is, were not skipped.
    #[must_use]
    pub fn ran(&self) -> usize {
        self.trials.iter().filter(|trial| trial.outcome() != Outcome::Skipped).count()
    }

    #[must_use]
    pub fn passed(&self) -> usize {
        self.trials.iter().filter(|trial| trial.outcome() == Outcome::Pass).count()
    }

    /// The worst outcome of all repetitions.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.trials.iter().map(|trial| trial.outcome()).max().unwrap_or(Outcome::Inconclusive)
    }
}

/// Trials of the same scenario, control and backend together, in order of appearance.
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
    /// Symptoms only: a symptom cannot be seen before there is one to see.
    pub from_t2: Option<Percentiles<Offset>>,
    /// Names of the verdicts that do not pass, and how often each was given.
    pub flakes: Vec<(&'static str, usize)>,
}

impl Times<'_> {
    /// "late 1, missed 2", or nothing.
    #[must_use]
    pub fn flakes_sentence(&self) -> String {
        let all = self.flakes.iter().map(|(name, n)| format!("{n} {name}"));
        all.collect::<Vec<_>>().join(", ")
    }
}

/// Of every expectation of every incident in the run; controls have no times.
#[must_use]
pub fn times(run: &RunSummary) -> Vec<Times<'_>> {
    let mut all: Vec<Times<'_>> = Vec::new();
    for group in groups(run).iter().filter(|group| !group.first().is_control()) {
        let mut expectations: Vec<&Expectation> = Vec::new();
        for decided in group.trials.iter().flat_map(|trial| &trial.verdicts) {
            // Whatever a control-like verdict is about was not expected and has no deadline to meet.
            if matches!(decided.verdict, Verdict::Silent | Verdict::FalseAlarm { .. }) {
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
    let mut from_t0 = Vec::new();
    let mut from_t2 = Vec::new();
    let mut flakes: Vec<(&'static str, usize)> = Vec::new();
    let mut decided = 0;
    for trial in &group.trials {
        for verdict in trial.verdicts.iter().filter(|d| d.expectation == *expectation).map(|d| &d.verdict) {
            decided += 1;
            if let Some(after) = verdict.after() {
                from_t0.push(after);
                from_t2.extend(trial.lead(after).filter(|_| expectation.level == Level::Symptom));
            }
            if !verdict.passes() {
                match flakes.iter_mut().find(|(name, _)| *name == verdict.name()) {
                    Some((_, n)) => *n += 1,
                    None => flakes.push((verdict.name(), 1)),
                }
            }
        }
    }
    Times {
        trial: group.first(),
        expectation,
        decided,
        from_t0: Percentiles::of(from_t0),
        from_t2: Percentiles::of(from_t2),
        flakes,
    }
}

/// What came of the repetitions of one trial: "9 of 10 pass, 1 inconclusive".
#[must_use]
pub fn flakes(group: &Group<'_>) -> String {
    let ran = group.ran();
    if ran == 0 {
        return "skipped".to_owned();
    }
    let mut text = format!("{} of {ran} pass", group.passed());
    for outcome in [Outcome::Fail, Outcome::Inconclusive, Outcome::Dirty, Outcome::InternalError] {
        let n = group.trials.iter().filter(|trial| trial.outcome() == outcome).count();
        if n > 0 {
            text.push_str(&format!(", {n} {}", outcome.name()));
        }
    }
    text
}

/// Header and rows of the table of times, for every report that shows one.
#[must_use]
pub fn times_table(run: &RunSummary) -> (Vec<&'static str>, Vec<Vec<String>>) {
    let repeated = run.is_repeated();
    let mut header = vec!["incident", "detector", "level", "deadline"];
    header.extend(if repeated { vec!["p50", "p95", "max"] } else { vec!["from t0"] });
    header.push(if repeated { "p50 from t2" } else { "from t2" });
    header.extend(if repeated { vec!["n", "flakes"] } else { vec!["verdict"] });
    let rows = times(run).iter().map(|times| row(run, times, repeated)).collect();
    (header, rows)
}

fn row(run: &RunSummary, times: &Times<'_>, repeated: bool) -> Vec<String> {
    let none = || "–".to_owned();
    let mut cells = vec![
        run.name(times.trial),
        times.expectation.detector.clone(),
        words::level(times.expectation.level).to_owned(),
        units::limit(times.expectation.within),
    ];
    let from_t0 = times.from_t0.as_ref();
    cells.push(from_t0.map_or_else(none, |t| units::span(t.p50)));
    if repeated {
        cells.push(from_t0.map_or_else(none, |t| units::span(t.p95)));
        cells.push(from_t0.map_or_else(none, |t| units::span(t.max)));
    }
    cells.push(times.from_t2.as_ref().map_or_else(none, |t| t.p50.to_string()));
    if repeated {
        cells.push(times.decided.to_string());
        cells.push(times.flakes_sentence());
    } else {
        let verdict = times.trial.verdicts.iter().find(|d| d.expectation == *times.expectation);
        cells.push(verdict.map_or_else(none, |decided| decided.verdict.name().to_owned()));
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn percentiles_are_nearest_rank() {
        assert_eq!(Percentiles::<u32>::of(Vec::new()), None);
        assert_eq!(Percentiles::of(vec![7]), Some(Percentiles { samples: 1, p50: 7, p95: 7, max: 7 }));
        // The textbook case: five values, p50 is the third.
        let five = Percentiles::of(vec![50, 15, 35, 20, 40]);
        assert_eq!(five, Some(Percentiles { samples: 5, p50: 35, p95: 50, max: 50 }));
        let hundred = Percentiles::of((1..=100).collect());
        assert_eq!(hundred, Some(Percentiles { samples: 100, p50: 50, p95: 95, max: 100 }));
        // An even count takes the lower middle: a value that was measured, not a mean.
        let four = Percentiles::of(vec![1, 2, 3, 4]);
        assert_eq!(four, Some(Percentiles { samples: 4, p50: 2, p95: 4, max: 4 }));
    }

    #[test]
    fn flakes_are_counted_and_named() {
        let events = sample::repeated();
        let run = RunSummary::of(&events);
        let groups = groups(&run);
        assert_eq!(groups.len(), 2);
        assert_eq!(flakes(&groups[0]), "8 of 10 pass, 1 fail, 1 inconclusive");
        let times = times(&run);
        let cause = times.iter().find(|t| t.expectation.level == Level::Cause).expect("a cause");
        assert_eq!(cause.from_t0.expect("times").samples, 9);
        assert!(cause.from_t2.is_none(), "lead from t2 is for symptoms");
        let symptom = times.iter().find(|t| t.expectation.level == Level::Symptom).expect("a symptom");
        assert_eq!(symptom.flakes, [("late", 1)]);
        assert_eq!(symptom.from_t2.expect("offsets").samples, 9);
    }
}
