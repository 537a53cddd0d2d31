//! The parts of an expression over a trial, as promtool evaluates them.
//!
//! Job: cuts an expression into its parts and asks for each at instants over baseline, fault, held fault and healed time.
//! Left out: what the answers mean ([`crate::verdict`]), and how they are shown.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use promql_parser::parser::{self, Expr};

use crate::decide::Settings;
use crate::decide::schedule::{Schedule, milliseconds, period};
use crate::labels::Labels;
use crate::promtool::{self, Ask, File, Test, WrittenRule};
use crate::recording::{Phases, Recording, selector};
use crate::rule::{Rule, RuleSet, What};
use crate::timeline::{Extended, Timeline, is_counter};

/// Parts beyond these are left out: the expression is read from outside to inside.
const MOST_PARTS: usize = 12;
/// How far the fault is held and the history goes at most.
const LONGEST: u32 = 6 * 3600;
/// Instants in baseline, fault, held fault, healed time.
const INSTANTS: [u32; 4] = [10, 28, 12, 10];
const LIMIT: Duration = Duration::from_secs(60);

/// A part of an expression.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    pub text: String,
    /// 0 for the whole expression.
    pub depth: usize,
    /// The operator of a binary expression: `>`, `and`.
    pub op: Option<String>,
    /// Parts of which it consists, by index.
    pub of: Vec<usize>,
    /// For each label set a value at each instant.
    pub values: BTreeMap<BTreeMap<String, String>, Vec<Option<f64>>>,
    /// promtool's message where it could not be evaluated.
    pub error: Option<String>,
}

/// The parts of one rule over one trial.
#[derive(Debug, Clone, PartialEq)]
pub struct Explained {
    pub phases: Phases,
    /// Seconds for which the fault was prolonged.
    pub hold: u32,
    /// Seconds from the fault at which parts were evaluated; from healing on later by `hold`.
    pub instants: Vec<i64>,
    pub parts: Vec<Part>,
}

/// Asks promtool.
///
/// # Errors
/// If promtool cannot be used, or the expression does not parse.
pub fn explain(
    rules: &RuleSet,
    rule: &Rule,
    recording: &Recording,
    labels: &Labels,
    settings: &Settings,
) -> Result<Explained, Error> {
    let tree = parser::parse(&rule.expr).map_err(Error::Expression)?;
    let mut parts = Vec::new();
    cut(&tree, 0, &mut parts);
    let timeline = timeline(rule, recording.header.phases, settings);
    let schedule = Schedule::new(timeline, settings.scrape, settings.evaluate, 0);
    let instants = instants(&timeline);
    let records = records(rules, rule);
    let metrics: BTreeSet<&str> =
        std::iter::once(rule).chain(records.iter().copied()).flat_map(Rule::metrics).collect();
    let by_pattern = rule.selectors.iter().any(|selector| selector.metric.is_none());
    let wanted = recording.series.iter().filter(|series| by_pattern || metrics.contains(series.name.as_str()));
    let series = wanted.filter_map(|series| {
        let target = recording.header.targets.get(series.target)?;
        let extended = Extended::new(is_counter(&recording.header, &series.name), &series.samples, &timeline);
        let named = selector(&series.name, &labels.stored(target, &series.labels));
        Some((named, schedule.values(&extended, schedule.end(), false)))
    });
    // What is evaluated at an instant is what was so much earlier.
    let offset = rules.groups.get(rule.group).map(|group| milliseconds(group.query_offset)).unwrap_or_default();
    let ask = |part: &Part| {
        let at = |&at: &i64| schedule.at(at).saturating_sub(offset);
        instants.iter().map(|second| Ask { expr: part.text.clone(), at: at(second) }).collect::<Vec<_>>()
    };
    let test =
        Test { interval: schedule.interval(), series: series.collect(), asks: parts.iter().flat_map(ask).collect() };
    let file =
        File { evaluate: schedule.evaluate, rules: records.into_iter().map(written).collect(), tests: vec![test] };
    let answers = settings.promtool.test(&[file], LIMIT)?;
    let answers = answers.into_iter().flatten().next().ok_or(Error::NoAnswer)?.map_err(Error::Test)?;
    for (part, answers) in parts.iter_mut().zip(answers.chunks(instants.len())) {
        for (n, answer) in answers.iter().enumerate() {
            match answer {
                Ok(samples) => {
                    for (labels, value) in samples {
                        let values = part.values.entry(labels.clone()).or_insert_with(|| vec![None; instants.len()]);
                        if let Some(at) = values.get_mut(n) {
                            *at = Some(*value);
                        }
                    }
                }
                Err(message) => part.error = Some(message.clone()),
            }
        }
    }
    let fault = i64::from(timeline.phases.fault);
    Ok(Explained {
        phases: timeline.phases,
        hold: timeline.hold,
        instants: instants.into_iter().map(|at| at - fault).collect(),
        parts,
    })
}

/// Why an expression cannot be explained.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("parse the expression: {0}")]
    Expression(String),
    #[error(transparent)]
    Promtool(#[from] promtool::Error),
    #[error("get an answer from promtool: {0}")]
    Test(String),
    #[error("get an answer from promtool")]
    NoAnswer,
}

/// The expression and its parts, outside first; numbers, and ranges as such, are none.
fn cut(expr: &Expr, depth: usize, parts: &mut Vec<Part>) -> Option<usize> {
    let inner = |expr: &Expr, parts: &mut Vec<Part>| cut(expr, depth + 1, parts);
    match expr {
        Expr::Paren(paren) => return cut(&paren.expr, depth, parts),
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) => return None,
        // The series of a range are evaluated at the instant.
        Expr::MatrixSelector(matrix) => return cut(&Expr::VectorSelector(matrix.vs.clone()), depth, parts),
        Expr::Subquery(subquery) => return cut(&subquery.expr, depth, parts),
        _ => {}
    }
    let text = expr.to_string();
    if let Some(same) = parts.iter().position(|part| part.text == text) {
        return Some(same);
    }
    if parts.len() >= MOST_PARTS {
        return None;
    }
    let index = parts.len();
    let op = if let Expr::Binary(binary) = expr { Some(binary.op.to_string()) } else { None };
    parts.push(Part { text, depth, op, of: Vec::new(), values: BTreeMap::new(), error: None });
    let of: Vec<Option<usize>> = match expr {
        Expr::Binary(binary) => vec![inner(&binary.lhs, parts), inner(&binary.rhs, parts)],
        Expr::Aggregate(aggregate) => vec![inner(&aggregate.expr, parts)],
        Expr::Unary(unary) => vec![inner(&unary.expr, parts)],
        Expr::Call(call) => call.args.args.iter().map(|arg| inner(arg, parts)).collect(),
        _ => Vec::new(),
    };
    parts[index].of = of.into_iter().flatten().collect();
    Some(index)
}

/// Recording rules that an expression reads, with those that they read, in the order of the files.
pub(crate) fn records<'a>(rules: &'a RuleSet, rule: &'a Rule) -> Vec<&'a Rule> {
    let mut wanted = rule.metrics();
    loop {
        let before = wanted.len();
        let read = rules.rules.iter().filter(|record| !record.is_alert() && wanted.contains(record.name()));
        let more: Vec<&str> = read.flat_map(Rule::metrics).collect();
        wanted.extend(more);
        if wanted.len() == before {
            break;
        }
    }
    rules.rules.iter().filter(|record| !record.is_alert() && wanted.contains(record.name())).collect()
}

pub(crate) fn written(rule: &Rule) -> WrittenRule {
    let (hold, keep_firing) = match &rule.what {
        What::Alert { hold, keep_firing, .. } => (*hold, *keep_firing),
        What::Record { .. } => (Duration::ZERO, Duration::ZERO),
    };
    WrittenRule {
        alert: rule.is_alert(),
        name: rule.name().to_owned(),
        expr: rule.expr.clone(),
        hold: milliseconds(hold),
        keep_firing: milliseconds(keep_firing),
        labels: rule.labels.clone(),
    }
}

/// Long enough for one rule.
pub(crate) fn timeline(rule: &Rule, phases: Phases, settings: &Settings) -> Timeline {
    let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(LONGEST);
    let intervals = seconds(settings.scrape) + 2 * seconds(settings.evaluate);
    let hold = if let What::Alert { hold, .. } = &rule.what { seconds(*hold) } else { 0 };
    let reach = seconds(rule.reach);
    // Five minutes: for how long Prometheus looks for the last sample.
    let history = reach.saturating_add(300 + intervals).min(LONGEST);
    let needed = hold.saturating_add(reach).saturating_add(intervals);
    let held = needed.saturating_sub(phases.heal.saturating_sub(phases.fault)).min(LONGEST);
    let period = period(settings.scrape, settings.evaluate);
    Timeline { phases, history, hold: held, healthy: needed.min(LONGEST), period }
}

/// Seconds of the timeline, each phase in equal parts.
fn instants(timeline: &Timeline) -> Vec<i64> {
    let Phases { fault, heal, .. } = timeline.phases;
    let (fault, heal) = (i64::from(fault), i64::from(heal));
    let healed = heal + i64::from(timeline.hold);
    let bounds = [(0, fault), (fault, heal), (heal, healed), (healed, timeline.end())];
    let phases = bounds.into_iter().zip(INSTANTS).filter(|((from, to), _)| to > from);
    let of = |((from, to), n): ((i64, i64), u32)| {
        (0..i64::from(n)).map(move |at| from + (to - from) * (at * 2 + 1) / (2 * i64::from(n)))
    };
    phases.flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(expr: &str) -> Vec<(usize, String)> {
        let mut parts = Vec::new();
        cut(&parser::parse(expr).unwrap(), 0, &mut parts);
        parts.into_iter().map(|part: Part| (part.depth, part.text)).collect()
    }

    #[test]
    fn an_expression_is_cut_from_outside_to_inside() {
        let ratio = parts("(entries / limit) > 0.75 and on (node) rate(drops[5m]) > 0");
        let texts: Vec<&str> = ratio.iter().map(|(_, text)| text.as_str()).collect();
        assert!(texts.contains(&"entries") && texts.contains(&"limit") && texts.contains(&"rate(drops[5m])"));
        assert!(texts.contains(&"drops"), "a range by its series: {texts:?}");
        assert_eq!(ratio[0].0, 0);
        assert_eq!(parts("absent(up{job=\"a\"} == 1)").len(), 3);
        assert_eq!(parts("up / up").len(), 2, "each part once");
        let long = (0..50).map(|n| format!("m{n}")).collect::<Vec<_>>().join(" + ");
        assert_eq!(parts(&long).len(), MOST_PARTS);
    }

    #[test]
    fn instants_are_in_order_and_within_each_phase() {
        let phases = Phases { fault: 60, heal: 180, end: 240 };
        let timeline = Timeline { phases, history: 600, hold: 900, healthy: 300, period: 30 };
        let instants = instants(&timeline);
        assert!(instants.is_sorted());
        let within = |from: i64, to: i64| instants.iter().filter(|at| (from..to).contains(*at)).count();
        let counts = [within(0, 60), within(60, 180), within(180, 1080), within(1080, 1440)];
        assert_eq!(counts.map(|n| u32::try_from(n).unwrap()), INSTANTS);
    }
}
