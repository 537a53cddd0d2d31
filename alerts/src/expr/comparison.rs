//! Comparisons with a number.

use promql_parser::parser::token::{T_ADD, T_DIV, T_EQLC, T_GTE, T_GTR, T_LSS, T_LTE, T_MUL, T_NEQ, T_SUB};
use promql_parser::parser::{self, Expr};

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

/// What is compared with a number at the top.
pub(super) fn compared(expr: &Expr) -> Option<(&Expr, CompareOp, f64)> {
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

pub(super) fn comparison(of: &Expr, op: CompareOp, threshold: f64) -> Option<Comparison> {
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
pub(super) fn number(expr: &Expr) -> Option<f64> {
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
