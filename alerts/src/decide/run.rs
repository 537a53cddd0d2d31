//! Rules asked of promtool in batches, so that one that fails does not take others with it.

use std::collections::{BTreeMap, BTreeSet};

use super::Settings;
use super::schedule::{PHASES, Schedule, milliseconds, period};
use super::sources::Sources;
use super::trial::Trial;
use super::{split, times, truth};
use crate::promtool::{Answer, Ask, File, Test};
use crate::rule::RuleId;
use crate::timeline::{Extended, Timeline};
use crate::verdict::{Close, OfTrial};

/// In messages about promtool itself.
pub const UNANSWERED: &str = "failed to get an answer from promtool";

/// A query may load 10,000 samples in promtool. A part of it may be loaded twice.
pub const SAMPLES: usize = 4000;

pub struct Run<'a> {
    pub sources: &'a Sources<'a>,
    pub trial: &'a Trial<'a>,
    pub settings: &'a Settings,
}

/// Rules whose timelines are of one length; in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Class {
    pub evaluate: u64,
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

impl Run<'_> {
    /// Verdicts on rules; `active` are alerts that they may read.
    pub fn decide(&self, rules: &[RuleId], active: &[RuleId], staged: bool) -> BTreeMap<RuleId, OfTrial> {
        let mut verdicts = BTreeMap::new();
        let mut close: BTreeMap<RuleId, Option<Close>> = BTreeMap::new();
        let mut maybe = Vec::new();
        if staged {
            for (id, truth) in truth::ask(self, rules) {
                match truth {
                    truth::Truth::Never(of) => {
                        verdicts.insert(id, self.steady(id, OfTrial::NeverTrue { close: of }));
                    }
                    truth::Truth::Error(message) => {
                        verdicts.insert(id, OfTrial::Error { message });
                    }
                    truth::Truth::Maybe(of) => {
                        close.insert(id, of);
                        maybe.push(id);
                    }
                }
            }
        } else {
            maybe.extend(rules);
        }
        let mut fires = BTreeMap::new();
        for (id, times) in times::ask(self, &maybe, active) {
            match times {
                Ok(times) if times.fires() => {
                    fires.insert(id, times);
                }
                Ok(times) => {
                    let verdict = times.not_fired(self, id, close.remove(&id).flatten());
                    verdicts.insert(id, self.steady(id, verdict));
                }
                Err(message) => {
                    verdicts.insert(id, OfTrial::Error { message });
                }
            }
        }
        verdicts
            .extend(split::ask(self, &fires, active).into_iter().map(|(id, firings)| (id, OfTrial::Fires(firings))));
        verdicts
    }

    /// What is not true while a series that it reads still rises may become true later.
    fn steady(&self, id: RuleId, verdict: OfTrial) -> OfTrial {
        let timeline = self.timeline(Class { evaluate: 0, history: 0, hold: 0 });
        let relevant = self.trial.relevant(self.sources, id);
        let trending = relevant
            .iter()
            .map(|&series| self.trial.series(series).0)
            .find(|series| Extended::new(&series.name, &series.samples, &timeline).trends);
        match trending {
            Some(series) => {
                OfTrial::Undecided { why: format!("not steady: {} still changes when it is healed", series.name) }
            }
            None => verdict,
        }
    }

    /// The rules by class; `waits` is whether alerts are waited for.
    pub fn classes(&self, rules: &[RuleId], active: &[RuleId], waits: bool) -> BTreeMap<Class, Vec<RuleId>> {
        let mut classes: BTreeMap<Class, Vec<RuleId>> = BTreeMap::new();
        let wait = |id: RuleId| {
            let source = self.sources.source(id);
            source.hold.saturating_add(source.keep_firing)
        };
        for &id in rules {
            let source = self.sources.source(id);
            let read =
                active.iter().map(|&alert| wait(alert) + self.sources.source(alert).back).max().unwrap_or_default();
            let back = source.back.max(read) + source.evaluate;
            let waits = if waits { wait(id) } else { Default::default() };
            let seconds = bound((back + waits + source.evaluate).as_secs());
            let class = Class { evaluate: milliseconds(source.evaluate), history: seconds, hold: seconds };
            classes.entry(class).or_default().push(id);
        }
        classes
    }

    pub fn timeline(&self, class: Class) -> Timeline {
        let evaluate = std::time::Duration::from_millis(class.evaluate);
        Timeline {
            phases: self.trial.recording.header.phases,
            history: class.history,
            hold: class.hold,
            healthy: class.hold,
            period: period(self.settings.scrape, evaluate.max(self.settings.scrape)),
        }
    }

    pub fn schedules(&self, class: Class) -> Vec<Schedule> {
        let evaluate = std::time::Duration::from_millis(class.evaluate);
        let timeline = self.timeline(class);
        (0..PHASES).map(|phase| Schedule::new(timeline, self.settings.scrape, evaluate, phase)).collect()
    }

    /// How many evaluations of a rule one question may span.
    pub fn steps(&self, id: RuleId) -> usize {
        (SAMPLES / self.trial.relevant(self.sources, id).len().max(1)).max(1)
    }

    /// A test for each schedule, with the questions of all rules and the series that they and `written` can see. Schedules
    /// of one timeline may differ by an evaluation; a rule's last question is repeated, so that their number does not.
    pub fn batch(
        &self,
        rules: &[RuleId],
        written: &[RuleId],
        class: Class,
        schedules: &[Schedule],
        questions: &dyn Fn(RuleId, &Schedule) -> Vec<Ask>,
    ) -> Batch {
        let of_schedule = |schedule| rules.iter().map(|&id| questions(id, schedule)).collect::<Vec<_>>();
        let asked: Vec<Vec<Vec<Ask>>> = schedules.iter().map(of_schedule).collect();
        let most = |rule: usize| asked.iter().map(|of| of[rule].len()).max().unwrap_or_default();
        let asks: Vec<usize> = (0..rules.len()).map(most).collect();
        let relevant: BTreeSet<usize> =
            rules.iter().chain(written).flat_map(|&id| self.trial.relevant(self.sources, id)).collect();
        let tests = schedules.iter().zip(asked).map(|(schedule, of)| {
            let padded = of.into_iter().zip(&asks).flat_map(|(mut questions, &most)| {
                if let Some(last) = questions.last().cloned() {
                    questions.resize(most, last);
                }
                questions
            });
            let asks: Vec<Ask> = padded.collect();
            let until = asks.iter().map(|ask| ask.at).max().unwrap_or_default();
            let write = |&index: &usize| {
                let (series, labels) = self.trial.series(index);
                let extended = Extended::new(&series.name, &series.samples, &schedule.timeline);
                (crate::promtool::series(&series.name, labels), schedule.values(&extended, until))
            };
            Test { interval: schedule.interval(), series: relevant.iter().map(write).collect(), asks }
        });
        let tests = tests.collect();
        let mut once = BTreeSet::new();
        let rules = written.iter().filter(|id| once.insert(**id)).map(|&id| self.sources.written(id)).collect();
        Batch { file: File { evaluate: class.evaluate, rules, tests }, asks }
    }

    /// Asks all batches in one process. Batches that fail are asked in halves.
    pub fn ask(&self, batches: Vec<(Vec<RuleId>, Make<'_>)>) -> BTreeMap<RuleId, Answers> {
        let mut answers = BTreeMap::new();
        let batches: Vec<_> = batches.into_iter().filter(|(rules, _)| !rules.is_empty()).collect();
        if batches.is_empty() {
            return answers;
        }
        let made: Vec<Batch> = batches.iter().map(|(rules, make)| make(rules)).collect();
        let asks: Vec<Vec<usize>> = made.iter().map(|batch| batch.asks.clone()).collect();
        let files: Vec<File> = made.into_iter().map(|batch| batch.file).collect();
        let of_files = match self.settings.promtool.test(&files, self.settings.limit) {
            Ok(of_files) => of_files,
            Err(error) if batches.len() == 1 => {
                // Of a batch of one rule this is the message, else it is asked in halves.
                vec![vec![Err(format!("failed to {error}"))]]
            }
            Err(_) => {
                for batch in batches {
                    answers.extend(self.ask(vec![batch]));
                }
                return answers;
            }
        };
        drop(files);
        for (((rules, make), asks), tests) in batches.into_iter().zip(asks).zip(of_files) {
            match tests.into_iter().collect::<Result<Vec<_>, _>>() {
                Ok(tests) => answers.extend(shared(&rules, &asks, tests)),
                Err(message) if rules.len() == 1 => {
                    answers.extend(rules.first().map(|&id| (id, Err(message))));
                }
                Err(_) => self.halves(&rules, make.as_ref(), &mut answers),
            }
        }
        answers
    }

    fn halves(&self, rules: &[RuleId], make: &dyn Fn(&[RuleId]) -> Batch, answers: &mut BTreeMap<RuleId, Answers>) {
        let (left, right) = rules.split_at(rules.len() / 2);
        for half in [left, right] {
            answers.extend(self.ask(vec![(half.to_vec(), Box::new(make))]));
        }
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
    let mut bound = 300;
    while u64::from(bound) < seconds {
        bound *= 2;
    }
    bound
}
