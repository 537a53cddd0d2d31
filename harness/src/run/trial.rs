//! One trial, inside the lab: from cluster up through recovery, every stage in order.
//!
//! The only thing that leaves it is events. Whatever goes wrong, healing is tried, and what could not
//! be healed is said.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use relapse_detectors::signal::Signal;
use relapse_detectors::time::Time;
use relapse_reports::event::{FindingReceived, Injected, Outcome, Phase, TrialEvent};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::effects::Effects;
use super::host_limit::HostLimit;
use super::order::Sabotage;
use super::steady::Steady;
use crate::cluster::Cluster;
use crate::cluster::snapshot::Snapshot;
use crate::collect::Collectors;
use crate::fault::{InForce, Quiet, UndoStack, World, now};
use crate::judge::Judge;
use crate::outside_detector::Said;
use crate::plan::{Plan, TrialPlan};
use crate::workload::churn::Churn;
use crate::workload::{Attempt, Workload};

/// How often deadlines are looked at when nothing else happens.
const TICK: Duration = Duration::from_millis(20);
/// A workload that is not steady by then never will be.
const SETTLE_WITHIN: Duration = Duration::from_secs(20);

/// What a trial is made of and reports to.
pub struct Trial<'a> {
    pub plan: &'a Plan,
    pub trial: &'a TrialPlan,
    pub cluster: Arc<dyn Cluster>,
    pub host_limit: HostLimit,
    pub sabotage: Option<Sabotage>,
    /// Turns true when the user wants to stop.
    pub stop: watch::Receiver<bool>,
    pub judge: Judge,
    /// Set once every collector is armed.
    pub armed: Arc<AtomicBool>,
    /// Stay with the fault in force until `stop`.
    pub hold: bool,
    pub events: &'a dyn Fn(TrialEvent),
    /// What detectors say.
    pub said: mpsc::UnboundedReceiver<Said>,
    /// Where collectors send to; the observer is at the other end.
    pub signals: mpsc::UnboundedSender<Signal>,
}

/// How it went.
#[derive(Debug)]
pub struct Ended {
    pub outcome: Outcome,
    pub reasons: Vec<String>,
}

/// Why a trial stops before its verdicts.
enum Stop {
    Inconclusive(String),
    /// The user asked for it.
    Asked,
}

impl Stop {
    fn why(&self) -> &str {
        match self {
            Self::Inconclusive(why) => why,
            Self::Asked => "stopped before the verdict",
        }
    }
}

struct Running<'a> {
    judge: Judge,
    phase: Phase,
    attempts: mpsc::UnboundedReceiver<Attempt>,
    said: mpsc::UnboundedReceiver<Said>,
    stop: watch::Receiver<bool>,
    events: &'a dyn Fn(TrialEvent),
}

impl Trial<'_> {
    /// Runs it.
    pub async fn run(self) -> Ended {
        let (sender, attempts) = mpsc::unbounded_channel();
        let mut running = Running {
            judge: self.judge,
            phase: Phase::Up,
            attempts,
            said: self.said,
            stop: self.stop,
            events: self.events,
        };
        let mut undo = UndoStack::default();
        let mut dirty = Vec::new();
        let mut stopped = None;
        let quiet = Quiet::default();
        match start(self.plan, &self.cluster, &quiet, &sender) {
            Err(e) => stopped = Some(Stop::Inconclusive(format!("the workload could not be started: {e}"))),
            Ok((workload, churn)) => {
                let without = match &self.sabotage {
                    Some(Sabotage::KillCollector(kind)) => Some(*kind),
                    _ => None,
                };
                let operator = Arc::new(self.cluster.plan().operator());
                let collectors = Collectors::arm(&self.cluster, &operator, &self.signals, without);
                drop(self.signals);
                self.armed.store(true, Ordering::SeqCst);
                let world = World {
                    cluster: Arc::clone(&self.cluster),
                    flows: self.plan.workload.iter().cloned().zip(workload.switches().iter().cloned()).collect(),
                    quiet,
                    host_limit: self.host_limit.clone(),
                };
                let stages = Stages {
                    plan: self.plan,
                    trial: self.trial,
                    world: &world,
                    workload: &workload,
                    churn: &churn,
                    sabotage: self.sabotage.as_ref(),
                    hold: self.hold,
                };
                if let Err(stop) = stages.until_detected(&mut running, &mut undo, &mut dirty).await {
                    running.decide(|judge, _| judge.abandon(stop.why()));
                    stopped = Some(stop);
                }
                stages.heal(&mut running, undo, &mut dirty).await;
                churn.stop().await;
                workload.stop().await;
                collectors.stop().await;
            }
        }
        running.enter(Phase::Down);
        outcome(&running.judge, stopped, dirty)
    }
}

fn start(
    plan: &Plan,
    cluster: &Arc<dyn Cluster>,
    quiet: &Quiet,
    attempts: &mpsc::UnboundedSender<Attempt>,
) -> Result<(Workload, Churn), relapse_kernel::Error> {
    let workload = Workload::start(cluster, &plan.workload, plan.held, attempts)?;
    Ok((workload, Churn::start(cluster, quiet)?))
}

fn outcome(judge: &Judge, stopped: Option<Stop>, dirty: Vec<String>) -> Ended {
    let (mut outcome, mut reasons) = judge.outcome();
    match stopped {
        Some(Stop::Inconclusive(why)) => {
            // A false alarm stands by itself; what was not decided for want of an effect does not.
            outcome = Outcome::Inconclusive;
            reasons = vec![why];
        }
        Some(Stop::Asked) => {
            outcome = Outcome::Inconclusive;
            reasons = vec!["stopped before the verdict".into()];
        }
        None => {}
    }
    if !dirty.is_empty() {
        outcome = Outcome::Dirty;
        reasons.splice(0..0, dirty);
    }
    Ended { outcome, reasons }
}

struct Stages<'a> {
    plan: &'a Plan,
    trial: &'a TrialPlan,
    world: &'a World,
    workload: &'a Workload,
    churn: &'a Churn,
    sabotage: Option<&'a Sabotage>,
    hold: bool,
}

impl Stages<'_> {
    async fn until_detected(
        &self,
        running: &mut Running<'_>,
        undo: &mut UndoStack,
        dirty: &mut Vec<String>,
    ) -> Result<(), Stop> {
        let plan = self.plan;
        running.enter(Phase::Settle);
        let begin = now();
        let mut steady = Steady::new(&plan.workload);
        running
            .until(begin + SETTLE_WITHIN, |now, attempt| {
                if let Some(attempt) = attempt {
                    steady.attempt(begin, attempt);
                }
                let held = self.workload.switches().iter().zip(&plan.workload);
                let all_held = held.clone().all(|(switch, flow)| {
                    !matches!(flow.kind, crate::plan::FlowKind::Hold { .. }) || switch.held() >= plan.held
                });
                all_held && steady.holds(now, plan.steady_for)
            })
            .await?
            .then_some(())
            .ok_or_else(|| Stop::Inconclusive(format!("no steady state: {}", steady.complaint())))?;

        running.enter(Phase::Baseline);
        let begin = now();
        let mut steady = Steady::new(&plan.workload);
        running
            .until(begin + plan.baseline, |_, attempt| {
                if let Some(attempt) = attempt {
                    steady.attempt(begin, attempt);
                }
                false
            })
            .await?;
        let failed: Vec<&str> = steady.failed().collect();
        if !failed.is_empty() {
            return Err(Stop::Inconclusive(format!("the baseline was not quiet: {} failed", failed.join(", "))));
        }
        running.decide(Judge::baseline_ended);

        running.enter(Phase::Inject);
        let still = self.churn.hold_still().await;
        let before = Snapshot::of(self.world.cluster.as_ref())
            .map_err(|e| Stop::Inconclusive(format!("the cluster could not be read before the fault: {e}")))?;
        drop(still);
        let t0_cell = Arc::new(AtomicU64::new(0));
        let mut watches = JoinSet::new();
        let mut effects =
            Effects::prepare(&self.trial.effect, &plan.workload, &self.world.cluster, &t0_cell, &mut watches)
                .map_err(|e| Stop::Inconclusive(format!("the effect could not be watched: {e}")))?;
        let result = self.inject_and_detect(running, undo, &t0_cell, &mut effects).await;
        for seen in effects.results() {
            (running.events)(TrialEvent::Effect(seen));
        }
        if self.hold && result.is_ok() {
            running.until_stopped().await;
        }
        self.undo(running, undo, dirty).await;
        let _still = self.churn.hold_still().await;
        match Snapshot::of(self.world.cluster.as_ref()) {
            Ok(after) => {
                for what in before.difference(&after) {
                    (running.events)(TrialEvent::LeftBehind { what: what.clone() });
                    dirty.push(what);
                }
            }
            Err(e) => dirty.push(format!("the cluster could not be read after healing: {e}")),
        }
        result
    }

    async fn inject_and_detect(
        &self,
        running: &mut Running<'_>,
        undo: &mut UndoStack,
        t0_cell: &AtomicU64,
        effects: &mut Effects,
    ) -> Result<(), Stop> {
        let begin = now();
        let mut in_force: Vec<InForce> = Vec::new();
        let faults = if self.sabotage == Some(&Sabotage::SkipInject) { &[][..] } else { &self.trial.inject[..] };
        for fault in faults {
            let made = fault.inject(self.world, undo).await;
            let made = match (made, self.sabotage) {
                (Ok(_), Some(Sabotage::LyingReadBack)) => Err("read back says it is not in force".to_owned()),
                (made, _) => made.map_err(|e| e.to_string()),
            };
            let made = made.map_err(|e| Stop::Inconclusive(format!("{} is not in force: {e}", fault.name())))?;
            (running.events)(TrialEvent::Injected(Injected {
                fault: fault.name().to_owned(),
                what: made.what.clone(),
                t0: made.t0,
                t1: made.t1,
                read_back: made.read_back.clone(),
            }));
            if let Some((what, why)) = &made.reduced {
                running.decide(|judge, _| judge.leave_out(what, why));
                (running.events)(TrialEvent::Reduced { what: what.clone(), why: why.clone() });
            }
            in_force.push(made);
        }
        let t0 = in_force.first().map_or(begin, |first| first.t0);
        let t1 = in_force.last().map_or(begin, |last| last.t1);
        running.decide(|judge, _| judge.injected(t0));
        t0_cell.store(t1.0, Ordering::Relaxed);
        running.enter(Phase::Detect);
        let is_control = running.judge.is_control();
        let effect_deadline = t0 + self.trial.effect_within;
        let end = if is_control {
            (t0 + self.trial.watch).max(effect_deadline)
        } else {
            running.judge.last_deadline().unwrap_or(t0).max(effect_deadline)
        };
        let watch_until = t0 + self.trial.watch;
        let mut finished = false;
        while !finished && now() < end {
            finished = running
                .step(|judge, now, attempt| {
                    if let Some(attempt) = attempt.filter(|attempt| attempt.started >= t0) {
                        effects.attempt(attempt);
                    }
                    let decided = if is_control { now >= watch_until } else { judge.all_decided() };
                    decided && effects.all_hold()
                })
                .await?;
        }
        running.decide(|judge, now| judge.detect_ended(now));
        let missing: Vec<String> = effects
            .results()
            .into_iter()
            .filter(|effect| !effect.holds)
            .map(|effect| format!("{} ({})", effect.effect, effect.evidence))
            .collect();
        if missing.is_empty() {
            Ok(())
        } else {
            Err(Stop::Inconclusive(format!("the stated effect was not seen: {}", missing.join("; "))))
        }
    }

    /// Undoes every mutation, newest first, and says what could not be undone.
    async fn undo(&self, running: &mut Running<'_>, undo: &mut UndoStack, dirty: &mut Vec<String>) {
        running.enter(Phase::Heal);
        if self.sabotage == Some(&Sabotage::FailUndo) {
            undo.forget_newest();
        }
        let mut stack = std::mem::take(undo);
        let results = tokio::task::spawn_blocking(move || stack.undo_all()).await.unwrap_or_default();
        for (what, result) in results {
            let error = result.err().map(|e| e.to_string());
            if let Some(error) = &error {
                dirty.push(format!("{what} could not be undone: {error}"));
            }
            (running.events)(TrialEvent::Healed { what, error });
        }
    }

    /// After whatever happened: everything works again, and findings clear.
    async fn heal(&self, running: &mut Running<'_>, mut undo: UndoStack, dirty: &mut Vec<String>) {
        if !undo.is_empty() {
            self.undo(running, &mut undo, dirty).await;
        }
        running.enter(Phase::Recover);
        let begin = now();
        let mut steady = Steady::new(&self.plan.workload);
        let recovered = running
            .until(begin + self.plan.recover_within, |now, attempt| {
                if let Some(attempt) = attempt {
                    steady.attempt(begin, attempt);
                }
                steady.holds(now, Duration::from_millis(1))
            })
            .await;
        if let Ok(false) = recovered {
            dirty.push(format!("the workload did not recover: {}", steady.complaint()));
        }
        let deadline = begin + self.plan.recover_within;
        while recovered.is_ok() && !running.judge.all_cleared() && now() < deadline {
            if running.step(|judge, _, _| judge.all_cleared()).await.is_err() {
                break;
            }
        }
        running.decide(|judge, now| judge.recovered(now));
    }
}

impl Running<'_> {
    fn enter(&mut self, phase: Phase) {
        if self.phase != phase || phase == Phase::Up {
            self.phase = phase;
            (self.events)(TrialEvent::Phase { phase });
        }
    }

    /// Goes on until `done` says so or the deadline passes; tells which.
    async fn until(
        &mut self,
        deadline: Time,
        mut done: impl FnMut(Time, Option<&Attempt>) -> bool,
    ) -> Result<bool, Stop> {
        while now() < deadline {
            if self.step(|_, now, attempt| done(now, attempt)).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn until_stopped(&mut self) {
        while self.step(|_, _, _| false).await.is_ok() {}
    }

    /// Waits for the next thing that happens and lets `done` look at it.
    async fn step(&mut self, mut done: impl FnMut(&Judge, Time, Option<&Attempt>) -> bool) -> Result<bool, Stop> {
        if *self.stop.borrow() {
            return Err(Stop::Asked);
        }
        let mut attempt = None;
        tokio::select! {
            biased;
            Some(said) = self.said.recv() => self.hear(said),
            Ok(()) = self.stop.changed() => return Err(Stop::Asked),
            received = self.attempts.recv() => attempt = received,
            () = tokio::time::sleep(TICK) => self.decide(Judge::tick),
        }
        Ok(done(&self.judge, now(), attempt.as_ref()))
    }

    fn hear(&mut self, said: Said) {
        let received = now();
        match said {
            Said::Finding(finding) => {
                let decided = self.judge.finding(received, &finding);
                (self.events)(TrialEvent::Finding(FindingReceived { phase: self.phase, received, finding }));
                for verdict in decided {
                    (self.events)(TrialEvent::Verdict(verdict));
                }
            }
            Said::Blind { detector, why } => {
                self.judge.blind(received, &detector, &why);
                (self.events)(TrialEvent::Blind { detector, why });
            }
        }
    }

    fn decide(&mut self, decide: impl FnOnce(&mut Judge, Time) -> Vec<relapse_reports::event::Decided>) {
        for verdict in decide(&mut self.judge, now()) {
            (self.events)(TrialEvent::Verdict(verdict));
        }
    }
}
