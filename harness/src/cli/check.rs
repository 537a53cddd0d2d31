//! `relapse check`: validates without running.

use std::process::ExitCode;

use clap::Args;
use relapse_reports::units::count;

/// Validate scenario files.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  relapse check
  relapse check my-scenario.yaml more-scenarios/

Everything that is wrong is told at once, with its place. Exit status: 0 valid, 64 not.")]
pub struct CheckArguments {
    /// Names, files or folders; everything in scenarios/ when none is given.
    scenarios: Vec<String>,
}

pub fn main(arguments: &CheckArguments) -> ExitCode {
    match super::find(&arguments.scenarios) {
        Ok(plans) => {
            let controls: usize = plans.iter().map(|plan| plan.controls.len()).sum();
            let (scenarios, controls) = (count(plans.len(), "scenario"), count(controls, "control"));
            super::out::line(format_args!("{scenarios} with {controls}: valid"));
            ExitCode::SUCCESS
        }
        Err(diagnostics) => super::refuse(&diagnostics),
    }
}
