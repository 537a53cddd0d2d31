//! `relapse alerts suggest`: what holds now, as `relapse.yaml`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use clap::Args;
use jiff::ToSpan;
use jiff::civil::Date;
use relapse_alerts::report::expect::Level;
use relapse_alerts::report::scorecard::{Incident, Scorecard};
use relapse_alerts::rules::Input;
use serde_json::Value;

use super::graded::{self, Graded, Grader};
use super::set::{Chosen, Set};
use super::{GradeOptions, labels};
use crate::cli::{Refused, out};

/// Suggest expectations.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  relapse alerts suggest my-rules/ > relapse.yaml
  relapse alerts suggest --config relapse.yaml

Each alert that warns in an incident becomes an expectation, and each incident without one an expected
miss for 90 days. Review the levels: cause, symptom or collateral.")]
pub struct SuggestArguments {
    /// Rule files or folders of them (default: `alerts` of relapse.yaml).
    paths: Vec<String>,
    #[command(flatten)]
    options: GradeOptions,
}

pub fn main(arguments: &SuggestArguments) -> Result<ExitCode, Refused> {
    let chosen = Chosen::find(&arguments.paths, &arguments.options)?;
    if chosen.sets.iter().any(|set| set.inputs.contains(&Input::Stdin)) {
        let why = "relapse.yaml names files: write the rules to one first (`helm template my-chart > rules.yaml`)";
        return Err(why.to_owned().into());
    }
    let grader = Grader::new(&arguments.options)?;
    let until = jiff::Zoned::now().date().saturating_add(90.days());
    let mut lines = vec!["apiVersion: relapse/v1".to_owned(), "kind: Config".to_owned(), "alerts:".to_owned()];
    for set in &chosen.sets {
        let graded = grader.grade(set, graded::read(set)?, arguments.options.all)?;
        if graded.card.promtool.is_none() {
            return Err("nothing can be suggested without promtool: `relapse alerts` shows what to install"
                .to_owned()
                .into());
        }
        lines.push(format!("  - name: {}", set.name.as_deref().unwrap_or("rules")));
        lines.push(format!("    rules: [{}]", patterns(set, &graded).join(", ")));
        lines.push(format!("    scrape: {}s", set.scrape.as_secs()));
        lines.push(format!("    evaluate: {}s", set.evaluate.as_secs()));
        lines.extend(labels::yaml(&graded.labels, &graded::templates(&graded.labels, &grader.catalogue), 4));
        lines.push("    expect:".to_owned());
        lines.extend(expectations(&graded.card, set.evaluate.as_secs_f64(), until));
    }
    out::lines(lines);
    Ok(ExitCode::SUCCESS)
}

/// Files as given, a pattern for each folder and ending.
fn patterns(set: &Set, graded: &Graded) -> Vec<String> {
    let mut patterns = BTreeSet::new();
    for input in &set.inputs {
        let Input::Path(path) = input else { continue };
        if !path.is_dir() {
            patterns.insert(path.display().to_string());
            continue;
        }
        let files = graded.rules.groups.iter().map(|group| std::path::Path::new(&*group.file));
        for ending in files.filter(|file| file.starts_with(path)).filter_map(|file| file.extension()?.to_str()) {
            patterns.insert(path.join("**").join(format!("*.{ending}")).display().to_string());
        }
    }
    patterns.into_iter().map(|pattern| Value::String(pattern).to_string()).collect()
}

fn expectations(card: &Scorecard, evaluate: f64, until: Date) -> Vec<String> {
    let mut lines = Vec::new();
    for incident in &card.incidents {
        let scope = if incident.base { &incident.incident } else { &incident.scenario };
        let key = if incident.base { "incident" } else { "scenario" };
        let alerts = alerts(card, incident);
        if !alerts.values().any(|(level, _)| *level <= Level::Symptom) {
            lines.push(format!("      - {{ {key}: {scope}, miss: no alert says so yet, until: {until} }}"));
        }
        for (alert, (level, after)) in alerts {
            // One more evaluation: where scrapes fall relative to the fault is chance.
            let within = ((after / evaluate).ceil() + 1.0) * evaluate;
            let (alert, level) = (Value::String(alert.to_owned()), level.as_str());
            lines.push(format!("      - {{ alert: {alert}, {key}: {scope}, level: {level}, within: {within:.0}s }}"));
        }
    }
    lines
}

/// The alerts that warn in an incident in time, with level and time.
fn alerts<'a>(card: &'a Scorecard, incident: &Incident) -> BTreeMap<&'a str, (Level, f64)> {
    let mut alerts: BTreeMap<&str, (Level, f64)> = BTreeMap::new();
    let trials = incident.trials.iter().filter_map(|n| card.trials.get(*n));
    for warning in trials.flat_map(|trial| &trial.warnings).filter(|warning| warning.pages() && !warning.late) {
        let Some(level) = warning.level else { continue };
        let entry = alerts.entry(&warning.rule.name).or_insert((level, warning.after));
        *entry = (entry.0.min(level), entry.1.min(warning.after));
    }
    alerts
}
