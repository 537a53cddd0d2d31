//! `relapse check`: validates without running.

use std::process::ExitCode;

use clap::Args;

/// Validate scenario files.
#[derive(Debug, Args)]
pub struct CheckArguments {
    /// Names, files or folders; everything in scenarios/ when none is given.
    scenarios: Vec<String>,
}

pub fn main(arguments: &CheckArguments) -> ExitCode {
    match super::find(&arguments.scenarios) {
        Ok(plans) => {
            let controls: usize = plans.iter().map(|plan| plan.controls.len()).sum();
            println!("{} scenarios with {controls} controls, all valid", plans.len());
            ExitCode::SUCCESS
        }
        Err(diagnostics) => super::refuse(&diagnostics),
    }
}
