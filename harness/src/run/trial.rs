//! One trial, inside the lab: all stages, from cluster up through recovery.
//!
//! Events are its only output. Healing is attempted after any error, and what could not be healed is reported.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use relapse_detectors::operator::Operator;
use relapse_detectors::signal::Signal;
use relapse_kernel::sockdiag;
use relapse_lab::cluster::Cluster;
use relapse_lab::fault::{UndoStack, World};
use relapse_lab::host_limit::HostLimit;
use relapse_lab::workload::churn::{Churn, ChurnPause};
use relapse_lab::workload::{Attempt, Workload};
use relapse_reports::event::{Outcome, Phase, TrialEvent};
use tokio::sync::{mpsc, watch};

use super::agents::Agents;
use super::complaints::{self, Complaints};
use super::hold::Visitors;
use super::observer::ToObserver;
use super::order::Sabotage;
use super::running::{Running, Stop};
use super::samples::Samples;
use super::spreads::SharedSpreads;
use super::stage::Stages;
use crate::judge::Judge;
use crate::judge::triage::TriageJudge;
use crate::outside_detector::OutsideEvent;
use crate::plan::{Plan, TrialPlan};
use crate::scenario::trial::Armed;

/// The parts of a trial and where it reports to.
pub struct Trial<'a> {
    pub plan: &'a Plan,
    pub trial: &'a TrialPlan,
    pub cluster: Arc<dyn Cluster>,
    pub host_limit: HostLimit,
    pub sabotage: Option<Sabotage>,
    /// What detectors and agents get of the operator's facts.
    pub operator: Arc<Operator>,
    /// Becomes true when the user stops the run.
    pub stop: watch::Receiver<bool>,
    pub judge: Judge,
    /// Set once every collector is armed.
    pub armed: Arc<AtomicBool>,
    /// When clients see what the faults change; the observer writes it.
    pub spreads: SharedSpreads,
    /// The visitors for whom the trial is held with the fault in force.
    pub hold: Option<Visitors>,
    /// The kernel log, or why it cannot be read.
    pub kernel_log: Result<File, String>,
    pub events: &'a dyn Fn(TrialEvent),
    /// Findings of detectors.
    pub findings: mpsc::UnboundedReceiver<OutsideEvent>,
    /// What users see; the observer receives.
    pub to_observer: mpsc::UnboundedSender<ToObserver>,
    /// Sender for collectors; the observer receives.
    pub signals: mpsc::UnboundedSender<Signal>,
}

impl Trial<'_> {
    /// Runs the trial; returns the outcome and the reasons why it is not a pass.
    pub async fn run(self) -> (Outcome, Vec<String>) {
        let (sender, attempts) = mpsc::unbounded_channel();
        let agents = Agents {
            cluster: Arc::clone(&self.cluster),
            operator: self.operator,
            signals: self.signals,
            observer: self.to_observer.clone(),
            without: match &self.sabotage {
                Some(Sabotage::KillCollector(kind)) => Some(*kind),
                _ => None,
            },
            kernel_log: self.kernel_log,
            armed: self.armed,
            collectors: None,
        };
        let mut running = Running {
            judge: self.judge,
            phase: Phase::Up,
            injected: false,
            worked: Vec::new(),
            spreads: self.spreads,
            recover_within: self.plan.recover_within,
            samples: Samples::new(&self.plan.workload),
            attempts,
            findings: self.findings,
            agents,
            complaints: Complaints::new(&self.plan.workload),
            to_observer: self.to_observer,
            triage: TriageJudge::default(),
            enlarged: UndoStack::default(),
            triage_wrong: Vec::new(),
            lacks_complaint: false,
            stop: self.stop,
            events: self.events,
        };
        let mut dirty = Vec::new();
        let mut stopped = None;
        let quiet = ChurnPause::default();
        match start(self.plan, self.trial, &self.cluster, &quiet, &sender).await {
            Err(why) => stopped = Some(Stop::Inconclusive(why)),
            Ok((workload, churn)) => {
                if self.plan.armed != Armed::AfterInjection {
                    running.agents.arm();
                }
                let world = Arc::new(World {
                    cluster: Arc::clone(&self.cluster),
                    flows: workload.flows.clone(),
                    servers: Arc::clone(&workload.servers),
                    quiet,
                    host_limit: self.host_limit.clone(),
                    full_size: self.plan.is_recorded() && self.host_limit.is_available(),
                });
                let stages = Stages {
                    plan: self.plan,
                    trial: self.trial,
                    world: &world,
                    churn: &churn,
                    sabotage: self.sabotage.as_ref(),
                    hold: self.hold.as_ref(),
                };
                if let Err(stop) = stages.until_healed(&mut running, &mut dirty).await {
                    running.decide(|judge, _| judge.abandon(stop.why()));
                    stopped = Some(stop);
                }
                if let Err(stop) = stages.recover(&mut running, &mut dirty, stopped.is_none()).await {
                    stopped = Some(stop);
                }
                let enlarged = std::mem::take(&mut running.enlarged);
                stages.undo(&mut running, enlarged, &mut dirty).await;
                churn.stop().await;
                // Open connections would keep their namespaces alive for minutes. Destroy them while they still have an
                // owner: the kernel then closes them properly, and the reset ends peers without an owner.
                for ns in self.cluster.own_namespaces() {
                    let _ = sockdiag::destroy_all(&ns);
                }
                workload.stop().await;
                running.agents.stop().await;
            }
        }
        running.enter(Phase::Down, None);
        outcome(&running, stopped, dirty)
    }
}

/// Prepares what faults work on, and starts the workload.
async fn start(
    plan: &Plan,
    trial: &TrialPlan,
    cluster: &Arc<dyn Cluster>,
    quiet: &ChurnPause,
    attempts: &mpsc::UnboundedSender<Attempt>,
) -> Result<(Workload, Churn), String> {
    for fault in trial.changes() {
        let prepared = fault.prepare(cluster.as_ref()).await;
        prepared.map_err(|e| format!("{} could not be prepared: failed to {e}", fault.name))?;
    }
    let failed = |e: relapse_kernel::Error| format!("the workload could not be started: {e}");
    let workload = Workload::start(cluster, &plan.workload, &plan.clients, plan.held, attempts).map_err(failed)?;
    // Twice a second, a pod would come and go in recorded series as nowhere else.
    let passing = !plan.is_recorded();
    Ok((workload, Churn::start(cluster, quiet, passing).map_err(failed)?))
}

fn outcome(running: &Running<'_>, stopped: Option<Stop>, dirty: Vec<String>) -> (Outcome, Vec<String>) {
    let (mut outcome, mut reasons) = running.judge.outcome();
    if !running.triage_wrong.is_empty() {
        outcome = outcome.max(Outcome::Fail);
        reasons.extend(running.triage_wrong.iter().cloned());
    }
    if running.lacks_complaint && outcome == Outcome::Pass {
        outcome = Outcome::Inconclusive;
        reasons.push(format!("triage has nothing to explain: {}", complaints::NONE));
    }
    if let Some(stop) = stopped {
        // It explains why nothing was decided.
        (outcome, reasons) = (Outcome::Inconclusive, vec![stop.why().to_owned()]);
    }
    if !dirty.is_empty() {
        outcome = Outcome::Dirty;
        reasons.splice(0..0, dirty);
    }
    (outcome, reasons)
}
