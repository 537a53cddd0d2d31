//! `relapse check`: validates scenarios without running them.

use std::process::ExitCode;

use clap::Args;
use relapse_model::diagnostics::{Diagnostic, Diagnostics};
use relapse_reports::units::count;

use super::Refused;
use crate::plan::Plan;
use crate::run::needs::too_many_files;

/// Validate scenario files.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  relapse check
  relapse check my-scenario.yaml more-scenarios/

Reports all errors at once, with their places. Exit status: 0 valid, 64 invalid.")]
pub struct CheckArguments {
    /// Names, files or folders (default: everything in scenarios/).
    scenarios: Vec<String>,
}

pub fn main(arguments: &CheckArguments) -> Result<ExitCode, Refused> {
    let plans = super::find(&arguments.scenarios)?;
    // A user's scenario may hold more connections than this machine allows.
    let mut wrong = Diagnostics::default();
    let why = |plan: &Plan| too_many_files(plan.open_files()).map(|why| Diagnostic::of_file(&plan.file, why));
    wrong.extend(plans.iter().filter_map(why));
    wrong.into_result(())?;
    let controls: usize = plans.iter().map(|plan| plan.controls.len()).sum();
    let (scenarios, controls) = (count(plans.len(), "scenario"), count(controls, "control"));
    super::out::line(format_args!("{scenarios} with {controls}: valid"));
    Ok(ExitCode::SUCCESS)
}
