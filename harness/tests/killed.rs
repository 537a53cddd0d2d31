//! A run whose processes are killed leaves nothing: no process and no namespace three seconds later, and the machine's
//! limit restored within one second.
//!
//! Each trial runs the built `relapse`, waits for a moment (a phase begins, or a journal is written but not acted upon
//! yet), kills one process of the run, and looks for leftovers. The shorter half of all combinations always runs; the
//! rest and two hundred random instants run only with `--include-ignored` (`make soak`). `RELAPSE_SOAK_SEED` chooses
//! other instants.

mod support {
    pub mod child;
    pub mod shipped;
    pub mod skips;
    pub mod spread;
}

use std::process::ExitCode;
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use relapse::event::{Outcome, Phase, RunEvent, TrialEvent, What};
use relapse::plan::Plan;
use relapse_kernel::host::is_root;
use relapse_lab::fault::Requirement;

use support::child::{self, RESTORED_WITHIN, Role, Run};
use support::{shipped, skips, spread};

/// Time limit for processes and namespaces of a killed run to disappear.
const GONE_WITHIN: Duration = Duration::from_secs(3);
/// Random instants in the soak test.
const INSTANTS: u64 = 200;
/// Approximate length of a trial, the range of random instants.
const LONGEST: Duration = Duration::from_secs(9);
/// The scenario for all cases that do not depend on it.
const QUICK: &str = "policy-route-lost";

/// The process to kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    One(Role),
    /// First the guardian, then the command line: no process is left to restore.
    GuardianAndRelapse,
}

const VICTIMS: [Victim; 6] = [
    Victim::One(Role::Relapse),
    Victim::One(Role::Outer),
    Victim::One(Role::Init),
    Victim::One(Role::Lab),
    Victim::One(Role::Guardian),
    Victim::GuardianAndRelapse,
];

impl Victim {
    const fn name(self) -> &'static str {
        match self {
            Self::One(Role::Relapse) => "relapse",
            Self::One(Role::Outer) => "outer",
            Self::One(Role::Init) => "init",
            Self::One(Role::Lab) => "lab",
            Self::One(Role::Guardian) => "guardian",
            Self::GuardianAndRelapse => "guardian-and-relapse",
        }
    }

    const fn is_guardian(self) -> bool {
        matches!(self, Self::One(Role::Guardian) | Self::GuardianAndRelapse)
    }

    /// Whether the command line itself is killed.
    const fn is_run(self) -> bool {
        matches!(self, Self::One(Role::Relapse) | Self::GuardianAndRelapse)
    }
}

/// When to kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Phase(Phase),
    /// The journal exists; the write follows after it is synced.
    Journalled,
    After(Duration),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Scenario {
    name: String,
    /// It writes the machine's limit, so it has a guardian, and only one runs at a time.
    writes: bool,
    /// The base scenario of its incident.
    is_base: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Case {
    scenario: Scenario,
    victim: Victim,
    moment: Moment,
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(6);
    let cases = cases();
    let trials = spread::evenly(cases, |case| case.scenario.writes).into_iter().map(|case| {
        let ignored = !is_quick(&case);
        Trial::ignorable_test(case.name(), move || run(&case)).with_ignored_flag(ignored)
    });
    let conclusion = skips::run(&arguments, trials.collect());
    slowest::print();
    conclusion.exit_code()
}

impl Case {
    fn name(&self) -> String {
        let moment = match self.moment {
            Moment::Phase(phase) => phase.as_str().to_owned(),
            Moment::Journalled => "journalled".to_owned(),
            Moment::After(delay) => format!("after-{}ms", delay.as_millis()),
        };
        format!("{}::{}::{moment}", self.scenario.name, self.victim.name())
    }
}

/// All shipped scenarios but the nightly ones. The base scenario of an incident has the shortest name; variants add to it.
fn scenarios() -> Vec<Scenario> {
    let plans = shipped::plans();
    let shortest = |incident: &str| {
        let names = plans.iter().filter(|plan| plan.incident == incident).map(|plan| plan.name.as_str());
        names.min_by_key(|name| name.len())
    };
    let scenario = |plan: &Plan| Scenario {
        name: plan.name.clone(),
        writes: plan.incident_trial.changes().any(|fault| fault.requires().into_iter().any(Requirement::writes_limit)),
        is_base: shortest(&plan.incident) == Some(plan.name.as_str()),
    };
    plans.iter().filter(|plan| !plan.nightly).map(scenario).collect()
}

/// All combinations, and the random instants.
fn cases() -> Vec<Case> {
    let scenarios = scenarios();
    let mut cases = Vec::new();
    for scenario in &scenarios {
        for victim in VICTIMS.into_iter().filter(|victim| scenario.writes || !victim.is_guardian()) {
            let journalled = scenario.writes.then_some(Moment::Journalled);
            let moments = Phase::ALL.map(Moment::Phase).into_iter().chain(journalled);
            cases.extend(moments.map(|moment| Case { scenario: scenario.clone(), victim, moment }));
        }
    }
    let seed = std::env::var("RELAPSE_SOAK_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut dice = Dice(seed);
    for _ in 0..INSTANTS {
        let scenario = scenarios[dice.below(scenarios.len())].clone();
        // Cases with a guardian come last.
        let victim = VICTIMS[dice.below(if scenario.writes { VICTIMS.len() } else { 4 })];
        let moment = Moment::After(LONGEST * u32::try_from(dice.below(1_000)).unwrap_or(0) / 1_000);
        let case = Case { scenario, victim, moment };
        if !cases.contains(&case) {
            cases.push(case);
        }
    }
    cases
}

/// Cases that always run: the command line killed at each boundary of one scenario per incident, every process of a lab
/// at each boundary of one scenario, and the guardian during the phases it guards.
fn is_quick(case: &Case) -> bool {
    let Case { scenario, victim, moment } = case;
    let phase = match moment {
        Moment::Phase(phase) => *phase,
        Moment::Journalled => return scenario.is_base,
        Moment::After(_) => return false,
    };
    let guarded = matches!(phase, Phase::Baseline | Phase::Inject | Phase::Detect | Phase::Heal);
    match victim {
        _ if !scenario.is_base => false,
        Victim::One(Role::Relapse) => guarded || !scenario.writes,
        Victim::One(Role::Guardian) | Victim::GuardianAndRelapse => guarded,
        Victim::One(_) => scenario.name == QUICK || (scenario.writes && phase == Phase::Detect),
    }
}

fn run(case: &Case) -> Result<Completion, Failed> {
    // Only one of these runs at a time uses the machine-wide lock; others would wait there, and their timeouts would
    // include the wait.
    static CHAIN: Mutex<()> = Mutex::new(());
    // The kernel destroys namespaces one after the other, for the whole machine. A case that is slow beside others is
    // repeated alone.
    static MACHINE: RwLock<()> = RwLock::new(());
    let writer = case.scenario.writes;
    let _turn = writer.then(|| CHAIN.lock().unwrap_or_else(PoisonError::into_inner));
    if writer && !is_root() && (case.victim.is_guardian() || case.moment == Moment::Journalled) {
        return skips::skip(
            "netns",
            &case.name(),
            "there is a guardian only where nf_conntrack_max may be written, by root",
        );
    }
    let beside = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
    let mut tried = attempt(case)?;
    drop(beside);
    if let Tried::Done { gone } = tried
        && gone > GONE_WITHIN
    {
        let _alone = MACHINE.write().unwrap_or_else(PoisonError::into_inner);
        eprintln!("{}: all gone after {gone:?}, again without other trials", case.name());
        tried = attempt(case)?;
    }
    match tried {
        Tried::Skipped { reason } => skips::skip("netns", &case.name(), &reason),
        Tried::Done { gone } if gone > GONE_WITHIN => Err(format!("all was gone only after {gone:?}").into()),
        Tried::Done { gone } => {
            slowest::gone(&case.name(), gone);
            Ok(Completion::Completed)
        }
    }
}

/// The result of one attempt.
enum Tried {
    Skipped { reason: String },
    Done { gone: Duration },
}

fn attempt(case: &Case) -> Result<Tried, Failed> {
    // Do not wait for other runs if the limit does not matter.
    let before = case.scenario.writes.then(child::limit);
    let mut run = Run::start(&[&case.scenario.name, "--only", "incident"]);
    let result = kill_and_look(case, &mut run, before.as_deref());
    if let Some(reason) = run.skipped() {
        return Ok(Tried::Skipped { reason: reason.to_owned() });
    }
    result.map(|gone| Tried::Done { gone }).map_err(|why| {
        let short = |event: &TrialEvent| format!("{event:?}").chars().take(160).collect::<String>();
        let received: Vec<String> = run.trial_events().map(short).collect();
        Failed::from(format!("{why}\nstandard error: {}\nevents: {}", run.errors(), received.join("\n        ")))
    })
}

/// Returns how long after the kill, or after the end of a run that was not hit, everything was gone.
fn kill_and_look(case: &Case, run: &mut Run, before: Option<&str>) -> Result<Duration, String> {
    if !reach(case.moment, run)? {
        // It ended earlier or was skipped: nothing may be left either.
        run.end()?;
        let since = Instant::now();
        let gone = run.prove_gone(since)?;
        run.prove_restored(before, since, RESTORED_WITHIN)?;
        let may_be_early = matches!(case.moment, Moment::After(_)) || run.skipped().is_some();
        return if may_be_early { Ok(gone) } else { Err(format!("the run ended before {:?}", case.moment)) };
    }
    run.hold_namespace();
    let (hit, all_hit) = match case.victim {
        Victim::One(role) => {
            let hit = kill(run, role);
            (hit, hit)
        }
        Victim::GuardianAndRelapse => {
            let guardian = kill(run, Role::Guardian);
            let relapse = kill(run, Role::Relapse);
            (relapse, relapse && guardian)
        }
    };
    let since = Instant::now();
    if !all_hit && !matches!(case.moment, Moment::After(_) | Moment::Phase(Phase::Down)) {
        return Err(format!("there was no {} to kill", case.victim.name()));
    }
    if !case.victim.is_run() || !hit {
        return outlived(case, run, before, hit.then_some(since));
    }
    if case.victim.is_guardian() {
        let gone = run.prove_gone(since)?;
        child::recover()?;
        run.prove_restored(before, Instant::now(), RESTORED_WITHIN)?;
        return Ok(gone);
    }
    slowest::restored(&case.name(), run.prove_restored(before, since, RESTORED_WITHIN)?);
    run.prove_gone(since)
}

/// The command line survives: it cleans up and reports what happened.
fn outlived(case: &Case, run: &mut Run, before: Option<&str>, hit: Option<Instant>) -> Result<Duration, String> {
    let status = run.end()?;
    let end = Instant::now();
    // A run whose guardian was killed continues to its regular end.
    let since = hit.filter(|_| !case.victim.is_guardian()).unwrap_or(end);
    let gone = run.prove_gone(since)?;
    run.prove_restored(before, end, RESTORED_WITHIN)?;
    let ended = run.trial_events().find_map(|event| match event {
        TrialEvent::Ended(ended) => Some(ended),
        _ => None,
    });
    let Some(ended) = ended else {
        return Err(format!("it ended with {status} without reporting the end of the trial"));
    };
    if let Some(left) = run.trial_events().find(|event| matches!(event, TrialEvent::LeftBehind { .. })) {
        return Err(format!("{left:?}"));
    }
    // Once the guardian is dead, another run may take the limit and disturb this workload.
    let disturbed = |reason: &String| reason.starts_with("the workload did not recover");
    match ended.outcome {
        // A lab that had sent its last message was no longer needed, and a guardian may be replaced.
        Outcome::Pass => {
            let needed = matches!(case.moment, Moment::Phase(phase) if phase < Phase::Down);
            if needed && hit.is_some() && !case.victim.is_guardian() {
                return Err("it passed without its lab".into());
            }
        }
        Outcome::Dirty if !(case.victim.is_guardian() && ended.reasons.iter().all(disturbed)) => {
            return Err(format!("it was dirty: {}", ended.reasons.join("; ")));
        }
        _ => {}
    }
    Ok(gone)
}

/// Kills a process of this run. Returns whether it existed.
fn kill(run: &Run, victim: Role) -> bool {
    let found = run.processes().into_iter().find(|(role, _)| *role == victim);
    found.is_some_and(|(_, process)| child::send(process, "KILL"))
}

/// Waits for the moment; false if the run ended before it.
fn reach(moment: Moment, run: &mut Run) -> Result<bool, String> {
    let begins = |phase: Phase| move |event: &RunEvent| matches!(&event.what, What::Trial { event: TrialEvent::Phase { phase: begun, .. }, .. } if *begun == phase);
    match moment {
        Moment::Phase(phase) => run.until(begins(phase)),
        Moment::Journalled => {
            if !run.until(begins(Phase::Inject))? {
                return Ok(false);
            }
            let end = Instant::now() + Duration::from_secs(10);
            while run.journals().is_empty() {
                if Instant::now() >= end {
                    return Err("no journal was written".into());
                }
            }
            Ok(true)
        }
        Moment::After(delay) => {
            // Most instants count from the start of the trial, some from the start of the run, which may have to wait
            // for others first.
            let started = |event: &RunEvent| matches!(&event.what, What::Trial { event: TrialEvent::Started, .. });
            if delay.as_millis() % 4 != 0 && !run.until(started)? {
                return Ok(false);
            }
            Ok(run.until_or(Instant::now() + delay, |_| false)?.is_none())
        }
    }
}

/// A small linear congruential generator: the same instants for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap_or(0) % end
    }
}

/// The longest times and their cases, to show the margin to the limits.
mod slowest {
    use super::{Duration, Mutex, PoisonError};

    static RESTORED: Mutex<(Duration, String)> = Mutex::new((Duration::ZERO, String::new()));
    static GONE: Mutex<(Duration, String)> = Mutex::new((Duration::ZERO, String::new()));

    pub fn restored(case: &str, took: Duration) {
        keep(&RESTORED, case, took);
    }

    pub fn gone(case: &str, took: Duration) {
        keep(&GONE, case, took);
    }

    fn keep(slowest: &Mutex<(Duration, String)>, case: &str, took: Duration) {
        let mut slowest = slowest.lock().unwrap_or_else(PoisonError::into_inner);
        if took > slowest.0 {
            *slowest = (took, case.to_owned());
        }
    }

    pub fn print() {
        for (what, slowest) in [("limit restored", &RESTORED), ("all gone", &GONE)] {
            let slowest = slowest.lock().unwrap_or_else(PoisonError::into_inner);
            if !slowest.0.is_zero() {
                eprintln!("{what}, slowest after a kill: {:.2} s ({})", slowest.0.as_secs_f64(), slowest.1);
            }
        }
    }
}
