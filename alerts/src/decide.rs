//! Which rules fire in which trial, and when: promtool evaluates them on recordings made long enough.
//!
//! In stages, each for those that the one before leaves: what the selectors match ([`trial`]), whether the expression is
//! ever true ([`truth`]), when alerts fire ([`times`]), where that time goes ([`split`]). All but the first ask promtool,
//! at three positions of scrapes and evaluations relative to the fault ([`schedule`]). Verdicts are kept ([`cache`]).

mod cache;
mod run;
mod schedule;
mod sources;
mod split;
mod times;
mod trial;
mod truth;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::labels::Labels;
use crate::promtool::Promtool;
use crate::recording::Recording;
use crate::rule::{RuleId, RuleSet};
use crate::verdict::{Firing, OfRule, OfTrial, Verdicts};
use sources::Sources;
use trial::Trial;

/// What is longer is not decided.
pub const LONGEST: Duration = Duration::from_secs(6 * 3600);

#[derive(Debug, Clone)]
pub struct Settings {
    pub scrape: Duration,
    /// Of groups without an interval of their own.
    pub evaluate: Duration,
    pub promtool: Promtool,
    /// Where verdicts are kept; `None` for nowhere.
    pub cache: Option<PathBuf>,
    /// For one run of promtool. A rule that takes longer alone is an error.
    pub limit: Duration,
}

impl Settings {
    /// Kept in the user's cache.
    #[must_use]
    pub fn new(promtool: Promtool, scrape: Duration, evaluate: Duration) -> Self {
        Self { scrape, evaluate, promtool, cache: cache::folder(), limit: Duration::from_secs(60) }
    }
}

/// Verdicts on all alerting rules in all trials, but for those that are settled.
#[must_use]
pub fn decide(
    rules: &RuleSet,
    recordings: &[Recording],
    labels: &Labels,
    settings: &Settings,
    settled: BTreeMap<RuleId, OfRule>,
) -> Verdicts {
    decide_staged(rules, recordings, labels, settings, settled, true)
}

/// Without `staged`, every rule is asked for its times.
fn decide_staged(
    rules: &RuleSet,
    recordings: &[Recording],
    labels: &Labels,
    settings: &Settings,
    settled: BTreeMap<RuleId, OfRule>,
    staged: bool,
) -> Verdicts {
    let mut verdicts = Verdicts { rules: settled, trials: BTreeMap::new() };
    let sources = Sources::new(rules, settings);
    let mut open = Vec::new();
    for id in (0..rules.rules.len()).map(RuleId) {
        if !rules.rules[id.0].is_alert() || verdicts.rules.contains_key(&id) {
            continue;
        }
        match sources.undecided(id) {
            Some(why) => {
                verdicts.rules.insert(id, OfRule::Undecided { why });
            }
            None => open.push(id),
        }
    }
    let trials: Vec<Trial<'_>> = recordings.iter().map(|recording| Trial::new(recording, labels)).collect();
    let exporters = trial::exporters(&trials);
    let next = AtomicUsize::new(0);
    let decided = Mutex::new(BTreeMap::new());
    let work = || {
        while let Some((index, trial)) =
            Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|i| Some((i, trials.get(i)?)))
        {
            let of_trial = decide_trial(&sources, trial, &exporters, settings, &open, staged);
            decided
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend(of_trial.into_iter().map(|(id, verdict)| ((id, index), verdict)));
        }
    };
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..processors.min(trials.len()) {
            scope.spawn(work);
        }
    });
    verdicts.trials = decided.into_inner().unwrap_or_else(PoisonError::into_inner);
    always_on(&open, &mut verdicts);
    verdicts
}

fn decide_trial(
    sources: &Sources<'_>,
    trial: &Trial<'_>,
    exporters: &trial::Exporters<'_>,
    settings: &Settings,
    open: &[RuleId],
    staged: bool,
) -> BTreeMap<RuleId, OfTrial> {
    let mut verdicts = BTreeMap::new();
    let mut asked = Vec::new();
    for &id in open {
        match trial.settle(sources, id, exporters) {
            Some(verdict) => {
                verdicts.insert(id, verdict);
            }
            None => asked.push(id),
        }
    }
    let cache = cache::Cache::open(settings.cache.as_deref(), trial);
    let key = |id: &RuleId| cache::key(sources, trial, *id, settings);
    asked.retain(|id| {
        let known = cache.get(key(id)).filter(|_| staged);
        let open = known.is_none();
        verdicts.extend(known.map(|verdict| (*id, verdict)));
        open
    });
    // Rules that read ALERTS are last: by then it is known which alerts are ever active.
    let (readers, asked): (Vec<RuleId>, Vec<RuleId>) = asked.into_iter().partition(|id| sources.reads_alerts(*id));
    let run = run::Run { sources, trial, settings };
    let mut fresh = run.decide(&asked, &[], staged);
    if !readers.is_empty() {
        let active = |verdict: &OfTrial| matches!(verdict, OfTrial::Fires(_) | OfTrial::Pending { .. });
        let known = verdicts.iter().chain(&fresh);
        let active: Vec<RuleId> = known.filter(|(_, verdict)| active(verdict)).map(|(id, _)| *id).collect();
        fresh.extend(run.decide(&readers, &active, false));
    }
    if staged {
        // What a reader of ALERTS sees depends on other rules.
        let kept = fresh.iter().filter(|(id, _)| !sources.reads_alerts(**id));
        cache.store(kept.map(|(id, verdict)| (key(id), verdict)));
    }
    verdicts.extend(fresh);
    verdicts
}

/// A rule that fires in every baseline is listed once.
fn always_on(open: &[RuleId], verdicts: &mut Verdicts) {
    for &id in open {
        let of_rule = verdicts.trials.range((id, 0)..=(id, usize::MAX)).map(|(_, verdict)| verdict);
        let decided = of_rule.filter(|verdict| !matches!(verdict, OfTrial::Undecided { .. }));
        let in_baseline = |verdict: &OfTrial| match verdict {
            OfTrial::Fires(firings) => firings.iter().find(|firing| firing.in_baseline).cloned(),
            _ => None,
        };
        let firings: Option<Vec<Firing>> = decided.map(in_baseline).collect();
        if let Some(first) = firings.and_then(|firings| firings.into_iter().next()) {
            verdicts.trials.retain(|(of, _), _| *of != id);
            verdicts.rules.insert(id, OfRule::AlwaysOn { labels: first.labels, why: None });
        }
    }
}

#[cfg(test)]
mod tests;
