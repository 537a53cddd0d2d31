//! What an expression reads, without evaluating it.
//!
//! Prometheus of any version decides what is valid; [`Failure`] separates expressions that none of them parses from those
//! that only this parser does not (`promql-parser`, which follows Prometheus 3.8): functions it does not know
//! (`holt_winters` of 2.x), arithmetic in durations (`[5m * 2]`), `anchored` and `smoothed`, regular expressions that
//! Rust's `regex` rejects, `{a="b" or c="d"}` of MetricsQL, and expressions of more than a thousand operators.

mod needs;
mod share;
mod text;

use std::collections::BTreeSet;
use std::time::Duration;

use promql_parser::label::{METRIC_NAME, MatchOp as Op, Matcher as Test, Matchers};
use promql_parser::parser::token::{
    T_ADD, T_DIV, T_EQLC, T_GTE, T_GTR, T_LOR, T_LSS, T_LTE, T_LUNLESS, T_MUL, T_NEQ, T_SUB,
};
use promql_parser::parser::{self, AtModifier, BinaryExpr, Call, Expr, Offset, VectorSelector};

use crate::rule::{MatchOp, Matcher, Selector};

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
}

#[derive(Debug, Clone)]
pub struct Expression {
    pub selectors: Vec<Selector>,
    /// The matchers of each selector, ready to be applied; without those of the metric's name.
    pub tests: Vec<Vec<Test>>,
    /// The selectors of which more matters than the latest value: ranges, and what is asked when it was scraped.
    pub ranges: BTreeSet<usize>,
    pub needs: Needs,
    /// As [`crate::rule::Rule::reach`], of this expression alone.
    pub reach: Duration,
    /// The comparison with a number at the top, to see how close it comes.
    pub comparison: Option<Comparison>,
    /// The same, where it is about a share of targets.
    pub share: Option<Share>,
}

/// `LEFT > THRESHOLD`; one that has its number on the left is turned around.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    pub left: String,
    pub op: CompareOp,
    pub threshold: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompareOp {
    Above,
    AtLeast,
    Below,
    AtMost,
    Equal,
    NotEqual,
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
    let needs = walk.needs(&tree, Duration::ZERO, false);
    if walk.alternatives {
        return Err(Failure::Unknown("`or` between matchers".to_owned()));
    }
    let Walk { selectors, tests, ranges, reach, .. } = walk;
    let (comparison, share) = match compared(&tree) {
        Some((of, op, threshold)) => (comparison(of, op, threshold), Share::read(of, op, threshold)),
        None => (None, None),
    };
    Ok(Expression { selectors, tests, ranges, needs, reach, comparison, share })
}

fn tree(text: &str) -> Result<Expr, Failure> {
    if text::operators(text) > MOST_OPERATORS {
        return Err(Failure::Unknown(format!("it has more than {MOST_OPERATORS} operators")));
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
    /// Of an expression that was not read: each name in it may be that of a metric, and each duration counts.
    #[must_use]
    pub fn unread(text: &str) -> Self {
        let selectors: Vec<_> = text::names(text)
            .map(|name| Selector { metric: Some(name), matchers: Vec::new(), may_be_empty: true })
            .collect();
        Self {
            tests: vec![Vec::new(); selectors.len()],
            ranges: (0..selectors.len()).collect(),
            selectors,
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
    tests: Vec<Vec<Test>>,
    ranges: BTreeSet<usize>,
    reach: Duration,
    /// A selector has alternatives, which Prometheus does not know.
    alternatives: bool,
}

impl Walk {
    /// What an expression, evaluated `back` before now, needs for a result. `may_be_empty` is that of its selectors.
    fn needs(&mut self, expr: &Expr, back: Duration, may_be_empty: bool) -> Needs {
        match expr {
            Expr::VectorSelector(vector) => self.selector(vector, back, may_be_empty),
            Expr::MatrixSelector(matrix) => {
                self.ranges.insert(self.selectors.len());
                self.selector(&matrix.vs, back.saturating_add(matrix.range), may_be_empty)
            }
            Expr::Subquery(sub) => {
                let back = since(back, sub.offset.as_ref(), sub.at.as_ref()).saturating_add(sub.range);
                self.needs(&sub.expr, back, may_be_empty)
            }
            Expr::Paren(paren) => self.needs(&paren.expr, back, may_be_empty),
            Expr::Unary(unary) => self.needs(&unary.expr, back, may_be_empty),
            Expr::Aggregate(aggregate) => {
                let of = self.needs(&aggregate.expr, back, may_be_empty);
                let param = aggregate.param.iter().map(|param| self.needs(param, back, may_be_empty));
                Needs::All(std::iter::once(of).chain(param.collect::<Vec<_>>()).collect())
            }
            Expr::Binary(binary) => self.binary(binary, back, may_be_empty),
            Expr::Call(call) => self.call(call, back, may_be_empty),
            Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => Needs::Nothing,
        }
    }

    fn binary(&mut self, binary: &BinaryExpr, back: Duration, may_be_empty: bool) -> Needs {
        let op = binary.op.id();
        let fills = binary
            .modifier
            .as_ref()
            .is_some_and(|modifier| modifier.fill_values.lhs.is_some() || modifier.fill_values.rhs.is_some());
        let either = op == T_LOR || fills;
        let left = self.needs(&binary.lhs, back, may_be_empty || either);
        let right = self.needs(&binary.rhs, back, may_be_empty || either || op == T_LUNLESS);
        match op {
            T_LUNLESS => left,
            _ if either => Needs::Any(vec![left, right]),
            _ => Needs::All(vec![left, right]),
        }
    }

    fn call(&mut self, call: &Call, back: Duration, may_be_empty: bool) -> Needs {
        let name = call.func.name;
        let replaced = matches!(name, "absent" | "absent_over_time" | "scalar");
        let first = self.selectors.len();
        let of_args: Vec<_> = call
            .args
            .args
            .iter()
            .enumerate()
            // What `info` adds labels from, it does not need.
            .map(|(i, arg)| match name == "info" && i > 0 {
                true => {
                    self.needs(arg, back, true);
                    Needs::Nothing
                }
                false => self.needs(arg, back, may_be_empty || replaced),
            })
            .collect();
        if name == "timestamp" {
            self.ranges.extend(first..self.selectors.len());
        }
        match name {
            "scalar" => Needs::Number(Box::new(Needs::All(of_args))),
            _ if replaced => Needs::Absent(Box::new(Needs::All(of_args))),
            _ => Needs::All(of_args),
        }
    }

    fn selector(&mut self, vector: &VectorSelector, back: Duration, may_be_empty: bool) -> Needs {
        let Matchers { matchers, or_matchers } = &vector.matchers;
        self.alternatives |= !or_matchers.is_empty();
        self.reach = self.reach.max(since(back, vector.offset.as_ref(), vector.at.as_ref()));
        let is_name = |test: &&Test| test.name == METRIC_NAME && matches!(test.op, Op::Equal);
        let named = matchers.iter().find(is_name).map(|test| test.value.clone());
        let tests: Vec<Test> = matchers.iter().filter(|test| !is_name(test)).cloned().collect();
        self.selectors.push(Selector {
            metric: vector.name.clone().or(named),
            matchers: tests.iter().map(matcher).collect(),
            may_be_empty,
        });
        self.tests.push(tests);
        Needs::Selector(self.selectors.len() - 1)
    }
}

fn matcher(test: &Test) -> Matcher {
    let op = match test.op {
        Op::Equal => MatchOp::Equal,
        Op::NotEqual => MatchOp::NotEqual,
        Op::Re(_) => MatchOp::Regex,
        Op::NotRe(_) => MatchOp::NotRegex,
    };
    Matcher { label: test.name.clone(), op, value: test.value.clone() }
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

/// What is compared with a number at the top.
fn compared(expr: &Expr) -> Option<(&Expr, CompareOp, f64)> {
    let binary = match expr {
        Expr::Paren(paren) => return compared(&paren.expr),
        Expr::Binary(binary) if binary.op.is_comparison_operator() && !binary.return_bool() => binary,
        _ => return None,
    };
    let op = match binary.op.id() {
        T_GTR => CompareOp::Above,
        T_GTE => CompareOp::AtLeast,
        T_LSS => CompareOp::Below,
        T_LTE => CompareOp::AtMost,
        T_EQLC => CompareOp::Equal,
        T_NEQ => CompareOp::NotEqual,
        _ => return None,
    };
    match (number(&binary.lhs), number(&binary.rhs)) {
        (None, Some(threshold)) => Some((&binary.lhs, op, threshold)),
        (Some(threshold), None) => Some((&binary.rhs, op.turned(), threshold)),
        _ => None,
    }
}

fn comparison(of: &Expr, op: CompareOp, threshold: f64) -> Option<Comparison> {
    // The parser keeps no places, and what it prints of an empty `ignoring ()` it does not read again.
    let left = of.to_string();
    let same = !left.contains("group_") || parser::parse(&left).as_ref() == Ok(of);
    same.then_some(Comparison { left, op, threshold })
}

impl CompareOp {
    const fn turned(self) -> Self {
        match self {
            Self::Above => Self::Below,
            Self::AtLeast => Self::AtMost,
            Self::Below => Self::Above,
            Self::AtMost => Self::AtLeast,
            same => same,
        }
    }
}

/// The value of a constant.
fn number(expr: &Expr) -> Option<f64> {
    match expr {
        Expr::NumberLiteral(literal) => Some(literal.val),
        Expr::Paren(paren) => number(&paren.expr),
        Expr::Unary(unary) => number(&unary.expr).map(|value| -value),
        Expr::Binary(binary) => {
            let (left, right) = (number(&binary.lhs)?, number(&binary.rhs)?);
            match binary.op.id() {
                T_ADD => Some(left + right),
                T_SUB => Some(left - right),
                T_MUL => Some(left * right),
                T_DIV => Some(left / right),
                _ => None,
            }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
