//! Rules asked of promtool in batches, so that one that fails does not take others with it.

use std::collections::{BTreeMap, BTreeSet};

use super::Settings;
use super::schedule::{PHASES, Schedule, milliseconds, period};
use super::sources::Sources;
use super::trial::Trial;
use crate::promtool::{Answer, Ask, File, Test};
use crate::rule::RuleId;
use crate::timeline::{Extended, Timeline, is_counter};
use crate::verdict::OfTrial;

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

/// Rules to be asked together.
pub type Asked<'a> = (Vec<RuleId>, Make<'a>);

impl Run<'_> {
    /// What is not true while a series that it reads still rises may become true later.
    pub fn steady(&self, id: RuleId, verdict: OfTrial) -> OfTrial {
        let timeline = self.timeline(Class { evaluate: 0, history: 0, hold: 0 });
        let relevant = self.trial.relevant(self.sources, id);
        match relevant.into_iter().find(|&series| self.extended(series, &timeline).trends) {
            Some(series) => {
                let name = &self.trial.series(series).0.name;
                OfTrial::Undecided { why: format!("not steady: {name} still rises or falls when the fault ends") }
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

    fn extended<'b>(&'b self, index: usize, timeline: &'b Timeline) -> Extended<'b> {
        let (series, _) = self.trial.series(index);
        Extended::new(is_counter(&self.trial.recording.header, &series.name), self.trial.samples(index), timeline)
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
        let ranges: BTreeSet<usize> =
            rules.iter().chain(written).flat_map(|&id| self.trial.ranges(self.sources, id)).collect();
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
                let extended = self.extended(index, &schedule.timeline);
                let values = schedule.values(&extended, until, !ranges.contains(&index));
                (crate::promtool::series(&series.name, labels), values)
            };
            Test { interval: schedule.interval(), series: relevant.iter().map(write).collect(), asks }
        });
        let tests = tests.collect();
        let mut once = BTreeSet::new();
        let rules = written.iter().filter(|id| once.insert(**id)).map(|&id| self.sources.written(id)).collect();
        Batch { file: File { evaluate: class.evaluate, rules, tests }, asks }
    }
}

/// Asks the batches of all trials in one process: to start one takes as long as to ask it for a hundred rules.
pub fn ask_each(settings: &Settings, batches: Vec<Vec<Asked<'_>>>) -> Vec<BTreeMap<RuleId, Answers>> {
    let counts: Vec<usize> = batches.iter().map(Vec::len).collect();
    let mut answers = ask(settings, batches.into_iter().flatten().collect()).into_iter();
    counts.into_iter().map(|count| answers.by_ref().take(count).flatten().collect()).collect()
}

/// The answers to each batch. Batches that fail are asked in halves.
fn ask(settings: &Settings, batches: Vec<Asked<'_>>) -> Vec<BTreeMap<RuleId, Answers>> {
    if batches.iter().all(|(rules, _)| rules.is_empty()) {
        return vec![BTreeMap::new(); batches.len()];
    }
    let mut asks = Vec::new();
    let mut files = Vec::new();
    for (rules, make) in &batches {
        let Batch { file, asks: of } = make(rules);
        files.push(file);
        asks.push(of);
    }
    let of_files = match settings.promtool.test(&files, settings.limit) {
        Ok(of_files) => of_files,
        // Of a batch of one rule this is the message, else it is asked in halves.
        Err(error) if batches.len() == 1 => vec![vec![Err(format!("failed to {error}"))]],
        Err(_) => return batches.into_iter().flat_map(|batch| ask(settings, vec![batch])).collect(),
    };
    drop(files);
    let answers = batches.into_iter().zip(asks).zip(of_files).map(|(((rules, make), asks), tests)| {
        match (tests.into_iter().collect::<Result<Vec<_>, _>>(), rules.as_slice()) {
            (Ok(tests), _) => shared(&rules, &asks, tests),
            (Err(message), [id]) => BTreeMap::from([(*id, Err(message))]),
            (Err(_), rules) => {
                let (left, right) = rules.split_at(rules.len() / 2);
                let half = |rules: &[RuleId]| ask(settings, vec![(rules.to_vec(), Box::new(&make) as Make<'_>)]);
                half(left).into_iter().chain(half(right)).flatten().collect()
            }
        }
    });
    answers.collect()
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
    while u64::from(bound) < seconds {
        bound *= 2;
    }
    bound
}
