//! One trial, inside the lab: from cluster up through recovery, every stage in order.
//!
//! The only thing that leaves it is events. Whatever goes wrong, healing is tried, and what could not
//! be healed is said.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use relapse_detectors::signal::Signal;
use relapse_kernel::sockdiag;
use relapse_lab::cluster::Cluster;
use relapse_lab::collect::Collectors;
use relapse_lab::fault::World;
use relapse_lab::host_limit::HostLimit;
use relapse_lab::workload::churn::{Churn, ChurnPause};
use relapse_lab::workload::{Attempt, Workload};
use relapse_reports::event::{Outcome, Phase, TrialEvent};
use tokio::sync::{mpsc, watch};

use super::hold::Visitors;
use super::order::Sabotage;
use super::running::{Running, Stop};
use super::samples::Samples;
use super::stages::Stages;
use crate::judge::Judge;
use crate::outside_detector::OutsideEvent;
use crate::plan::{Plan, TrialPlan};

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
    /// Stay with the fault in force, for these to look around.
    pub hold: Option<Visitors>,
    /// The kernel log, or why it cannot be read.
    pub kernel_log: Result<File, String>,
    pub events: &'a dyn Fn(TrialEvent),
    /// What detectors say.
    pub said: mpsc::UnboundedReceiver<OutsideEvent>,
    /// Where collectors send to; the observer is at the other end.
    pub signals: mpsc::UnboundedSender<Signal>,
}

impl Trial<'_> {
    /// Runs it; how it went, and why that is not a pass.
    pub async fn run(self) -> (Outcome, Vec<String>) {
        let (sender, attempts) = mpsc::unbounded_channel();
        let mut running = Running {
            judge: self.judge,
            phase: Phase::Up,
            injected: false,
            samples: Samples::new(&self.plan.workload),
            attempts,
            said: self.said,
            stop: self.stop,
            events: self.events,
        };
        let mut dirty = Vec::new();
        let mut stopped = None;
        let quiet = ChurnPause::default();
        match start(self.plan, &self.cluster, &quiet, &sender) {
            Err(e) => stopped = Some(Stop::Inconclusive(format!("the workload could not be started: {e}"))),
            Ok((workload, churn)) => {
                let without = match &self.sabotage {
                    Some(Sabotage::KillCollector(kind)) => Some(*kind),
                    _ => None,
                };
                let operator = Arc::new(self.cluster.plan().operator());
                let collectors = Collectors::arm(&self.cluster, &operator, &self.signals, without, &self.kernel_log);
                drop(self.signals);
                self.armed.store(true, Ordering::SeqCst);
                let world = Arc::new(World {
                    cluster: Arc::clone(&self.cluster),
                    flows: workload.flows.clone(),
                    quiet,
                    host_limit: self.host_limit.clone(),
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
                churn.stop().await;
                // What hangs on a connection would keep its namespace for minutes. While somebody owns it: the kernel
                // ends it in good order then, and its reset ends what has no owner at the other end.
                for ns in self.cluster.own_namespaces() {
                    let _ = sockdiag::destroy_all(&ns);
                }
                workload.stop().await;
                collectors.stop().await;
            }
        }
        running.enter(Phase::Down, None);
        outcome(&running.judge, stopped, dirty)
    }
}

fn start(
    plan: &Plan,
    cluster: &Arc<dyn Cluster>,
    quiet: &ChurnPause,
    attempts: &mpsc::UnboundedSender<Attempt>,
) -> Result<(Workload, Churn), relapse_kernel::Error> {
    let workload = Workload::start(cluster, &plan.workload, &plan.clients, plan.held, attempts)?;
    Ok((workload, Churn::start(cluster, quiet)?))
}

fn outcome(judge: &Judge, stopped: Option<Stop>, dirty: Vec<String>) -> (Outcome, Vec<String>) {
    let (mut outcome, mut reasons) = judge.outcome();
    if let Some(stop) = stopped {
        // A false alarm stands by itself; what was not decided for want of an effect does not.
        (outcome, reasons) = (Outcome::Inconclusive, vec![stop.why().to_owned()]);
    }
    if !dirty.is_empty() {
        outcome = Outcome::Dirty;
        reasons.splice(0..0, dirty);
    }
    (outcome, reasons)
}
