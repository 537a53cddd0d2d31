//! `relapse alerts`: alerting rules graded against recorded incidents, without root or cluster.
//!
//! [`set`] finds the rules and how they are to be read, [`recordings`] what they are graded against, [`graded`] grades.
//! Each subcommand is a module of its own.

mod explain;
mod export;
mod graded;
mod labels;
pub mod recordings;
mod set;
mod suggest;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use relapse_alerts::report::scorecard::{FORMAT, Scorecard};
use relapse_alerts::report::{against, html, markdown, text};
use relapse_alerts::rules::Input;

use super::{Refused, out};
use graded::Grader;
use set::{Chosen, Set};

/// Grade alerting rules against recorded incidents.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:
  relapse alerts my-rules/                 files, folders, PrometheusRule objects
  helm template my-chart | relapse alerts -
  relapse alerts                           the rules and expectations of relapse.yaml
  relapse alerts my-rules/ --report alerts.html
  relapse alerts my-rules/ --against old-rules/
  relapse alerts explain CoreDNSDown I3 my-rules/
  relapse alerts suggest my-rules/ > relapse.yaml

Needs promtool (of Prometheus 2.42 or later) in PATH, $PROMTOOL or ~/.cache/relapse/tools; without it,
verdicts that reading alone settles are printed. Needs no root, lab or cluster.

Exit status: 0 all expectations of relapse.yaml hold, 1 some do not, 64 bad input."
)]
pub struct AlertsArguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Rule files, folders of them, or - for standard input (default: `alerts` of relapse.yaml).
    paths: Vec<String>,
    #[command(flatten)]
    options: GradeOptions,
    /// Print the labels of each exporter's targets, as `labels` of relapse.yaml, and end.
    #[arg(long)]
    labels: bool,
    /// Print the scorecards as one JSON array.
    #[arg(long)]
    json: bool,
    /// Also write a report: FILE.html, FILE.md or FILE.json. May be repeated.
    #[arg(long, value_name = "FILE", value_parser = report_file)]
    report: Vec<PathBuf>,
    /// Show what changed since earlier rules (files or a folder) or an earlier report (FILE.json).
    #[arg(long, value_name = "OLD", conflicts_with = "json")]
    against: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct GradeOptions {
    /// Variants of the incidents too, not only the base scenario of each.
    #[arg(long)]
    all: bool,
    /// Grade against the recordings in this folder, written by `relapse run --record-series FOLDER`.
    #[arg(long, value_name = "FOLDER")]
    recordings: Option<PathBuf>,
    /// The file with the rules and what must fire (default: relapse.yaml, if it exists).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How often targets are scraped (default: 15s).
    #[arg(long, value_name = "TIME", value_parser = set::interval)]
    scrape: Option<std::time::Duration>,
    /// How often rules are evaluated, if their group does not say so (default: 30s).
    #[arg(long, value_name = "TIME", value_parser = set::interval)]
    evaluate: Option<std::time::Duration>,
}

impl GradeOptions {
    /// As they were given, for a command that can be pasted.
    fn words(&self) -> Vec<String> {
        let file = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let seconds = |time: Option<std::time::Duration>| time.map(|time| format!("{}s", time.as_secs()));
        let valued = [
            ("--recordings", file(&self.recordings)),
            ("--config", file(&self.config)),
            ("--scrape", seconds(self.scrape)),
            ("--evaluate", seconds(self.evaluate)),
        ];
        let valued = valued.into_iter().filter_map(|(option, value)| Some([option.to_owned(), value?]));
        self.all.then(|| "--all".to_owned()).into_iter().chain(valued.flatten()).collect()
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the parts of a rule's expression over an incident, and where it fails to be true.
    Explain(explain::ExplainArguments),
    /// Write `alerts` of relapse.yaml: what fires now must fire in future.
    Suggest(suggest::SuggestArguments),
    /// Write promtool test files with the recorded series of incidents.
    Export(export::ExportArguments),
}

fn report_file(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("html" | "md" | "json") => Ok(path),
        _ => Err("the name must end in .html, .md or .json".to_owned()),
    }
}

pub fn main(arguments: &AlertsArguments) -> Result<ExitCode, Refused> {
    match &arguments.command {
        Some(Command::Explain(arguments)) => return explain::main(arguments),
        Some(Command::Suggest(arguments)) => return suggest::main(arguments),
        Some(Command::Export(arguments)) => return export::main(arguments),
        None => {}
    }
    let chosen = Chosen::find(&arguments.paths, &arguments.options)?;
    let grader = Grader::new(&arguments.options)?;
    if arguments.labels {
        for set in &chosen.sets {
            labels::print(&graded::read(set)?, set, &grader.catalogue);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let all = arguments.options.all;
    let before = arguments.against.as_deref().map(|old| earlier(old, &chosen, &grader, all)).transpose()?;
    let page = out::page();
    let mut cards = Vec::new();
    for (n, set) in chosen.sets.iter().enumerate() {
        let rules = graded::read(set)?;
        if !arguments.json {
            if n > 0 {
                out::line("");
            }
            if let Some(name) = &set.name {
                out::line(page.strong(name));
            }
            out::line(grader.first_line(&rules));
        }
        let graded = grader.grade(set, rules, all)?;
        if !arguments.json {
            out::lines(text::lines(&graded.card, page, &arguments.options.words(), &arguments.paths));
            grader.hint_promtool(page);
            if let Some(before) = &before {
                out::line("");
                match same(&graded.card, before, chosen.sets.len()) {
                    Some(before) => out::lines(against::lines(&graded.card, before, page)),
                    None => out::lines(["before: no rules of this name".to_owned()]),
                }
            }
        }
        cards.push(graded.card);
    }
    if arguments.json {
        out::line(serde_json::to_string_pretty(&cards).unwrap_or_default());
    }
    for file in &arguments.report {
        write(file, &cards)?;
    }
    Ok(ExitCode::from(u8::from(!cards.iter().all(Scorecard::holds))))
}

/// The earlier scorecard to compare with: that of the same name, or the only one if there is one set.
fn same<'a>(card: &Scorecard, before: &'a [Scorecard], sets: usize) -> Option<&'a Scorecard> {
    match before {
        [only] if sets == 1 => Some(only),
        all => all.iter().find(|before| before.name == card.name),
    }
}

/// The scorecards of earlier rules, or those in an earlier report.
fn earlier(old: &Path, chosen: &Chosen, grader: &Grader, all: bool) -> Result<Vec<Scorecard>, Refused> {
    let failed = |why: &str| format!("--against {}: {why}", old.display());
    if !old.exists() {
        return Err(failed("no such file or folder").into());
    }
    if old.is_file() && old.extension().is_some_and(|ending| ending == "json") {
        let text = std::fs::read_to_string(old).map_err(|e| failed(&e.to_string()))?;
        // Rules are an object.
        if let Ok(serde_json::Value::Array(cards)) = serde_json::from_str(&text) {
            let cards = cards.into_iter().map(|card| serde_json::from_value::<Scorecard>(card).ok());
            let cards: Option<Vec<Scorecard>> = cards.map(|card| card.filter(|card| card.format == FORMAT)).collect();
            return Ok(cards.ok_or_else(|| failed("it is not a report of this format"))?);
        }
    }
    let [set] = chosen.sets.as_slice() else {
        return Err(failed("earlier rules are compared with one set of rules: name its files, or give a report").into());
    };
    // The same settings, without expectations: these are about the present rules.
    let set = Set { inputs: vec![Input::Path(old.to_owned())], expect: Vec::new(), ..set.clone() };
    Ok(vec![grader.grade(&set, graded::read(&set)?, all)?.card])
}

fn write(file: &Path, cards: &[Scorecard]) -> Result<(), Refused> {
    let text = match file.extension().and_then(|ending| ending.to_str()) {
        Some("html") => html::html(cards),
        Some("md") => cards.iter().map(markdown::markdown).collect::<Vec<_>>().join("\n"),
        _ => serde_json::to_string_pretty(cards).unwrap_or_default() + "\n",
    };
    std::fs::write(file, text).map_err(|e| format!("failed to write {}: {e}", file.display()).into())
}
