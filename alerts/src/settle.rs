//! Settles what can be settled by reading rules: no trial is looked at, and promtool is not asked.
//!
//! Invariant: a rule is never settled wrongly. What is not certain is left to promtool, or, where promtool's answer would
//! mislead because it rests on something that was not recorded, is *undecided* or *not covered*. A rule is settled if its
//! selectors have no series and its expression needs them ([`Needs`]):
//! - *cannot fire*: some of them exist nowhere: renamed, misspelt, a label that the series cannot have, a job that the
//!   reader's targets do not have;
//! - *not covered*: some are not recorded; also under `absent`, whose answer is not known either;
//! - *always on*: `absent` of something that exists nowhere.
//!
//! Values of labels that were not recorded settle nothing: some appear only in other incidents.

mod missing;
mod selector;
mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::catalogue::Catalogue;
use crate::decide::LONGEST;
use crate::expr::{Failure, Gone, Needs};
use crate::labels::Labels;
use crate::report::words::clock;
use crate::rule::{Rule, RuleId, RuleSet};
use crate::verdict::OfRule;

use selector::Targets;
use status::Status;

/// More recording rules in a row than this are not followed.
const MOST_PASSES: usize = 32;

/// Verdicts on rules, recording rules included: a settled recording rule never has a result.
#[must_use]
pub fn settle(rules: &RuleSet, catalogue: &Catalogue, labels: &Labels) -> BTreeMap<RuleId, OfRule> {
    let targets = Targets::new(catalogue, labels);
    let mut settled = BTreeMap::new();
    let mut open = BTreeMap::new();
    for (index, rule) in rules.rules.iter().enumerate() {
        let id = RuleId(index);
        match &rule.read.failure {
            None => {
                let statuses = rule.selectors().iter().map(|selector| targets.status(selector)).collect();
                open.insert(id, Open { needs: &rule.read.needs, statuses });
            }
            Some(Failure::Wrong(message)) => {
                settled.insert(id, OfRule::Error { message: format!("the expression does not parse: {message}") });
            }
            Some(Failure::TooLong(why)) => {
                settled.insert(id, OfRule::Undecided { why: why.clone() });
            }
            Some(Failure::Unknown(_)) => {}
        }
    }
    let names = Names::of(rules);
    for _ in 0..MOST_PASSES {
        let mut found = Vec::new();
        for (id, rule) in &open {
            let resolved = rule.statuses.iter().map(|status| names.resolve(status, &settled)).collect::<Vec<_>>();
            found.extend(verdict(rule.needs, &resolved).map(|verdict| (*id, verdict)));
        }
        if found.is_empty() {
            break;
        }
        for (id, verdict) in found {
            open.remove(&id);
            settled.insert(id, verdict);
        }
    }
    for id in open.keys() {
        let reach = rules.rules[id.0].reach;
        if reach > LONGEST {
            settled.insert(*id, OfRule::Undecided { why: too_far(reach) });
        }
    }
    settled
}

/// Alerts with a selector for a value of a label that no recorded series has, and the nearest value. That settles nothing:
/// there may be such series elsewhere.
#[must_use]
pub fn unknown_values(rules: &RuleSet, catalogue: &Catalogue, labels: &Labels) -> BTreeMap<RuleId, (String, String)> {
    let targets = Targets::new(catalogue, labels);
    let alerts = rules.rules.iter().enumerate().filter(|(_, rule)| rule.is_alert());
    let unknown = |(index, rule): (usize, &Rule)| {
        Some((RuleId(index), rule.selectors().iter().find_map(|selector| targets.unknown_value(selector))?))
    };
    alerts.filter_map(unknown).collect()
}

/// A rule that is not settled yet.
struct Open<'a> {
    needs: &'a Needs,
    statuses: Vec<Status>,
}

fn too_far(reach: Duration) -> String {
    if reach == Duration::MAX {
        return "it looks at a fixed time (`@`)".to_owned();
    }
    let [reach, longest] = [reach, LONGEST].map(|time| clock(time.as_secs_f64()));
    format!("it looks back {reach}, more than {longest}")
}

/// The verdict on an expression from what is known of each of its selectors.
fn verdict(needs: &Needs, statuses: &[Status]) -> Option<OfRule> {
    let nowhere = |index: usize| matches!(statuses[index], Status::Nowhere { .. });
    let unseen = |index: usize| nowhere(index) || matches!(statuses[index], Status::Unseen(_) | Status::Unsure(_));
    let why = |reasons: &[usize]| match reasons.iter().map(|index| &statuses[*index]).find_map(Status::nowhere) {
        Some((why, nearest)) => (why.to_owned(), nearest.map(str::to_owned)),
        None => (String::new(), None),
    };
    if let Some(reasons) = needs.always(&nowhere) {
        return Some(OfRule::AlwaysOn { why: why(&reasons).0 });
    }
    if let Some(reasons) = needs.gone(Gone::Nowhere, &nowhere) {
        let (why, nearest) = why(&reasons);
        return Some(OfRule::CannotFire { why, nearest });
    }
    let Some(reasons) = needs.gone(Gone::Unseen, &unseen) else {
        // promtool would take what was not recorded for absent.
        let within = needs.absent_of(&|index| unseen(index) && !nowhere(index))?;
        let what = within.iter().find_map(|index| match &statuses[*index] {
            Status::Unseen(metric) => Some(format!("`{metric}`, which was not recorded")),
            Status::Unsure(why) => Some(format!("a series that is not known: {why}")),
            _ => None,
        })?;
        return Some(OfRule::Undecided { why: format!("its `absent` or `unless` is about {what}") });
    };
    let reasons: Vec<&Status> = reasons.iter().map(|index| &statuses[*index]).collect();
    let metrics: BTreeSet<&String> = reasons
        .iter()
        .filter_map(|status| if let Status::Unseen(metric) = status { Some(metric) } else { None })
        .collect();
    if !metrics.is_empty() {
        return Some(OfRule::NotCovered { metrics: metrics.into_iter().cloned().collect() });
    }
    let unsure = reasons.iter().find_map(|status| if let Status::Unsure(why) = status { Some(why) } else { None });
    // The rest are under an absent() of something that exists nowhere, which is true: promtool decides.
    unsure.map(|why| OfRule::Undecided { why: why.clone() })
}

const NEVER: &str = "which never has a series: ";
const UNDECIDED: &str = "which is undecided: ";

/// The reason at the end of a row of rules that read one another.
fn root<'a>(why: &'a str, link: &str) -> &'a str {
    why.rsplit_once(link).map_or(why, |(_, root)| root)
}

/// The rules of the set by what they produce.
struct Names<'a> {
    recorded: BTreeMap<&'a str, Vec<RuleId>>,
    alerts: BTreeMap<&'a str, Vec<RuleId>>,
}

impl<'a> Names<'a> {
    fn of(rules: &'a RuleSet) -> Self {
        let mut names = Self { recorded: BTreeMap::new(), alerts: BTreeMap::new() };
        for (index, rule) in rules.rules.iter().enumerate() {
            let of_kind = if rule.is_alert() { &mut names.alerts } else { &mut names.recorded };
            of_kind.entry(rule.name()).or_default().push(RuleId(index));
        }
        names
    }

    /// What becomes of a selector that may read series of other rules.
    fn resolve(&self, status: &Status, settled: &BTreeMap<RuleId, OfRule>) -> Status {
        match status {
            Status::Rule { name, else_ } => self.read(&self.recorded, name, "", else_, settled),
            Status::Alert(name) => {
                let why = format!("it reads the alert `{name}`, which is not among these rules");
                self.read(&self.alerts, name, "the alert ", &Status::Unsure(why), settled)
            }
            same => same.clone(),
        }
    }

    fn read(
        &self,
        names: &BTreeMap<&str, Vec<RuleId>>,
        name: &str,
        what: &str,
        otherwise: &Status,
        settled: &BTreeMap<RuleId, OfRule>,
    ) -> Status {
        let Some(rules) = names.get(name) else { return otherwise.clone() };
        let verdicts: Option<Vec<&OfRule>> = rules.iter().map(|id| settled.get(id)).collect();
        // One that is open may produce something.
        let Some(verdicts) = verdicts else { return Status::Live };
        let of = |pick: fn(&OfRule) -> bool| verdicts.iter().find(|verdict| pick(verdict)).copied();
        if of(|verdict| matches!(verdict, OfRule::AlwaysOn { .. })).is_some() {
            return Status::Live;
        }
        if let Some(OfRule::NotCovered { metrics }) = of(|verdict| matches!(verdict, OfRule::NotCovered { .. })) {
            return Status::Unseen(metrics.first().cloned().unwrap_or_else(|| name.to_owned()));
        }
        match of(|verdict| !matches!(verdict, OfRule::CannotFire { .. })).or(verdicts.first().copied()) {
            Some(OfRule::CannotFire { why, nearest }) => Status::Nowhere {
                why: format!("it reads {what}`{name}`, {NEVER}{}", root(why, NEVER)),
                nearest: nearest.clone(),
            },
            Some(OfRule::Undecided { why }) => {
                Status::Unsure(format!("it reads {what}`{name}`, {UNDECIDED}{}", root(why, UNDECIDED)))
            }
            Some(OfRule::Error { message }) => Status::Unsure(format!("it reads {what}`{name}`, and there {message}")),
            _ => Status::Live,
        }
    }
}

#[cfg(test)]
mod tests;
