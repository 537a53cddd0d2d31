//! SIGINT and SIGTERM: the first signal heals and tears down, the second tears down immediately.

mod support {
    pub mod child;
    pub mod shipped;
    pub mod skips;
}

use std::process::ExitCode;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use relapse::event::{Outcome, Phase, RunEvent, TrialEvent, What};
use relapse_kernel::host::is_root;
use relapse_lab::host::{MachineLock, Mode, lock};

use support::child::{self, RESTORED_WITHIN, Role, Run};
use support::{shipped, skips};

const QUICK: &str = "policy-route-lost";
const WRITER: &str = "conntrack-cap-reset";
/// Time limit for an interrupted run to end.
const SOON: Duration = Duration::from_secs(8);

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let test = |name: &'static str, run: fn(&str) -> Result<Completion, Failed>| {
        Trial::ignorable_test(name, move || run(name))
    };
    let trials = vec![
        test("once, by the terminal", |_| once("INT")),
        test("once, by a service manager", |_| once("TERM")),
        test("once, in the middle of a chain", |_| in_a_chain()),
        test("once, with the machine's limit written", once_with_the_limit_written),
        test("before there is a lab", |_| before_there_is_a_lab()),
        test("twice, with a lab that hangs", |_| twice()),
        test("while it waits for another run", while_it_waits),
        test("trials that had not begun are reported as skipped", |_| not_begun()),
    ];
    skips::run(&arguments, trials).exit_code()
}

/// Sends a signal to the command line.
fn interrupt(run: &Run, signal: &str) -> Result<(), Failed> {
    let relapse = run.processes().into_iter().find(|(role, _)| *role == Role::Relapse);
    let (_, process) = relapse.ok_or("relapse has ended already")?;
    if child::send(process, signal) { Ok(()) } else { Err("relapse could not be signalled".into()) }
}

/// Asserts that the run ended as stopped, in time, and left nothing behind.
fn stopped(run: &mut Run, since: Instant) -> Result<(), Failed> {
    let status = run.end()?;
    let took = since.elapsed();
    let output = format!("standard error: {}\nevents: {:#?}", run.errors(), run.received);
    let outcome = run.received.iter().find_map(|event| match &event.what {
        What::RunEnded { outcome, .. } => Some(*outcome),
        _ => None,
    });
    if status.code() != Some(2) || outcome != Some(Outcome::Inconclusive) {
        return Err(format!("it ended with {status} and {outcome:?}\n{output}").into());
    }
    if let Some(left) = run.trial_events().find(|event| matches!(event, TrialEvent::LeftBehind { .. })) {
        return Err(format!("{left:?}").into());
    }
    if took > SOON {
        return Err(format!("it took {took:?} to stop\n{output}").into());
    }
    run.prove_gone(since)?;
    Ok(())
}

fn injected(event: &RunEvent) -> bool {
    matches!(&event.what, What::Trial { event: TrialEvent::Injected(_), .. })
}

/// Asserts that there was an undo, and that every undo succeeded.
fn healed(run: &Run) -> Result<(), Failed> {
    let healed: Vec<_> = run.trial_events().filter(|event| matches!(event, TrialEvent::Healed { .. })).collect();
    let succeeded = |event: &&TrialEvent| matches!(event, TrialEvent::Healed { error: None, .. });
    if !healed.is_empty() && healed.iter().all(succeeded) { Ok(()) } else { Err(format!("healed: {healed:?}").into()) }
}

/// Starts a run and waits until its fault is in force.
fn in_force(arguments: &[&str]) -> Result<Run, Failed> {
    let mut run = Run::start(arguments);
    if !run.until(injected)? {
        return Err("it ended before the fault".into());
    }
    run.hold_namespace();
    Ok(run)
}

fn once(signal: &str) -> Result<Completion, Failed> {
    let mut run = in_force(&[QUICK, "--only", "incident"])?;
    let since = Instant::now();
    interrupt(&run, signal)?;
    stopped(&mut run, since)?;
    healed(&run)?;
    Ok(Completion::Completed)
}

/// A step is healed and two are in force.
fn in_a_chain() -> Result<Completion, Failed> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/chains/three-steps.yaml");
    let mut run = in_force(&[file, "--only", "incident"])?;
    let second = |event: &RunEvent| matches!(&event.what, What::Trial { event: TrialEvent::Phase { phase: Phase::Detect, step: Some(step) }, .. } if step == "route");
    if !run.until(second)? {
        return Err("it ended before its second stage".into());
    }
    let since = Instant::now();
    interrupt(&run, "INT")?;
    stopped(&mut run, since)?;
    healed(&run)?;
    Ok(Completion::Completed)
}

fn once_with_the_limit_written(name: &str) -> Result<Completion, Failed> {
    let before = child::limit();
    let mut run = Run::start(&[WRITER, "--only", "incident"]);
    if !is_root() || (!run.until(injected)? && run.skipped().is_some()) {
        let reason = if is_root() { run.skipped().unwrap_or_default() } else { "only root may write nf_conntrack_max" };
        return skips::skip("netns", name, reason);
    }
    run.hold_namespace();
    let since = Instant::now();
    interrupt(&run, "INT")?;
    stopped(&mut run, since)?;
    healed(&run)?;
    run.prove_restored(Some(&before), Instant::now(), RESTORED_WITHIN)?;
    Ok(Completion::Completed)
}

fn before_there_is_a_lab() -> Result<Completion, Failed> {
    let mut run = Run::start(&[QUICK, "--only", "incident"]);
    let started = |event: &RunEvent| matches!(&event.what, What::RunStarted(_));
    if !run.until(started)? {
        return Err("it ended at once".into());
    }
    let since = Instant::now();
    interrupt(&run, "INT")?;
    stopped(&mut run, since)?;
    Ok(Completion::Completed)
}

fn twice() -> Result<Completion, Failed> {
    let mut run = in_force(&[QUICK, "--only", "incident"])?;
    let lab = run.processes().into_iter().find(|(role, _)| *role == Role::Lab).ok_or("there is no lab")?;
    child::send(lab.1, "STOP");
    interrupt(&run, "INT")?;
    // It waits for the lab without a time limit.
    if run.until_or(Instant::now() + Duration::from_millis(500), |_| false)?.is_some() {
        return Err("it did not wait for the lab".into());
    }
    let since = Instant::now();
    interrupt(&run, "INT")?;
    stopped(&mut run, since)?;
    Ok(Completion::Completed)
}

fn while_it_waits(name: &str) -> Result<Completion, Failed> {
    let held = MachineLock::acquire(&lock::limit(), Mode::Exclusive, &|_| ()).map_err(|e| e.to_string())?;
    let mut run = Run::start(&[WRITER, "--only", "incident"]);
    let waiting = |event: &RunEvent| matches!(&event.what, What::Trial { event: TrialEvent::Waiting { .. }, .. });
    if !run.until(waiting)? {
        let reason = run.skipped().ok_or("it did not wait")?;
        return skips::skip("netns", name, reason);
    }
    let since = Instant::now();
    interrupt(&run, "INT")?;
    let ended = run.until_or(since + SOON, |event| matches!(event.what, What::RunEnded { .. }))?;
    drop(held);
    if ended != Some(true) {
        return Err("it kept waiting".into());
    }
    stopped(&mut run, since)?;
    Ok(Completion::Completed)
}

fn not_begun() -> Result<Completion, Failed> {
    let trials = shipped::plans().iter().find(|plan| plan.name == QUICK).map_or(0, |plan| plan.controls.len() + 1);
    let mut run = in_force(&[QUICK, "--jobs", "1"])?;
    let since = Instant::now();
    interrupt(&run, "INT")?;
    stopped(&mut run, since)?;
    let ended = run.trial_events().filter(|event| matches!(event, TrialEvent::Ended(_))).count();
    let skipped = run.trial_events().filter(|event| matches!(event, TrialEvent::Skipped { .. })).count();
    if (ended, skipped) != (trials, trials - 1) {
        return Err(format!("{ended} ended and {skipped} skipped of {trials}").into());
    }
    Ok(Completion::Completed)
}
