//! Rules asked of promtool in batches, so that one that fails does not take others with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::schedule::{POSITIONS, Schedule, milliseconds, period};
use super::sources::Sources;
use super::trial::Trial;
use super::{LONGEST, Settings};
use crate::promtool::{self, Answer, Ask, File, Test};
use crate::recording::selector;
use crate::rule::RuleId;
use crate::timeline::Timeline;
use crate::verdict::OfTrial;

/// A label that tells alerts of one name apart.
pub const ID: &str = "relapse_rule";

/// A query may load 10,000 samples in promtool. A part of it may be loaded twice.
pub const SAMPLES: usize = 4000;

pub struct Run<'a> {
    pub sources: &'a Sources<'a>,
    pub trial: &'a Trial<'a>,
    pub settings: &'a Settings,
    /// Alerts that are ever active in this trial.
    pub active: &'a [RuleId],
}

/// Rules whose timelines are of one length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Class {
    /// In milliseconds.
    pub evaluate: u64,
    /// In seconds.
    pub history: u32,
    pub hold: u32,
}

/// Tests for some rules. Each has the questions of each rule, one rule after the other, as many as `asks` says.
pub struct Batch {
    pub file: File,
    pub asks: Vec<usize>,
}

/// The answers to a rule's questions in each test.
pub type Answers = Result<Vec<Vec<Answer>>, String>;

pub type Make<'a> = Box<dyn Fn(&[RuleId]) -> Batch + 'a>;

/// Rules to be asked together.
pub type Asked<'a> = (Vec<RuleId>, Make<'a>);

/// Rules that alone took too long, with the message: they are not asked again.
#[derive(Default)]
pub struct Slow(Mutex<BTreeMap<RuleId, String>>);

impl Run<'_> {
    /// What is not true while a series that it reads still rises may become true later.
    pub fn steady(&self, id: RuleId, verdict: OfTrial) -> OfTrial {
        let period = self.period(self.settings.scrape);
        let relevant = self.trial.relevant(self.sources, id);
        match relevant.into_iter().find(|&series| self.trial.trends(series, period)) {
            Some(series) => {
                let name = &self.trial.series(series).0.name;
                OfTrial::Undecided { why: format!("not steady: {name} still rises or falls when the fault ends") }
            }
            None => verdict,
        }
    }

    fn period(&self, evaluate: Duration) -> u32 {
        period(self.settings.scrape, evaluate.max(self.settings.scrape))
    }

    /// The alerts that a rule reads and that are active here.
    pub fn alerts(&self, id: RuleId) -> impl Iterator<Item = RuleId> {
        let read = &self.sources.source(id).alerts;
        self.active.iter().copied().filter(move |alert| *alert != id && read.contains(alert))
    }

    /// What some rules read of other rules, each once, in the order of evaluation, with those that read it.
    pub fn with_read(&self, rules: &[RuleId]) -> Vec<RuleId> {
        let alerts: BTreeSet<RuleId> = rules.iter().flat_map(|&id| self.alerts(id)).collect();
        let all = alerts.iter().chain(rules).flat_map(|&id| self.sources.with_records(id));
        let mut once = BTreeSet::new();
        all.filter(|id| once.insert(*id)).collect()
    }

    /// The rules by class; `waits` is whether alerts are waited for.
    pub fn classes(&self, rules: &[RuleId], waits: bool) -> BTreeMap<Class, Vec<RuleId>> {
        let mut classes: BTreeMap<Class, Vec<RuleId>> = BTreeMap::new();
        for &id in rules {
            let seconds = bound(self.sources.needed(id, self.alerts(id), waits).min(LONGEST).as_secs());
            let evaluate = milliseconds(self.sources.source(id).evaluate);
            classes.entry(Class { evaluate, history: seconds, hold: seconds }).or_default().push(id);
        }
        classes
    }

    pub fn schedules(&self, class: Class) -> Vec<Schedule> {
        let evaluate = Duration::from_millis(class.evaluate);
        let timeline = Timeline {
            phases: self.trial.recording.header.phases,
            history: class.history,
            hold: class.hold,
            healthy: class.hold,
            period: self.period(evaluate),
        };
        (0..POSITIONS).map(|position| Schedule::new(timeline, self.settings.scrape, evaluate, position)).collect()
    }

    /// How many evaluations of a rule one question may span.
    pub fn steps(&self, id: RuleId) -> usize {
        (SAMPLES / self.trial.relevant(self.sources, id).len().max(1)).max(1)
    }

    /// A test for each schedule, with the questions of all rules and the series that they and `written` can see. Schedules
    /// are of one timeline and may differ by an evaluation; a rule's last question is repeated, so that their number does
    /// not.
    pub fn batch(
        &self,
        rules: &[RuleId],
        written: &[RuleId],
        schedules: &[Schedule],
        questions: &dyn Fn(RuleId, &Schedule) -> Vec<Ask>,
    ) -> Batch {
        let of_schedule = |schedule| rules.iter().map(|&id| questions(id, schedule)).collect::<Vec<_>>();
        let asked: Vec<Vec<Vec<Ask>>> = schedules.iter().map(of_schedule).collect();
        let most = |rule: usize| asked.iter().map(|of| of[rule].len()).max().unwrap_or_default();
        let asks: Vec<usize> = (0..rules.len()).map(most).collect();
        let tests = schedules.iter().zip(asked).map(|(schedule, of)| {
            let padded = of.into_iter().zip(&asks).flat_map(|(mut questions, &most)| {
                if let Some(last) = questions.last().cloned() {
                    questions.resize(most, last);
                }
                questions
            });
            Test { interval: schedule.interval(), series: Vec::new(), asks: padded.collect() }
        });
        let mut tests: Vec<Test> = tests.collect();
        let until = |test: &Test| test.asks.iter().map(|ask| ask.at).max().unwrap_or_default();
        let until: Vec<u64> = tests.iter().map(until).collect();
        let seen = || rules.iter().chain(written);
        let relevant: BTreeSet<usize> = seen().flat_map(|&id| self.trial.relevant(self.sources, id)).collect();
        let ranges: BTreeSet<usize> = seen().flat_map(|&id| self.trial.ranges(self.sources, id)).collect();
        for series in relevant {
            let all = self.values(series, schedules, &until, !ranges.contains(&series));
            tests.iter_mut().zip(all).for_each(|(test, series)| test.series.push(series));
        }
        let marked = |&id: &RuleId| {
            let mut written = self.sources.written(id);
            if written.alert {
                written.labels.insert(ID.to_owned(), id.0.to_string());
            }
            written
        };
        let evaluate = schedules.first().map_or(0, |schedule| schedule.evaluate);
        Batch { file: File { evaluate, rules: written.iter().map(marked).collect(), tests }, asks }
    }

    /// The series that some rules can see, with every scrape.
    pub fn series(&self, rules: &[RuleId], schedule: &Schedule) -> Vec<(String, String)> {
        let relevant: BTreeSet<usize> = rules.iter().flat_map(|&id| self.trial.relevant(self.sources, id)).collect();
        let values = |series| self.values(series, std::slice::from_ref(schedule), &[schedule.end()], false);
        relevant.into_iter().flat_map(values).collect()
    }

    /// A series in each schedule, up to a time in each; [`Schedule::values`] has `latest`.
    fn values(&self, series: usize, schedules: &[Schedule], until: &[u64], latest: bool) -> Vec<(String, String)> {
        let Some(first) = schedules.first() else { return Vec::new() };
        let extended = self.trial.extended(series, &first.timeline);
        let (of, labels) = self.trial.series(series);
        let named = selector(&of.name, labels);
        let values = |(schedule, until): (&Schedule, &u64)| (named.clone(), schedule.values(&extended, *until, latest));
        schedules.iter().zip(until).map(values).collect()
    }
}

impl Slow {
    fn message(&self, id: RuleId) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    fn put(&self, id: RuleId, message: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id, message.to_owned());
    }

    /// Asks the batches of all trials in one process: to start one takes as long as to ask it for a hundred rules.
    pub fn ask_each(&self, settings: &Settings, batches: Vec<Vec<Asked<'_>>>) -> Vec<BTreeMap<RuleId, Answers>> {
        let counts: Vec<usize> = batches.iter().map(Vec::len).collect();
        let mut answers = self.ask(settings, settings.limit, batches.into_iter().flatten().collect()).into_iter();
        counts.into_iter().map(|count| answers.by_ref().take(count).flatten().collect()).collect()
    }

    /// The answers to each batch.
    fn ask(&self, settings: &Settings, limit: Duration, batches: Vec<Asked<'_>>) -> Vec<BTreeMap<RuleId, Answers>> {
        let mut slow: Vec<BTreeMap<RuleId, Answers>> = Vec::new();
        let left = batches.into_iter().map(|(mut rules, make)| {
            let known: BTreeMap<RuleId, Answers> =
                rules.iter().filter_map(|&id| Some((id, Err(self.message(id)?)))).collect();
            rules.retain(|id| !known.contains_key(id));
            slow.push(known);
            (rules, make)
        });
        let left = left.collect();
        let fresh = self.ask_fresh(settings, limit, left);
        slow.into_iter().zip(fresh).map(|(known, fresh)| known.into_iter().chain(fresh).collect()).collect()
    }

    /// Batches that fail are asked in halves, with less time each.
    fn ask_fresh(
        &self,
        settings: &Settings,
        limit: Duration,
        batches: Vec<Asked<'_>>,
    ) -> Vec<BTreeMap<RuleId, Answers>> {
        if batches.iter().all(|(rules, _)| rules.is_empty()) {
            return vec![BTreeMap::new(); batches.len()];
        }
        let (files, asks): (Vec<File>, Vec<Vec<usize>>) = batches
            .iter()
            .map(|(rules, make)| {
                let Batch { file, asks } = make(rules);
                (file, asks)
            })
            .unzip();
        let less = (limit / 2).max(settings.limit / 6);
        let of_files = match settings.promtool.test(&files, limit) {
            Ok(of_files) => of_files,
            Err(error) if batches.len() == 1 => {
                let message = format!("failed to {error}");
                if let (promtool::Error::TooSlow { .. }, [(rules, _)]) = (error, batches.as_slice())
                    && let [id] = rules.as_slice()
                {
                    self.put(*id, &message);
                }
                // Of a batch of one rule this is the message, else it is asked in halves.
                vec![vec![Err(message)]]
            }
            Err(_) => return batches.into_iter().flat_map(|batch| self.ask(settings, less, vec![batch])).collect(),
        };
        drop(files);
        let answers = batches.into_iter().zip(asks).zip(of_files).map(|(((rules, make), asks), tests)| {
            match (tests.into_iter().collect::<Result<Vec<_>, _>>(), rules.as_slice()) {
                (Ok(tests), _) => shared(&rules, &asks, tests),
                (Err(message), [id]) => BTreeMap::from([(*id, Err(message))]),
                (Err(_), rules) => {
                    let (left, right) = rules.split_at(rules.len() / 2);
                    let half = |rules: &[RuleId]| {
                        self.ask(settings, less, vec![(rules.to_vec(), Box::new(&make) as Make<'_>)])
                    };
                    half(left).into_iter().chain(half(right)).flatten().collect()
                }
            }
        });
        answers.collect()
    }
}

/// Shares the answers of each test among the rules.
fn shared(rules: &[RuleId], asks: &[usize], tests: Vec<Vec<Answer>>) -> BTreeMap<RuleId, Answers> {
    let mut of: BTreeMap<RuleId, Vec<Vec<Answer>>> = BTreeMap::new();
    for test in tests {
        let mut answers = test.into_iter();
        for (id, asks) in rules.iter().zip(asks) {
            of.entry(*id).or_default().push(answers.by_ref().take(*asks).collect());
        }
    }
    of.into_iter().map(|(id, tests)| (id, Ok(tests))).collect()
}

/// Few lengths, so that rules share tests, and a verdict does not depend on which rules it is asked with.
fn bound(seconds: u64) -> u32 {
    let mut bound = 60;
    while u64::from(bound) < seconds.min(LONGEST.as_secs()) {
        bound *= 2;
    }
    bound
}

#[cfg(test)]
mod tests {
    use super::super::tests::settings;
    use super::*;
    use crate::promtool::{OLDEST, Promtool};

    #[test]
    fn a_rule_that_took_too_long_is_not_asked_again() {
        let slow = Slow::default();
        slow.put(RuleId(1), "failed to get an answer");
        let asked = |id: RuleId| -> Vec<Asked<'_>> { vec![(vec![id], Box::new(|_| unreachable!()))] };
        let settings = settings(Promtool::of_version(OLDEST));
        let answers = slow.ask_each(&settings, vec![asked(RuleId(1)), asked(RuleId(1))]);
        let one = BTreeMap::from([(RuleId(1), Err("failed to get an answer".to_owned()))]);
        assert_eq!(answers, [one.clone(), one]);
    }

    #[test]
    fn lengths_are_few_and_limited() {
        assert_eq!([0, 60, 61, 6 * 3600, u64::MAX].map(bound), [60, 60, 120, 30_720, 30_720]);
    }
}
