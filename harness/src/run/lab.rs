//! The lab process: reads one order, builds the lab, runs one trial in it, and sends all events.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use relapse_detectors::finding::{Subject, SubjectKind};
use relapse_detectors::history::{self, Known};
use relapse_detectors::record::Header;
use relapse_detectors::registry::DetectorSet;
use relapse_detectors::time::Time;
use relapse_kernel::kmsg::KernelLog;
use relapse_kernel::process::enter_lab;
use relapse_kernel::{clock, delay, host};
use relapse_lab::host::protocol::send;
use relapse_lab::host_limit::HostLimit;
use relapse_lab::netns::probe::{self, PROBE};
use relapse_reports::event::{Outcome, Phase, TrialEnded, TrialEvent};
use tokio::runtime::Builder;
use tokio::sync::{mpsc as channel, watch};

use super::hold::Visitors;
use super::observer::Observer;
use super::order::{FromLab, Order, Sabotage, ToLab, ended};
use super::series::SeriesRecorder;
use super::spreads::SharedSpreads;
use super::trial::Trial;
use crate::access::accesses;
use crate::judge::Judge;
use crate::plan::{ClusterPlan, NodeId, Plan, TrialPlan, load};
use crate::scenario::trial::Armed;

/// The hidden command `relapse __lab`. Must be called before `main` does anything else.
#[must_use]
pub fn lab_main() -> ExitCode {
    // Opened first: inside, this would require CAP_SYSLOG in the initial user namespace.
    let kernel_log = KernelLog::file().map_err(|e| e.to_string());
    let side = match enter_lab() {
        Ok(side) => side,
        Err(e) => {
            eprintln!("relapse: failed to {e}");
            return ExitCode::from(Outcome::InternalError.exit_code());
        }
    };
    if std::env::args().nth(2).as_deref() == Some(PROBE) {
        return probe::answer(side.events);
    }
    let outbox = Outbox(Arc::new(Mutex::new(side.events)));
    let mut control = BufReader::new(side.control);
    let done = read_order(&mut control).and_then(|order| carry_out(&order, control, kernel_log, &outbox));
    outbox.send(&FromLab::Done(done.unwrap_or_else(|why| ended(Outcome::InternalError, vec![why]))));
    ExitCode::SUCCESS
}

/// Messages to the command line.
#[derive(Clone)]
struct Outbox(Arc<Mutex<File>>);

impl Outbox {
    fn send(&self, message: &FromLab) {
        let _ = self.try_send(message);
    }

    fn try_send(&self, message: &FromLab) -> io::Result<()> {
        send(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), message)
    }
}

fn read_order(control: &mut BufReader<File>) -> Result<Order, String> {
    let mut line = String::new();
    control.read_line(&mut line).map_err(|e| format!("the order could not be read: {e}"))?;
    serde_json::from_str(&line).map_err(|e| format!("the order could not be read: {e}"))
}

fn carry_out(
    order: &Order,
    control: BufReader<File>,
    kernel_log: Result<File, String>,
    outbox: &Outbox,
) -> Result<TrialEnded, String> {
    let plans = load(std::slice::from_ref(&order.file)).map_err(|e| e.plain())?;
    let mut plan = plans.into_iter().next().ok_or("the scenario file contains no scenario")?;
    plan.arm(order.armed);
    if order.series.is_some() {
        plan.record_series();
    }
    plan.stretch_deadlines(order.deadline_factor);
    if let Err(e) = host::raise_nofile(plan.open_files()) {
        let reasons = vec![format!("too many held connections for this machine: {e}")];
        return Ok(ended(Outcome::Inconclusive, reasons));
    }
    // One runtime for workload and agents: on a busy machine a workload with its own threads would outrun its
    // observers.
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|e| format!("the runtime could not be started: {e}"))?;
    let (stop_sender, stop) = watch::channel(false);
    let (replies_sender, replies) = mpsc::channel();
    let (visits_sender, visits) = channel::unbounded_channel();
    std::thread::spawn(move || {
        for line in control.lines().map_while(Result::ok) {
            match serde_json::from_str(&line) {
                Ok(ToLab::HostLimit(reply)) => {
                    let _ = replies_sender.send(reply);
                }
                Ok(ToLab::Heal) => {
                    stop_sender.send_replace(true);
                }
                Ok(visit @ (ToLab::Shell { .. } | ToLab::Next | ToLab::Leave)) => {
                    let _ = visits_sender.send(visit);
                }
                Err(_) => {}
            }
        }
        // The control pipe stays open during the trial; it closes when the parent dies.
        stop_sender.send_replace(true);
    });
    let host_limit = if order.host_writes {
        let outbox = outbox.clone();
        HostLimit::through(move |request| outbox.try_send(&FromLab::HostLimit(request)), replies)
    } else {
        HostLimit::unavailable()
    };
    let to_visitor = outbox.clone();
    let hold = order.hold.then(|| Visitors::new(visits, move |event| to_visitor.send(&FromLab::Hold(event))));
    let reach = Reach { host_limit, kernel_log, hold };
    let done = runtime.block_on(run(order, &plan, reach, stop, outbox));
    // Tasks blocked on a socket must not keep the lab from ending.
    runtime.shutdown_background();
    done
}

/// A lab's access to the machine outside.
struct Reach {
    host_limit: HostLimit,
    /// Opened before the lab was entered, or why it could not be.
    kernel_log: Result<File, String>,
    /// The visitor, if the trial is held.
    hold: Option<Visitors>,
}

/// The trial of an order, or the one that a self-test swaps in.
fn choose<'a>(plan: &'a Plan, order: &Order) -> Result<&'a TrialPlan, String> {
    let control = |name: &str| {
        let found = plan.controls.iter().find(|c| c.control.as_deref() == Some(name));
        found.ok_or_else(|| format!("{} has no control {name}", plan.name))
    };
    match (&order.trial.control, &order.sabotage) {
        (None, Some(Sabotage::TwinAsIncident(twin))) => control(twin),
        (None, _) | (Some(_), Some(Sabotage::IncidentAsTwin)) => Ok(&plan.incident_trial),
        (Some(name), _) => control(name),
    }
}

/// The judge of a trial: the incident's expectations, or silence.
fn judge(plan: &Plan, trial: &TrialPlan, order: &Order) -> Judge {
    let incident_expected = match &order.sabotage {
        Some(Sabotage::TwinAsIncident(_)) => true,
        Some(Sabotage::IncidentAsTwin) => false,
        _ => trial.control.is_none(),
    };
    let outside = order.outside_detectors.iter().map(|spec| spec.name.clone());
    let strict = order.outside_detectors.iter().filter(|spec| spec.strict).map(|spec| spec.name.clone());
    if incident_expected {
        let expected = plan.incident_trial.expected(order.ground.is_real_cluster).to_vec();
        let expected = expected.into_iter().chain(order.outside_expectations.iter().cloned()).collect();
        let steps = plan.incident_trial.steps.iter().filter_map(|step| step.name.clone());
        let also = plan.incident_trial.follows(order.ground.is_real_cluster).to_vec();
        let judge = Judge::incident(expected, plan.risks.clone()).with_also(also);
        let judge = judge.with_outside(outside).with_strict(strict).with_steps(steps);
        let operator = order.trial.operator.of(plan.cluster_of(trial).operator());
        let outdated = trial.changes().any(|fault| fault.outdates_facts());
        let judge = judge.with_history(|expectation| {
            let subject = expectation.subject.as_ref();
            subject.is_some_and(|subject| {
                let pods = pods_beside(plan.cluster_of(trial), subject);
                history::is_needed(&expectation.detector, &Known { operator: &operator, subject, pods, outdated })
            })
        });
        if order.armed == Armed::Restarted { judge.with_restart() } else { judge }
    } else {
        let names = DetectorSet::names().into_iter().map(str::to_owned).chain(outside.clone()).collect();
        let judge = Judge::control(names, trial.risks.clone().unwrap_or_default()).with_outside(outside);
        if trial.risks.is_some() { judge.with_no_other_risks() } else { judge }
    }
}

/// The pods of the subject's node, or of the pod's, that have a link of their own.
fn pods_beside(cluster: &ClusterPlan, subject: &Subject) -> usize {
    let name = subject.name.as_str();
    let node = match subject.kind {
        SubjectKind::Pod => cluster.pods.iter().find(|pod| pod.name == name).map(|pod| pod.node),
        _ => cluster.nodes.iter().position(|node| node.name == name).map(NodeId),
    };
    node.map_or(0, |node| cluster.pods_with_links(node).count())
}

async fn run(
    order: &Order,
    plan: &Plan,
    reach: Reach,
    stop: watch::Receiver<bool>,
    outbox: &Outbox,
) -> Result<TrialEnded, String> {
    let trial = choose(plan, order)?;
    let send = |event| outbox.send(&FromLab::Event { at: Time(clock::now()), event });
    send(TrialEvent::Phase { phase: Phase::Up, step: None });
    let begin = clock::now();
    let cluster = match order.ground.up(plan.cluster_of(trial)).await {
        Ok(cluster) => cluster,
        Err(e) => return Ok(ended(Outcome::Inconclusive, vec![format!("the cluster could not be built: {e}")])),
    };
    let up = Some(Duration::from_nanos(clock::now() - begin));
    outbox.send(&FromLab::Up { inodes: cluster.inodes() });

    let series = match &order.series {
        Some(order) => Some(SeriesRecorder::start(order, &cluster, plan, reach.host_limit.is_available()).await),
        None => None,
    };
    let series = match series.transpose() {
        Ok(series) => series,
        Err(why) => return Ok(ended(Outcome::Inconclusive, vec![format!("series cannot be recorded: {why}")])),
    };
    let emit = |event| {
        series.iter().for_each(|series| series.event(&event));
        send(event);
    };
    let operator = order.trial.operator.of(cluster.plan().operator());
    let (known, sabotage) = (operator.clone(), order.sabotage.clone());
    let detectors = move || match &sabotage {
        Some(Sabotage::RemoveDetector(name)) => DetectorSet::new(&known).without(name),
        _ => DetectorSet::new(&known),
    };
    let (signals, incoming) = channel::unbounded_channel();
    let (findings_sender, findings) = channel::unbounded_channel();
    let record = order.record.as_deref();
    let armed = Arc::default();
    let header = Header { accesses: accesses(cluster.plan(), &plan.workload), ..Header::of(&operator) };
    let (to_observer, seen) = channel::unbounded_channel();
    let spreads = SharedSpreads::default();
    let outside = &order.outside_detectors;
    let observer =
        Observer::start(Box::new(detectors), &header, record, outside, findings_sender, spreads.clone(), &armed)?;
    let to_reports = outbox.clone();
    let report = move |event| to_reports.send(&FromLab::Event { at: Time(clock::now()), event });
    let observer = tokio::spawn(observer.run(incoming, seen, report));

    let judged = Trial {
        plan,
        trial,
        cluster: Arc::clone(&cluster),
        host_limit: reach.host_limit,
        kernel_log: reach.kernel_log,
        sabotage: order.sabotage.clone(),
        operator: Arc::new(operator),
        stop,
        hold: reach.hold,
        armed,
        spreads,
        judge: judge(plan, trial, order),
        events: &emit,
        findings,
        to_observer,
        signals,
    }
    .run()
    .await;
    let trouble = observer.await.ok().flatten();
    let (mut outcome, mut reasons) = judged;
    let late = delay::latest();
    if outcome == Outcome::Fail && late >= LATE {
        outcome = Outcome::Inconclusive;
        reasons.push(format!("this machine is too busy for slow paths: packets were delayed by {late:.0?} too long"));
    }
    let unrecorded = match series {
        Some(series) => series.end(outcome, order, plan, trial).await.err(),
        None => None,
    };
    let left = cluster.down().await;
    drop(cluster);
    for what in left {
        send(TrialEvent::LeftBehind { what: what.clone() });
        outcome = Outcome::Dirty;
        reasons.push(format!("left behind: {what}"));
    }
    if let Some(why) = unrecorded {
        outcome = outcome.max(Outcome::Inconclusive);
        reasons.push(format!("series could not be recorded: {why}"));
    }
    if let Some(trouble) = trouble {
        outcome = outcome.max(Outcome::Inconclusive);
        reasons.push(format!("signals could not be recorded: {trouble}"));
    }
    Ok(TrialEnded { up, peak_memory: peak_memory(), cpu: cpu(), ..ended(outcome, reasons) })
}

/// A failed trial proves nothing if its slow paths were slower than planned by this much: half of the smallest step
/// of a round trip that is an incident (the guard band of I6).
const LATE: Duration = Duration::from_millis(10);

/// CPU time of this process so far (`utime` and `stime` of proc_pid_stat(5)).
fn cpu() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name, in parentheses, may contain anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Some(Duration::from_millis(ticks * MILLIS_A_TICK))
}

/// The kernel reports CPU time in hundredths of a second (`USER_HZ`), regardless of its own tick.
const MILLIS_A_TICK: u64 = 10;

/// Largest resident set so far, bytes (`VmHWM` of proc_pid_status(5)).
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}
