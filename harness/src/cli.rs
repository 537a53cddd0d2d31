//! The command line.

mod alerts;
mod check;
mod doctor;
mod init;
mod list;
mod out;
mod recover;
mod replay;
mod report;
mod reproduce;
mod run;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory, Parser, Subcommand};
use relapse_lab::cluster::backend::Backend;
use relapse_model::diagnostics::{Diagnostic, Diagnostics, did_you_mean};
use relapse_model::yaml;

use crate::plan::{self, Plan};
use crate::scenario::Scenario;
use crate::scenario::operator::OperatorFacts;
use crate::shipped;

/// Exit status for bad input (`EX_USAGE` of sysexits.h).
const BAD_INPUT: u8 = 64;

/// Replays published Kubernetes network incidents and proves that detectors catch each one in time.
#[derive(Debug, Parser)]
#[command(
    version,
    max_term_width = 100,
    after_help = "Examples:
  relapse run                          replay everything in scenarios/
  relapse run policy-route-lost        one incident with its benign twins
  relapse run --repeat 50 mss-clamp-raised
                                       how long detection takes: p50, p95, max, and flakes
  relapse reproduce policy-route-lost  stop with the fault in force and look around
  relapse check my-scenario.yaml       validate a file without running it
  relapse alerts my-rules/             which incidents your Prometheus rules would have caught
  relapse init                         start a repository of your own

Exit status: 0 pass, 1 a detection failed, 2 inconclusive, 3 something was left behind,
64 bad input, 70 a bug in relapse."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Replay scenarios and judge what the detectors report.
    Run(run::RunArguments),
    /// List scenarios with their controls and expectations.
    List(list::ListArguments),
    /// Validate scenario files without running anything.
    Check(check::CheckArguments),
    /// Stop with the fault in force, suggest commands and open shells.
    Reproduce(reproduce::ReproduceArguments),
    /// Feed recorded signals to the detectors again; needs no privileges.
    Replay(replay::ReplayArguments),
    /// Restore what a killed run left behind on this machine.
    #[command(after_help = "Example:
  sudo relapse recover

Needs no scenario: the journal lists what to restore. Every command that runs trials does the same
first. Exit status: 0 nothing is left, 3 something could not be restored.")]
    Recover,
    /// Show what this machine can and cannot run, and how to fix it.
    #[command(after_help = "Example:
  relapse doctor

Changes nothing. Exit status: 0 labs can run here, 1 they cannot.")]
    Doctor,
    /// Write a first scenario, relapse.yaml with a detector, and a workflow for CI.
    Init(init::InitArguments),
    /// Recreate reports from the events of one or more runs.
    Report(report::ReportArguments),
    /// Grade Prometheus alerting rules against recorded incidents; needs no privileges.
    Alerts(alerts::AlertsArguments),
    /// Print shell completions.
    #[command(after_help = "Examples:
  relapse completions bash > ~/.local/share/bash-completion/completions/relapse
  relapse completions fish > ~/.config/fish/completions/relapse.fish")]
    Completions {
        /// Shell to generate completions for.
        shell: clap_complete::Shell,
    },
    /// Write man pages, one for each command.
    #[command(after_help = "Example:
  relapse man ~/.local/share/man/man1")]
    Man {
        /// Folder to write them to.
        folder: PathBuf,
    },
    /// Print the JSON Schema of scenario files.
    #[command(after_help = "Example:
  relapse schema > scenarios/schema.json
  relapse schema --operator > scenarios/operators/schema.json")]
    Schema {
        /// Of files of operators' facts (`cluster.operator`) instead.
        #[arg(long)]
        operator: bool,
    },
}

/// The default folder of scenarios.
const SCENARIOS: &str = "scenarios";

/// Entry point.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(e) => {
            // clap exits with 2, which means inconclusive here.
            let _ = e.print();
            return ExitCode::from(if e.use_stderr() { BAD_INPUT } else { 0 });
        }
    };
    let done = match arguments.command {
        Command::Run(arguments) => run::main(&arguments),
        Command::List(arguments) => list::main(&arguments),
        Command::Check(arguments) => check::main(&arguments),
        Command::Reproduce(arguments) => reproduce::main(&arguments),
        Command::Replay(arguments) => Ok(replay::main(&arguments)),
        Command::Recover => Ok(recover::main()),
        Command::Doctor => Ok(doctor::main()),
        Command::Init(arguments) => init::main(&arguments),
        Command::Report(arguments) => report::main(&arguments),
        Command::Alerts(arguments) => alerts::main(&arguments),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "relapse", &mut text);
            out::line(String::from_utf8_lossy(&text).trim_end());
            Ok(ExitCode::SUCCESS)
        }
        Command::Man { folder } => {
            let written = std::fs::create_dir_all(&folder)
                .and_then(|()| clap_mangen::generate_to(Arguments::command().disable_help_subcommand(true), &folder));
            match written {
                Ok(()) => Ok(ExitCode::SUCCESS),
                Err(e) => Err(Refused::Arguments(format!("failed to write to {}: {e}", folder.display()))),
            }
        }
        Command::Schema { operator } => {
            let schema = match operator {
                true => yaml::schema::<OperatorFacts>(),
                false => yaml::schema::<Scenario>(),
            };
            out::line(format_args!("{schema:#}"));
            Ok(ExitCode::SUCCESS)
        }
    };
    done.unwrap_or_else(|refused| {
        let errors = std::io::stderr();
        match refused {
            Refused::Files(wrong) => eprint!("{}", wrong.render_for(&errors)),
            Refused::Arguments(why) => eprintln!("relapse: {why}"),
            Refused::Unable(why) => {
                eprintln!("relapse: this machine cannot run labs: {why}\n  run `relapse doctor` for details");
                return ExitCode::from(crate::event::Outcome::Inconclusive.exit_code());
            }
        }
        ExitCode::from(BAD_INPUT)
    })
}

/// Why a command was refused; printed to standard error.
enum Refused {
    /// Errors in the user's files.
    Files(Diagnostics),
    /// Invalid arguments.
    Arguments(String),
    /// Labs cannot run here, so nothing is proved either way.
    Unable(String),
}

impl From<Diagnostics> for Refused {
    fn from(wrong: Diagnostics) -> Self {
        Self::Files(wrong)
    }
}

impl From<String> for Refused {
    fn from(why: String) -> Self {
        Self::Arguments(why)
    }
}

/// Checks that labs can run here, if they were chosen.
fn able(backends: &[Arc<dyn Backend>]) -> Result<(), Refused> {
    let labs = backends.iter().find(|backend| !backend.is_real_cluster());
    labs.and_then(|labs| labs.unable()).map_or(Ok(()), |why| Err(Refused::Unable(why)))
}

/// An error with its sources.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let message = inner.to_string();
        if !text.ends_with(&message) {
            text = format!("{text}: {message}");
        }
        source = inner.source();
    }
    text
}

/// Finds scenarios by name or path. By default: all of `scenarios/`, or all shipped ones if there is no such folder.
fn find(wanted: &[String]) -> Result<Vec<Plan>, Diagnostics> {
    let is_path = |text: &String| {
        let is_folder = || Path::new(text).is_dir() && shipped::scenario(text).is_none();
        text.contains('/') || text.ends_with(".yaml") || text.ends_with(".yml") || is_folder()
    };
    let (paths, names): (Vec<_>, Vec<_>) = wanted.iter().partition(|text| is_path(text));
    let mut files: Vec<PathBuf> = paths.into_iter().map(PathBuf::from).collect();
    let own = PathBuf::from(SCENARIOS);
    if names.is_empty() && files.is_empty() {
        files = if own.is_dir() { vec![own] } else { shipped::scenarios() };
        return plan::load(&files);
    }
    // For a name, read only the file with that name, so that errors in other files do not matter. Otherwise read the
    // whole folder, to distinguish an unknown name from an invalid file.
    let mut folder = None;
    let mut unknown = Diagnostics::default();
    for name in names {
        let file = own.join(format!("{name}.yaml"));
        if file.is_file() {
            files.push(file);
            continue;
        }
        let folder: &Vec<Plan> = match &mut folder {
            Some(folder) => folder,
            None if own.is_dir() => folder.insert(plan::load(std::slice::from_ref(&own))?),
            None => folder.insert(Vec::new()),
        };
        let named = folder.iter().find(|plan| plan.name == *name).map(|plan| plan.file.clone());
        match named.or_else(|| shipped::scenario(name)) {
            Some(file) => files.push(file),
            None => unknown.push(no_such_scenario(name, folder)),
        }
    }
    unknown.into_result(())?;
    plan::load(&files)
}

fn no_such_scenario(name: &str, folder: &[Plan]) -> Diagnostic {
    let shipped = shipped::scenarios();
    let stems = shipped.iter().filter_map(|file| file.file_stem()?.to_str());
    let names: BTreeSet<&str> = folder.iter().map(|plan| plan.name.as_str()).chain(stems).collect();
    Diagnostic::of_file(SCENARIOS, format!("there is no scenario {name}")).help(did_you_mean(name, "scenarios", names))
}
