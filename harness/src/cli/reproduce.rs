//! `relapse reproduce`: stops with the fault in force for manual inspection.
//!
//! The run stays in the main thread and prints its progress. The prompt has a thread of its own, which may still be
//! waiting for a line when the run ends.

mod look;
mod prompt;
mod story;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use clap::Args;
use relapse_detectors::operator::Knowledge;
use relapse_kernel::process::take_terminal;
use relapse_lab::fault::Requirement;
use relapse_lab::host::Consent;
use relapse_model::diagnostics::{Diagnostic, Diagnostics, did_you_mean};

use self::story::Story;
use super::run::Chosen;
use super::{Refused, out};
use crate::config::Config;
use crate::event::RunEvent;
use crate::plan::Plan;
use crate::run::{self, Interrupt, Options, hold};

/// Reproduce one incident.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  relapse reproduce policy-route-lost
  relapse reproduce policy-route-lost --exec 'node/worker-2: ip rule; ip route show table 2'
  relapse reproduce conntrack-cap-reset --allow-host-writes
  sudo relapse reproduce policy-route-lost --backend kind

Programs run inside the lab: what they change there ends with it. No packet leaves the lab.
On kind they run as root in the network of a node, pod or office, and see the processes and files of this machine.")]
pub struct ReproduceArguments {
    /// Name or file of the scenario.
    scenario: String,
    /// Where to run: in a lab, or on a real cluster made by kind.
    #[arg(long, value_parser = Chosen::parser(), default_value = "netns")]
    backend: Chosen,
    /// Node image for the kind cluster. Also set by RELAPSE_KIND_IMAGE.
    #[arg(long, value_name = "IMAGE")]
    kind_image: Option<String>,
    /// Allow the fault to write machine-wide settings (nf_conntrack_max); they are journaled and restored.
    #[arg(long)]
    allow_host_writes: bool,
    /// Run this command while the fault is in force, then heal, instead of opening a prompt. Repeatable.
    #[arg(long, value_name = "PLACE: COMMAND")]
    exec: Vec<Exec>,
}

/// A shell command and the place where it runs.
#[derive(Debug, Clone)]
struct Exec {
    place: String,
    command: String,
}

impl FromStr for Exec {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once(':').map(|(place, command)| (place.trim(), command.trim()));
        let parts = parts.filter(|(place, command)| !place.is_empty() && !command.is_empty());
        let (place, command) = parts.ok_or("expected PLACE: COMMAND, such as `node/worker-1: ip route`")?;
        Ok(Self { place: place.to_owned(), command: command.to_owned() })
    }
}

pub fn main(arguments: &ReproduceArguments) -> Result<ExitCode, Refused> {
    let plan = the_one(&arguments.scenario)?;
    let places = hold::place_names(plan.cluster_of(&plan.incident_trial));
    if let Some(wrong) = arguments.exec.iter().find(|exec| !places.contains(&exec.place)) {
        let meant = did_you_mean(&wrong.place, "places", places.iter().map(String::as_str));
        return Err(format!("--exec: {} has no place {}\n  {meant}", plan.name, wrong.place).into());
    }
    let run_id = super::run::run_id();
    let mut backends = arguments.backend.backends(&run_id, arguments.kind_image.as_deref(), Path::new("reports"), 1);
    let (Some(backend), true) = (backends.pop(), backends.is_empty()) else {
        return Err("--backend all: reproduce runs on one backend at a time".to_owned().into());
    };
    let options = Options {
        run_id,
        backends: vec![Arc::clone(&backend)],
        jobs: 1,
        operator: Knowledge::Right,
        repeat: 1,
        deadline_factor: 1.0,
        consent: Consent::from_environment(arguments.allow_host_writes),
        require: Vec::new(),
        record: None,
        series: None,
        config: Config::default(),
        sabotage: None,
        only: vec![(plan.name.clone(), None)],
        hold: true,
        executable: None,
    };
    super::able(&options.backends)?;
    if let Some(why) = run::skip_reason(&plan, None, &backend, &options) {
        return Err(format!("{} cannot be reproduced: {why}", plan.name).into());
    }
    Ok(reproduce(plan, &options, &arguments.exec))
}

fn the_one(scenario: &str) -> Result<Plan, Diagnostics> {
    let found = super::find(&[scenario.to_owned()])?;
    let count = found.len();
    match <[Plan; 1]>::try_from(found) {
        Ok([plan]) => Ok(plan),
        Err(_) => Err(Diagnostic::of_file(scenario, format!("contains {count} scenarios; reproduce takes one")).into()),
    }
}

fn reproduce(plan: Plan, options: &Options, exec: &[Exec]) -> ExitCode {
    // With --exec, standard output contains only the output of commands.
    let printer = if exec.is_empty() { Printer::Output } else { Printer::Errors };
    let plans = [plan];
    let [plan] = &plans;
    let story = Arc::new(Mutex::new(Story::new(plan)));
    let interrupt = Interrupt::default();
    super::run::catch_signals(&interrupt);
    for recovered in super::run::left_by_others() {
        printer.print(&[recovered]);
    }
    printer.print(&[printer.page().strong(&format!("{} {}  {}", plan.incident, plan.name, plan.title))]);
    let mut changes = plan.incident_trial.changes();
    if options.consent.is_granted() && changes.any(|f| f.requires().into_iter().any(Requirement::writes_limit)) {
        printer.print(&[Consent::touches().to_owned()]);
    }
    let (visitor, host) = hold::pair();
    let session = prompt::Session {
        visitor,
        story: Arc::clone(&story),
        printer,
        name: plan.name.clone(),
        look: look::at(plan),
        is_chain: plan.incident_trial.is_chain(),
    };
    let exec = exec.to_vec();
    // Not joined: it may still be waiting for a line when the run ends.
    std::thread::spawn(move || session.hold(&exec));
    let mut sink = |event: &RunEvent| {
        let lines = story.lock().unwrap_or_else(PoisonError::into_inner).update(event, printer.page());
        printer.print(&lines);
    };
    let outcome = run::reproduce(&plans, options, &interrupt, &mut sink, &host);
    // A shell that was killed may have kept the terminal.
    let _ = take_terminal();
    let story = story.lock().unwrap_or_else(PoisonError::into_inner);
    printer.print(&story.end(outcome, printer.page()));
    ExitCode::from(story.outcome(outcome).exit_code())
}

/// Where progress is printed.
#[derive(Debug, Clone, Copy)]
enum Printer {
    Output,
    Errors,
}

impl Printer {
    fn page(self) -> relapse_reports::paint::Page {
        match self {
            Self::Output => out::page(),
            Self::Errors => out::error_page(),
        }
    }

    fn print(self, lines: &[String]) {
        match self {
            Self::Output => out::lines(lines),
            Self::Errors => lines.iter().for_each(|line| {
                let _ = writeln!(std::io::stderr().lock(), "{line}");
            }),
        }
    }
}
