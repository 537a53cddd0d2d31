//! The stages of a trial between up and down: settle, baseline, inject, detect, heal, recover.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use relapse_lab::cluster::snapshot::Snapshot;
use relapse_lab::fault::{InForce, Planned, UndoStack, World, now};
use relapse_lab::workload::Attempt;
use relapse_lab::workload::churn::{Churn, PassingPodHold};
use relapse_reports::event::{Injected, Phase, TrialEvent};
use tokio::task::JoinSet;

use super::effects::Effects;
use super::hold::Visitors;
use super::order::Sabotage;
use super::running::{Running, Stop};
use super::steady::Steady;
use crate::effect::Ground;
use crate::judge::Judge;
use crate::plan::{Plan, TrialPlan};

/// Additional time to wait for attempts when only their number is too small.
const FEW_ATTEMPTS: Duration = Duration::from_secs(3);

/// What the stages work on.
pub struct Stages<'a> {
    pub plan: &'a Plan,
    pub trial: &'a TrialPlan,
    pub world: &'a Arc<World>,
    pub churn: &'a Churn,
    pub sabotage: Option<&'a Sabotage>,
    pub hold: Option<&'a Visitors>,
}

impl Stages<'_> {
    /// Runs all stages up to the verdicts and the undo. Leftovers are added to `dirty`.
    ///
    /// # Errors
    /// Why there is no verdict.
    pub async fn until_detected(
        &self,
        running: &mut Running<'_>,
        undo: &mut UndoStack,
        dirty: &mut Vec<String>,
    ) -> Result<(), Stop> {
        let plan = self.plan;
        running.enter(Phase::Settle);
        let begin = now();
        let mut steady = Steady::new(&plan.workload);
        let mut worked = Vec::new();
        running
            .until(begin + plan.settle_within, |now, attempt| {
                if let Some(attempt) = attempt {
                    steady.attempt(begin, attempt);
                    worked.extend(Some(attempt).filter(|attempt| attempt.failure.is_none()).cloned());
                }
                self.lacks_connections().next().is_none() && steady.holds(now, plan.steady_for)
            })
            .await?
            .then_some(())
            .ok_or_else(|| Stop::Inconclusive(format!("no steady state: {}", self.describe(&steady))))?;

        running.enter(Phase::Baseline);
        let begin = now();
        let mut steady = Steady::new(&plan.workload);
        running
            .until(begin + plan.baseline, |_, attempt| {
                if let Some(attempt) = attempt {
                    steady.attempt(begin, attempt);
                    worked.extend(Some(attempt).filter(|attempt| attempt.failure.is_none()).cloned());
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
        running.injected = true;
        let still = self.churn.hold_passing_pod().await;
        let before = Snapshot::of(self.world.cluster.as_ref())
            .map_err(|e| Stop::Inconclusive(format!("the cluster could not be read before the fault: {e}")))?;
        let t0_cell = Arc::new(AtomicU64::new(0));
        let mut watches = JoinSet::new();
        let ground = Ground {
            cluster: &self.world.cluster,
            flows: &plan.workload,
            before: &worked,
            in_force: &t0_cell,
            tasks: &mut watches,
        };
        let mut effects = Effects::watch(&self.trial.effect, ground)
            .map_err(|e| Stop::Inconclusive(format!("the effect could not be watched: {e}")))?;
        let result = self.inject_and_detect(running, undo, &t0_cell, &mut effects, still).await;
        for seen in effects.results() {
            (running.events)(TrialEvent::Effect(seen));
        }
        // Hold whatever the result: the visitor judges it.
        if let Some(visitors) = self.hold
            && !matches!(result, Err(Stop::Requested))
        {
            let place = self.plan.cluster_of(self.trial);
            visitors.attend(running, self.world.cluster.as_ref(), place).await;
        }
        self.undo(running, undo, dirty).await;
        let _still = self.churn.hold_passing_pod().await;
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

    /// Flows that hold too few connections, each with the held and the required number.
    fn lacks_connections(&self) -> impl Iterator<Item = (&str, u32, u32)> {
        let flows = self.world.flows.iter().filter(|(flow, _)| flow.holds());
        let held = flows.map(|(flow, switch)| (&*flow.name, switch.held(), flow.keeps.min(self.plan.held)));
        held.filter(|(_, held, wanted)| held < wanted)
    }

    /// Why the workload is not steady, as text.
    fn describe(&self, steady: &Steady) -> String {
        let few = self.lacks_connections().map(|(name, held, wanted)| {
            format!("{name} holds {held} of {wanted} connections: use a shorter `every` or a smaller `held`")
        });
        let few: Vec<String> = few.collect();
        if few.is_empty() { steady.describe() } else { few.join(", ") }
    }

    async fn inject_and_detect(
        &self,
        running: &mut Running<'_>,
        undo: &mut UndoStack,
        t0_cell: &AtomicU64,
        effects: &mut Effects,
        still: PassingPodHold,
    ) -> Result<(), Stop> {
        let begin = now();
        let mut in_force: Vec<InForce> = Vec::new();
        let mut meanwhile = Vec::new();
        let faults = if self.sabotage == Some(&Sabotage::SkipInject) { &[][..] } else { &self.trial.inject[..] };
        for fault in faults {
            let made = self.inject(fault, running, undo, &mut meanwhile).await;
            let made = made.map_err(|e| Stop::Inconclusive(format!("{} is not in force: {e}", fault.name)))?;
            (running.events)(TrialEvent::Injected(Injected {
                fault: fault.name.to_owned(),
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
        // The kernel creates and deletes links under one lock, so a pod of the churn would have delayed the fault.
        drop(still);
        let t0 = in_force.first().map_or(begin, |first| first.t0);
        let t1 = in_force.last().map_or(begin, |last| last.t1);
        running.decide(|judge, _| judge.injected(t0));
        t0_cell.store(t1.0, Ordering::Relaxed);
        running.enter(Phase::Detect);
        meanwhile.iter().filter(|attempt| attempt.started >= t0).for_each(|attempt| effects.attempt(attempt));
        let is_control = running.judge.is_control();
        let effect_deadline = t0 + self.trial.effect_within;
        let end = if is_control {
            (t0 + self.trial.watch).max(effect_deadline)
        } else {
            running.judge.last_deadline().unwrap_or(t0).max(effect_deadline)
        };
        let watch_until = t0 + self.trial.watch;
        let mut finished = false;
        while !finished && (now() < end || effects.want_attempts() && now() < end + FEW_ATTEMPTS) {
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
            Err(Stop::Inconclusive(format!("the expected effect was not seen: {}", missing.join("; "))))
        }
    }

    /// Makes one mutation on a thread of its own, so that findings are received meanwhile.
    async fn inject(
        &self,
        fault: &Planned,
        running: &mut Running<'_>,
        undo: &mut UndoStack,
        meanwhile: &mut Vec<Attempt>,
    ) -> Result<InForce, String> {
        let (fault, world, mut stack) = (fault.clone(), Arc::clone(self.world), std::mem::take(undo));
        let runtime = tokio::runtime::Handle::current();
        let mut job = tokio::task::spawn_blocking(move || {
            let made = runtime.block_on(fault.inject(&world, &mut stack));
            (made, stack)
        });
        let mut receiving = true;
        let done = loop {
            tokio::select! {
                biased;
                done = &mut job => break done,
                step = running.step(|_, _, attempt| { meanwhile.extend(attempt.cloned()); false }), if receiving => {
                    // A stop request waits for the mutation, so that it can be undone.
                    receiving = step.is_ok();
                }
            }
        };
        let (made, stack) = done.map_err(|e| e.to_string())?;
        *undo = stack;
        match (made, self.sabotage) {
            (Ok(_), Some(Sabotage::LyingReadBack)) => Err("it reads back as not in force".into()),
            (made, _) => made.map_err(|e| e.to_string()),
        }
    }

    /// Undoes every mutation, newest first, and reports what could not be undone.
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

    /// Heals after any result, and waits until every flow works and every finding is cleared.
    pub async fn heal(&self, running: &mut Running<'_>, mut undo: UndoStack, dirty: &mut Vec<String>) {
        if !undo.is_empty() {
            self.undo(running, &mut undo, dirty).await;
        }
        if !running.injected {
            return;
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
            dirty.push(format!("the workload did not recover: {}", steady.describe()));
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
