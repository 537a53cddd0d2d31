//! From verdicts to a scorecard.
//!
//! What takes several trials to say: an incident's first warning, what is caught, which expectations hold.
//! Left out: deciding, printing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::expect::{self, Expect, Level};
use super::scorecard::{
    Caught, Close, FORMAT, First, Incident, Input, Labels, Named, Open, Pending, Phases, Scorecard, Settled,
    SettledVerdict, Trial, Warning,
};
use crate::known::exporter_of;
use crate::recording::{Exporter, Header};
use crate::rule::{Rule, RuleId, RuleSet, Severity, What};
use crate::verdict::{Firing, OfRule, OfTrial, Subject, Verdicts};

/// What a scorecard is made from.
#[derive(Debug)]
pub struct Graded<'a> {
    pub name: Option<String>,
    pub rules: &'a RuleSet,
    /// Of the recordings, in the order of the verdicts' trials.
    pub headers: Vec<&'a Header>,
    pub verdicts: &'a Verdicts,
    /// As [`crate::settle::unknown_values`] has them.
    pub unknown_values: BTreeMap<RuleId, (String, String)>,
    /// As in [`Scorecard`].
    pub labels: BTreeMap<String, Labels>,
    pub inferred: Vec<String>,
    pub expect: &'a [Expect],
    /// The version of promtool, if it decided.
    pub promtool: Option<String>,
    pub scrape: Duration,
    pub evaluate: Duration,
    pub took: Duration,
}

/// Makes the scorecard.
#[must_use]
pub fn grade(graded: &Graded<'_>) -> Scorecard {
    let trials: Vec<Trial> = (graded.headers.iter().enumerate()).map(|(n, header)| trial(graded, n, header)).collect();
    let incidents = incidents(&trials);
    // A chain (I3-I6) repeats incidents that are graded by themselves.
    let base = || incidents.iter().filter(|incident| incident.base && !incident.incident.contains('-'));
    let caught = Caught {
        incidents: base().count(),
        caught: base().filter(|incident| incident.caught.is_some()).count(),
        at_cause: base().filter(|incident| incident.caught == Some(Level::Cause)).count(),
    };
    let alerts = graded.rules.rules.iter().filter(|rule| rule.is_alert());
    let mut card = Scorecard {
        format: FORMAT,
        relapse: env!("CARGO_PKG_VERSION").to_owned(),
        name: graded.name.clone(),
        promtool: graded.promtool.clone(),
        scrape: graded.scrape.as_secs_f64(),
        evaluate: graded.evaluate.as_secs_f64(),
        input: Input {
            alerts: alerts.clone().count(),
            recording_rules: graded.rules.rules.len() - alerts.clone().count(),
            files: graded.rules.files,
            skipped: graded.rules.skipped.clone(),
        },
        labels: graded.labels.clone(),
        inferred: graded.inferred.clone(),
        derived: derived(graded),
        rules: settled(graded),
        incidents,
        trials,
        caught,
        expected: Vec::new(),
        took: graded.took.as_secs_f64(),
    };
    let names: Vec<&str> = alerts.map(Rule::name).collect();
    card.expected = expect::judge(&card, graded.expect, &names);
    card
}

fn named(rule: &Rule) -> Named {
    Named { name: rule.name().to_owned(), file: rule.file.to_string(), line: rule.line }
}

const fn severity(rule: &Rule) -> Option<Severity> {
    match &rule.what {
        What::Alert { severity, .. } => Some(*severity),
        What::Record { .. } => None,
    }
}

/// Alerts that were decided and read such series, themselves or through recording rules.
fn derived(graded: &Graded<'_>) -> usize {
    let mut targets = graded.headers.iter().flat_map(|header| &header.targets);
    if !targets.any(|target| target.exporter == Exporter::KubeState) {
        return 0;
    }
    let rules = &graded.rules.rules;
    let mut records: BTreeSet<&str> = BTreeSet::new();
    let rests = |rule: &Rule, records: &BTreeSet<&str>| {
        let is_derived = |metric: &&str| records.contains(metric) || exporter_of(metric) == Some(Exporter::KubeState);
        rule.metrics().iter().any(is_derived)
    };
    loop {
        let more = rules.iter().filter(|rule| !rule.is_alert() && rests(rule, &records)).map(Rule::name);
        let more: BTreeSet<&str> = more.collect();
        if more.len() == records.len() {
            break;
        }
        records = more;
    }
    let decided: BTreeSet<RuleId> = graded.verdicts.trials.keys().map(|(id, _)| *id).collect();
    let always =
        graded.verdicts.rules.iter().filter(|(_, of)| matches!(of, OfRule::AlwaysOn { .. })).map(|(id, _)| *id);
    decided.into_iter().chain(always).filter(|id| rests(&rules[id.0], &records)).count()
}

fn settled(graded: &Graded<'_>) -> Vec<Settled> {
    let mut open: BTreeSet<RuleId> = BTreeSet::new();
    let mut decided: BTreeSet<RuleId> = BTreeSet::new();
    for ((id, _), verdict) in &graded.verdicts.trials {
        match verdict {
            OfTrial::NeverTrue { .. } => decided.insert(*id),
            OfTrial::NotRecorded { .. } => false,
            _ => open.insert(*id),
        };
    }
    let all = graded.rules.rules.iter().enumerate().filter_map(|(n, rule)| {
        if rule.is_alert() && decided.contains(&RuleId(n)) && !open.contains(&RuleId(n)) {
            let unknown = graded.unknown_values.get(&RuleId(n)).cloned();
            let never = || ("its condition was true in no recording".to_owned(), None);
            let (why, nearest) = unknown.map_or_else(never, |(why, nearest)| (why, Some(nearest)));
            let (rule, severity) = (named(rule), severity(rule));
            return Some(Settled {
                rule,
                severity,
                verdict: SettledVerdict::NeverTrue,
                why,
                nearest,
                metrics: Vec::new(),
            });
        }
        let of_rule = graded.verdicts.rules.get(&RuleId(n))?;
        // A recording rule matters by the alerts that read it.
        if !rule.is_alert() && !matches!(of_rule, OfRule::Error { .. }) {
            return None;
        }
        let (verdict, why, nearest, metrics) = match of_rule {
            OfRule::NotCovered { metrics } => {
                let why = "no exporter that was recorded has these metrics".to_owned();
                (SettledVerdict::NotCovered, why, None, metrics.clone())
            }
            OfRule::CannotFire { why, nearest } => {
                (SettledVerdict::CannotFire, why.clone(), nearest.clone(), Vec::new())
            }
            OfRule::Undecided { why } => (SettledVerdict::Undecided, why.clone(), None, Vec::new()),
            OfRule::Error { message } => (SettledVerdict::Error, message.clone(), None, Vec::new()),
            OfRule::AlwaysOn { why } => (SettledVerdict::AlwaysOn, why.clone(), None, Vec::new()),
        };
        Some(Settled { rule: named(rule), severity: severity(rule), verdict, why, nearest, metrics })
    });
    all.collect()
}

fn trial(graded: &Graded<'_>, n: usize, header: &Header) -> Trial {
    let phases = header.phases;
    let mut trial = Trial {
        incident: header.incident.clone(),
        scenario: header.scenario.clone(),
        control: header.control.clone(),
        title: header.title.clone(),
        base: header.base,
        backend: header.backend.clone(),
        phases: Phases {
            baseline: phases.fault,
            fault: phases.heal.saturating_sub(phases.fault),
            healed: phases.end.saturating_sub(phases.heal),
        },
        lasted: header.lasted.map(|lasted| lasted.as_secs_f64()),
        warnings: Vec::new(),
        pending: Vec::new(),
        close: Vec::new(),
        open: Vec::new(),
    };
    for (id, rule) in graded.rules.rules.iter().enumerate() {
        if let Some(severity) = severity(rule) {
            add(graded, (n, header), &mut trial, RuleId(id), severity);
        }
    }
    // By name after time, so that the order is stable.
    trial.warnings.sort_by(|one, other| {
        one.after.total_cmp(&other.after).then_with(|| (&one.rule, &one.labels).cmp(&(&other.rule, &other.labels)))
    });
    trial.close.sort_by(|one, other| other.share().total_cmp(&one.share()).then_with(|| one.rule.cmp(&other.rule)));
    trial
}

/// Adds the verdict on an alert.
fn add(graded: &Graded<'_>, (n, header): (usize, &Header), trial: &mut Trial, id: RuleId, severity: Severity) {
    let rule = &graded.rules.rules[id.0];
    match graded.verdicts.trials.get(&(id, n)) {
        None | Some(OfTrial::NeverTrue { close: None }) => {}
        Some(OfTrial::Fires(firings)) => {
            let warning = |firing| warning(rule, severity, firing, header, graded.expect);
            trial.warnings.extend(firings.iter().map(warning));
        }
        Some(OfTrial::Pending { at, lasted, wait }) => trial.pending.push(Pending {
            rule: named(rule),
            severity,
            after: at.as_secs_f64(),
            lasted: lasted.as_secs_f64(),
            wait: wait.as_secs_f64(),
        }),
        Some(OfTrial::NeverTrue { close: Some(close) }) => trial.close.push(Close {
            rule: named(rule),
            value: close.value,
            threshold: close.threshold,
            above: close.above,
            labels: close.labels.clone(),
        }),
        // Other recordings decide such a rule, unless they lack something else that it needs.
        Some(OfTrial::NotRecorded { metrics }) => {
            let mut of_rule = graded.verdicts.trials.range((id, 0)..=(id, usize::MAX));
            if of_rule.all(|(_, verdict)| matches!(verdict, OfTrial::NotRecorded { .. })) {
                let why = format!("not recorded in this trial: {}", metrics.join(", "));
                trial.open.push(Open { rule: named(rule), error: false, why });
            }
        }
        Some(OfTrial::Undecided { why }) => {
            trial.open.push(Open { rule: named(rule), error: false, why: why.clone() });
        }
        Some(OfTrial::Error { message }) => {
            trial.open.push(Open { rule: named(rule), error: true, why: message.clone() });
        }
    }
}

fn warning(rule: &Rule, severity: Severity, firing: &Firing, header: &Header, expect: &[Expect]) -> Warning {
    let (subject, by) = match &firing.subject {
        Subject::Is { subject, labels } => (Some(subject.clone()), labels.clone()),
        Subject::NotSaid => (None, Vec::new()),
    };
    let right = subject.as_ref().is_some_and(|subject| header.expected.iter().any(|(_, of)| of == subject));
    let is_twin = header.control.is_some();
    let level = (!is_twin).then(|| expect::level(rule.name(), (&header.incident, &header.scenario), right, expect));
    Warning {
        rule: named(rule),
        severity,
        after: firing.after.as_secs_f64(),
        condition: firing.split.condition.as_secs_f64(),
        scrape: firing.split.scrape.as_secs_f64(),
        evaluation: firing.split.evaluation.as_secs_f64(),
        wait: firing.split.wait.as_secs_f64(),
        held: firing.held,
        late: firing.late,
        cleared: firing.cleared.map(|cleared| cleared.as_secs_f64()),
        ended_early: firing.ended_early.map(|early| early.as_secs_f64()),
        few: firing.few.clone(),
        positions: firing.positions,
        labels: firing.labels.clone(),
        subject,
        by,
        right: (!is_twin).then_some(right),
        level: level.map(|(level, _)| level),
        source: level.map(|(_, source)| source),
    }
}

/// One entry per scenario, with all its recordings.
fn incidents(trials: &[Trial]) -> Vec<Incident> {
    let mut all: Vec<Incident> = Vec::new();
    for (n, trial) in trials.iter().enumerate().filter(|(_, trial)| trial.control.is_none()) {
        match all.iter_mut().find(|incident| incident.scenario == trial.scenario) {
            Some(incident) => incident.trials.push(n),
            None => all.push(Incident {
                incident: trial.incident.clone(),
                scenario: trial.scenario.clone(),
                title: trial.title.clone(),
                base: trial.base,
                trials: vec![n],
                first: None,
                caught: None,
            }),
        }
    }
    for incident in &mut all {
        let warnings = incident.trials.iter().flat_map(|n| {
            let of = trials.get(*n).map(|trial| trial.warnings.as_slice()).unwrap_or_default();
            of.iter().enumerate().map(|(warning, of)| (First { trial: *n, warning }, of))
        });
        let warnings: Vec<(First, &Warning)> = warnings.filter(|(_, warning)| warning.pages()).collect();
        // Credit first, then time.
        let first = warnings.iter().min_by(|(_, one), (_, other)| {
            other.earns().cmp(&one.earns()).then_with(|| one.after.total_cmp(&other.after))
        });
        incident.first = first.map(|(first, _)| *first);
        incident.caught = warnings.iter().filter(|(_, one)| one.earns()).filter_map(|(_, one)| one.level).min();
    }
    all.sort_by(|one, other| {
        (&one.incident, !one.base, &one.scenario).cmp(&(&other.incident, !other.base, &other.scenario))
    });
    all
}
