//! What an expression reads, without evaluating it.
//!
//! Prometheus of any version decides what is valid; [`Failure`] separates expressions that none of them parses from those
//! that only this parser does not (`promql-parser`, which follows Prometheus 3.8): functions it does not know
//! (`holt_winters` of 2.x), arithmetic in durations (`[5m * 2]`), `anchored` and `smoothed`, regular expressions that
//! Rust's `regex` rejects, `{a="b" or c="d"}` of MetricsQL, and expressions of more than a thousand operators.

mod clock;
mod comparison;
mod needs;
mod share;
mod text;

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use promql_parser::label::{METRIC_NAME, MatchOp as Op, Matcher as Test, Matchers};
use promql_parser::parser::token::{T_DIV, T_LOR, T_LUNLESS, T_SUB};
use promql_parser::parser::value::ValueType;
use promql_parser::parser::{self, AtModifier, BinaryExpr, Call, Expr, Offset, VectorSelector};

use clock::Clock;
use comparison::{compared, comparison};

pub use comparison::{CompareOp, Comparison};
pub use needs::{Gone, Needs};
pub use share::Share;
pub use text::outside_strings;

/// Why an expression was not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No Prometheus parses it.
    #[error("{0}")]
    Wrong(String),
    /// Some Prometheus may parse it.
    #[error("{0}")]
    Unknown(String),
    /// Evaluating it in every trial takes minutes.
    #[error("{0}")]
    TooLong(String),
}

/// A vector selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    /// `None` if only a pattern or another matcher restricts `__name__`.
    pub metric: Option<String>,
    /// Its matchers, without that of `metric`.
    pub tests: Vec<Test>,
}

impl Selector {
    /// Whether it selects series of a metric.
    #[must_use]
    pub fn reads(&self, metric: &str) -> bool {
        match &self.metric {
            Some(named) => named == metric,
            None => self.tests.iter().filter(|test| test.name == METRIC_NAME).all(|test| test.is_match(metric)),
        }
    }
}

#[derive(Debug, Clone)]
pub struct Expression {
    /// Why it was not read: then each name in it may be that of a metric.
    pub failure: Option<Failure>,
    pub selectors: Vec<Selector>,
    /// The selectors of which more matters than the latest value: ranges, and what is asked when it was scraped.
    pub ranges: BTreeSet<usize>,
    /// Of each division the selectors on its left and on its right.
    pub ratios: Vec<[Range<usize>; 2]>,
    /// It is a number, which promtool's functions of vectors refuse.
    pub scalar: bool,
    /// Why its result depends on when it is evaluated.
    pub clock: Option<&'static str>,
    /// It reads the time, or when something was scraped.
    pub timed: bool,
    pub needs: Needs,
    /// As [`crate::rule::Rule::reach`], of this expression alone.
    pub reach: Duration,
    /// The comparison with a number at the top, to see how close it comes.
    pub comparison: Option<Comparison>,
    /// The same, where it is about a share of targets.
    pub share: Option<Share>,
}

/// Expressions are trees that are walked by recursion.
const MOST_OPERATORS: usize = 1000;

/// Parses an expression.
///
/// # Errors
/// If it is not one, or not one that can be read.
pub fn read(text: &str) -> Result<Expression, Failure> {
    let tree = tree(text)?;
    let mut walk = Walk::default();
    let needs = walk.needs(&tree, Duration::ZERO);
    if walk.alternatives {
        return Err(Failure::Unknown("`or` between matchers".to_owned()));
    }
    let Walk { selectors, ranges, ratios, clock, reach, .. } = walk;
    let (comparison, share) = match compared(&tree) {
        Some((of, op, threshold)) => (comparison(of, op, threshold), Share::read(of, op, threshold)),
        None => (None, None),
    };
    Ok(Expression {
        failure: None,
        selectors,
        ranges,
        ratios,
        scalar: tree.value_type() == ValueType::Scalar,
        clock: clock.why(),
        timed: clock.timed,
        needs,
        reach,
        comparison,
        share,
    })
}

/// The tree of an expression.
///
/// # Errors
/// As [`read`].
pub(crate) fn tree(text: &str) -> Result<Expr, Failure> {
    if text::operators(text) > MOST_OPERATORS {
        return Err(Failure::TooLong(format!(
            "the expression has more than {MOST_OPERATORS} operators and parentheses"
        )));
    }
    if text::has_odd_time(text) {
        return Err(Failure::Unknown("a duration is too long".to_owned()));
    }
    // The parser must not bring down the rest with it.
    let parsed = std::panic::catch_unwind(|| parser::parse(text));
    let parsed = parsed.map_err(|_| Failure::Unknown("its parser failed".to_owned()))?;
    parsed.map_err(|message| text::failure(text, message))
}

impl Expression {
    /// What can be told of any text.
    #[must_use]
    pub fn of(text: &str) -> Self {
        read(text).unwrap_or_else(|failure| Self::unread(text, failure))
    }

    /// Each name may be that of a metric, and each duration counts.
    fn unread(text: &str, failure: Failure) -> Self {
        let selectors: Vec<_> =
            text::names(text).map(|name| Selector { metric: Some(name), tests: Vec::new() }).collect();
        Self {
            failure: Some(failure),
            ranges: (0..selectors.len()).collect(),
            selectors,
            ratios: Vec::new(),
            scalar: false,
            clock: None,
            timed: false,
            needs: Needs::Nothing,
            reach: text::durations(text),
            comparison: None,
            share: None,
        }
    }
}

#[derive(Default)]
struct Walk {
    selectors: Vec<Selector>,
    ranges: BTreeSet<usize>,
    ratios: Vec<[Range<usize>; 2]>,
    clock: Clock,
    reach: Duration,
    /// A selector has alternatives, which Prometheus does not know.
    alternatives: bool,
}

impl Walk {
    /// What an expression, evaluated `back` before now, needs for a result.
    fn needs(&mut self, expr: &Expr, back: Duration) -> Needs {
        match expr {
            Expr::VectorSelector(vector) => self.selector(vector, back),
            Expr::MatrixSelector(matrix) => {
                self.ranges.insert(self.selectors.len());
                self.selector(&matrix.vs, back.saturating_add(matrix.range))
            }
            Expr::Subquery(sub) => {
                let back = since(back, sub.offset.as_ref(), sub.at.as_ref()).saturating_add(sub.range);
                self.needs(&sub.expr, back)
            }
            Expr::Paren(paren) => self.needs(&paren.expr, back),
            Expr::Unary(unary) => self.needs(&unary.expr, back),
            Expr::Aggregate(aggregate) => {
                let of = self.needs(&aggregate.expr, back);
                let param = aggregate.param.iter().map(|param| self.needs(param, back));
                Needs::All(std::iter::once(of).chain(param.collect::<Vec<_>>()).collect())
            }
            Expr::Binary(binary) => self.binary(binary, back),
            Expr::Call(call) => self.call(call, back),
            Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => Needs::Nothing,
        }
    }

    fn binary(&mut self, binary: &BinaryExpr, back: Duration) -> Needs {
        let op = binary.op.id();
        let fills = binary
            .modifier
            .as_ref()
            .is_some_and(|modifier| modifier.fill_values.lhs.is_some() || modifier.fill_values.rhs.is_some());
        let either = op == T_LOR || fills;
        let start = self.selectors.len();
        let left = self.needs(&binary.lhs, back);
        let middle = self.selectors.len();
        let right = self.needs(&binary.rhs, back);
        match op {
            T_DIV => self.ratios.push([start..middle, middle..self.selectors.len()]),
            T_SUB => self.clock.subtracts(binary),
            _ => {}
        }
        match op {
            T_LUNLESS => Needs::Unless(Box::new(left), Box::new(right)),
            _ if either => Needs::Any(vec![left, right]),
            _ => Needs::All(vec![left, right]),
        }
    }

    fn call(&mut self, call: &Call, back: Duration) -> Needs {
        let name = call.func.name;
        self.clock.calls(call);
        let first = self.selectors.len();
        let of_args: Vec<_> = call
            .args
            .args
            .iter()
            .enumerate()
            // What `info` adds labels from, it does not need.
            .map(|(i, arg)| match name == "info" && i > 0 {
                true => {
                    self.needs(arg, back);
                    Needs::Nothing
                }
                false => self.needs(arg, back),
            })
            .collect();
        if name == "timestamp" {
            self.ranges.extend(first..self.selectors.len());
        }
        match name {
            "scalar" => Needs::Number(Box::new(Needs::All(of_args))),
            "absent" | "absent_over_time" => Needs::Absent(Box::new(Needs::All(of_args))),
            _ => Needs::All(of_args),
        }
    }

    fn selector(&mut self, vector: &VectorSelector, back: Duration) -> Needs {
        let Matchers { matchers, or_matchers } = &vector.matchers;
        self.alternatives |= !or_matchers.is_empty();
        self.reach = self.reach.max(since(back, vector.offset.as_ref(), vector.at.as_ref()));
        let is_name = |test: &&Test| test.name == METRIC_NAME && matches!(test.op, Op::Equal);
        let named = matchers.iter().find(is_name).map(|test| test.value.clone());
        let tests = matchers.iter().filter(|test| !is_name(test)).cloned().collect();
        self.selectors.push(Selector { metric: vector.name.clone().or(named), tests });
        Needs::Selector(self.selectors.len() - 1)
    }
}

/// How far in the past something is evaluated. A negative offset counts as none; `end()` and `start()` are the time of
/// evaluation in a rule.
fn since(back: Duration, offset: Option<&Offset>, at: Option<&AtModifier>) -> Duration {
    match (at, offset) {
        (Some(AtModifier::At(_)), _) => Duration::MAX,
        (_, Some(Offset::Pos(offset))) => back.saturating_add(*offset),
        _ => back,
    }
}

#[cfg(test)]
mod tests;
