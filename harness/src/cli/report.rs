//! `relapse report`: recreates reports from the events of one or several runs.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use relapse_reports::folder;
use relapse_reports::terminal::{Mode, closing};

use super::{Refused, out};

/// Recreate reports from events.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  relapse report reports/latest
  relapse report shard-1 shard-2 shard-3 shard-4 --output all
  relapse report reports/runs/*           detection times over runs

Several runs are merged into one report: shards form one matrix, and a trial replayed by several runs counts as
repeated. Exit status: that of the run, or the worst one.")]
pub struct ReportArguments {
    /// Folders of runs, or files of events, oldest first.
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// Folder for the reports. Default: next to the events of one run, reports/merged for several.
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
    /// One column per scenario in the matrix, instead of one per incident.
    #[arg(long)]
    wide: bool,
}

pub fn main(arguments: &ReportArguments) -> Result<ExitCode, Refused> {
    let remade = match (arguments.runs.as_slice(), &arguments.output) {
        ([run], None) => folder::from_events(run),
        (runs, output) => folder::from_runs(runs, output.as_deref().unwrap_or(Path::new("reports/merged"))),
    };
    let (folder, run) = remade.map_err(|e| format!("failed to {}", super::chain(&e)))?;
    out::lines(closing(&run, Some(&folder), arguments.wide, Mode::detect().page()));
    Ok(ExitCode::from(run.outcome().exit_code()))
}
