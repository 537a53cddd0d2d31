//! `relapse alerts export`: incidents as test files of promtool.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use relapse_alerts::export::export;
use relapse_alerts::recording::Header;
use relapse_alerts::rule::RuleId;
use relapse_alerts::verdict::OfTrial;
use relapse_reports::units::count;

use super::GradeOptions;
use super::explain::incident;
use super::graded::{self, Grader};
use super::recordings::Packed;
use super::set::Chosen;
use crate::cli::{Refused, out};

/// Export incidents.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  relapse alerts export --output tests my-rules/
  relapse alerts export I2 --output tests my-rules/
  promtool test rules tests/*.test.yaml

Writes the recorded series and the alerts that fire: an incident lives on in the tests of the rules. A
first argument that is an incident or scenario selects it; the others are rules.")]
pub struct ExportArguments {
    /// An incident or scenario (default: all), then rule files or folders (default: `alerts` of relapse.yaml).
    arguments: Vec<String>,
    /// Folder for the files.
    #[arg(long, value_name = "FOLDER")]
    output: PathBuf,
    #[command(flatten)]
    options: GradeOptions,
}

pub fn main(arguments: &ExportArguments) -> Result<ExitCode, Refused> {
    let grader = Grader::new(&arguments.options)?;
    let (name, paths) = match arguments.arguments.split_first() {
        Some((first, rest)) if !std::path::Path::new(first).exists() && first != "-" => (Some(first), rest),
        _ => (None, arguments.arguments.as_slice()),
    };
    let incidents: Vec<&Packed> = match name {
        Some(name) => incident(&grader.recordings, name)?,
        None => grader.recordings.all.iter().filter(|packed| packed.header.base || arguments.options.all).collect(),
    };
    let incidents: Vec<&Packed> = incidents.into_iter().filter(|packed| packed.header.control.is_none()).collect();
    let chosen = Chosen::find(paths, &arguments.options)?;
    let failed = |e: std::io::Error| format!("--output {}: {e}", arguments.output.display());
    std::fs::create_dir_all(&arguments.output).map_err(failed)?;
    for set in &chosen.sets {
        let settings = grader.settings(set)?;
        let graded = grader.against(set, graded::read(set)?, &incidents, None)?;
        for (n, recording) in graded.recordings.iter().enumerate() {
            let fires = |id: &RuleId| matches!(graded.verdicts.trials.get(&(*id, n)), Some(OfTrial::Fires(_)));
            let ids: Vec<RuleId> = (0..graded.rules.rules.len()).map(RuleId).filter(fires).collect();
            let name = file_name(&recording.header, set.name.as_deref());
            if ids.is_empty() {
                out::line(format!("{name}: no alert fires, nothing to test"));
                continue;
            }
            let rules_file = format!("{name}.rules.yaml");
            let active = graded.verdicts.active(n);
            let exported = export(&graded.rules, &ids, recording, &active, &graded.labels, &settings, &rules_file);
            let exported = exported.map_err(|why| format!("failed to {why}"))?;
            let tests = arguments.output.join(format!("{name}.test.yaml"));
            std::fs::write(&tests, exported.tests).map_err(failed)?;
            std::fs::write(arguments.output.join(rules_file), exported.rules).map_err(failed)?;
            out::line(format!("{}: {}", tests.display(), count(exported.alerts, "alert")));
        }
    }
    out::line(format!("next: promtool test rules {}/*.test.yaml", arguments.output.display()));
    Ok(ExitCode::SUCCESS)
}

fn file_name(header: &Header, set: Option<&str>) -> String {
    let set = set.map(|name| format!("{name}-")).unwrap_or_default();
    format!("{set}{}-{}-{}", header.incident, header.scenario, header.backend)
}
