//! One stage after the other.

use std::collections::BTreeMap;

use super::run::{Answers, Run, Slow};
use super::times::Times;
use super::{split, times, truth};
use crate::rule::RuleId;
use crate::verdict::{Close, OfTrial};

/// How a trial is being decided.
struct Stage<'a> {
    run: &'a Run<'a>,
    verdicts: BTreeMap<RuleId, OfTrial>,
    /// What is still open, with how close it comes.
    maybe: BTreeMap<RuleId, Option<Close>>,
    fires: BTreeMap<RuleId, Times>,
}

/// Verdicts on the rules of each trial.
pub fn decide(runs: &[Run<'_>], rules: &[Vec<RuleId>], slow: &Slow, staged: bool) -> Vec<BTreeMap<RuleId, OfTrial>> {
    let Some(settings) = runs.first().map(|run| run.settings) else { return Vec::new() };
    let open = |rules: &Vec<RuleId>| rules.iter().map(|&id| (id, None)).collect();
    let new = |(run, rules)| Stage { run, verdicts: BTreeMap::new(), maybe: open(rules), fires: BTreeMap::new() };
    let mut trials: Vec<Stage<'_>> = runs.iter().zip(rules).map(new).collect();
    if staged {
        let batches = runs.iter().zip(rules).map(|(run, rules)| {
            // Those that read alerts cannot be asked without them.
            let alone = |id: &RuleId| run.sources.source(*id).alerts.is_empty();
            truth::batches(run, &rules.iter().copied().filter(alone).collect::<Vec<_>>())
        });
        let answers = slow.ask_each(settings, batches.collect());
        trials.iter_mut().zip(answers).for_each(|(trial, answers)| trial.truth(answers));
    }
    let maybe: Vec<Vec<RuleId>> = trials.iter().map(|trial| trial.maybe.keys().copied().collect()).collect();
    let batches = runs.iter().zip(&maybe).map(|(run, maybe)| times::batches(run, maybe));
    let answers = slow.ask_each(settings, batches.collect());
    for ((trial, maybe), answers) in trials.iter_mut().zip(&maybe).zip(answers) {
        trial.times(times::read(trial.run, maybe, answers));
    }
    let answers = {
        let batches = trials.iter().map(|trial| split::batches(trial.run, &trial.fires));
        slow.ask_each(settings, batches.collect())
    };
    let decided = trials.into_iter().zip(answers).map(|(mut trial, answers)| {
        let firings = split::read(trial.run, &trial.fires, answers);
        trial.verdicts.extend(firings.into_iter().map(|(id, firings)| (id, OfTrial::Fires(firings))));
        trial.verdicts
    });
    decided.collect()
}

impl Stage<'_> {
    /// Keeps what may be true.
    fn truth(&mut self, answers: BTreeMap<RuleId, Answers>) {
        for (id, answers) in answers {
            self.maybe.remove(&id);
            match truth::read(self.run, id, answers) {
                truth::Truth::Never(close) => {
                    // What does not change comes no closer in an incident than before it.
                    let close = close.filter(|_| !self.run.trial.is_constant(self.run.sources, id));
                    self.verdicts.insert(id, self.run.steady(id, OfTrial::NeverTrue { close }));
                }
                truth::Truth::Error(message) => {
                    self.verdicts.insert(id, OfTrial::Error { message });
                }
                truth::Truth::Maybe(close) => {
                    self.maybe.insert(id, close);
                }
            }
        }
    }

    /// Keeps what fires.
    fn times(&mut self, all: BTreeMap<RuleId, Result<Times, String>>) {
        for (id, times) in all {
            match times {
                Ok(times) if times.fires() => {
                    self.fires.insert(id, times);
                }
                Ok(times) => {
                    let verdict = times.not_fired(self.run, id, self.maybe.remove(&id).flatten());
                    self.verdicts.insert(id, self.run.steady(id, verdict));
                }
                Err(message) => {
                    self.verdicts.insert(id, OfTrial::Error { message });
                }
            }
        }
    }
}
