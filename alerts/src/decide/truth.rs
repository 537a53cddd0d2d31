//! Whether an expression is ever true on a trial, and how close a comparison comes: one subquery.

use std::collections::BTreeMap;

use super::run::{Answers, Asked, Batch, Class, Make, Run};
use super::schedule::Schedule;
use crate::expr::{CompareOp, Comparison};
use crate::promtool::Ask;
use crate::rule::RuleId;
use crate::verdict::Close;

pub enum Truth {
    /// At no evaluation.
    Never(Option<Close>),
    /// At one at least, or it cannot be asked like this.
    Maybe(Option<Close>),
    Error(String),
}

pub fn batches<'a>(run: &'a Run<'a>, rules: &[RuleId]) -> Vec<Asked<'a>> {
    // Rules with recording rules have a file of their own: what is in it is evaluated for all its tests.
    let mut kinds: BTreeMap<(bool, bool), Vec<RuleId>> = BTreeMap::new();
    for &id in rules {
        let recorded = !run.sources.source(id).records.is_empty();
        // Even of what never changes, the number of samples in a range depends on when they are scraped.
        let constant = run.trial.is_constant(run.sources, id) && run.trial.ranges(run.sources, id).is_empty();
        kinds.entry((recorded, constant)).or_default().push(id);
    }
    let batch = |((class, constant), rules): ((Class, bool), Vec<RuleId>)| {
        let make: Make<'a> = Box::new(move |rules| make(run, class, constant, rules));
        (rules, make)
    };
    let classes = kinds.into_iter().flat_map(|((_, constant), rules)| {
        run.classes(&rules, false).into_iter().map(move |(class, rules)| ((class, constant), rules))
    });
    classes.map(batch).collect()
}

fn make(run: &Run<'_>, class: Class, constant: bool, rules: &[RuleId]) -> Batch {
    let mut records = run.with_read(rules);
    records.retain(|&id| !run.sources.rule(id).is_alert());
    let mut schedules = run.schedules(class);
    if constant {
        // It does not matter when they are scraped.
        schedules.truncate(1);
    }
    run.batch(rules, &records, &schedules, &|id, schedule| questions(run, id, schedule))
}

/// From the start of the recording to the end, in parts that stay below promtool's limit of samples.
fn questions(run: &Run<'_>, id: RuleId, schedule: &Schedule) -> Vec<Ask> {
    let rule = run.sources.rule(id);
    let expr = &rule.expr;
    let ask = |(at, range): (u64, String)| Ask {
        expr: match comparison(run, id) {
            Some(Comparison { left, op: CompareOp::Above | CompareOp::AtLeast, .. }) => {
                format!("topk(1, max_over_time(({left}){range}))")
            }
            Some(Comparison { left, .. }) => format!("bottomk(1, min_over_time(({left}){range}))"),
            None if rule.read.scalar => format!("max_over_time(count(vector({expr}\n)){range})"),
            None => format!("max_over_time(count({expr}\n){range})"),
        },
        at,
    };
    schedule.parts(schedule.at(0), schedule.end(), run.steps(id)).into_iter().map(ask).collect()
}

/// A comparison that tells how close it came.
fn comparison<'a>(run: &'a Run<'_>, id: RuleId) -> Option<&'a Comparison> {
    let read = &run.sources.rule(id).read;
    read.comparison.as_ref().filter(|comparison| {
        !read.scalar
            && !matches!(comparison.op, CompareOp::Equal | CompareOp::NotEqual)
            && comparison.threshold.is_finite()
    })
}

pub fn read(run: &Run<'_>, id: RuleId, answers: Answers) -> Truth {
    let comparison = comparison(run, id);
    let answers = match answers {
        Ok(answers) => answers,
        Err(message) => return Truth::Error(message),
    };
    let mut close: Option<Close> = None;
    let mut ever = false;
    for answer in answers.into_iter().flatten() {
        let samples = match answer {
            Ok(samples) => samples,
            // Limits of subqueries, not of the rule: too many samples, or labels that are equal without the name.
            Err(message) if message.contains("too many samples") || message.contains("same labelset") => {
                return Truth::Maybe(None);
            }
            Err(message) => return Truth::Error(message),
        };
        for (mut labels, value) in samples {
            let Some(Comparison { op, threshold, .. }) = comparison else {
                ever = true;
                continue;
            };
            let above = matches!(op, CompareOp::Above | CompareOp::AtLeast);
            ever |= match op {
                CompareOp::Above => value > *threshold,
                CompareOp::AtLeast => value >= *threshold,
                CompareOp::Below => value < *threshold,
                CompareOp::AtMost => value <= *threshold,
                CompareOp::Equal | CompareOp::NotEqual => true,
            };
            let closer = |than: &Close| if above { value > than.value } else { value < than.value };
            if value.is_finite() && close.as_ref().is_none_or(closer) {
                labels.remove("__name__");
                close = Some(Close { value, threshold: *threshold, above, labels });
            }
        }
    }
    if ever { Truth::Maybe(close) } else { Truth::Never(close) }
}
