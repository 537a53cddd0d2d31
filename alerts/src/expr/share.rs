//! Expressions that are true from a share of targets on: `count(up == 0) / count(up) > 0.1`.

use promql_parser::parser::token::{T_AVG, T_COUNT, T_DIV, T_EQLC, T_MUL, T_SUM};
use promql_parser::parser::{AggregateExpr, Expr};

use super::CompareOp;
use super::comparison::number;

/// A comparison of the share of targets that are down, or up, with a number.
#[derive(Debug, Clone, PartialEq)]
pub struct Share {
    of: Of,
    factor: f64,
    op: CompareOp,
    threshold: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Down,
    Up,
}

impl Share {
    /// Of `left op threshold`.
    pub(super) fn read(left: &Expr, op: CompareOp, threshold: f64) -> Option<Self> {
        let (factor, expr) = scaled(left);
        let (of, more) = match expr {
            Expr::Aggregate(average) if average.op.id() == T_AVG && is_up(&average.expr) => (Of::Up, 1.0),
            Expr::Binary(division) if division.op.id() == T_DIV && division.modifier.is_none() => {
                let ((over, part), (under, all)) = (scaled(&division.lhs), scaled(&division.rhs));
                let (Expr::Aggregate(part), Expr::Aggregate(all)) = (part, all) else { return None };
                let counts = all.op.id() == T_COUNT && is_up(&all.expr) && part.modifier == all.modifier;
                (part_of(part, &all.expr).filter(|_| counts)?, over / under)
            }
            _ => return None,
        };
        let more_are_worse = match op {
            CompareOp::Above | CompareOp::AtLeast => of == Of::Down,
            CompareOp::Below | CompareOp::AtMost => of == Of::Up,
            CompareOp::Equal | CompareOp::NotEqual => false,
        };
        more_are_worse.then_some(Self { of, factor: factor * more, op, threshold })
    }

    /// How many of so many targets must be down; `None` if it is not true of all of them.
    pub fn least(&self, all: usize) -> Option<usize> {
        let is_true = |down: &usize| {
            let part = if self.of == Of::Down { *down } else { all - down };
            let value = self.factor * (part as f64 / all as f64);
            match self.op {
                CompareOp::Above => value > self.threshold,
                CompareOp::AtLeast => value >= self.threshold,
                CompareOp::Below => value < self.threshold,
                _ => value <= self.threshold,
            }
        };
        (1..=all).find(is_true)
    }
}

/// An expression without the numbers by which it is multiplied or divided, and their product.
fn scaled(expr: &Expr) -> (f64, &Expr) {
    let by = |factor: f64, expr| {
        let (of, expr) = scaled(expr);
        (factor * of, expr)
    };
    match expr {
        Expr::Paren(paren) => scaled(&paren.expr),
        Expr::Binary(binary) => match (number(&binary.lhs), binary.op.id(), number(&binary.rhs)) {
            (Some(factor), T_MUL, None) => by(factor, &binary.rhs),
            (None, T_MUL, Some(factor)) => by(factor, &binary.lhs),
            (None, T_DIV, Some(factor)) => by(1.0 / factor, &binary.lhs),
            _ => (1.0, expr),
        },
        _ => (1.0, expr),
    }
}

fn is_up(expr: &Expr) -> bool {
    matches!(expr, Expr::VectorSelector(vector) if vector.name.as_deref() == Some("up"))
}

/// `sum(up)`, `count(up == 0)` and `sum(up == bool 0)`, of the same targets as `all`.
fn part_of(part: &AggregateExpr, all: &Expr) -> Option<Of> {
    match (part.op.id(), &*part.expr) {
        (T_SUM, expr) if expr == all => Some(Of::Up),
        (op, Expr::Binary(down)) => {
            let right_op = if down.return_bool() { T_SUM } else { T_COUNT };
            let is_down = down.op.id() == T_EQLC && *down.lhs == *all && number(&down.rhs) == Some(0.0);
            (op == right_op && is_down).then_some(Of::Down)
        }
        _ => None,
    }
}
