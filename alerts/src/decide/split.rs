//! Firings of alerts, with where the time to fire goes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::few;
use super::run::{Answers, Asked, Class, Make, Run};
use super::schedule::Schedule;
use super::times::{Kind, Labels, Position, Times};
use crate::promtool::{Answer, Ask};
use crate::rule::RuleId;
use crate::subject::subject;
use crate::verdict::{Firing, Split};

/// How long after the fault the condition is true, in the recording or in what is scraped of it; by the labels of the
/// expression.
type Since = BTreeMap<Labels, u64>;

pub fn batches<'a>(run: &'a Run<'a>, fires: &'a BTreeMap<RuleId, Times>) -> Vec<Asked<'a>> {
    let rules: Vec<RuleId> = fires.keys().copied().collect();
    let batch = |(class, rules): (Class, Vec<RuleId>)| {
        let make: Make<'a> = Box::new(move |rules| {
            let schedules = run.schedules(class);
            let schedules: Vec<Schedule> =
                schedules.iter().flat_map(|schedule| [schedule.every_second(), *schedule]).collect();
            let mut written = run.with_read(rules);
            written.retain(|id| run.active.contains(id) || !run.sources.rule(*id).is_alert());
            run.batch(rules, &written, &schedules, &|id, schedule| questions(run, id, schedule, &fires[&id]))
        });
        (rules, make)
    };
    // `for` needs no history, and scraping it every second would be slow.
    let mut classes: BTreeMap<Class, Vec<RuleId>> = BTreeMap::new();
    let short = run.classes(&rules, false).into_iter();
    let history: BTreeMap<RuleId, u32> =
        short.flat_map(|(class, rules)| rules.into_iter().map(move |id| (id, class.history))).collect();
    for (class, rules) in run.classes(&rules, true) {
        for id in rules {
            classes.entry(Class { history: history[&id], ..class }).or_default().push(id);
        }
    }
    classes.into_iter().map(batch).collect()
}

pub fn read(
    run: &Run<'_>,
    fires: &BTreeMap<RuleId, Times>,
    mut answers: BTreeMap<RuleId, Answers>,
) -> BTreeMap<RuleId, Vec<Firing>> {
    let firings = |(id, times): (&RuleId, &Times)| {
        // Without an answer the whole time until the evaluation is that of the condition.
        let tests = answers.remove(id).and_then(Result::ok).unwrap_or_default();
        let since: Vec<Since> = tests.into_iter().map(since).collect();
        (*id, firings(run, *id, times, &since))
    };
    fires.iter().map(firings).collect()
}

/// When the expression is true for the first time after the fault, to the second.
fn questions(run: &Run<'_>, id: RuleId, schedule: &Schedule, times: &Times) -> Vec<Ask> {
    let from = schedule.fault();
    let mine = times.0.iter().find(|position| position.schedule.position == schedule.position);
    let active = mine.into_iter().flat_map(|position| {
        let after = |labels| Some(position.get(Kind::Active, labels)?.saturating_sub(position.schedule.fault()));
        position.labels(Kind::Active).filter_map(after)
    });
    let to = from + active.max().unwrap_or_default().max(1000);
    let seconds = (to - from).div_ceil(1000);
    let step = seconds.div_ceil(run.steps(id) as u64).max(1);
    let (expr, range) = (&run.sources.rule(id).expr, format!("[{}ms:{step}s]", to - from));
    let expr = if run.sources.rule(id).read.scalar { format!("vector({expr}\n)") } else { format!("{expr}\n") };
    // Not `timestamp(EXPR)`: that of a plain selector is when it was scraped.
    let first = format!("min_over_time(timestamp(({expr}) * 0){range})");
    vec![Ask { expr: format!("{first} - {}.{:03}", from / 1000, from % 1000), at: to }]
}

fn since(answers: Vec<Answer>) -> Since {
    let samples = answers.into_iter().flat_map(Result::unwrap_or_default);
    samples.map(|(labels, seconds)| (labels, (seconds * 1000.0).round() as u64)).collect()
}

fn firings(run: &Run<'_>, id: RuleId, times: &Times, since: &[Since]) -> Vec<Firing> {
    let mut firings = Vec::new();
    for kind in [Kind::BaselineFirst, Kind::First] {
        let labels: BTreeSet<&Labels> = times.0.iter().flat_map(|position| position.labels(kind)).collect();
        for labels in labels {
            let mut positions: Vec<(u64, usize)> = Vec::new();
            for (index, position) in times.0.iter().enumerate() {
                let start = if kind == Kind::First { position.schedule.fault() } else { position.schedule.at(0) };
                match position.get(kind, labels) {
                    Some(first) if kind == Kind::BaselineFirst || !goes_on(position, labels, first) => {
                        positions.push((first - start, index));
                    }
                    _ => {}
                }
            }
            positions.sort_unstable();
            // That of the middle, of those positions at which it fires.
            let Some(&(after, index)) = positions.get(positions.len() / 2) else { continue };
            let mut firing = firing(run, id, &times.0[index], labels, kind, Duration::from_millis(after));
            firing.positions = u8::try_from(positions.len()).unwrap_or(u8::MAX);
            if kind == Kind::First {
                let of = |which: usize| since.get(index * 2 + which).and_then(|since| earliest(run, id, since, labels));
                firing.split = split(&times.0[index], labels, of(0), of(1));
                firing.split.evaluation += run.sources.source(id).offset;
            }
            firings.push(firing);
        }
    }
    firings.sort_by_key(|firing| (!firing.in_baseline, firing.after));
    firings
}

/// Whether an alert that fires right after the fault fired before it.
fn goes_on(position: &Position, labels: &Labels, first: u64) -> bool {
    let schedule = &position.schedule;
    position.get(Kind::BaselineFirst, labels).is_some()
        && position.get(Kind::Active, labels).is_some_and(|active| active <= schedule.fault())
        && first <= schedule.fault() + schedule.evaluate
}

fn firing(run: &Run<'_>, id: RuleId, position: &Position, labels: &Labels, kind: Kind, after: Duration) -> Firing {
    let (schedule, source) = (&position.schedule, run.sources.source(id));
    let after = after + source.offset;
    let in_baseline = kind == Kind::BaselineFirst;
    let first = position.get(kind, labels).unwrap_or_default();
    let last = position.get(Kind::Last, labels);
    let over = last.map_or(first, |last| last) + schedule.evaluate;
    let early = over <= schedule.heal();
    let cleared = over.saturating_sub(schedule.heal());
    Firing {
        labels: labels.clone(),
        after,
        in_baseline,
        split: Split { wait: source.wait.min(after), ..Split::default() },
        held: !in_baseline && first > schedule.at(schedule.timeline.held_from()),
        late: !in_baseline && run.trial.recording.header.lasted.is_some_and(|lasted| after > lasted),
        cleared: (over <= schedule.end()).then(|| Duration::from_millis(cleared) + source.offset),
        ended_early: early.then(|| Duration::from_millis(over - first)),
        positions: 0,
        subject: subject(labels, &|name| run.trial.is_node(name)),
        few: few::note(run, id, labels),
    }
}

/// The earliest among the label sets of the expression that can be this alert's. A label that the rule sets hides that
/// of the expression.
fn earliest(run: &Run<'_>, id: RuleId, since: &Since, labels: &Labels) -> Option<u64> {
    let set = &run.sources.rule(id).labels;
    let same = |of: &Labels| {
        of.iter()
            .all(|(label, value)| label == "__name__" || set.contains_key(label) || labels.get(label) == Some(value))
    };
    since.iter().filter(|(of, _)| same(of)).map(|(_, at)| *at).min()
}

fn split(position: &Position, labels: &Labels, recorded: Option<u64>, scraped: Option<u64>) -> Split {
    let first = position.get(Kind::First, labels).unwrap_or_default();
    let fault = position.schedule.fault();
    let active = position.get(Kind::Active, labels).unwrap_or(first).clamp(fault, first);
    let [recorded, scraped] = [recorded, scraped].map(|after| after.map(|after| fault + after));
    let scraped = scraped.unwrap_or(active).clamp(fault, active);
    // A second is in the test from its middle on, and seen at the next one.
    let recorded = recorded.map_or(scraped, |at| at.saturating_sub(1000)).clamp(fault, scraped);
    let between = |from: u64, to: u64| Duration::from_millis(to - from);
    Split {
        condition: between(fault, recorded),
        scrape: between(recorded, scraped),
        evaluation: between(scraped, active),
        wait: between(active, first),
    }
}
