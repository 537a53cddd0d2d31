//! `relapse replay`: recorded signals through the detectors again, on any machine.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use relapse_detectors::finding::Finding;
use relapse_detectors::record;
use relapse_detectors::time::Time;

/// Feed recorded signals to the detectors.
#[derive(Debug, Args)]
pub struct ReplayArguments {
    /// A recording (`relapse run --record FOLDER` makes them).
    #[arg(required = true)]
    recordings: Vec<PathBuf>,
    /// One finding a line, as JSON.
    #[arg(long)]
    json: bool,
}

pub fn main(arguments: &ReplayArguments) -> ExitCode {
    let mut bad = false;
    for path in &arguments.recordings {
        let replayed = File::open(path)
            .map_err(|e| e.to_string())
            .and_then(|file| record::replay(BufReader::new(file)).map_err(|e| e.to_string()));
        match replayed {
            Ok(findings) => show(path, &findings, arguments.json),
            Err(why) => {
                eprintln!("relapse: {}: {why}", path.display());
                bad = true;
            }
        }
    }
    ExitCode::from(if bad { super::BAD_INPUT } else { 0 })
}

fn show(path: &std::path::Path, findings: &[(Time, Finding)], json: bool) {
    if json {
        for (_, finding) in findings {
            println!("{}", serde_json::to_string(finding).unwrap_or_default());
        }
        return;
    }
    println!("{}: {} findings", path.display(), findings.len());
    let first = findings.first().map_or(Time(0), |(at, _)| *at);
    for (at, finding) in findings {
        let state =
            if finding.cleared { "cleared".to_owned() } else { format!("{:?}", finding.severity).to_lowercase() };
        println!(
            "  +{:>8.1} ms  {:<9} {:<22} {:<24} {}",
            at.since(first).as_secs_f64() * 1e3,
            state,
            finding.detector,
            finding.subject.to_string(),
            finding.evidence
        );
    }
}
