//! `relapse replay`: feeds recorded signals to the detectors, on any machine.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use relapse_detectors::finding::{Finding, Severity};
use relapse_detectors::record;
use relapse_detectors::replay::{self, Complaint};
use relapse_detectors::time::Time;
use relapse_detectors::triage::Triaged;
use relapse_reports::paint::Page;
use relapse_reports::triage as where_to_look;
use relapse_reports::units::count;
use relapse_reports::words::{self, Tone};
use serde::Serialize;

use super::out;

/// Feed recorded signals to the detectors.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  relapse run policy-route-lost --record recordings
  relapse replay recordings/policy-route-lost.jsonl
  relapse replay --complain app-database=timeout recordings/policy-route-lost.jsonl
  relapse replay --json recordings | jq -c '.finding | [.detector, .severity, .subject]'

Needs no privileges and no lab: a recording gives the same findings on every machine.")]
pub struct ReplayArguments {
    /// Recordings, or folders of them, written by `relapse run --record FOLDER`.
    #[arg(required = true)]
    recordings: Vec<PathBuf>,
    /// Print findings as JSON lines.
    #[arg(long)]
    json: bool,
    /// Triage, as if users of a flow complained all the time: FLOW=OUTCOME with timeout, refused, name-error, failed,
    /// slow or http-STATUS.
    #[arg(long, value_name = "FLOW=OUTCOME")]
    complain: Option<Complaint>,
}

#[derive(Serialize)]
struct ReplayedFinding<'a> {
    recording: &'a Path,
    /// `CLOCK_MONOTONIC` of the recording, nanoseconds.
    at: Time,
    finding: &'a Finding,
}

pub fn main(arguments: &ReplayArguments) -> ExitCode {
    let mut bad = false;
    for named in &arguments.recordings {
        let (files, wrong) = match recordings(named) {
            Ok(files) if files.is_empty() => (files, Some("no recordings (*.jsonl) in this folder".to_owned())),
            Ok(files) => (files, None),
            Err(e) => (Vec::new(), Some(e.to_string())),
        };
        if let Some(why) = wrong {
            eprintln!("relapse: {}: {why}", named.display());
            bad = true;
        }
        for path in &files {
            let file = File::open(path).map_err(|e| e.to_string());
            if let Some(complaint) = &arguments.complain {
                let file =
                    file.and_then(|file| replay::triage(BufReader::new(file), complaint).map_err(|e| super::chain(&e)));
                match file {
                    Ok(Some(verdicts)) => show_triage(path, &verdicts, arguments.json),
                    Ok(None) => {
                        eprintln!("relapse: {}: it has no flow {}", path.display(), complaint.flow);
                        bad = true;
                    }
                    Err(why) => {
                        eprintln!("relapse: {}: {why}", path.display());
                        bad = true;
                    }
                }
                continue;
            }
            match file.and_then(|file| record::replay(BufReader::new(file)).map_err(|e| super::chain(&e))) {
                Ok(findings) => show(path, &findings, arguments.json),
                Err(why) => {
                    eprintln!("relapse: {}: {why}", path.display());
                    bad = true;
                }
            }
        }
    }
    ExitCode::from(if bad { super::BAD_INPUT } else { 0 })
}

/// The file itself, or the recordings in a folder, sorted by name.
fn recordings(named: &Path) -> io::Result<Vec<PathBuf>> {
    if !named.is_dir() {
        return Ok(vec![named.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(named)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn show(path: &Path, findings: &[(Time, Finding)], json: bool) {
    if json {
        let replayed = findings.iter().map(|(at, finding)| ReplayedFinding { recording: path, at: *at, finding });
        out::lines(replayed.map(|one| serde_json::to_string(&one).unwrap_or_default()));
        return;
    }
    let page = out::page();
    out::line(format!("{}: {}", page.strong(&path.display().to_string()), count(findings.len(), "finding")));
    let first = findings.first().map_or(Time(0), |(at, _)| *at);
    let detector = findings.iter().map(|(_, finding)| finding.detector.len()).max().unwrap_or(0);
    let subject = findings.iter().map(|(_, finding)| finding.subject.to_string().len()).max().unwrap_or(0);
    let line = |(at, finding): &(Time, Finding)| {
        format!(
            "  +{:>8.1} ms  {}  {:<7}  {:<detector$}  {:<subject$}  {}",
            at.since(first).as_secs_f64() * 1e3,
            state(finding, page),
            words::level(finding.level),
            finding.detector,
            finding.subject.to_string(),
            page.paint(Tone::Muted, &words::one_line(&finding.evidence))
        )
    };
    out::lines(findings.iter().map(line));
}

/// Each verdict of triage when it changed, and the steps of the last one.
fn show_triage(path: &Path, verdicts: &[(Time, Triaged)], json: bool) {
    if json {
        out::lines(verdicts.iter().map(|one| serde_json::to_string(one).unwrap_or_default()));
        return;
    }
    let page = out::page();
    out::line(format!("{}: {}", page.strong(&path.display().to_string()), count(verdicts.len(), "verdict")));
    let first = verdicts.first().map_or(Time(0), |(at, _)| *at);
    let line = |(at, triaged): &(Time, Triaged)| {
        format!("  +{:>8.1} ms  {}", at.since(first).as_secs_f64() * 1e3, where_to_look::sentence(triaged))
    };
    out::lines(verdicts.iter().map(line));
    let steps = verdicts.last().into_iter().flat_map(|(_, triaged)| where_to_look::lines(triaged));
    out::lines(steps.map(|(tone, text)| page.paint(tone, &format!("    {text}"))));
}

fn state(finding: &Finding, page: Page) -> String {
    let tone = match finding.severity {
        _ if finding.cleared => Tone::Good,
        Severity::Info => Tone::Muted,
        Severity::Warning => Tone::Unsure,
        Severity::Critical => Tone::Bad,
    };
    let word = if finding.cleared { "cleared" } else { words::severity(finding.severity) };
    page.paint(tone, &format!("{word:<8}"))
}
