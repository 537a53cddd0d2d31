//! Every scenario and every benign twin as a test of its own, over real labs.
//!
//! Where real clusters are asked for, on kind clusters too, two at a time after those in labs: with
//! `RELAPSE_BACKEND` kind or all every one; where only `RELAPSE_REQUIRE` names kind, for a gate, those that
//! name their cluster (`kindConfig`), which is one for each incident, and one with the other kube-proxy.
//!
//! `cargo scenarios` runs all, `cargo scenarios policy` those with "policy" in their name. Listing
//! needs no rights, and makes a throw-away lab to see what can run here. A trial that this machine cannot
//! run is ignored and its reason printed; where `RELAPSE_REQUIRE` names the backend it fails instead.
//! Inconclusive is a failure.

mod support {
    pub mod asked;
    pub mod in_process;
    pub mod kept_cluster;
    pub mod shipped;
    pub mod skips;
    pub mod spread;
    pub mod turns;
}

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use relapse::event::Outcome;
use relapse::plan::Plan;
use relapse::run;
use relapse_lab::cluster::backend::{self, Backend};

use support::in_process::{labs, options, run_one};
use support::kept_cluster::Kept;
use support::{asked, shipped, skips, spread, turns};

/// Trials mostly wait: more of them fit than there are processors. Those that find no room on the
/// machine wait by themselves.
const THREADS_PER_PROCESSOR: usize = 6;

fn main() -> ExitCode {
    relapse_kind::register();
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS_PER_PROCESSOR * run::processors());
    let plans: Vec<Arc<Plan>> = shipped::plans().into_iter().map(Arc::new).collect();
    let labs: Arc<dyn Backend> = Arc::new(labs());
    let in_labs = plans.iter().flat_map(|plan| {
        plan.trials().map(|planned| {
            let waits = planned.inject.iter().any(|fault| !fault.requires().is_empty());
            (waits, trial(plan, planned.control.clone(), &labs))
        })
    });
    let in_labs = spread::evenly(in_labs.collect(), |(waits, _)| *waits);
    let mut trials: Vec<Trial> = in_labs.into_iter().map(|(_, trial)| trial).collect();
    let kept = asked::for_clusters().then(Kept::new);
    if let Some(kept) = &kept {
        trials.extend(on_clusters(&plans, &(Arc::clone(kept) as _)));
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    let left = kept.map(|kept| kept.end()).unwrap_or_default();
    if !arguments.list {
        skips::summarise();
    }
    if left.is_empty() {
        return conclusion.exit_code();
    }
    left.iter().for_each(|what| eprintln!("left behind: {what}"));
    ExitCode::FAILURE
}

/// In an order in which they can share a cluster, as in a run.
fn on_clusters(plans: &[Arc<Plan>], kind: &Arc<dyn Backend>) -> Vec<Trial> {
    let wanted = |plan: &&Arc<Plan>| asked::for_everything_on_clusters() || plan.cluster.kind_config.is_some();
    let mut plans: Vec<&Arc<Plan>> = plans.iter().filter(wanted).collect();
    plans.sort_by_key(|plan| {
        let work = plan.trials().map(|trial| plan.at_most(trial)).sum();
        backend::order(plan.cluster.kind_config.as_deref(), plan.cluster.nodes.len(), work, &plan.name)
    });
    let trials =
        plans.into_iter().flat_map(|plan| plan.trials().map(|planned| trial(plan, planned.control.clone(), kind)));
    trials.collect()
}

/// `policy-route-lost::netns` or `policy-route-lost::netns::table-rebuilt`.
fn trial(plan: &Arc<Plan>, control: Option<String>, backend: &Arc<dyn Backend>) -> Trial {
    let twin = control.as_ref().map(|name| format!("::{name}")).unwrap_or_default();
    let name = format!("{}::{}{twin}", plan.name, backend.name());
    // Told before it is run, for runners that make a process of each trial and see only this.
    let skipped = run::skip_reason(plan, control.as_deref(), backend, &options(Arc::clone(backend)));
    if let Some(reason) = &skipped {
        skips::note(&name, reason);
    }
    let (plan, backend) = (Arc::clone(plan), Arc::clone(backend));
    let run = {
        let name = name.clone();
        move || replay(&name, &plan, control.as_deref(), &backend)
    };
    Trial::ignorable_test(name, run).with_ignored_flag(skipped.is_some())
}

fn replay(name: &str, plan: &Plan, control: Option<&str>, backend: &Arc<dyn Backend>) -> Result<Completion, Failed> {
    let mut planned = plan.trials().filter(|trial| trial.control.as_deref() == control);
    let alone = planned.any(|trial| run::is_alone_on_a_cluster(plan, trial));
    let _turn = match backend.places() {
        Some(clusters) => turns::on_cluster(&plan.name, plan.cluster.kind_config.as_deref(), alone, clusters.number),
        None => turns::beside(),
    };
    let ran = run_one(plan, control, options(Arc::clone(backend)), &mut |_| {});
    for part in &ran.trial().reduced {
        skips::note(name, &format!("without {}: {}", part.what, part.why));
    }
    match ran.outcome {
        Outcome::Pass => Ok(Completion::Completed),
        Outcome::Skipped => skips::skip(backend.name(), name, &ran.trial().reasons().join("; ")),
        _ => Err(ran.lines().into()),
    }
}
