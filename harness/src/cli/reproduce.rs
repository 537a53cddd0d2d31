//! `relapse reproduce`: stops with the fault in force, for somebody to look around.

use std::process::ExitCode;

use clap::Args;

/// Reproduce one incident.
#[derive(Debug, Args)]
pub struct ReproduceArguments {
    /// Name or file of the scenario.
    scenario: String,
    /// Let the fault write machine-wide settings.
    #[arg(long)]
    allow_host_writes: bool,
}

pub fn main(arguments: &ReproduceArguments) -> ExitCode {
    super::run::reproduce(&arguments.scenario, arguments.allow_host_writes)
}
