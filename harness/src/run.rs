//! Runs trials concurrently, each in a lab process, and emits events.
//!
//! Each trial in progress has a thread: it spawns the lab (the kernel kills a lab with the thread that spawned it),
//! sends the order, relays requests to the guardian, and proves that nothing is left. All events go to one sink, in
//! order of arrival.

mod agents;
mod claim;
mod complaints;
mod effects;
pub mod hold;
pub mod lab;
pub mod needs;
mod observer;
pub mod order;
mod queue;
mod running;
mod samples;
mod series;
mod spreads;
mod stage;
mod stages;
mod steady;
mod supervise;
mod trial;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use relapse_detectors::operator::Knowledge;
use relapse_detectors::registry::DetectorSet;
use relapse_detectors::time::Time;
use relapse_kernel::clock;
use relapse_lab::cluster::backend::{Backend, Wanted, WantedServer};
use relapse_lab::host::Consent;
use relapse_model::kind_config;
use relapse_reports::also;
use relapse_reports::event::{Outcome, RunEvent, RunStarted, TrialEvent, TrialId, TrialInfo, What};
use relapse_reports::summary::RunSummary;

use crate::config::Config;
use crate::plan::{Plan, PodRole, TrialPlan};
use crate::scenario::trial::Armed;
use claim::Claim;
use needs::Needs;
pub use order::Sabotage;
use queue::Queue;
use supervise::Supervisor;

/// Options of a run.
#[derive(Clone)]
pub struct Options {
    pub run_id: String,
    /// Maximum number of concurrent trials.
    pub jobs: usize,
    pub repeat: u32,
    /// What detectors get of the operator's facts.
    pub operator: Knowledge,
    /// Factor by which every deadline is multiplied.
    pub deadline_factor: f64,
    pub consent: Consent,
    /// Backends whose skipped trials count as failures.
    pub require: Vec<String>,
    /// Folder for recordings of all signals.
    pub record: Option<std::path::PathBuf>,
    /// Recording of the series of exporters.
    pub series: Option<Series>,
    /// The user's detectors and what they must report.
    pub config: Config,
    pub sabotage: Option<Sabotage>,
    /// Trials to run (scenario, control); all if empty.
    pub only: Vec<(String, Option<String>)>,
    /// Hold the trial with the fault in force.
    pub hold: bool,
    /// Backends; each trial runs on all of them.
    pub backends: Vec<Arc<dyn Backend>>,
    /// The executable for lab and guardian, if it is not the running one (tests).
    pub executable: Option<std::path::PathBuf>,
}

/// Recording of series.
#[derive(Debug, Clone)]
pub struct Series {
    pub folder: std::path::PathBuf,
    /// The base scenario of each incident.
    pub base: BTreeSet<String>,
}

/// How urgently a run should end; shared with signal handlers.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicU8>);

impl Interrupt {
    /// First call: heal and tear down. Second call: tear down immediately.
    pub fn ask(&self) {
        let requests = self.0.load(Ordering::SeqCst).saturating_add(1);
        self.0.store(requests, Ordering::SeqCst);
    }

    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.0.load(Ordering::SeqCst) >= 1
    }

    #[must_use]
    pub fn is_urgent(&self) -> bool {
        self.0.load(Ordering::SeqCst) >= 2
    }
}

/// Processors this process may use. This many labs may run on this machine, of all runs together, regardless of other
/// load; more only while the machine has idle CPU time.
#[must_use]
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A queued trial.
#[derive(Clone)]
struct Job {
    id: TrialId,
    backend: Arc<dyn Backend>,
    /// Number of concurrent clusters; `None` for a lab.
    clusters: Option<usize>,
    wanted: Wanted,
    incident: String,
    file: std::path::PathBuf,
    armed: Armed,
    needs: Needs,
    claim: Claim,
    /// Its maximum duration.
    at_most: Duration,
}

/// Runs trials and passes every event to `sink`; returns the overall outcome.
pub fn run(plans: &[Plan], options: &Options, interrupt: &Interrupt, sink: &mut dyn FnMut(&RunEvent)) -> Outcome {
    perform(plans, options, interrupt, sink, None)
}

/// Like [`run`], for one trial that is held with its fault in force until the visitor leaves.
pub fn reproduce(
    plans: &[Plan],
    options: &Options,
    interrupt: &Interrupt,
    sink: &mut dyn FnMut(&RunEvent),
    host: &hold::Host,
) -> Outcome {
    perform(plans, options, interrupt, sink, Some(host))
}

/// Messages from the threads of trials, in order.
#[expect(clippy::large_enum_variant, reason = "nearly all of them are events")]
enum Message {
    Event(RunEvent),
    Hold(order::HoldEvent),
}

fn perform(
    plans: &[Plan],
    options: &Options,
    interrupt: &Interrupt,
    sink: &mut dyn FnMut(&RunEvent),
    host: Option<&hold::Host>,
) -> Outcome {
    let begin = Instant::now();
    let (infos, jobs) = list(plans, options);
    let started = event(What::RunStarted(RunStarted {
        run_id: options.run_id.clone(),
        started: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
        root: relapse_kernel::host::is_root(),
        host_writes: options.consent.is_granted(),
        deadline_factor: options.deadline_factor,
        trials: infos,
        detectors: DetectorSet::names()
            .into_iter()
            .map(str::to_owned)
            .chain(options.config.names().map(str::to_owned))
            .collect(),
        parts: Vec::new(),
    }));
    sink(&started);
    let queue = Queue::new(jobs);
    let (events, arriving) = mpsc::channel::<Message>();
    let mut worst = Outcome::Pass;
    let mut ran = false;
    // Of the events, only those that show what occurred.
    let mut occurred = RunSummary::default();
    occurred.push(&started);
    std::thread::scope(|scope| {
        for worker in 0..options.jobs.max(1) {
            let events = events.clone();
            let queue = &queue;
            scope.spawn(move || {
                let mut ended: Option<Job> = None;
                while let Some(job) = queue.next(worker, ended.as_ref()) {
                    let emit = |trial_event| {
                        let event = event(What::Trial { trial: job.id.clone(), event: trial_event });
                        let _ = events.send(Message::Event(event));
                    };
                    let notify = |event| drop(events.send(Message::Hold(event)));
                    let visitor = host.map(|host| host.line(&notify));
                    Supervisor { job: &job, options, interrupt, emit: &emit, visitor }.run();
                    ended = Some(job);
                }
            });
        }
        drop(events);
        for message in arriving {
            let event = match message {
                Message::Event(event) => event,
                Message::Hold(event) => {
                    host.into_iter().for_each(|host| host.send(&event));
                    continue;
                }
            };
            if let What::Trial { event: TrialEvent::Ended(ended), .. } = &event.what {
                // A skipped trial does not affect the outcome of those that ran.
                if ended.outcome != Outcome::Skipped {
                    ran = true;
                    worst = worst.max(ended.outcome);
                }
            }
            if let What::Trial {
                event: TrialEvent::Injected(_) | TrialEvent::Finding(_) | TrialEvent::Ended(_), ..
            } = &event.what
            {
                occurred.push(&event);
            }
            sink(&event);
        }
    });
    if options.repeat > 1 {
        for absent in also::absent(&occurred) {
            worst = worst.max(if absent.is_error() { Outcome::Fail } else { Outcome::Pass });
            sink(&event(What::Notice { text: absent.text() }));
        }
    }
    if !ran {
        worst = Outcome::Skipped;
    }
    for backend in &options.backends {
        for left in backend.close() {
            // If the engine was stopped, nothing can be removed; the clusters stay in the journal.
            worst = worst.max(if backend.is_away() { Outcome::Inconclusive } else { Outcome::Dirty });
            sink(&event(What::Notice { text: format!("left behind: {left}; run `relapse recover` to remove it") }));
        }
    }
    if interrupt.is_asked() {
        worst = worst.max(Outcome::Inconclusive);
    }
    sink(&event(What::RunEnded { outcome: worst, took: begin.elapsed() }));
    worst
}

/// Why a trial of this plan will be skipped here, determined without running anything. A required one always runs, and
/// fails.
#[must_use]
pub fn skip_reason(
    plan: &Plan,
    control: Option<&str>,
    backend: &Arc<dyn Backend>,
    options: &Options,
) -> Option<String> {
    let trial = plan.trials().find(|trial| trial.control.as_deref() == control)?;
    let (_, job) = describe(plan, trial, backend, 1, options);
    job.needs.unmet(backend, options.consent).filter(|_| !options.require.contains(&job.id.backend))
}

/// A trial that may take this long starts before all others.
const LONG: Duration = Duration::from_secs(30);

fn list(plans: &[Plan], options: &Options) -> (Vec<TrialInfo>, Vec<Job>) {
    let mut infos = Vec::new();
    let mut jobs = Vec::new();
    for repetition in 1..=options.repeat.max(1) {
        for plan in plans.iter().filter(|plan| plan.repetition.is_none_or(|own| own == repetition)) {
            for trial in plan.trials() {
                let wanted = |(scenario, control): &(String, Option<String>)| {
                    *scenario == plan.name && *control == trial.control
                };
                if !options.only.is_empty() && !options.only.iter().any(wanted) {
                    continue;
                }
                for backend in &options.backends {
                    let (info, job) = describe(plan, trial, backend, repetition, options);
                    infos.push(info);
                    jobs.push(job);
                }
            }
        }
    }
    // Trials on clusters come last, ordered so that they can share clusters and pods, those that run alone at the end.
    // Among the others, the very long ones come first, then those that exclude each other, as the longest chain; then
    // the longest.
    let mut work: BTreeMap<(String, Option<String>), Duration> = BTreeMap::new();
    let of = |job: &Job| [None, Some(job.id.scenario.clone())].map(|scenario| (job.incident.clone(), scenario));
    for job in &jobs {
        of(job).into_iter().for_each(|group| *work.entry(group).or_default() += job.at_most);
    }
    jobs.sort_by_key(|job| {
        let on_cluster = || (job.claim.is_alone(), job.wanted.order(&job.incident, of(job).map(|group| work[&group])));
        let on_cluster = job.clusters.map(|_| on_cluster());
        (on_cluster.is_some(), job.id.repetition, on_cluster, Reverse((job.at_most > LONG, job.claim, job.at_most)))
    });
    (infos, jobs)
}

fn describe(
    plan: &Plan,
    trial: &TrialPlan,
    backend: &Arc<dyn Backend>,
    repetition: u32,
    options: &Options,
) -> (TrialInfo, Job) {
    let (scenario, control) = (plan.name.clone(), trial.control.clone());
    let id = TrialId { scenario, control, backend: backend.name().into(), operator: options.operator, repetition };
    let mut expectations = trial.expected(backend.is_real_cluster()).to_vec();
    if trial.control.is_none() {
        expectations.extend(plan.risks.iter().cloned());
        // An outside detector is graded by what it finds when it runs from the start.
        if plan.armed == Armed::Before {
            expectations.extend(options.config.expectations_for(&plan.incident, &plan.name));
        }
    }
    let info = TrialInfo {
        trial: id.clone(),
        incident: plan.incident.clone(),
        title: if trial.why.is_empty() { plan.title.clone() } else { trial.why.clone() },
        expectations,
        also: trial.follows(backend.is_real_cluster()).to_vec(),
        armed: (plan.armed != Armed::Before).then(|| plan.armed.name().to_owned()),
        part: None,
    };
    let needs = Needs::of(plan, trial);
    let clusters = backend.places().map(|places| places.number);
    let claim = Claim::of(&needs.requires, plan.conntrack_entries(trial), clusters.is_some());
    (
        info,
        Job {
            id,
            backend: Arc::clone(backend),
            clusters,
            wanted: Wanted {
                ingress: plan.cluster.pods.iter().any(|pod| matches!(pod.role, PodRole::Ingress { .. })),
                scenario: plan.name.clone(),
                servers: WantedServer::all_of(&plan.cluster, &plan.workload),
                nodes: plan.cluster.nodes.len(),
                kind_config: plan.cluster.kind_config.clone().filter(|file| !kind_config::Config::is_usual(file)),
            },
            incident: plan.incident.clone(),
            file: plan.file.clone(),
            armed: plan.armed,
            needs,
            claim,
            at_most: plan.at_most(trial),
        },
    )
}

fn event(what: What) -> RunEvent {
    RunEvent { at: Time(clock::now()), what }
}
