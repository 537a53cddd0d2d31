//! One stage of a trial: a change of the cluster, then its effect on users and the findings of detectors.
//!
//! The first stage injects; each further one of a chain heals a step. Findings and attempts are processed throughout.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use relapse_detectors::time::Time;
use relapse_lab::fault::{InForce, Planned, UndoStack, World, now};
use relapse_lab::workload::Attempt;
use relapse_lab::workload::churn::{Churn, PassingPodHold};
use relapse_reports::event::{Injected, Phase, TriageExpected, TrialEvent};
use tokio::task::JoinSet;

use super::effects::Effects;
use super::hold::Visitors;
use super::order::Sabotage;
use super::running::{Running, Stop};
use crate::effect::Ground;
use crate::judge::triage::TriageJudge;
use crate::plan::{EffectPlan, FlowId, Plan, TrialPlan};
use crate::scenario::trial::Armed;

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

/// Undo stacks: one for each step, and one for changes that healed steps.
#[derive(Default)]
pub(super) struct Undos {
    pub(super) steps: Vec<UndoStack>,
    pub(super) lasting: UndoStack,
}

/// The effects watched for at one stage.
pub(super) struct Watched<'a> {
    effects: Effects,
    pub(super) within: Duration,
    step: Option<&'a str>,
    /// As [`Ground`] has it.
    in_force: Arc<AtomicU64>,
    /// Background tasks that observe.
    tasks: JoinSet<()>,
    /// Attempts that started earlier are ignored.
    since: Time,
    /// When the change was read back: effects, and the watch of a control, count from here.
    from: Time,
    /// Whether findings of healed steps are to be cleared.
    clears: bool,
    /// The flows whose users complain, where triage must lead, and whether it must find nothing.
    affected: Vec<FlowId>,
    triage: Option<TriageExpected>,
    unseen: bool,
}

impl<'a> Watched<'a> {
    /// Starts to watch for effects, before the change that causes them.
    pub(super) fn begin(
        effect: &EffectPlan,
        step: Option<&'a str>,
        stages: &Stages<'_>,
        before: &[Attempt],
    ) -> Result<Self, Stop> {
        let mut watched = Self::nothing();
        let in_force = Arc::clone(&watched.in_force);
        let ground = Ground {
            cluster: &stages.world.cluster,
            flows: &stages.plan.workload,
            before,
            in_force: &in_force,
            recorded: stages.plan.is_recorded(),
            tasks: &mut watched.tasks,
        };
        watched.effects = Effects::watch(&effect.all, ground)
            .map_err(|e| Stop::Inconclusive(format!("the effect could not be watched: {e}")))?;
        let (within, affected) = (effect.within, effect.affected.clone());
        Ok(Self { within, affected, step, unseen: stages.trial.unseen, ..watched })
    }

    /// Watches for nothing.
    pub(super) fn nothing() -> Self {
        Self {
            effects: Effects::default(),
            within: Duration::ZERO,
            step: None,
            in_force: Arc::default(),
            tasks: JoinSet::new(),
            since: Time::default(),
            from: Time::default(),
            clears: false,
            affected: Vec::new(),
            triage: None,
            unseen: false,
        }
    }

    /// Judges triage, too.
    pub(super) fn with_triage(mut self, expected: Option<&TriageExpected>) -> Self {
        self.triage = expected.cloned();
        self
    }

    /// The change has been made.
    pub(super) fn in_force_since(&mut self, at: Time) {
        (self.since, self.from) = (at, at);
        self.in_force.store(at.0, Ordering::Relaxed);
    }

    pub(super) fn step(&mut self, now: Time, attempt: Option<&Attempt>) {
        attempt.into_iter().for_each(|attempt| self.attempt(attempt));
        self.effects.tick(now);
    }

    pub(super) fn attempt(&mut self, attempt: &Attempt) {
        // Until the change is read back as in force, a success proves nothing.
        let in_force = Time(self.in_force.load(Ordering::Relaxed));
        if attempt.started >= self.since && (attempt.failure.is_some() || attempt.started >= in_force) {
            self.effects.attempt(attempt);
        }
    }

    fn triage(&self) -> TriageJudge {
        TriageJudge::new(self.step, self.triage.as_ref(), self.unseen)
    }

    pub(super) fn holds(&self) -> bool {
        self.effects.all_hold()
    }

    /// Reports each effect with its evidence.
    pub(super) fn report(&self, events: &dyn Fn(TrialEvent)) {
        for mut seen in self.effects.results() {
            seen.step = self.step.map(str::to_owned);
            events(TrialEvent::Effect(seen));
        }
    }

    /// Checks that all effects hold.
    ///
    /// # Errors
    /// The effects that were not observed.
    pub(super) fn missing(&self, when: &str) -> Result<(), Stop> {
        let results = self.effects.results().into_iter().filter(|effect| !effect.holds);
        let missing: Vec<String> = results.map(|effect| format!("{} ({})", effect.effect, effect.evidence)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let when = if when.is_empty() { String::new() } else { format!("{when}: ") };
        Err(Stop::Inconclusive(format!("{when}the expected effect was not seen: {}", missing.join("; "))))
    }
}

impl Stages<'_> {
    /// Arms the agents now that the faults are in force: everything counts from then.
    async fn arm_late(&self, running: &mut Running<'_>, watched: &mut Watched<'_>) -> Time {
        if self.plan.armed == Armed::Restarted {
            running.agents.end().await;
            running.discard();
        }
        let since = running.agents.arm();
        running.decide(|judge, _| judge.armed_late(since));
        watched.from = since;
        since
    }

    /// Restarts the agents when all has been found.
    pub(super) async fn restart(&self, running: &mut Running<'_>, watched: &mut Watched<'_>) -> Result<(), Stop> {
        running.enter(Phase::Detect, watched.step);
        let deadline = running.judge.last_deadline().unwrap_or_default();
        let mut all = false;
        while !all && now() < deadline {
            let step = running.step(|judge, now, attempt| {
                watched.step(now, attempt);
                judge.all_decided()
            });
            all = step.await?;
        }
        self.arm_late(running, watched).await;
        Ok(())
    }

    /// Injects the faults of all steps.
    pub(super) async fn inject_all(
        &self,
        running: &mut Running<'_>,
        undos: &mut Undos,
        watched: &mut Watched<'_>,
        still: PassingPodHold,
    ) -> Result<(), Stop> {
        let begin = now();
        let mut in_force: Vec<InForce> = Vec::new();
        let (mut meanwhile, mut late) = (Vec::new(), Vec::new());
        for step in &self.trial.steps {
            let mut t0 = None;
            undos.steps.push(UndoStack::default());
            let faults = if self.sabotage == Some(&Sabotage::SkipInject) { &[][..] } else { &step.inject[..] };
            let name = step.name.as_deref();
            let spreads = faults.iter().map(|fault| fault.spread(self.world)).collect();
            running.spreads.lock().begin(name, spreads, step.effect.within);
            for fault in faults {
                let undo = undos.steps.last_mut().unwrap_or(&mut undos.lasting);
                let made = self.make(fault, name, running, undo, &mut meanwhile).await?;
                t0.get_or_insert(made.t0);
                in_force.push(made);
            }
            let t0 = t0.unwrap_or(begin);
            let visible = running.spreads.lock().made(name, t0);
            if self.plan.armed == Armed::AfterInjection {
                late.push((name, visible));
                continue;
            }
            running.decide(|judge, _| judge.count_from(name, visible, t0));
        }
        // The kernel creates and deletes links under one lock, so a pod of the churn would have delayed the fault.
        drop(still);
        let t1 = in_force.last().map_or(begin, |last| last.t1);
        watched.in_force_since(t1);
        watched.since = in_force.first().map_or(begin, |first| first.t0);
        if self.plan.armed == Armed::AfterInjection {
            let since = self.arm_late(running, watched).await;
            for (name, visible) in late {
                running.decide(|judge, _| judge.count_from(name, visible, since));
            }
        }
        running.changed(watched.since, &watched.affected, watched.triage());
        meanwhile.iter().for_each(|attempt| watched.attempt(attempt));
        Ok(())
    }

    /// Heals one step of a chain.
    pub(super) async fn heal_step(
        &self,
        running: &mut Running<'_>,
        undos: &mut Undos,
        number: usize,
        watched: &mut Watched<'_>,
        dirty: &mut Vec<String>,
    ) -> Result<(), Stop> {
        let step = &self.trial.steps[number];
        let name = step.name.as_deref().unwrap_or_default();
        running.enter(Phase::Heal, Some(name));
        running.decide(|judge, now| judge.healing(name, now));
        let ignored = &mut Vec::new();
        if let Some(next) = self.trial.steps.get(number + 1) {
            // Undone after the faults of that step.
            let mut undo = UndoStack::default();
            let mut made = Ok(());
            for change in &next.meanwhile {
                made = self.make(change, next.name.as_deref(), running, &mut undo, ignored).await.map(drop);
                if made.is_err() {
                    break;
                }
            }
            undo.append(std::mem::take(&mut undos.steps[number + 1]));
            undos.steps[number + 1] = undo;
            made?;
        }
        for change in &step.heal {
            self.make(change, Some(name), running, &mut undos.lasting, ignored).await?;
        }
        let before = dirty.len();
        self.undo(running, std::mem::take(&mut undos.steps[number]), dirty).await;
        if dirty.len() > before {
            return Err(Stop::Inconclusive(format!("step {name} could not be healed")));
        }
        watched.in_force_since(now());
        watched.clears = true;
        running.changed(watched.since, &watched.affected, watched.triage());
        running.spreads.lock().healed(Some(name), watched.since);
        running.judge.healed(name, watched.since + self.plan.recover_within);
        Ok(())
    }

    /// Watches until everything is decided or too late. An effect on all clients has until the last of them sees the
    /// change; a control is watched from when the first one does.
    pub(super) async fn watch(&self, running: &mut Running<'_>, watched: &mut Watched<'_>) -> Result<(), Stop> {
        running.enter(Phase::Detect, watched.step);
        let is_control = running.judge.is_control();
        let mut finished = false;
        while !finished {
            // Injecting may have taken longer than all that is waited for.
            watched.step(now(), None);
            let visible = running.spreads.lock().visible().unwrap_or(watched.from);
            let least = match () {
                () if is_control => watched.from.max(visible) + self.trial.watch,
                // A stage without new findings is watched for as long as the baseline.
                () if self.trial.is_chain() => watched.from + self.plan.baseline,
                () => watched.from + self.plan.at_least.fault,
            };
            let settled = running.settled(watched.from);
            let last = if is_control { None } else { running.judge.last_deadline() };
            let cleared = if watched.clears { settled + self.plan.recover_within } else { settled };
            let end = least.max(settled + watched.within).max(cleared).max(last.unwrap_or(settled));
            let few = watched.effects.want_attempts() && now() < end + FEW_ATTEMPTS.max(self.plan.slowest() * 3);
            if now() >= end && !few && !running.triage.is_pending(now()) {
                break;
            }
            finished = running
                .step(|judge, now, attempt| {
                    watched.step(now, attempt);
                    let decided = now >= least && (is_control || judge.all_decided() && judge.healed_is_cleared());
                    decided && watched.holds()
                })
                .await?
                && !running.triage.is_pending(now());
        }
        running.flush().await;
        running.decide_triage();
        running.decide(|judge, now| match watched.step {
            Some(_) if !is_control => judge.stage_ended(now),
            _ => judge.detect_ended(now),
        });
        watched.missing(&watched.step.map(|step| format!("step {step}")).unwrap_or_default())
    }

    /// Makes one mutation on a thread of its own, so that findings are received meanwhile.
    async fn make(
        &self,
        change: &Planned,
        step: Option<&str>,
        running: &mut Running<'_>,
        undo: &mut UndoStack,
        meanwhile: &mut Vec<Attempt>,
    ) -> Result<InForce, Stop> {
        let (fault, world, mut stack) = (change.clone(), Arc::clone(self.world), std::mem::take(undo));
        let runtime = tokio::runtime::Handle::current();
        let job = move || {
            let made = runtime.block_on(fault.inject(&world, &mut stack));
            (made, stack)
        };
        let done = receiving(running, meanwhile, job).await;
        let made = done.and_then(|(made, stack)| {
            *undo = stack;
            match (made, self.sabotage) {
                (Ok(_), Some(Sabotage::LyingReadBack)) => Err("it reads back as not in force".into()),
                (made, _) => made.map_err(|e| e.to_string()),
            }
        });
        let made = made.map_err(|e| Stop::Inconclusive(format!("{} is not in force: {e}", change.name)))?;
        (running.events)(TrialEvent::Injected(Injected {
            fault: change.name.to_owned(),
            what: made.what.clone(),
            t0: made.t0,
            t1: made.t1,
            read_back: made.read_back.clone(),
            step: step.map(str::to_owned),
        }));
        if let Some((what, why)) = &made.reduced {
            let own = self.trial.steps.iter().find(|of| of.name.as_deref() == step);
            let beside = own.is_some_and(|own| own.inject.len() + own.meanwhile.len() > 1);
            running.decide(|judge, _| judge.leave_out(step, beside, what, why));
            (running.events)(TrialEvent::Reduced { what: what.clone(), why: why.clone() });
        }
        Ok(made)
    }

    /// Undoes mutations, newest first, and reports what could not be undone.
    pub(super) async fn undo(&self, running: &mut Running<'_>, mut undo: UndoStack, dirty: &mut Vec<String>) {
        if self.sabotage == Some(&Sabotage::FailUndo) {
            undo.forget_newest();
        }
        let results = receiving(running, &mut Vec::new(), move || undo.undo_all()).await.unwrap_or_default();
        for (what, result) in results {
            let error = result.err().map(|e| e.to_string());
            if let Some(error) = &error {
                dirty.push(format!("{what} could not be undone: {error}"));
            }
            (running.events)(TrialEvent::Healed { what, error });
        }
    }
}

/// Does a job on a thread of its own; findings and attempts are received meanwhile.
async fn receiving<T: Send + 'static>(
    running: &mut Running<'_>,
    meanwhile: &mut Vec<Attempt>,
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let mut job = tokio::task::spawn_blocking(job);
    let mut receive = true;
    loop {
        tokio::select! {
            biased;
            done = &mut job => return done.map_err(|e| e.to_string()),
            step = running.step(|_, _, attempt| { meanwhile.extend(attempt.cloned()); false }), if receive => {
                // A stop request waits for the job, so that it can be undone.
                receive = step.is_ok();
            }
        }
    }
}
