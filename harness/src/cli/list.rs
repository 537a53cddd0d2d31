//! `relapse list`: scenarios with their controls, expectations and requirements.

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::Args;
use relapse_alerts::recording::Exporter;
use relapse_detectors::registry::DetectorSet;
use relapse_lab::fault::Requirement;
use relapse_reports::event::Expectation;
use relapse_reports::paint::Page;
use relapse_reports::units::{bytes, count, limit};
use relapse_reports::words::{self, Tone};
use serde::Serialize;

use super::alerts::recordings::Recordings;
use super::{Refused, out};
use crate::plan::{Plan, TrialPlan};

/// List scenarios.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  relapse list
  relapse list policy-route-lost
  relapse list --shipped
  relapse list --detectors
  relapse list --recordings
  relapse list --json | jq -r '.[].name'")]
pub struct ListArguments {
    /// Names, files or folders (default: everything in scenarios/).
    scenarios: Vec<String>,
    /// List the scenarios built into relapse, not those in scenarios/.
    #[arg(long, conflicts_with = "scenarios")]
    shipped: bool,
    /// List the built-in detectors: what each detects, and what it can do without the operator's facts or with stale
    /// ones.
    #[arg(long, conflicts_with_all = ["scenarios", "shipped"])]
    detectors: bool,
    /// List the recordings that `relapse alerts` grades against: when and how each was made, and its size.
    #[arg(long, conflicts_with_all = ["scenarios", "shipped", "detectors"])]
    recordings: bool,
    /// Print one JSON array.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct ListedDetector {
    name: &'static str,
    incident: &'static str,
    level: &'static str,
    /// The kinds of subjects that its findings are about.
    subjects: Vec<&'static str>,
    what: &'static str,
    /// What it can do without the operator's facts, and with stale ones.
    facts: &'static str,
}

#[derive(Serialize)]
struct Listed<'a> {
    name: &'a str,
    incident: &'a str,
    title: &'a str,
    /// Replayed only if it is named, or with `--nightly`.
    nightly: bool,
    file: &'a std::path::Path,
    injects: Vec<&'static str>,
    /// Findings that detectors must report, standing risks first.
    expects: Vec<Expected>,
    controls: Vec<Control<'a>>,
    /// Needs `--allow-host-writes`.
    writes_host: bool,
}

#[derive(Serialize)]
struct Expected {
    detector: String,
    level: &'static str,
    subject: Option<String>,
    /// Milliseconds from the fault; `None` for a risk, which must be known before it.
    within_ms: Option<u128>,
    #[serde(skip)]
    within: Option<String>,
}

#[derive(Serialize)]
struct Control<'a> {
    name: &'a str,
    why: &'a str,
}

pub fn main(arguments: &ListArguments) -> Result<ExitCode, Refused> {
    if arguments.detectors {
        return Ok(detectors(arguments.json));
    }
    if arguments.recordings {
        return recordings(arguments.json);
    }
    let plans = if arguments.shipped {
        crate::plan::load(&crate::shipped::scenarios())
    } else {
        super::find(&arguments.scenarios)
    }?;
    let listed: Vec<_> = plans.iter().map(describe).collect();
    if arguments.json {
        out::line(serde_json::to_string_pretty(&listed).unwrap_or_default());
    } else {
        out::lines(table(&listed, out::page()));
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Serialize)]
struct ListedRecording<'a> {
    incident: &'a str,
    scenario: &'a str,
    control: Option<&'a str>,
    backend: &'a str,
    /// Of the scenario by which the incident is graded without `--all`.
    base: bool,
    made: &'a str,
    kernel: &'a str,
    exporters: BTreeSet<Exporter>,
    bytes: usize,
}

fn recordings(json: bool) -> Result<ExitCode, Refused> {
    let recordings = Recordings::find(None)?;
    let listed = recordings.all.iter().map(|packed| ListedRecording {
        incident: &packed.header.incident,
        scenario: &packed.header.scenario,
        control: packed.header.control.as_deref(),
        backend: &packed.header.backend,
        base: packed.header.base,
        made: &packed.header.made.at,
        kernel: &packed.header.made.kernel,
        exporters: packed.header.targets.iter().map(|target| target.exporter).collect(),
        bytes: packed.size(),
    });
    let listed: Vec<_> = listed.collect();
    if json {
        out::line(serde_json::to_string_pretty(&listed).unwrap_or_default());
        return Ok(ExitCode::SUCCESS);
    }
    let page = out::page();
    let name = |one: &ListedRecording<'_>| match one.control {
        Some(control) => format!("{}/{control}", one.scenario),
        None => one.scenario.to_owned(),
    };
    let width = listed.iter().map(|one| name(one).len()).max().unwrap_or(0);
    let lines = listed.iter().map(|one| {
        let facts = format!("{}  {:>8}  kernel {}", one.made, bytes(one.bytes as u64), one.kernel);
        let name = format!("{:<width$}", name(one));
        format!("{:<4} {name}  {:<5}  {}", one.incident, one.backend, page.paint(Tone::Muted, &facts))
    });
    out::lines(lines);
    let total: usize = listed.iter().map(|one| one.bytes).sum();
    out::line(format!("{}, {}", count(listed.len(), "recording"), bytes(total as u64)));
    Ok(ExitCode::SUCCESS)
}

fn detectors(json: bool) -> ExitCode {
    let listed = DetectorSet::info().iter().map(|info| ListedDetector {
        name: info.name,
        incident: info.incident,
        level: words::level(info.level),
        what: info.what,
        subjects: info.subjects.iter().map(|kind| kind.as_str()).collect(),
        facts: info.facts,
    });
    let listed: Vec<_> = listed.collect();
    if json {
        out::line(serde_json::to_string_pretty(&listed).unwrap_or_default());
        return ExitCode::SUCCESS;
    }
    let page = out::page();
    let lines = |one: &ListedDetector| {
        [
            format!(
                "{:<4} {}  {} about a {}",
                one.incident,
                page.strong(one.name),
                one.level,
                one.subjects.join(", a ")
            ),
            format!("     {}", one.what),
            format!("     {}", page.paint(Tone::Muted, one.facts)),
        ]
    };
    out::lines(listed.iter().flat_map(lines));
    ExitCode::SUCCESS
}

fn describe(plan: &Plan) -> Listed<'_> {
    let trial = &plan.incident_trial;
    let expected = |of: &Expectation, timed: bool| Expected {
        detector: of.detector.clone(),
        level: words::level(of.level),
        subject: of.subject.as_ref().map(ToString::to_string),
        within_ms: timed.then_some(of.within.as_millis()),
        within: timed.then(|| limit(of.within)),
    };
    let risks = plan.risks.iter().map(|risk| expected(risk, false));
    let writes = |trial: &TrialPlan| trial.changes().any(|f| f.requires().into_iter().any(Requirement::writes_limit));
    Listed {
        name: &plan.name,
        incident: &plan.incident,
        title: &plan.title,
        nightly: plan.nightly,
        file: &plan.file,
        injects: trial.steps.iter().flat_map(|step| &step.inject).map(|fault| fault.name).collect(),
        expects: risks.chain(trial.detect.iter().map(|of| expected(of, true))).collect(),
        controls: (plan.controls.iter())
            .map(|control| Control { name: control.control.as_deref().unwrap_or_default(), why: &control.why })
            .collect(),
        writes_host: writes(trial),
    }
}

/// One block for each scenario, with columns aligned across all blocks.
fn table(all: &[Listed<'_>], page: Page) -> Vec<String> {
    let expected = || all.iter().flat_map(|one| &one.expects);
    let subject = |of: &Expected| of.subject.clone().unwrap_or_else(|| "anything".into());
    let detector = expected().map(|of| of.detector.len()).max().unwrap_or(0);
    let about = expected().map(|of| subject(of).len()).max().unwrap_or(0);
    let control = all.iter().flat_map(|one| &one.controls).map(|control| control.name.len()).max().unwrap_or(0);
    let mut lines = Vec::new();
    for one in all {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        lines.push(format!("{:<4} {}  {}", one.incident, page.strong(one.name), one.title));
        lines.push(format!("     fault    {}", one.injects.join(", ")));
        for (n, of) in one.expects.iter().enumerate() {
            let within = of.within.as_ref().map_or_else(|| "standing".to_owned(), |within| format!("within {within}"));
            let head = if n == 0 { "expects" } else { "" };
            lines.push(format!(
                "     {head:<8} {:<detector$}  {:<7}  {:<about$}  {within}",
                of.detector,
                of.level,
                subject(of)
            ));
        }
        for (n, twin) in one.controls.iter().enumerate() {
            let head = if n == 0 { "controls" } else { "" };
            lines.push(format!("     {head:<8} {:<control$}  {}", twin.name, page.paint(Tone::Muted, twin.why)));
        }
        if one.nightly {
            let text = "only if it is named, or with --nightly";
            lines.push(format!("     replayed {}", page.paint(Tone::Note, text)));
        }
        if one.writes_host {
            let text = "nf_conntrack_max of this machine; as root, with --allow-host-writes";
            lines.push(format!("     writes   {}", page.paint(Tone::Note, text)));
        }
    }
    lines
}
