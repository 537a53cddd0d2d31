//! The parts of an expression over a trial, as promtool evaluates them.
//!
//! Job: cuts an expression into its parts and asks for each at instants over baseline, fault, held fault and healed time.
//! Left out: what the answers mean ([`crate::verdict`]), and how they are shown.

use std::collections::BTreeMap;

use promql_parser::parser::Expr;

use crate::decide::Settings;
use crate::decide::run::Run;
use crate::decide::schedule::milliseconds;
use crate::decide::sources::Sources;
use crate::decide::trial::Trial;
use crate::expr::{self, Failure};
use crate::labels::Labels;
use crate::promtool::{self, Ask, File, Test};
use crate::recording::{Phases, Recording};
use crate::rule::{RuleId, RuleSet};
use crate::timeline::Timeline;

/// Parts beyond these are left out: the expression is read from outside to inside.
const MOST_PARTS: usize = 12;
/// Instants in baseline, fault, held fault, healed time.
const INSTANTS: [u32; 4] = [10, 28, 12, 10];

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

/// Asks promtool, on the timeline on which the rule is decided. `active` are the alerts that are ever active in the trial.
///
/// # Errors
/// If promtool cannot be used, or the expression cannot be read.
pub fn explain(
    rules: &RuleSet,
    id: RuleId,
    recording: &Recording,
    active: &[RuleId],
    labels: &Labels,
    settings: &Settings,
) -> Result<Explained, Error> {
    let sources = Sources::new(rules, settings);
    let tree = expr::tree(&sources.rule(id).expr).map_err(Error::Expression)?;
    let mut parts = Vec::new();
    cut(&tree, 0, &mut parts);
    let trial = Trial::new(recording, labels, &sources.selectors);
    let run = Run { sources: &sources, trial: &trial, settings, active };
    let schedule = run.classes(&[id], true).into_keys().flat_map(|class| run.schedules(class)).next();
    let schedule = schedule.ok_or(Error::NoAnswer)?;
    let timeline = schedule.timeline;
    let instants = instants(&timeline);
    // What is evaluated at an instant is what was so much earlier.
    let offset = milliseconds(sources.source(id).offset);
    let ask = |part: &Part| {
        let at = |&at: &i64| schedule.at(at).saturating_sub(offset);
        instants.iter().map(|second| Ask { expr: part.text.clone(), at: at(second) }).collect::<Vec<_>>()
    };
    let read = run.with_read(&[id]);
    let test = Test {
        interval: schedule.interval(),
        series: run.series(&read, &schedule),
        asks: parts.iter().flat_map(ask).collect(),
    };
    let rules = read.iter().map(|&id| sources.written(id)).collect();
    let file = File { evaluate: schedule.evaluate, rules, tests: vec![test] };
    let answers = settings.promtool.test(&[file], settings.limit)?;
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
    #[error("read the expression: {0}")]
    Expression(Failure),
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
    use std::time::Duration;

    use promql_parser::parser;

    use super::*;
    use crate::decide::tests::{alert, labels, promtool, recording, rules, samples, settings};
    use crate::rule::{Rule, What};

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

    /// By the interval of its group, with what it reads through a pattern and of an alert.
    #[test]
    fn an_expression_is_explained_as_it_is_decided() {
        let Some(promtool) = promtool() else { return };
        let high = |second: u32| Some(if (80..180).contains(&second) { 9.0 } else { 1.0 });
        let recording = recording(vec![("x", "eth1", samples(high))]);
        let mut set = rules(vec![
            Rule {
                what: What::Record { name: "job:x:max".to_owned() },
                ..alert("", "max by (job) ({__name__=~\"x|y\"})", 0)
            },
            alert("High", "x > 5", 600),
            alert("Reader", "job:x:max > 5 and on () ALERTS{alertname=\"High\", alertstate=\"firing\"}", 0),
        ]);
        set.groups[0].interval = Some(Duration::from_secs(120));
        let (settings, labels) = (settings(promtool), labels());
        let active = [RuleId(1)];
        let explained = explain(&set, RuleId(2), &recording, &active, &labels, &settings).unwrap();
        assert!(explained.hold > 600, "{}", explained.hold);
        let seen = |part: usize| !explained.parts[part].values.is_empty() && explained.parts[part].error.is_none();
        assert!((0..explained.parts.len()).all(seen), "{:?}", explained.parts);
        let alerts = explained.parts.iter().find(|part| part.text.starts_with("ALERTS")).unwrap();
        assert!(alerts.values.keys().all(|labels| !labels.contains_key(crate::decide::run::ID)));
    }
}
