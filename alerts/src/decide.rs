//! Which rules fire in which trial, and when: promtool evaluates them on recordings made long enough.
//!
//! In stages, each for those that the one before leaves: what the selectors match ([`trial`]), whether the expression is
//! ever true ([`truth`]), when alerts fire ([`times`]), where that time goes ([`split`]). All but the first ask promtool,
//! at three positions of scrapes and evaluations relative to the fault ([`schedule`]). Verdicts are kept ([`cache`]).

mod cache;
mod few;
mod run;
pub(crate) mod schedule;
mod sources;
mod split;
mod stages;
mod times;
mod trial;
mod truth;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::labels::Labels;
use crate::promtool::Promtool;
use crate::recording::{Recording, tools};
use crate::rule::{RuleId, RuleSet};
use crate::verdict::{OfRule, OfTrial, Verdicts};
use sources::Sources;
use trial::Trial;

/// What is longer is not decided.
pub const LONGEST: Duration = Duration::from_secs(6 * 3600);

/// Trials that are asked in one process, at most.
const TOGETHER: usize = 6;

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
        Self {
            scrape,
            evaluate,
            promtool,
            cache: tools::cache().map(|cache| cache.join("alerts")),
            limit: Duration::from_secs(60),
        }
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
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let chunks: Vec<&[Trial<'_>]> = trials.chunks(trials.len().div_ceil(4 * processors).clamp(1, TOGETHER)).collect();
    let next = AtomicUsize::new(0);
    let decided = Mutex::new(BTreeMap::new());
    let shared = Shared { sources: &sources, exporters: &exporters, settings, constant: Mutex::default(), staged };
    let work = || {
        while let Some(chunk) = chunks.get(next.fetch_add(1, Ordering::Relaxed)) {
            for (trial, of_trial) in chunk.iter().zip(shared.decide(chunk, &open)) {
                let index = recordings.iter().position(|recording| std::ptr::eq(recording, trial.recording));
                let of_trial = of_trial.into_iter().map(|(id, verdict)| ((id, index.unwrap_or_default()), verdict));
                decided.lock().unwrap_or_else(PoisonError::into_inner).extend(of_trial);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..processors.min(chunks.len()) {
            scope.spawn(work);
        }
    });
    verdicts.trials = decided.into_inner().unwrap_or_else(PoisonError::into_inner);
    always_on(recordings.len(), &mut verdicts);
    verdicts
}

/// What the threads share.
struct Shared<'a> {
    sources: &'a Sources<'a>,
    exporters: &'a trial::Exporters<'a>,
    settings: &'a Settings,
    /// Verdicts on rules that read nothing that changes: they hold in all trials that have the same series.
    constant: Mutex<HashMap<String, OfTrial>>,
    staged: bool,
}

impl Shared<'_> {
    fn decide(&self, trials: &[Trial<'_>], open: &[RuleId]) -> Vec<BTreeMap<RuleId, OfTrial>> {
        let sources = self.sources;
        let mut verdicts: Vec<BTreeMap<RuleId, OfTrial>> = Vec::new();
        let (mut asked, mut readers) = (Vec::new(), Vec::new());
        let mut caches = Vec::new();
        for trial in trials {
            let mut cache = cache::Cache::open(self.settings.cache.as_deref(), trial);
            let (mut known, mut unknown) = (BTreeMap::new(), Vec::new());
            for &id in open {
                match trial.settle(sources, id, self.exporters).or_else(|| self.known(&mut cache, trial, id)) {
                    Some(verdict) => {
                        known.insert(id, verdict);
                    }
                    None => unknown.push(id),
                }
            }
            // Rules that read ALERTS are last: by then it is known which alerts are ever active.
            let (of_alerts, unknown) = unknown.into_iter().partition(|id| sources.reads_alerts(*id));
            verdicts.push(known);
            readers.push(of_alerts);
            asked.push(unknown);
            caches.push(cache);
        }
        let run = |trial| run::Run { sources, trial, settings: self.settings };
        let runs: Vec<run::Run<'_>> = trials.iter().map(run).collect();
        let none = vec![Vec::new(); trials.len()];
        let fresh = stages::decide(&runs, &asked, &none, self.staged);
        for ((trial, mut cache), fresh) in trials.iter().zip(caches).zip(&fresh).filter(|_| self.staged) {
            for (id, verdict) in fresh {
                let key = cache::key(sources, trial, *id, self.settings);
                cache.put(key.clone(), verdict);
                if matches!(verdict, OfTrial::NeverTrue { .. }) && trial.is_constant(sources, *id) {
                    self.constant().insert(key, verdict.clone());
                }
            }
            cache.store();
        }
        for (verdicts, fresh) in verdicts.iter_mut().zip(fresh) {
            verdicts.extend(fresh);
        }
        let active = |verdicts: &BTreeMap<RuleId, OfTrial>| {
            let active = |verdict: &OfTrial| matches!(verdict, OfTrial::Fires(_) | OfTrial::Pending { .. });
            verdicts.iter().filter(|(_, verdict)| active(verdict)).map(|(id, _)| *id).collect()
        };
        let active: Vec<Vec<RuleId>> = verdicts.iter().map(active).collect();
        for (verdicts, of_readers) in verdicts.iter_mut().zip(stages::decide(&runs, &readers, &active, false)) {
            verdicts.extend(of_readers);
        }
        verdicts
    }

    /// From an earlier run, or another trial. What a reader of ALERTS sees depends on other rules.
    fn known(&self, cache: &mut cache::Cache, trial: &Trial<'_>, id: RuleId) -> Option<OfTrial> {
        if !self.staged || self.sources.reads_alerts(id) {
            return None;
        }
        let key = cache::key(self.sources, trial, id, self.settings);
        cache.get(&key).or_else(|| {
            let verdict = self.constant().get(&key).cloned()?;
            cache.put(key, &verdict);
            Some(verdict)
        })
    }

    fn constant(&self) -> std::sync::MutexGuard<'_, HashMap<String, OfTrial>> {
        self.constant.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A rule that fires in a baseline is listed once, and not graded.
fn always_on(trials: usize, verdicts: &mut Verdicts) {
    let mut baselines: BTreeMap<RuleId, usize> = BTreeMap::new();
    for ((id, _), verdict) in &verdicts.trials {
        if matches!(verdict, OfTrial::Fires(firings) if firings.iter().any(|firing| firing.in_baseline)) {
            *baselines.entry(*id).or_default() += 1;
        }
    }
    verdicts.trials.retain(|(id, _), _| !baselines.contains_key(id));
    verdicts.rules.extend(baselines.into_iter().map(|(id, of)| {
        let why = format!("fires in the baseline of {of} of {trials} recordings");
        (id, OfRule::AlwaysOn { why })
    }));
}

#[cfg(test)]
mod tests;
