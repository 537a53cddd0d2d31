//! Observes all expected effects of one stage of a trial.

use std::sync::Arc;

use relapse_detectors::time::Time;
use relapse_lab::workload::Attempt;
use relapse_model::FlowId;
use relapse_reports::event::EffectSeen;

use crate::effect::{Effect, Ground, Watch};

/// The expected effects of one stage.
#[derive(Default)]
pub struct Effects {
    stated: Vec<Stated>,
}

struct Stated {
    flow: Option<FlowId>,
    text: String,
    watch: Box<dyn Watch>,
}

impl Effects {
    /// Starts to watch for all of them.
    ///
    /// # Errors
    /// If one cannot be observed.
    pub fn watch(effects: &[Arc<dyn Effect>], mut ground: Ground<'_>) -> relapse_kernel::Result<Self> {
        let mut stated = Vec::with_capacity(effects.len());
        for effect in effects {
            let text = effect.text(ground.flows, ground.cluster.plan());
            stated.push(Stated { flow: effect.flow(), text, watch: effect.watch(&mut ground)? });
        }
        Ok(Self { stated })
    }

    /// Records an attempt that started after t0.
    pub fn attempt(&mut self, attempt: &Attempt) {
        let about = self.stated.iter_mut().filter(|stated| stated.flow == Some(attempt.flow));
        about.for_each(|stated| stated.watch.attempt(attempt));
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Time) {
        self.stated.iter_mut().for_each(|stated| stated.watch.tick(now));
    }

    /// Whether all effects hold so far.
    #[must_use]
    pub fn all_hold(&self) -> bool {
        self.stated.iter().all(|stated| stated.watch.judge().0)
    }

    /// Whether some effect needs more attempts to be decided.
    #[must_use]
    pub fn want_attempts(&self) -> bool {
        self.stated.iter().any(|stated| stated.watch.wants_attempts())
    }

    /// Each effect with its evidence.
    #[must_use]
    pub fn results(&self) -> Vec<EffectSeen> {
        let result = |stated: &Stated| {
            let (holds, evidence) = stated.watch.judge();
            EffectSeen { effect: stated.text.clone(), holds, t2: stated.watch.begin(), evidence, step: None }
        };
        self.stated.iter().map(result).collect()
    }
}
