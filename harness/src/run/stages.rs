//! The stages of a trial between up and down: settle, baseline, inject, detect, heal, recover.
//!
//! In a chain, detect and heal come once for each step: all steps are injected, and while a step is watched, those before
//! it are healed. Any other trial is a chain of one step. [`super::stage`] does the work of one stage.

use std::time::Duration;

use relapse_lab::cluster::snapshot::Snapshot;
use relapse_lab::fault::now;
use relapse_lab::workload::churn::PassingPodHold;
use relapse_reports::event::{Phase, TrialEvent};

use super::hold::Visit;
use super::running::{Running, Stop};
use super::stage::{Stages, Undos, Watched};
use super::steady::Steady;
use crate::judge::Judge;
use crate::scenario::trial::Armed;

/// In a baseline of a minute, one attempt in so many may fail on a busy machine.
const ONE_IN: u32 = 100;

impl Stages<'_> {
    /// Runs all stages until everything is healed. Leftovers are added to `dirty`.
    ///
    /// # Errors
    /// Why there is no verdict.
    pub async fn until_healed(&self, running: &mut Running<'_>, dirty: &mut Vec<String>) -> Result<(), Stop> {
        self.settle(running).await?;
        running.enter(Phase::Inject, None);
        running.injected = true;
        let still = self.churn.hold_passing_pod().await;
        let before = Snapshot::of(self.world.cluster.as_ref())
            .map_err(|e| Stop::Inconclusive(format!("the cluster could not be read before the fault: {e}")))?;
        let mut undos = Undos::default();
        let result = self.each_stage(running, &mut undos, dirty, still).await;
        // If a chain was interrupted, the remaining steps are undone in reverse order.
        running.enter(Phase::Heal, None);
        for stack in undos.steps.into_iter().rev().chain([undos.lasting]) {
            self.undo(running, stack, dirty).await;
        }
        running.spreads.lock().healed(None, now());
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

    /// Waits until every flow works, then watches the baseline.
    async fn settle(&self, running: &mut Running<'_>) -> Result<(), Stop> {
        let plan = self.plan;
        running.enter(Phase::Settle, None);
        let mut worked = Vec::new();
        let begin = now();
        let mut steady = Steady::new(&plan.workload);
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

        if self.world.full_size {
            let mut enlarged = std::mem::take(&mut running.enlarged);
            let mut made = Ok(());
            for fault in self.trial.changes() {
                made = made.and(fault.enlarge(self.world, &mut enlarged).await);
            }
            running.enlarged = enlarged;
            made.map_err(|e| Stop::Inconclusive(format!("the original's size could not be had: failed to {e}")))?;
        }
        running.enter(Phase::Baseline, None);
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
        let failed: Vec<&str> = steady.failed(if plan.is_recorded() { ONE_IN } else { u32::MAX }).collect();
        if !failed.is_empty() {
            return Err(Stop::Inconclusive(format!("the baseline was not quiet: {} failed", failed.join(", "))));
        }
        running.worked = worked;
        running.decide(Judge::baseline_ended);
        Ok(())
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

    /// Injects all steps, then watches each and heals it before the next one.
    async fn each_stage(
        &self,
        running: &mut Running<'_>,
        undos: &mut Undos,
        dirty: &mut Vec<String>,
        still: PassingPodHold,
    ) -> Result<(), Stop> {
        let mut still = Some(still);
        for (number, step) in self.trial.steps.iter().enumerate() {
            let mut watched = Watched::begin(&step.effect, step.name.as_deref(), self, &running.worked)?
                .with_triage(step.triage.as_ref());
            let result = match still.take() {
                Some(still) => self.inject_all(running, undos, &mut watched, still).await,
                None => self.heal_step(running, undos, number - 1, &mut watched, dirty).await,
            };
            let result = match result {
                Ok(()) if number == 0 && self.plan.armed == Armed::Restarted => {
                    self.restart(running, &mut watched).await
                }
                result => result,
            };
            let result = match result {
                Ok(()) => self.watch(running, &mut watched).await,
                Err(stop) => Err(stop),
            };
            watched.report(running.events);
            // Hold whatever the result: the visitor judges it.
            if let Some(visitors) = self.hold
                && !matches!(result, Err(Stop::Requested))
            {
                let place = self.plan.cluster_of(self.trial);
                let visit = visitors.attend(running, self.world.cluster.as_ref(), place).await;
                if visit == Visit::Ended && result.is_ok() && number + 1 < self.trial.steps.len() {
                    running.decide(Judge::cut_short);
                    return Ok(());
                }
            }
            result?;
        }
        if self.trial.is_chain() {
            let mut nothing = Watched::nothing();
            self.heal_step(running, undos, self.trial.steps.len() - 1, &mut nothing, dirty).await?;
        }
        Ok(())
    }

    /// Waits, after any result, until every flow works and every finding is cleared.
    ///
    /// # Errors
    /// If the expected effect of healing was not observed.
    pub async fn recover(
        &self,
        running: &mut Running<'_>,
        dirty: &mut Vec<String>,
        went_well: bool,
    ) -> Result<(), Stop> {
        if !running.injected {
            return Ok(());
        }
        running.enter(Phase::Recover, None);
        let begin = now();
        let mut healed = match &self.trial.healed {
            healed if went_well => Watched::begin(healed, None, self, &running.worked)?,
            _ => Watched::nothing(),
        };
        healed.in_force_since(begin);
        let mut steady = Steady::new(&self.plan.workload);
        let mut recovered = Ok(false);
        // Each flow must have had the time for a request that began after healing.
        let steady_within = self.plan.recover_within.max(self.plan.slowest());
        while matches!(recovered, Ok(false)) && now() < running.settled(begin) + steady_within {
            let step = running.step(|_, now, attempt| {
                attempt.into_iter().for_each(|attempt| steady.attempt(begin, attempt));
                healed.step(now, attempt);
                steady.holds(now, Duration::from_millis(1))
            });
            recovered = step.await;
        }
        if let Ok(false) = recovered {
            dirty.push(format!("the workload did not recover: {}", steady.describe()));
        }
        let within = self.plan.recover_within.max(healed.within);
        let mut over = running.judge.all_cleared() && healed.holds();
        while recovered.is_ok() && !over && now() < running.settled(begin) + within {
            let step = running.step(|judge, now, attempt| {
                healed.step(now, attempt);
                judge.all_cleared() && healed.holds()
            });
            match step.await {
                Ok(done) => over = done,
                Err(stop) => recovered = Err(stop),
            }
        }
        if let Err(stop) = recovered {
            running.decide(|judge, _| judge.abandon(stop.why()));
            return Err(stop);
        }
        let healed_at = running.settled(begin);
        running.decide(|judge, now| judge.recovered(now, healed_at));
        let seen = running.spreads.lock().healings();
        seen.into_iter().for_each(|seen| (running.events)(TrialEvent::Visible(seen)));
        healed.report(running.events);
        running.until(begin + self.plan.at_least.healthy, |_, _| false).await?;
        healed.missing("after healing")
    }
}
