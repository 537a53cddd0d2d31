//! Every scenario and every benign twin as a test of its own, over real labs.
//!
//! `cargo scenarios` runs all, `cargo scenarios policy` those with "policy" in their name. Listing
//! needs no rights and makes nothing. A trial that this machine cannot run is ignored and its reason
//! printed; where `RELAPSE_REQUIRE` names the backend it fails instead. Inconclusive is a failure.

mod support {
    pub mod in_process;
    pub mod shipped;
    pub mod skips;
    pub mod spread;
}

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use relapse::event::Outcome;
use relapse::plan::Plan;
use relapse::run;
use support::in_process::{options, run_one};
use support::{shipped, skips, spread};

/// Trials mostly wait: more of them fit than there are processors. Those that find no room on the
/// machine wait by themselves.
const THREADS_PER_PROCESSOR: usize = 6;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS_PER_PROCESSOR * run::processors());
    let mut trials = Vec::new();
    for plan in shipped::plans() {
        let plan = Arc::new(plan);
        for planned in std::iter::once(&plan.incident_trial).chain(&plan.controls) {
            let waits = planned.inject.iter().any(|fault| !fault.requires().is_empty());
            trials.push((waits, trial(&plan, planned.control.clone())));
        }
    }
    let trials = spread::evenly(trials, |(waits, _)| *waits).into_iter().map(|(_, trial)| trial).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    if !arguments.list {
        skips::summarise();
    }
    conclusion.exit_code()
}

/// `policy-route-lost::netns` or `policy-route-lost::netns::table-rebuilt`.
fn trial(plan: &Arc<Plan>, control: Option<String>) -> Trial {
    let twin = control.as_ref().map(|name| format!("::{name}")).unwrap_or_default();
    let name = format!("{}::netns{twin}", plan.name);
    // Told before it is run, for runners that make a process of each trial and see only this.
    let skipped = run::skip_reason(plan, control.as_deref(), &options().backends[0], &options());
    if let Some(reason) = &skipped {
        skips::note(&name, reason);
    }
    let plan = Arc::clone(plan);
    let run = {
        let name = name.clone();
        move || replay(&name, &plan, control.as_deref())
    };
    Trial::ignorable_test(name, run).with_ignored_flag(skipped.is_some())
}

fn replay(name: &str, plan: &Plan, control: Option<&str>) -> Result<Completion, Failed> {
    let ran = run_one(plan, control, options(), &mut |_| {});
    for part in &ran.trial().reduced {
        skips::note(name, &format!("without {}: {}", part.what, part.why));
    }
    match ran.outcome {
        Outcome::Pass => Ok(Completion::Completed),
        Outcome::Skipped => skips::skip(name, &ran.trial().reasons().join("; ")),
        _ => Err(ran.lines().into()),
    }
}
