//! `relapse alerts explain`: a rule's expression, part by part, over an incident.

mod show;

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::Args;
use relapse_alerts::explain::explain;
use relapse_alerts::rule::{RuleId, RuleSet};
use relapse_alerts::verdict::OfRule;
use relapse_model::diagnostics::did_you_mean;

use super::GradeOptions;
use super::graded::{self, Graded, Grader};
use super::recordings::{Packed, Recordings};
use super::set::{Chosen, Set};
use crate::cli::{Refused, out};

/// Explain a rule.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  relapse alerts explain CoreDNSDown I3 my-rules/
  relapse alerts explain NodeHighNumberConntrackEntriesUsed conntrack-cap-reset

Each part of the expression is evaluated by promtool; a plot shows its values over baseline, fault, the
fault held on, and the time after healing. INCIDENT may also be SCENARIO or SCENARIO/TWIN.")]
pub struct ExplainArguments {
    /// The alert's name.
    rule: String,
    /// An incident (I3), a scenario, or a twin (SCENARIO/TWIN).
    incident: String,
    /// Rule files or folders of them (default: `alerts` of relapse.yaml).
    paths: Vec<String>,
    #[command(flatten)]
    options: GradeOptions,
}

pub fn main(arguments: &ExplainArguments) -> Result<ExitCode, Refused> {
    let grader = Grader::new(&arguments.options)?;
    let about = incident(&grader.recordings, &arguments.incident)?;
    let chosen = Chosen::find(&arguments.paths, &arguments.options)?;
    let mut names: BTreeSet<String> = BTreeSet::new();
    let mut found = false;
    for set in &chosen.sets {
        let rules = graded::read(set)?;
        names.extend(rules.rules.iter().filter(|rule| rule.is_alert()).map(|rule| rule.name().to_owned()));
        let ids = named(&rules, &arguments.rule);
        if ids.is_empty() {
            continue;
        }
        found = true;
        let graded = grader.against(set, rules, &about, Some(&ids))?;
        ids.into_iter().for_each(|id| one(&grader, set, &graded, id));
    }
    if !found {
        let help = did_you_mean(&arguments.rule, "alerts", names.iter().map(String::as_str));
        return Err(format!("there is no alert {}: {help}", arguments.rule).into());
    }
    Ok(ExitCode::SUCCESS)
}

/// The base recordings of an incident, or those of a scenario or a twin.
pub fn incident<'a>(recordings: &'a Recordings, name: &str) -> Result<Vec<&'a Packed>, Refused> {
    let all = &recordings.all;
    let (scenario, control) = name.split_once('/').map_or((name, None), |(scenario, twin)| (scenario, Some(twin)));
    let of_incident = |packed: &&Packed| {
        packed.header.control.is_none() && packed.header.base && packed.header.incident.eq_ignore_ascii_case(name)
    };
    let of_scenario =
        |packed: &&Packed| packed.header.scenario == scenario && packed.header.control.as_deref() == control;
    let found: Vec<&Packed> = all.iter().filter(of_incident).collect();
    let found = if found.is_empty() { all.iter().filter(of_scenario).collect() } else { found };
    if found.is_empty() {
        let own = |packed: &Packed| match &packed.header.control {
            Some(control) => format!("{}/{control}", packed.header.scenario),
            None => packed.header.scenario.clone(),
        };
        let names: BTreeSet<String> =
            all.iter().flat_map(|packed| [packed.header.incident.clone(), own(packed)]).collect();
        let help = did_you_mean(name, "recordings", names.iter().map(String::as_str));
        return Err(format!("there is no recording of {name}: {help}").into());
    }
    Ok(found)
}

fn named(rules: &RuleSet, name: &str) -> Vec<RuleId> {
    let all = rules.rules.iter().enumerate();
    all.filter(|(_, rule)| rule.is_alert() && rule.name() == name).map(|(n, _)| RuleId(n)).collect()
}

fn one(grader: &Grader, set: &Set, graded: &Graded, id: RuleId) {
    let Some(rule) = graded.rules.rules.get(id.0) else { return };
    let page = out::page();
    for (n, recording) in graded.recordings.iter().enumerate() {
        out::lines(show::head(rule, &recording.header, page));
        let settled = graded.verdicts.rules.get(&id);
        out::lines(show::verdict(settled, graded.verdicts.trials.get(&(id, n)), rule, page));
        if matches!(settled, Some(OfRule::NotCovered { .. } | OfRule::Error { .. })) {
            continue;
        }
        let Ok(settings) = grader.settings(set) else { return grader.hint_promtool(page) };
        match explain(&graded.rules, id, recording, &graded.verdicts.active(n), &graded.labels, &settings) {
            Ok(explained) => out::lines(show::parts(&explained, rule, page)),
            Err(why) => out::lines([format!("failed to {why}")]),
        }
        out::line("");
    }
}
