//! One stage after the other.

use std::collections::BTreeMap;

use super::run::{Run, ask_each};
use super::{split, times, truth};
use crate::rule::RuleId;
use crate::verdict::{Close, OfTrial};

/// Verdicts on the rules of each trial; `active` are alerts that they may read.
pub fn decide(
    runs: &[Run<'_>],
    rules: &[Vec<RuleId>],
    active: &[Vec<RuleId>],
    staged: bool,
) -> Vec<BTreeMap<RuleId, OfTrial>> {
    let Some(settings) = runs.first().map(|run| run.settings) else { return Vec::new() };
    let mut verdicts: Vec<BTreeMap<RuleId, OfTrial>> = vec![BTreeMap::new(); runs.len()];
    let mut close: Vec<BTreeMap<RuleId, Option<Close>>> = vec![BTreeMap::new(); runs.len()];
    let mut maybe: Vec<Vec<RuleId>> = rules.to_vec();
    if staged {
        let batches = runs.iter().zip(rules).map(|(run, rules)| truth::batches(run, rules));
        let answers = ask_each(settings, batches.collect());
        for (trial, (run, answers)) in runs.iter().zip(answers).enumerate() {
            maybe[trial].clear();
            for (id, answers) in answers {
                match truth::read(run, id, answers) {
                    truth::Truth::Never(of) => {
                        // What does not change comes no closer in an incident than before it.
                        let of = of.filter(|_| !run.trial.is_constant(run.sources, id));
                        verdicts[trial].insert(id, run.steady(id, OfTrial::NeverTrue { close: of }));
                    }
                    truth::Truth::Error(message) => {
                        verdicts[trial].insert(id, OfTrial::Error { message });
                    }
                    truth::Truth::Maybe(of) => {
                        close[trial].insert(id, of);
                        maybe[trial].push(id);
                    }
                }
            }
        }
    }
    let each = || runs.iter().zip(active);
    let batches = each().zip(&maybe).map(|((run, active), maybe)| times::batches(run, maybe, active));
    let answers = ask_each(settings, batches.collect());
    let mut fires: Vec<BTreeMap<RuleId, times::Times>> = Vec::new();
    for (trial, ((run, active), answers)) in each().zip(answers).enumerate() {
        let mut of_trial = BTreeMap::new();
        for (id, times) in times::read(run, &maybe[trial], active, answers) {
            match times {
                Ok(times) if times.fires() => {
                    of_trial.insert(id, times);
                }
                Ok(times) => {
                    let verdict = times.not_fired(run, id, close[trial].remove(&id).flatten());
                    verdicts[trial].insert(id, run.steady(id, verdict));
                }
                Err(message) => {
                    verdicts[trial].insert(id, OfTrial::Error { message });
                }
            }
        }
        fires.push(of_trial);
    }
    let batches = each().zip(&fires).map(|((run, active), fires)| split::batches(run, fires, active));
    let answers = ask_each(settings, batches.collect());
    for (trial, answers) in answers.into_iter().enumerate() {
        let firings = split::read(&runs[trial], &fires[trial], answers);
        verdicts[trial].extend(firings.into_iter().map(|(id, firings)| (id, OfTrial::Fires(firings))));
    }
    verdicts
}
