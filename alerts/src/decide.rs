//! Which rules fire in which trial, and when: promtool evaluates them on recordings made long enough.
//!
//! In stages, each for those that the one before leaves: what the selectors match ([`trial`]), whether the expression is
//! ever true ([`truth`]), when alerts fire ([`times`]), where that time goes ([`split`]). All but the first ask promtool,
//! at three positions of scrapes and evaluations relative to the fault ([`schedule`]). Verdicts are kept ([`cache`]).

mod cache;
mod few;
pub(crate) mod run;
pub(crate) mod schedule;
pub(crate) mod sources;
mod split;
mod stages;
mod times;
pub(crate) mod trial;
mod truth;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use crate::labels::Labels;
use crate::parallel::{each, processors};
use crate::promtool::Promtool;
use crate::recording::{Recording, tools};
use crate::rule::{RuleId, RuleSet};
use crate::verdict::{OfRule, OfTrial, Verdicts};
use sources::Sources;
use trial::Trial;

/// What is longer is not decided.
pub const LONGEST: Duration = Duration::from_secs(6 * 3600);

/// Questions to one process: with fewer, starting it takes longer than answering; with more, it takes too much memory.
const QUESTIONS: RangeInclusive<usize> = 32..=250;

#[derive(Debug, Clone)]
pub struct Settings {
    pub scrape: Duration,
    /// Of groups without an interval of their own.
    pub evaluate: Duration,
    pub promtool: Promtool,
    /// Where verdicts are kept; `None` for nowhere.
    pub cache: Option<PathBuf>,
    /// For one run of promtool; parts of one that fails get less. A rule that takes longer alone is an error.
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
    decide_wanted(rules, recordings, labels, settings, settled, Wanted::ALL)
}

/// Verdicts on some of the rules, and on alerts that they read.
#[must_use]
pub fn decide_only(
    only: &[RuleId],
    rules: &RuleSet,
    recordings: &[Recording],
    labels: &Labels,
    settings: &Settings,
    settled: BTreeMap<RuleId, OfRule>,
) -> Verdicts {
    let wanted = Wanted { only: Some(only), ..Wanted::ALL };
    decide_wanted(rules, recordings, labels, settings, settled, wanted)
}

/// Which verdicts are wanted, and how.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    only: Option<&'a [RuleId]>,
    /// Otherwise every rule is asked for its times, and nothing is kept.
    staged: bool,
}

impl Wanted<'_> {
    const ALL: Self = Self { only: None, staged: true };

    fn has(self, sources: &Sources<'_>, id: RuleId) -> bool {
        let reads = |of: &RuleId| *of == id || sources.source(*of).alerts.contains(&id);
        self.only.is_none_or(|only| only.iter().any(reads))
    }
}

fn decide_wanted(
    rules: &RuleSet,
    recordings: &[Recording],
    labels: &Labels,
    settings: &Settings,
    settled: BTreeMap<RuleId, OfRule>,
    wanted: Wanted<'_>,
) -> Verdicts {
    let mut verdicts = Verdicts { rules: settled, trials: BTreeMap::new() };
    let sources = Sources::new(rules, settings);
    let mut open = BTreeSet::new();
    for id in (0..rules.rules.len()).map(RuleId) {
        if !rules.rules[id.0].is_alert() || verdicts.rules.contains_key(&id) || !wanted.has(&sources, id) {
            continue;
        }
        match sources.undecided(id) {
            Some(why) => {
                verdicts.rules.insert(id, OfRule::Undecided { why });
            }
            None => _ = open.insert(id),
        }
    }
    let trials = each(recordings.len(), |trial| Trial::new(&recordings[trial], labels, &sources.selectors));
    let exporters = trial::exporters(&trials);
    let always = verdicts.rules.iter().filter(|(_, verdict)| matches!(verdict, OfRule::AlwaysOn { .. }));
    let mut decided = Decided {
        sources: &sources,
        settings,
        staged: wanted.staged,
        always: always.map(|(id, _)| *id).filter(|id| rules.rules[id.0].is_alert()).collect(),
        slow: run::Slow::default(),
        caches: each(trials.len(), |trial| cache::Cache::open(settings.cache.as_deref(), &trials[trial])),
        verdicts: each(trials.len(), |trial| {
            let settle = |&id: &RuleId| Some((id, trials[trial].settle(&sources, id, &exporters)?));
            open.iter().filter_map(settle).collect()
        }),
        trials: &trials,
    };
    // What alerts read is decided before them: then it is known which of it is ever active.
    while !open.is_empty() {
        let waits = |id: &RuleId| sources.source(*id).alerts.iter().any(|read| read != id && open.contains(read));
        let (later, ready): (BTreeSet<RuleId>, BTreeSet<RuleId>) = open.iter().partition(|id| waits(id));
        let active = decided.active();
        decided.decide(&ready.into_iter().collect::<Vec<_>>(), &active);
        open = later;
    }
    for (trial, of_trial) in decided.verdicts.into_iter().enumerate() {
        verdicts.trials.extend(of_trial.into_iter().map(|(id, verdict)| ((id, trial), verdict)));
    }
    decided.caches.into_iter().for_each(cache::Cache::store);
    always_on(recordings.len(), &mut verdicts);
    verdicts
}

/// What is decided so far; lists are by trial.
struct Decided<'a> {
    sources: &'a Sources<'a>,
    trials: &'a [Trial<'a>],
    settings: &'a Settings,
    /// Whether verdicts may come from the cache or another trial.
    staged: bool,
    /// Alerts that are settled as always active.
    always: Vec<RuleId>,
    slow: run::Slow,
    caches: Vec<cache::Cache>,
    verdicts: Vec<BTreeMap<RuleId, OfTrial>>,
}

impl Decided<'_> {
    /// Decides rules in each trial. Where all that a verdict depends on is the same, promtool is asked once.
    fn decide(&mut self, rules: &[RuleId], active: &[Vec<RuleId>]) {
        let none = || vec![Vec::new(); self.trials.len()];
        let keys = each(self.trials.len(), |trial| {
            let open = rules.iter().filter(|id| !self.verdicts[trial].contains_key(id));
            let key = |&id| cache::key(self.sources, &self.trials[trial], id, &active[trial], self.settings);
            open.map(|id| (*id, if self.staged { key(id) } else { String::new() })).collect::<Vec<_>>()
        });
        let mut asked = none();
        let mut first: HashMap<&str, (usize, RuleId)> = HashMap::new();
        let mut same = Vec::new();
        for (trial, keys) in keys.iter().enumerate() {
            for (id, key) in keys {
                if !self.staged {
                    asked[trial].push(*id);
                } else if let Some(verdict) = self.caches[trial].get(key) {
                    self.verdicts[trial].insert(*id, verdict);
                } else if let Some(of) = first.get(&**key) {
                    same.push((trial, *id, *of));
                } else {
                    first.insert(key, (trial, *id));
                    asked[trial].push(*id);
                }
            }
        }
        self.ask(&asked, active);
        let mut differ = none();
        for (trial, id, (first, of)) in same {
            match self.verdicts[first].get(&of).filter(|verdict| trial == first || holds_elsewhere(verdict)) {
                Some(verdict) => {
                    let verdict = verdict.clone();
                    self.verdicts[trial].insert(id, verdict);
                }
                None => differ[trial].push(id),
            }
        }
        self.ask(&differ, active);
        for (keys, (cache, verdicts)) in keys.into_iter().zip(self.caches.iter_mut().zip(&self.verdicts)) {
            for (id, key) in keys.into_iter().filter(|_| self.staged) {
                if let Some(verdict) = verdicts.get(&id) {
                    cache.put(key, verdict);
                }
            }
        }
    }

    /// Asks promtool about some rules in each trial.
    fn ask(&mut self, rules: &[Vec<RuleId>], active: &[Vec<RuleId>]) {
        let chunks = chunks(rules);
        let fresh = each(chunks.len(), |chunk| {
            let of = &chunks[chunk];
            let run = |&trial: &usize| run::Run {
                sources: self.sources,
                trial: &self.trials[trial],
                settings: self.settings,
                active: &active[trial],
            };
            let runs: Vec<run::Run<'_>> = of.iter().map(run).collect();
            let rules: Vec<Vec<RuleId>> = of.iter().map(|&trial| rules[trial].clone()).collect();
            stages::decide(&runs, &rules, &self.slow, self.staged)
        });
        for (trial, fresh) in chunks.into_iter().flatten().zip(fresh.into_iter().flatten()) {
            self.verdicts[trial].extend(fresh);
        }
    }

    /// The alerts that are ever active in each trial.
    fn active(&self) -> Vec<Vec<RuleId>> {
        let of = |verdicts: &BTreeMap<RuleId, OfTrial>| {
            let here = verdicts.iter().filter(|(_, verdict)| verdict.is_active()).map(|(id, _)| *id);
            self.always.iter().copied().chain(here).collect()
        };
        self.verdicts.iter().map(of).collect()
    }
}

/// Trials that are asked in one process: few enough for all processors to have some.
fn chunks(rules: &[Vec<RuleId>]) -> Vec<Vec<usize>> {
    let all: usize = rules.iter().map(Vec::len).sum();
    let enough = (all / (4 * processors())).clamp(*QUESTIONS.start(), *QUESTIONS.end());
    let mut chunks: Vec<Vec<usize>> = Vec::new();
    let mut questions = usize::MAX;
    for trial in (0..rules.len()).filter(|&trial| !rules[trial].is_empty()) {
        match chunks.last_mut() {
            Some(chunk) if questions < enough => chunk.push(trial),
            _ => {
                chunks.push(vec![trial]);
                questions = 0;
            }
        }
        questions += rules[trial].len();
    }
    chunks
}

/// Whether a verdict on a rule that reads nothing that changes is independent of when the fault is. One that fires now and
/// then by the positions of scrapes is not.
fn holds_elsewhere(verdict: &OfTrial) -> bool {
    match verdict {
        OfTrial::NeverTrue { .. } | OfTrial::Error { .. } => true,
        OfTrial::Fires(firings) => firings.iter().all(|firing| firing.in_baseline && firing.cleared.is_none()),
        OfTrial::Pending { .. } | OfTrial::NotRecorded { .. } | OfTrial::Undecided { .. } => false,
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
pub(crate) mod tests;
