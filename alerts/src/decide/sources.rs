//! What each rule reads: recording rules, alerts, how far back; found once for all trials.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use promql_parser::label::Matcher;
use promql_parser::parser::value::ValueType;
use promql_parser::parser::{self, Expr};
use promql_parser::util::{ExprVisitor, walk_expr};

use super::schedule::milliseconds;
use super::{LONGEST, Settings};
use crate::expr::{self, Expression};
use crate::promtool::WrittenRule;
use crate::rule::{Rule, RuleId, RuleSet, Selector, What};

/// Tells alerts of one name apart.
pub const ID: &str = "relapse_rule";

/// The series of alerts that Prometheus itself writes.
const ALERTS: [&str; 2] = ["ALERTS", "ALERTS_FOR_STATE"];

pub struct Sources<'a> {
    pub rules: &'a RuleSet,
    of: Vec<Source>,
    /// The selectors of all rules: many rules have the same.
    pub selectors: Vec<Selected>,
}

/// What a selector selects by; metric and matchers.
pub struct Selected {
    pub metric: Option<String>,
    pub tests: Vec<Matcher>,
}

pub struct Source {
    pub expr: Expression,
    /// Of each of its selectors the place in [`Sources::selectors`].
    pub selectors: Vec<usize>,
    /// The expression is a number, which promtool's functions of vectors refuse.
    pub scalar: bool,
    /// Why its result depends on when it is evaluated.
    clock: Option<&'static str>,
    /// It reads the time, or when something was scraped.
    pub timed: bool,
    /// Both sides of a division read these.
    ratios: Vec<(BTreeSet<String>, BTreeSet<String>)>,
    /// The recording rules that it reads, those read by others first.
    pub records: Vec<usize>,
    reads_alerts: bool,
    /// How far back it looks, with a scrape and the evaluations of recording rules.
    pub back: Duration,
    pub evaluate: Duration,
    /// How old the data are that it sees. To see data of a minute ago is to be evaluated a minute ago and to fire a minute
    /// later: times are found without it, and it is added to them.
    pub offset: Duration,
    pub hold: Duration,
    pub keep_firing: Duration,
}

impl<'a> Sources<'a> {
    pub fn new(rules: &'a RuleSet, settings: &Settings) -> Self {
        let mut recorded: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (index, rule) in rules.rules.iter().enumerate().filter(|(_, rule)| !rule.is_alert()) {
            recorded.entry(rule.name()).or_default().push(index);
        }
        let mut selectors = Vec::new();
        let mut places = HashMap::new();
        let of = rules.rules.iter().enumerate().map(|(index, rule)| {
            let mut records = Vec::new();
            let mut reads_alerts = false;
            close(rules, index, &recorded, &mut BTreeSet::new(), &mut records, &mut reads_alerts);
            // The last is the rule itself.
            records.pop();
            let group = rules.groups.get(rule.group);
            let evaluate = group.and_then(|group| group.interval).unwrap_or(settings.evaluate);
            let (hold, keep_firing) = match rule.what {
                What::Alert { hold, keep_firing, .. } => (hold, keep_firing),
                What::Record { .. } => Default::default(),
            };
            let reach = records.iter().map(|&record| rules.rules[record].reach).max().unwrap_or_default();
            let tree = parser::parse(&rule.expr).ok();
            let mut facts = Facts::default();
            for tree in tree.iter().chain(
                records
                    .iter()
                    .filter_map(|&record| parser::parse(&rules.rules[record].expr).ok())
                    .collect::<Vec<_>>()
                    .iter(),
            ) {
                let _ = walk_expr(&mut facts, tree);
            }
            let expr = expr::read(&rule.expr).unwrap_or_else(|_| Expression::unread(&rule.expr));
            let place = |(selector, tests): (&Selector, &Vec<Matcher>)| {
                let text = format!("{:?} {:?}", selector.metric, selector.matchers);
                *places.entry(text).or_insert_with(|| {
                    selectors.push(Selected { metric: selector.metric.clone(), tests: tests.clone() });
                    selectors.len() - 1
                })
            };
            Source {
                selectors: expr.selectors.iter().zip(&expr.tests).map(place).collect(),
                expr,
                scalar: tree.is_some_and(|tree| tree.value_type() == ValueType::Scalar),
                clock: facts.clock(),
                timed: facts.timed,
                ratios: facts.ratios,
                back: rule
                    .reach
                    .max(reach)
                    .saturating_add(settings.scrape)
                    .saturating_add(evaluate.saturating_mul(u32::try_from(records.len()).unwrap_or(u32::MAX))),
                records,
                reads_alerts,
                evaluate,
                offset: group.map(|group| group.query_offset).unwrap_or_default(),
                hold,
                keep_firing,
            }
        });
        let of = of.collect();
        Self { rules, of, selectors }
    }

    pub fn rule(&self, id: RuleId) -> &'a Rule {
        &self.rules.rules[id.0]
    }

    pub fn source(&self, id: RuleId) -> &Source {
        &self.of[id.0]
    }

    pub fn reads_alerts(&self, id: RuleId) -> bool {
        self.source(id).reads_alerts
    }

    /// The rule with all recording rules that it reads, in the order of evaluation.
    pub fn with_records(&self, id: RuleId) -> impl Iterator<Item = RuleId> {
        self.source(id).records.iter().copied().map(RuleId).chain([id])
    }

    /// Why no trial can decide it.
    pub fn undecided(&self, id: RuleId) -> Option<String> {
        let source = self.source(id);
        if let Some(why) = source.clock {
            return Some(why.to_owned());
        }
        let read_alerts = (0..self.of.len()).filter(|&of| source.reads_alerts && self.rules.rules[of].is_alert());
        if source.records.iter().copied().chain(read_alerts).any(|of| self.of[of].offset != source.offset) {
            return Some("it reads rules of a group with another `query_offset`".to_owned());
        }
        let needed = source.back.saturating_add(source.hold).saturating_add(source.keep_firing);
        (needed > LONGEST).then(|| "it looks back and waits for more than 6 h".to_owned())
    }

    /// Whether it compares the absolute value of a family that was scaled down.
    pub fn absolute<'b>(&self, id: RuleId, scaled: impl Iterator<Item = &'b str>) -> Option<&'b str> {
        let source = self.source(id);
        let reads: BTreeSet<&str> = self.with_records(id).flat_map(|id| self.rule(id).metrics()).collect();
        let scaled: Vec<&str> = scaled.filter(|family| reads.contains(family)).collect();
        let in_ratio = |family: &str| {
            source.ratios.iter().any(|(left, right)| {
                let other = |side: &BTreeSet<String>| scaled.iter().any(|family| side.contains(*family));
                (left.contains(family) && other(right)) || (right.contains(family) && other(left))
            })
        };
        scaled.iter().copied().find(|family| !in_ratio(family))
    }

    pub fn written(&self, id: RuleId) -> WrittenRule {
        let (rule, source) = (self.rule(id), self.source(id));
        let mut labels = rule.labels.clone();
        if rule.is_alert() {
            labels.insert(ID.to_owned(), id.0.to_string());
        }
        WrittenRule {
            alert: rule.is_alert(),
            name: rule.name().to_owned(),
            expr: rule.expr.clone(),
            hold: milliseconds(source.hold),
            keep_firing: milliseconds(source.keep_firing),
            labels,
        }
    }
}

/// Adds the recording rules that a rule reads before itself.
fn close(
    rules: &RuleSet,
    index: usize,
    recorded: &BTreeMap<&str, Vec<usize>>,
    seen: &mut BTreeSet<usize>,
    records: &mut Vec<usize>,
    alerts: &mut bool,
) {
    if !seen.insert(index) {
        return;
    }
    for selector in &rules.rules[index].selectors {
        // A selector by pattern may read any of them.
        let named: Vec<usize> = match selector.metric.as_deref() {
            Some(metric) => recorded.get(metric).cloned().unwrap_or_default(),
            None => recorded.values().flatten().copied().collect(),
        };
        *alerts |= selector.metric.as_deref().is_some_and(|metric| ALERTS.contains(&metric));
        for record in named {
            close(rules, record, recorded, seen, records, alerts);
        }
    }
    records.push(index);
}

#[derive(Default)]
struct Facts {
    /// It reads the time of day, or the date.
    of_day: bool,
    /// How often it reads the time, and how often only to see how long ago something was scraped.
    times: usize,
    differences: usize,
    timed: bool,
    ratios: Vec<(BTreeSet<String>, BTreeSet<String>)>,
}

impl Facts {
    const fn clock(&self) -> Option<&'static str> {
        match self {
            Self { of_day: true, .. } => Some("it depends on the time of day or the date"),
            _ if self.times > self.differences => {
                Some("it compares a time with the present, and a recording has no date")
            }
            _ => None,
        }
    }
}

impl ExprVisitor for Facts {
    type Error = ();

    fn pre_visit(&mut self, expr: &Expr) -> Result<bool, ()> {
        const OF_DAY: [&str; 8] =
            ["minute", "hour", "day_of_week", "day_of_month", "day_of_year", "days_in_month", "month", "year"];
        match expr {
            Expr::Call(call) if OF_DAY.contains(&call.func.name) => {
                let of_now = |arg: &Expr| ["time()", "timestamp("].iter().any(|now| arg.to_string().contains(now));
                self.of_day |= call.args.args.is_empty() || call.args.args.iter().any(|arg| of_now(arg));
            }
            Expr::Call(call) => {
                self.times += usize::from(call.func.name == "time");
                self.timed |= matches!(call.func.name, "time" | "timestamp");
            }
            Expr::Binary(binary) if binary.op.id() == parser::token::T_DIV => {
                self.ratios.push((metrics(&binary.lhs), metrics(&binary.rhs)));
            }
            Expr::Binary(binary) if binary.op.id() == parser::token::T_SUB => {
                let sides = [called(&binary.lhs), called(&binary.rhs)];
                let difference = [Some("time"), Some("timestamp")].iter().all(|function| sides.contains(function));
                self.differences += usize::from(difference);
            }
            _ => {}
        }
        Ok(true)
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

fn metrics(expr: &Expr) -> BTreeSet<String> {
    struct Metrics(BTreeSet<String>);
    impl ExprVisitor for Metrics {
        type Error = ();
        fn pre_visit(&mut self, expr: &Expr) -> Result<bool, ()> {
            match expr {
                Expr::VectorSelector(vector) => self.0.extend(vector.name.clone()),
                Expr::MatrixSelector(matrix) => self.0.extend(matrix.vs.name.clone()),
                _ => {}
            }
            Ok(true)
        }
    }
    let mut found = Metrics(BTreeSet::new());
    let _ = walk_expr(&mut found, expr);
    found.0
}
