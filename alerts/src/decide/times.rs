//! When alerts fire, from the series `ALERTS` and `ALERTS_FOR_STATE` that Prometheus writes.

use std::collections::BTreeMap;
use std::time::Duration;

use super::run::{Answers, Asked, Class, ID, Make, Run};
use super::schedule::Schedule;
use crate::promtool::{Answer, Ask};
use crate::rule::RuleId;
use crate::verdict::{Close, OfTrial};

pub type Labels = BTreeMap<String, String>;

/// Of an alert, by position of scrapes; times in milliseconds of the test.
pub struct Times(pub Vec<Position>);

/// Its times at one position.
pub struct Position {
    pub schedule: Schedule,
    of: BTreeMap<Kind, BTreeMap<Labels, f64>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The first evaluation of the recorded baseline at which it fires, and since when its condition was true then.
    BaselineFirst,
    BaselineActive,
    /// The first and the last after the fault.
    First,
    Last,
    /// Since when the condition was true at the first.
    Active,
    /// The first evaluation after the fault at which it was pending, and for how long it was pending at most.
    Pending,
    Age,
}

pub fn batches<'a>(run: &'a Run<'a>, rules: &[RuleId]) -> Vec<Asked<'a>> {
    let batch = |(class, rules): (Class, Vec<RuleId>)| {
        let make: Make<'a> = Box::new(move |rules| {
            run.batch(rules, &run.with_read(rules), &run.schedules(class), &|id, schedule| {
                questions(run, id, schedule).into_iter().map(|(_, ask)| ask).collect()
            })
        });
        (rules, make)
    };
    run.classes(rules, true).into_iter().map(batch).collect()
}

pub fn read(
    run: &Run<'_>,
    rules: &[RuleId],
    mut answers: BTreeMap<RuleId, Answers>,
) -> BTreeMap<RuleId, Result<Times, String>> {
    let mut all = BTreeMap::new();
    for (class, rules) in run.classes(rules, true) {
        for id in rules {
            let times = answers
                .remove(&id)
                .unwrap_or_else(|| Err("failed to ask promtool about it".to_owned()))
                .and_then(|tests| {
                    let positions = run.schedules(class).into_iter().zip(tests).map(|(schedule, answers)| {
                        let kinds = questions(run, id, &schedule).into_iter().map(|(kind, _)| kind);
                        Ok(Position { schedule, of: merged(kinds.zip(answers))? })
                    });
                    Ok(Times(positions.collect::<Result<_, String>>()?))
                });
            all.insert(id, times);
        }
    }
    all
}

fn questions(run: &Run<'_>, id: RuleId, schedule: &Schedule) -> Vec<(Kind, Ask)> {
    let alert = |state: &str| format!("ALERTS{{{ID}=\"{}\",alertstate=\"{state}\"}}", id.0);
    let since = format!("ALERTS_FOR_STATE{{{ID}=\"{}\"}}", id.0);
    let (firing, pending) = (alert("firing"), alert("pending"));
    let active = format!("({since} and ignoring(alertstate) {firing})");
    let age = format!("(timestamp({pending}) - ignoring(alertstate) {since})");
    let questions = [
        (Kind::BaselineFirst, "min", format!("timestamp({firing})")),
        (Kind::BaselineActive, "min", active.clone()),
        (Kind::First, "min", format!("timestamp({firing})")),
        (Kind::Last, "max", format!("timestamp({firing})")),
        (Kind::Active, "min", active),
        (Kind::Pending, "min", format!("timestamp({pending})")),
        (Kind::Age, "max", age),
    ];
    let mut asks = Vec::new();
    for (kind, function, of) in questions {
        let (from, to) = match kind {
            Kind::BaselineFirst | Kind::BaselineActive => (schedule.at(0), schedule.fault()),
            _ => (schedule.fault(), schedule.end()),
        };
        let parts = schedule.parts(from, to, run.steps(id));
        asks.extend(
            parts.into_iter().map(|(at, range)| (kind, Ask { expr: format!("{function}_over_time({of}{range})"), at })),
        );
    }
    asks
}

fn merged(answers: impl Iterator<Item = (Kind, Answer)>) -> Result<BTreeMap<Kind, BTreeMap<Labels, f64>>, String> {
    let mut of: BTreeMap<Kind, BTreeMap<Labels, f64>> = BTreeMap::new();
    for (kind, answer) in answers {
        for (mut labels, value) in answer? {
            labels.retain(|label, _| !matches!(&**label, "__name__" | "alertname" | "alertstate" | ID));
            let milliseconds = value * 1000.0;
            let known = of.entry(kind).or_default().entry(labels).or_insert(milliseconds);
            let later = matches!(kind, Kind::Last | Kind::Age);
            *known = if later { known.max(milliseconds) } else { known.min(milliseconds) };
        }
    }
    Ok(of)
}

impl Position {
    pub fn get(&self, kind: Kind, labels: &Labels) -> Option<u64> {
        self.of.get(&kind)?.get(labels).map(|&milliseconds| milliseconds as u64)
    }

    pub fn labels(&self, kind: Kind) -> impl Iterator<Item = &Labels> {
        self.of.get(&kind).into_iter().flat_map(BTreeMap::keys)
    }
}

impl Times {
    pub fn fires(&self) -> bool {
        self.0
            .iter()
            .any(|position| position.of.contains_key(&Kind::First) || position.of.contains_key(&Kind::BaselineFirst))
    }

    /// The verdict on a rule that does not fire.
    pub fn not_fired(&self, run: &Run<'_>, id: RuleId, close: Option<Close>) -> OfTrial {
        let pending = self.0.iter().filter_map(|position| {
            let of = |kind| position.of.get(&kind).into_iter().flat_map(BTreeMap::values).copied();
            let first = of(Kind::Pending).fold(f64::INFINITY, f64::min);
            let lasted = of(Kind::Age).fold(0.0, f64::max);
            first.is_finite().then(|| (first as u64 - position.schedule.fault(), lasted as u64))
        });
        let mut pending: Vec<(u64, u64)> = pending.collect();
        pending.sort_unstable();
        match (pending.get(pending.len() / 2), pending.iter().map(|(_, lasted)| *lasted).max()) {
            (Some((at, _)), Some(lasted)) => OfTrial::Pending {
                at: Duration::from_millis(*at) + run.sources.source(id).offset,
                lasted: Duration::from_millis(lasted),
                wait: run.sources.source(id).wait,
            },
            _ => OfTrial::NeverTrue { close },
        }
    }
}
