//! `relapse check`: validates scenarios without running them.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use relapse_model::diagnostics::{Diagnostic, Diagnostics};
use relapse_model::yaml::{self, Document};
use relapse_reports::units::count;

use super::Refused;
use crate::plan::Plan;
use crate::run::needs::too_many_files;
use crate::scenario::operator::OperatorFacts;

/// Validate scenario files.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  relapse check
  relapse check my-scenario.yaml more-scenarios/
  relapse check scenarios/operators/tickets.yaml

Reports all errors at once, with their places. Exit status: 0 valid, 64 invalid.")]
pub struct CheckArguments {
    /// Names, files or folders (default: everything in scenarios/).
    scenarios: Vec<String>,
}

pub fn main(arguments: &CheckArguments) -> Result<ExitCode, Refused> {
    let (facts, scenarios): (Vec<_>, Vec<_>) = arguments.scenarios.iter().cloned().partition(|text| is_facts(text));
    let mut wrong = Diagnostics::default();
    for file in &facts {
        let source = yaml::read(Path::new(file), OperatorFacts::NOUN).map_err(Diagnostics::from);
        wrong.extend(source.and_then(|source| yaml::parse::<OperatorFacts>(&source)).err().into_iter().flatten());
    }
    if !facts.is_empty() && scenarios.is_empty() {
        wrong.into_result(())?;
        super::out::line(format_args!("{}: valid", count(facts.len(), "file of operators' facts")));
        return Ok(ExitCode::SUCCESS);
    }
    let plans = match super::find(&scenarios) {
        Ok(plans) => plans,
        Err(others) => {
            wrong.extend(others);
            return Err(wrong.into());
        }
    };
    // A user's scenario may hold more connections than this machine allows.
    let why = |plan: &Plan| too_many_files(plan.open_files()).map(|why| Diagnostic::of_file(&plan.file, why));
    wrong.extend(plans.iter().filter_map(why));
    wrong.into_result(())?;
    let controls: usize = plans.iter().map(|plan| plan.controls.len()).sum();
    let (scenarios, controls) = (count(plans.len(), "scenario"), count(controls, "control"));
    super::out::line(format_args!("{scenarios} with {controls}: valid"));
    Ok(ExitCode::SUCCESS)
}

/// Whether this file holds operators' facts, not a scenario. Without a scenario only its form can be checked.
fn is_facts(path: &str) -> bool {
    let text = yaml::read(Path::new(path), OperatorFacts::NOUN).ok().map(|source| source.text);
    text.is_some_and(|text| text.lines().any(|line| line.trim_end() == "kind: Operator"))
}
