//! `relapse list`: scenarios, their controls, what they expect and what they need.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use crate::fault::Requirement;
use crate::plan::{Plan, TrialPlan};

/// List scenarios.
#[derive(Debug, Args)]
pub struct ListArguments {
    /// Names, files or folders; everything in scenarios/ when none is given.
    scenarios: Vec<String>,
    /// Machine-readable.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Listed<'a> {
    name: &'a str,
    incident: &'a str,
    title: &'a str,
    file: &'a std::path::Path,
    expects: Vec<String>,
    controls: Vec<&'a str>,
    writes_host: bool,
}

pub fn main(arguments: &ListArguments) -> ExitCode {
    let plans = match super::find(&arguments.scenarios) {
        Ok(plans) => plans,
        Err(diagnostics) => return super::refuse(&diagnostics),
    };
    let listed: Vec<_> = plans.iter().map(describe).collect();
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&listed).unwrap_or_default());
        return ExitCode::SUCCESS;
    }
    for scenario in listed {
        println!("{}  {}", scenario.incident, scenario.name);
        println!("      {}", scenario.title);
        for expected in &scenario.expects {
            println!("      expects  {expected}");
        }
        println!("      controls {}", scenario.controls.join(", "));
        if scenario.writes_host {
            println!("      writes   nf_conntrack_max of this machine, with --allow-host-writes");
        }
    }
    ExitCode::SUCCESS
}

fn describe(plan: &Plan) -> Listed<'_> {
    let expects = plan.incident_trial.detect.iter().map(|expected| {
        let subject = expected.subject.as_ref().map(|subject| format!(" about {subject}")).unwrap_or_default();
        format!("{}{subject} within {:?}", expected.detector, expected.within)
    });
    let writes =
        |trial: &TrialPlan| trial.inject.iter().any(|fault| fault.requires().contains(&Requirement::ConntrackLimit));
    Listed {
        name: &plan.name,
        incident: &plan.incident,
        title: &plan.title,
        file: &plan.file,
        expects: expects.collect(),
        controls: plan.controls.iter().filter_map(|control| control.control.as_deref()).collect(),
        writes_host: writes(&plan.incident_trial),
    }
}
