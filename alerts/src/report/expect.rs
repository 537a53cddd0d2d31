//! What an alert counts as, and what must hold.
//!
//! An alert's level in an incident comes from the user's expectations, otherwise from a reviewed list of widely used
//! alerts (`reviewed.yaml`), otherwise from its subject: an alert about whom the scenario's findings are about is a
//! symptom, any other is collateral and earns nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;
use std::time::Duration;

use relapse_model::diagnostics::did_you_mean;
use relapse_model::yaml;
use serde::Deserialize;

pub use super::level::{Level, Outcome, Source};
use super::scorecard::{Expected, Incident, Scorecard, Settled, SettledVerdict, Trial, Warning};
use super::words::clock;

/// What an expectation is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Every scenario of an incident.
    Incident(String),
    Scenario(String),
}

/// One line under `expect`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expect {
    /// `None` only in a miss: no alert at all.
    pub alert: Option<String>,
    pub scope: Scope,
    pub level: Option<Level>,
    pub within: Option<Duration>,
    /// The reason why nothing fires.
    pub miss: Option<String>,
}

impl Scope {
    fn covers(&self, incident: &str, scenario: &str) -> bool {
        match self {
            Self::Incident(name) => name == incident,
            Self::Scenario(name) => name == scenario,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Incident(name) | Self::Scenario(name)) = self;
        f.write_str(name)
    }
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(reason) = &self.miss {
            let alert = self.alert.as_deref().unwrap_or("any alert");
            return write!(f, "{alert} misses {} ({reason})", self.scope);
        }
        write!(f, "{} in {}", self.alert.as_deref().unwrap_or("any alert"), self.scope)?;
        if let Some(level) = self.level {
            write!(f, " as {}", level.as_str())?;
        }
        match self.within {
            Some(within) => write!(f, " within {}", clock(within.as_secs_f64())),
            None => Ok(()),
        }
    }
}

/// The level of an alert in an incident, and who says so. `right`: whether its subject is one of the scenario's.
pub(super) fn level(
    alert: &str,
    (incident, scenario): (&str, &str),
    right: bool,
    expect: &[Expect],
) -> (Level, Source) {
    let about = |line: &&Expect| line.alert.as_deref() == Some(alert) && line.scope.covers(incident, scenario);
    let lines = expect.iter().filter(|line| line.miss.is_none());
    if let Some(level) = lines.filter(about).find_map(|line| line.level) {
        return (level, Source::Expected);
    }
    if let Some(level) = REVIEWED.get(&(alert.to_owned(), incident.to_owned())) {
        return (*level, Source::Reviewed);
    }
    (if right { Level::Symptom } else { Level::Collateral }, Source::Subject)
}

/// A line of the reviewed list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reviewed {
    alert: String,
    incident: String,
    level: Level,
    /// For readers of the list.
    #[serde(rename = "why")]
    _why: String,
}

static REVIEWED: LazyLock<BTreeMap<(String, String), Level>> = LazyLock::new(|| {
    let list = yaml::any(include_str!("reviewed.yaml")).expect("the list is YAML, as a test proves");
    let list: Vec<Reviewed> = serde_json::from_value(list).expect("the list has this form, as a test proves");
    list.into_iter().map(|line| ((line.alert, line.incident), line.level)).collect()
});

/// Judges the expectations by the rest of a scorecard; `alerts` are the names of all alerts.
pub(super) fn judge(card: &Scorecard, expect: &[Expect], alerts: &[&str]) -> Vec<Expected> {
    let judged = |line: &Expect| Expected { what: line.to_string(), outcome: outcome(card, line, alerts) };
    expect.iter().map(judged).collect()
}

fn outcome(card: &Scorecard, line: &Expect, alerts: &[&str]) -> Outcome {
    let broken = |why: String| Outcome::Broken { why };
    if let Some(alert) = line.alert.as_deref().filter(|alert| !alerts.contains(alert)) {
        let help = did_you_mean(alert, "alerts", alerts.iter().copied());
        return broken(format!("there is no alert {alert}: {help}"));
    }
    let covered = |incident: &&Incident| line.scope.covers(&incident.incident, &incident.scenario);
    let incidents: Vec<&Incident> = card.incidents.iter().filter(covered).collect();
    if incidents.is_empty() {
        return broken(format!("no recording of {} was graded", line.scope));
    }
    if card.promtool.is_none() {
        return broken("not decided: there is no promtool".to_owned());
    }
    let wrong = incidents.into_iter().find_map(|incident| {
        let why = if line.miss.is_some() { caught(card, line, incident) } else { missed(card, line, incident) };
        why.map(|why| format!("{}: {why}", incident.scenario))
    });
    wrong.map_or(Outcome::Holds, broken)
}

fn warnings<'a>(card: &'a Scorecard, incident: &'a Incident) -> impl Iterator<Item = (&'a Trial, &'a Warning)> {
    let trials = incident.trials.iter().filter_map(|n| card.trials.get(*n));
    trials.flat_map(|trial| trial.warnings.iter().map(move |warning| (trial, warning)))
}

/// Why a miss no longer is one.
fn caught(card: &Scorecard, line: &Expect, incident: &Incident) -> Option<String> {
    let fires = |warning: &Warning| match &line.alert {
        Some(alert) => warning.rule.name == *alert && !warning.late,
        None => warning.earns(),
    };
    let (_, warning) = warnings(card, incident).find(|(_, warning)| fires(warning))?;
    Some(format!("{} fires after {}: remove the miss", warning.rule.name, clock(warning.after)))
}

/// Why an alert does not fire as expected.
fn missed(card: &Scorecard, line: &Expect, incident: &Incident) -> Option<String> {
    let alert = line.alert.as_deref()?;
    let own = warnings(card, incident).filter(|(_, warning)| warning.rule.name == alert);
    let Some(first) = own.map(|(_, warning)| warning).min_by(|one, other| one.after.total_cmp(&other.after)) else {
        return Some(never(card, alert, incident));
    };
    if first.late {
        return Some(format!("fires after {}, when the original was over", clock(first.after)));
    }
    let within = line.within.filter(|within| first.after > within.as_secs_f64())?;
    Some(format!("fires after {}, not within {}", clock(first.after), clock(within.as_secs_f64())))
}

/// Why an alert does not fire at all.
fn never(card: &Scorecard, alert: &str, incident: &Incident) -> String {
    let settled = |rule: &&Settled| rule.rule.name == alert && rule.verdict != SettledVerdict::NeverTrue;
    if let Some(settled) = card.rules.iter().find(settled) {
        return settled.why.clone();
    }
    let trials: Vec<&Trial> = incident.trials.iter().filter_map(|n| card.trials.get(*n)).collect();
    let pending = trials.iter().flat_map(|trial| &trial.pending).find(|pending| pending.rule.name == alert);
    if let Some(pending) = pending {
        return format!("true for {} of {}", clock(pending.lasted), clock(pending.wait));
    }
    let open = trials.iter().flat_map(|trial| &trial.open).find(|open| open.rule.name == alert);
    if let Some(open) = open {
        return open.why.clone();
    }
    let close = trials.iter().flat_map(|trial| &trial.close).find(|close| close.rule.name == alert);
    close.map_or_else(|| "never true".to_owned(), |close| format!("never true: {}", super::words::close(close)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reviewed_list_is_well_formed() {
        assert!(!REVIEWED.is_empty());
        let known = |incident: &str| matches!(incident.as_bytes(), [b'I', b'1'..=b'7'] | [b'W', b'1'..=b'6']);
        assert!(REVIEWED.keys().all(|(_, incident)| known(incident)), "{REVIEWED:?}");
    }

    #[test]
    fn expectations_come_before_the_list_and_the_list_before_the_subject() {
        let at = ("I2", "conntrack-cap-reset");
        let name = "NodeHighNumberConntrackEntriesUsed";
        assert_eq!(level(name, at, false, &[]), (Level::Symptom, Source::Reviewed));
        let line = Expect {
            alert: Some(name.into()),
            scope: Scope::Incident("I2".into()),
            level: Some(Level::Cause),
            within: None,
            miss: None,
        };
        assert_eq!(level(name, at, false, std::slice::from_ref(&line)), (Level::Cause, Source::Expected));
        assert_eq!(level(name, ("I4", "x"), true, &[line]), (Level::Symptom, Source::Subject));
        assert_eq!(level("Mine", at, false, &[]), (Level::Collateral, Source::Subject));
    }
}
