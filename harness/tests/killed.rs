//! A run whose processes are killed leaves nothing: no process and no namespace three seconds later,
//! and the machine's own limit back within one.
//!
//! Each trial runs the built `relapse`, waits for a moment (a phase that begins, a journal that is
//! written and not acted upon yet), kills one process of the run, and looks for what is left. Of all
//! combinations the shorter half runs always, the rest and two hundred random instants only when
//! ignored trials are asked for (`make soak`). `RELAPSE_SOAK_SEED` chooses other instants.

mod support {
    pub mod child;
    pub mod shipped;
    pub mod skips;
}

use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use relapse::event::{Phase, RunEvent, TrialEvent, What};
use relapse_kernel::host::is_root;
use support::child::{self, RESTORED_WITHIN, Role, Run};
use support::{shipped, skips};

/// Random instants in the soak test.
const INSTANTS: u64 = 200;
/// About as long as a trial takes: random instants lie within.
const LONGEST: Duration = Duration::from_secs(9);
/// Who is killed where the run's own end is not what is tested.
const QUICK: &str = "policy-route-lost";
const WRITER: &str = "conntrack-cap-reset";

/// Whom to kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    One(Role),
    /// First the guardian, then the command line: nobody is left to restore.
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

    /// The command line itself dies.
    const fn is_run(self) -> bool {
        matches!(self, Self::One(Role::Relapse) | Self::GuardianAndRelapse)
    }
}

/// When to kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Phase(Phase),
    /// The journal is in place; the write comes after it is synced.
    Journalled,
    After(Duration),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Case {
    scenario: String,
    victim: Victim,
    moment: Moment,
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(6);
    let cases = cases();
    let quick = |case: &Case| !matches!(case.moment, Moment::After(_)) && is_quick(case);
    let trials = spread(cases).into_iter().map(|case| {
        let ignored = !quick(&case);
        Trial::ignorable_test(case.name(), move || run(&case)).with_ignored_flag(ignored)
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    if !arguments.list {
        skips::summarise();
        slowest::print();
    }
    conclusion.exit_code()
}

impl Case {
    fn name(&self) -> String {
        let moment = match self.moment {
            Moment::Phase(phase) => phase.as_str().to_owned(),
            Moment::Journalled => "journalled".to_owned(),
            Moment::After(delay) => format!("after-{}ms", delay.as_millis()),
        };
        format!("{}::{}::{moment}", self.scenario, self.victim.name())
    }
}

/// Everything that can be combined, and the random instants.
fn cases() -> Vec<Case> {
    let scenarios: Vec<String> = shipped::plans().into_iter().map(|plan| plan.name).collect();
    let mut cases = Vec::new();
    for scenario in &scenarios {
        for victim in VICTIMS {
            // Only one scenario has a guardian.
            if victim.is_guardian() && scenario != WRITER {
                continue;
            }
            let phases = Phase::ALL.map(Moment::Phase);
            let journalled = (scenario == WRITER).then_some(Moment::Journalled);
            let moments = phases.into_iter().chain(journalled);
            cases.extend(moments.map(|moment| Case { scenario: scenario.clone(), victim, moment }));
        }
    }
    let seed = std::env::var("RELAPSE_SOAK_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut dice = Dice(seed);
    for _ in 0..INSTANTS {
        let scenario = scenarios[dice.below(scenarios.len() as u64) as usize].clone();
        let victims = if scenario == WRITER { 6 } else { 4 };
        let victim = VICTIMS[dice.below(victims) as usize];
        let moment = Moment::After(Duration::from_millis(dice.below(LONGEST.as_millis() as u64)));
        let case = Case { scenario, victim, moment };
        if !cases.contains(&case) {
            cases.push(case);
        }
    }
    cases
}

/// What runs always: the run killed at each boundary of one scenario an incident, every process of
/// a lab at each boundary of one scenario, and the guardian around what it guards.
fn is_quick(case: &Case) -> bool {
    let Moment::Phase(phase) = case.moment else { return true };
    let guarded = matches!(phase, Phase::Baseline | Phase::Inject | Phase::Detect | Phase::Heal);
    match case.victim {
        Victim::One(Role::Relapse) => is_base(&case.scenario) && (case.scenario != WRITER || guarded),
        Victim::One(Role::Guardian) | Victim::GuardianAndRelapse => guarded,
        Victim::One(_) => case.scenario == QUICK || (case.scenario == WRITER && phase == Phase::Detect),
    }
}

/// The first scenario of its incident.
fn is_base(scenario: &str) -> bool {
    static BASE: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let mut base = BASE.lock().unwrap_or_else(PoisonError::into_inner);
    if base.is_empty() {
        let mut incidents = std::collections::BTreeSet::new();
        let first = shipped::plans().into_iter().filter(|plan| incidents.insert(plan.incident.clone()));
        *base = first.map(|plan| plan.name).collect();
    }
    base.iter().any(|name| name == scenario)
}

/// Those that wait for the one machine-wide lock evenly among the others: they are one long chain.
fn spread(cases: Vec<Case>) -> Vec<Case> {
    let (chain, others): (Vec<_>, Vec<_>) = cases.into_iter().partition(|case| case.scenario == WRITER);
    let total = chain.len() + others.len();
    let mut keyed: Vec<(usize, Case)> = Vec::with_capacity(total);
    for group in [chain, others] {
        let length = group.len().max(1);
        keyed.extend(group.into_iter().enumerate().map(|(n, case)| (n * total / length, case)));
    }
    keyed.sort_by_key(|(key, _)| *key);
    keyed.into_iter().map(|(_, case)| case).collect()
}

fn run(case: &Case) -> Result<Completion, Failed> {
    // One of ours at a time at the machine-wide lock; the others would wait there with a lab's worth
    // of patience.
    static CHAIN: Mutex<()> = Mutex::new(());
    let writer = case.scenario == WRITER;
    let _turn = writer.then(|| CHAIN.lock().unwrap_or_else(PoisonError::into_inner));
    let name = format!("killed {}", case.name());
    if writer && case.victim.is_guardian() && !is_root() {
        return skips::skip(&name, "there is a guardian only where nf_conntrack_max may be written, by root");
    }
    // Nobody else's business is waited for where the limit does not matter.
    let before = writer.then(child::limit);
    let mut run = Run::start(&[&case.scenario, "--only", "incident"]);
    let result = kill_and_look(case, &mut run, before.as_deref());
    if let Some(reason) = run.skipped() {
        return skips::skip(&name, reason);
    }
    result.map(|()| Completion::Completed).map_err(|why| {
        let short = |event: &TrialEvent| format!("{event:?}").chars().take(160).collect::<String>();
        let heard: Vec<String> = run.trial_events().map(short).collect();
        Failed::from(format!("{why}\nstandard error: {}\nevents: {}", run.errors(), heard.join("\n        ")))
    })
}

fn kill_and_look(case: &Case, run: &mut Run, before: Option<&str>) -> Result<(), String> {
    if !reach(case.moment, run)? {
        // It ended earlier, or was skipped: then there must be nothing left all the same.
        run.end()?;
        let since = Instant::now();
        run.prove_gone(since)?;
        run.prove_restored(before, since, RESTORED_WITHIN)?;
        return match case.moment {
            Moment::After(_) => Ok(()),
            _ if run.skipped().is_some() => Ok(()),
            moment => Err(format!("the run ended before {moment:?}")),
        };
    }
    run.hold_namespace();
    let hit = match case.victim {
        Victim::One(role) => kill(run, role),
        Victim::GuardianAndRelapse => {
            let guardian = kill(run, Role::Guardian);
            kill(run, Role::Relapse) && guardian
        }
    };
    let since = Instant::now();
    if !hit && !matches!(case.moment, Moment::After(_) | Moment::Phase(Phase::Down)) {
        return Err(format!("there was no {} to kill", case.victim.name()));
    }
    if case.victim.is_run() && hit {
        if !case.victim.is_guardian() {
            slowest::restored(&case.name(), run.prove_restored(before, since, RESTORED_WITHIN)?);
        }
        slowest::gone(&case.name(), run.prove_gone(since)?);
        if case.victim.is_guardian() {
            child::recover()?;
            run.prove_restored(before, Instant::now(), RESTORED_WITHIN)?;
        }
        return Ok(());
    }
    // The command line lives on: it tells what happened, and cleans up.
    let status = run.end()?;
    let since = Instant::now();
    run.prove_gone(since)?;
    run.prove_restored(before, since, RESTORED_WITHIN)?;
    let ended = run.heard.iter().any(|event| matches!(event.what, What::RunEnded { .. }));
    if !ended {
        return Err(format!("it ended with {status} and without saying how the run ended"));
    }
    let left: Vec<String> = run
        .trial_events()
        .filter_map(|event| match event {
            TrialEvent::LeftBehind { what } => Some(what.clone()),
            _ => None,
        })
        .collect();
    if !left.is_empty() {
        return Err(format!("left behind: {}", left.join("; ")));
    }
    let code = status.code().unwrap_or(-1);
    // A lab that had said its last word was not needed any more, and a guardian may be replaced.
    let may_pass =
        !hit || case.victim.is_guardian() || !matches!(case.moment, Moment::Phase(phase) if phase < Phase::Down);
    if (code == 0 && !may_pass) || !matches!(code, 0 | 1 | 2 | 70) {
        return Err(format!("it ended with {status}"));
    }
    Ok(())
}

/// Kills a process of this run, and tells whether it was there.
fn kill(run: &Run, victim: Role) -> bool {
    let found = run.processes().into_iter().find(|(role, _)| *role == victim);
    found.is_some_and(|(_, process)| child::send(process, "KILL"))
}

/// Waits for the moment; false if the run ended before it.
fn reach(moment: Moment, run: &mut Run) -> Result<bool, String> {
    let begins = |phase: Phase| move |event: &RunEvent| matches!(&event.what, What::Trial { event: TrialEvent::Phase { phase: begun }, .. } if *begun == phase);
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
            // Most count from the start of the trial, some from the start of the run, which may have to
            // wait for others first.
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
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// How long it took at most, and where, for those who wonder how near the promises are.
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
                eprintln!("{what}, slowest after a death: {:.2} s ({})", slowest.0.as_secs_f64(), slowest.1);
            }
        }
    }
}
