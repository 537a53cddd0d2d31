//! Runs every scenario and every benign twin as a test of its own, in real labs.
//!
//! If real clusters are requested, also on kind clusters, two at a time, after those in labs: all scenarios with
//! `RELAPSE_BACKEND` kind or all; if only `RELAPSE_REQUIRE` contains kind, as a gate, those that name their cluster
//! (`kindConfig`): one for each incident and for the chain, and one with the other kube-proxy.
//!
//! `cargo scenarios` runs all, `cargo scenarios policy` those with "policy" in their name. Listing needs no privileges;
//! it creates a temporary lab to see what can run here. A trial that this machine cannot run is ignored and its reason
//! printed; if `RELAPSE_REQUIRE` contains the backend, it fails instead. Inconclusive is a failure.
//!
//! Nightly scenarios run with `RELAPSE_NIGHTLY=1`, or if the filter contains the whole name.
//!
//! With `RELAPSE_VARY=SEED`, labs run scenarios that are drawn from this number, or from a new one if it is empty
//! ([`relapse::vary`]); it is printed, and with it the file of each failed trial. Clusters keep the shipped numbers.
//!
//! All trials on a backend form one run, as on the command line; each test waits for its own trial.

mod support {
    pub mod in_process;
    pub mod opt_in;
    pub mod shipped;
    pub mod skips;
}

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use relapse::drawn;
use relapse::event::{Outcome, TrialEvent, TrialId, What};
use relapse::nightly;
use relapse::plan::Plan;
use relapse::run::{self, Interrupt};
use relapse::vary::{Extent, Seed};
use relapse_kind::Kind;
use relapse_lab::cluster::backend::Backend;
use relapse_reports::block;
use relapse_reports::paint::Page;
use relapse_reports::summary::{RunSummary, TrialSummary};

use support::in_process::{labs, options};
use support::{opt_in, shipped, skips};

/// Trials mostly wait, so more of them run than there are processors. The run delays those for which the machine has no
/// room.
const JOBS_PER_PROCESSOR: usize = 6;
/// Maximum number of concurrent real clusters.
const CLUSTERS: usize = 2;

/// The result of a trial, and its lines on the terminal.
type Ended = (TrialSummary, String);

/// The trials on one backend.
struct OneRun {
    backend: Arc<dyn Backend>,
    only: Vec<(String, Option<String>)>,
    /// The tests that wait for them.
    tests: BTreeMap<TrialId, mpsc::Sender<Ended>>,
}

fn main() -> ExitCode {
    relapse_kind::register();
    let mut arguments = Arguments::from_args();
    let jobs = arguments.test_threads.unwrap_or(JOBS_PER_PROCESSOR * run::processors());
    let (plans, left_out) = nightly::select(shipped::plans(), "RELAPSE_NIGHTLY=1", |plan| {
        nightly::requested() || arguments.filter.as_ref().is_some_and(|filter| filter.contains(&plan.name))
    });
    let drawn = seed().filter(|_| !arguments.list).map(|seed| draw(&plans, seed));
    let mut trials = Vec::new();
    let mut runs = vec![one_run(Arc::new(labs()), &plans, |_| true, &arguments, &mut trials)];
    if opt_in::for_clusters() {
        let logs = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kind");
        let kind = Kind::new(&format!("test-{}", std::process::id()), None, &logs, CLUSTERS);
        let wanted = |plan: &Plan| opt_in::for_everything_on_clusters() || plan.cluster.kind_config.is_some();
        runs.push(one_run(Arc::new(kind), &plans, wanted, &arguments, &mut trials));
    }
    // These threads only wait.
    arguments.test_threads = Some(trials.len().max(1));
    if arguments.list {
        return libtest_mimic::run(&arguments, trials).exit_code();
    }
    let left = std::thread::spawn(move || {
        let of = |one: &OneRun| drawn.as_ref().filter(|_| !one.backend.is_real_cluster()).unwrap_or(&plans);
        runs.into_iter()
            .flat_map(|one| {
                let plans = of(&one);
                one.run(plans, jobs)
            })
            .collect::<Vec<_>>()
    });
    let conclusion = skips::run(&arguments, trials);
    let left = left.join().unwrap_or_else(|_| vec!["the thread of the runs died".into()]);
    left_out.iter().chain(&left).for_each(|what| eprintln!("{what}"));
    if left.is_empty() { conclusion.exit_code() } else { ExitCode::FAILURE }
}

/// The seed that the environment requests.
fn seed() -> Option<Seed> {
    let wanted = std::env::var("RELAPSE_VARY").ok()?;
    let seed = if wanted.is_empty() { Ok(Seed::fresh()) } else { wanted.parse() };
    Some(seed.unwrap_or_else(|why| panic!("RELAPSE_VARY={wanted}: {why}")))
}

/// Draws the scenarios; they are kept for those who want to see why one failed.
fn draw(plans: &[Plan], seed: Seed) -> Vec<Plan> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("drawn").join(seed.to_string());
    eprintln!("labs run drawn scenarios: RELAPSE_VARY={seed} repeats them; they are in {}", folder.display());
    drawn::plans(plans, seed, 1, Extent::All, &folder).unwrap_or_else(|wrong| panic!("{}", wrong.plain()))
}

/// Creates a test for each trial; only those selected by the arguments are run.
fn one_run(
    backend: Arc<dyn Backend>,
    plans: &[Plan],
    wanted: impl Fn(&Plan) -> bool,
    arguments: &Arguments,
    trials: &mut Vec<Trial>,
) -> OneRun {
    let mut one = OneRun { backend, only: Vec::new(), tests: BTreeMap::new() };
    for plan in plans.iter().filter(|plan| wanted(plan)) {
        for planned in plan.trials() {
            let (scenario, control) = (plan.name.clone(), planned.control.clone());
            // `policy-route-lost::netns` or `policy-route-lost::netns::table-rebuilt`.
            let twin = control.as_ref().map(|name| format!("::{name}")).unwrap_or_default();
            let name = format!("{scenario}::{}{twin}", one.backend.name());
            // Determined before the run, for test runners that start one process per trial.
            let skipped = run::skip_reason(plan, control.as_deref(), &one.backend, &options(Arc::clone(&one.backend)));
            if let Some(reason) = &skipped {
                skips::note(&name, reason);
            }
            let (sender, receiver) = mpsc::channel();
            if is_chosen(arguments, &name) {
                one.only.push((scenario.clone(), control.clone()));
                let backend = one.backend.name().to_owned();
                one.tests.insert(TrialId { scenario, control, backend, repetition: 1, ..TrialId::default() }, sender);
            }
            // A test must be Sync, a receiver is not.
            let (receiver, backend) = (Mutex::new(receiver), one.backend.name());
            let test = {
                let name = name.clone();
                move || judge(&name, backend, receiver.lock().unwrap_or_else(PoisonError::into_inner).recv().ok())
            };
            trials.push(Trial::ignorable_test(name, test).with_ignored_flag(skipped.is_some()));
        }
    }
    one
}

/// Whether the test harness would run this test.
fn is_chosen(arguments: &Arguments, name: &str) -> bool {
    let matches = |filter: &String| if arguments.exact { name == filter } else { name.contains(filter.as_str()) };
    arguments.filter.as_ref().is_none_or(matches) && !arguments.skip.iter().any(matches)
}

impl OneRun {
    /// Runs the trials, sends each result to its test, and returns what was left behind.
    fn run(self, plans: &[Plan], jobs: usize) -> Vec<String> {
        if self.only.is_empty() {
            return Vec::new();
        }
        let options = run::Options { only: self.only, jobs, ..options(self.backend) };
        let (mut summary, mut left) = (RunSummary::default(), Vec::new());
        run::run(plans, &options, &Interrupt::default(), &mut |event| {
            let trial = summary.push(event).map(|place| &summary.trials[place]);
            match (&event.what, trial) {
                (What::Trial { event: TrialEvent::Ended(_), .. }, Some(trial)) => {
                    let mut lines = block::lines(&summary, trial, Page::PLAIN).join("\n");
                    let file = plans.iter().find(|plan| plan.name == trial.info.trial.scenario).map(|plan| &plan.file);
                    lines.extend(file.map(|file| format!("\nreplayed from {}", file.display())));
                    if let Some(test) = self.tests.get(&trial.info.trial) {
                        let _ = test.send((trial.clone(), lines));
                    }
                }
                (What::Notice { text }, _) => left.push(text.clone()),
                _ => {}
            }
        });
        left
    }
}

fn judge(name: &str, backend: &str, ended: Option<Ended>) -> Result<Completion, Failed> {
    let (trial, lines) = ended.ok_or("the run ended without this trial")?;
    for part in &trial.reduced {
        skips::note(name, &format!("without {}: {}", part.what, part.why));
    }
    match trial.outcome() {
        Outcome::Pass => Ok(Completion::Completed),
        Outcome::Skipped => skips::skip(backend, name, &trial.reasons().join("; ")),
        _ => Err(lines.into()),
    }
}
