//! Expressions whose result depends on when they are evaluated.

use promql_parser::parser::{BinaryExpr, Call, Expr};

const OF_DAY: [&str; 8] =
    ["minute", "hour", "day_of_week", "day_of_month", "day_of_year", "days_in_month", "month", "year"];

#[derive(Default)]
pub(super) struct Clock {
    /// It reads the time of day, or the date.
    of_day: bool,
    /// How often it reads the time, and how often only to see how long ago something was scraped.
    times: usize,
    differences: usize,
    pub timed: bool,
}

impl Clock {
    pub(super) const fn why(&self) -> Option<&'static str> {
        match self {
            Self { of_day: true, .. } => Some("it depends on the time of day or the date"),
            _ if self.times > self.differences => {
                Some("it compares a time with the present, and a recording has no date")
            }
            _ => None,
        }
    }

    pub(super) fn calls(&mut self, call: &Call) {
        let (name, args) = (call.func.name, &call.args.args);
        if OF_DAY.contains(&name) {
            let of_now = |arg: &Expr| ["time()", "timestamp("].iter().any(|now| arg.to_string().contains(now));
            self.of_day |= args.is_empty() || args.iter().any(|arg| of_now(arg));
        }
        self.times += usize::from(name == "time");
        self.timed |= matches!(name, "time" | "timestamp");
    }

    pub(super) fn subtracts(&mut self, binary: &BinaryExpr) {
        let sides = [called(&binary.lhs), called(&binary.rhs)];
        let difference = [Some("time"), Some("timestamp")].iter().all(|function| sides.contains(function));
        self.differences += usize::from(difference);
    }
}

/// The function of a call.
fn called(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Paren(paren) => called(&paren.expr),
        Expr::Call(call) => Some(call.func.name),
        _ => None,
    }
}
