//! Expected effects: what a fault does to the workload or leaves unaffected, and whether it was observed.
//!
//! A new kind is one file under `effects/` and one registry line. An effect fails if there is too little or too much of
//! it.

pub mod times;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use relapse_detectors::signal::CollectorKind;
use relapse_detectors::time::Time;
use relapse_kernel::Result;
use relapse_lab::cluster::Cluster;
use relapse_lab::workload::Attempt;
use relapse_model::diagnostics::{did_you_mean, quoted};
use relapse_model::spanned::Spanned;
use relapse_model::{ClusterPlan, FlowId, FlowPlan, PartId, Resolver};
use tokio::task::JoinSet;

/// Minimum number of failed or successful attempts to decide that a flow fails or works.
pub const ENOUGH: u32 = 3;

/// An effect as written in a scenario.
pub trait EffectSpec {
    /// Resolves names and checks numbers. Errors are reported to the resolver; then there is no effect.
    fn plan(&self, planner: &mut EffectPlanner<'_, '_>) -> Option<Arc<dyn Effect>>;
}

/// The effects being planned.
pub struct EffectPlanner<'r, 'a> {
    pub resolver: &'r mut Resolver<'a>,
    /// Time within which all of them must be observed.
    pub within: Duration,
    /// Flows, and parts of flows, that already have an effect.
    stated: Vec<(FlowId, Option<PartId>)>,
}

impl<'r, 'a> EffectPlanner<'r, 'a> {
    pub const fn new(resolver: &'r mut Resolver<'a>, within: Duration) -> Self {
        Self { resolver, within, stated: Vec::new() }
    }

    /// The flow with this name. Reports an error if it already has an effect.
    pub fn flow(&mut self, name: &Spanned<String>) -> Option<FlowId> {
        self.part(name, None).map(|(flow, _)| flow)
    }

    /// The flow with this name, or a part of it. Reports an error if it already has an effect.
    pub fn part(&mut self, name: &Spanned<String>, part: Option<&Spanned<String>>) -> Option<(FlowId, Option<PartId>)> {
        let flow = self.resolver.flow(name)?;
        let part = match part {
            Some(part) => Some(self.part_of(flow, part)?),
            None => None,
        };
        if self.stated.contains(&(flow, part)) {
            let what = if part.is_some() { "this part of flow" } else { "flow" };
            let message = format!("{what} {} already has an effect", quoted(name));
            self.resolver.error(name.span, message, "state one effect per flow, or per part of one");
        }
        self.stated.push((flow, part));
        Some((flow, part))
    }

    fn part_of(&mut self, flow: FlowId, name: &Spanned<String>) -> Option<PartId> {
        let flow = &self.resolver.workload[flow.0];
        let found = flow.parts.iter().position(|part| part.name == name.value);
        if found.is_none() {
            let message = format!("flow {} has no part {}", quoted(&flow.name), quoted(name));
            let help = if flow.parts.is_empty() {
                "only `call` flows have parts: leave `part` out".to_owned()
            } else {
                did_you_mean(name, "its parts", flow.parts.iter().map(|part| part.name.as_str()))
            };
            self.resolver.error(name.span, message, help);
        }
        found.map(PartId)
    }
}

/// One planned effect.
pub trait Effect: fmt::Debug + Send + Sync {
    /// Describes the effect.
    fn text(&self, flows: &[FlowPlan], cluster: &ClusterPlan) -> String;

    /// The flow whose attempts show the effect.
    fn flow(&self) -> Option<FlowId> {
        None
    }

    /// Whether users notice it as a failure.
    fn hurts(&self) -> bool {
        false
    }

    /// Collectors of which at least one is needed to observe it.
    fn needs(&self) -> Option<&'static [CollectorKind]> {
        None
    }

    /// Starts to watch for it.
    ///
    /// # Errors
    /// If it cannot be observed.
    fn watch(&self, on: &mut Ground<'_>) -> Result<Box<dyn Watch>>;
}

/// What effects are observed on.
pub struct Ground<'a> {
    pub cluster: &'a Arc<dyn Cluster>,
    pub flows: &'a [FlowPlan],
    /// Successful attempts before the faults.
    pub before: &'a [Attempt],
    /// Clock time in nanoseconds from which the faults are in force; 0 before.
    pub in_force: &'a Arc<AtomicU64>,
    /// Series are recorded, for minutes instead of seconds.
    pub recorded: bool,
    /// Background tasks that observe.
    pub tasks: &'a mut JoinSet<()>,
}

/// Observes one effect.
pub trait Watch: Send {
    /// Records an attempt of the effect's flow that started after t0.
    fn attempt(&mut self, attempt: &Attempt) {
        let _ = attempt;
    }

    /// Time has passed.
    fn tick(&mut self, now: Time) {
        let _ = now;
    }

    /// Whether the effect holds so far, and the evidence.
    fn judge(&self) -> (bool, String);

    /// Whether the effect has begun and nothing contradicts it, but too few attempts have ended to decide: a busy
    /// machine makes fewer of them.
    fn wants_attempts(&self) -> bool {
        false
    }

    /// When users were first affected, if at all.
    fn begin(&self) -> Option<Time> {
        None
    }
}

#[cfg(test)]
pub mod tests {
    use relapse_model::Failure;

    use super::*;
    use relapse_lab::workload::Details;

    /// Attempts one after another: `.` worked, `t` timed out, `r` was refused.
    pub fn played<W: Watch>(watch: W, attempts: &str) -> W {
        let attempt = |(number, outcome): (u64, char)| {
            let failure = match outcome {
                't' => Some(Failure::Timeout),
                'r' => Some(Failure::Refused),
                _ => None,
            };
            let (started, ended) = (Time(number * 10), Time(number * 10 + 5));
            Attempt { flow: FlowId(0), started, ended, failure, details: Details::default() }
        };
        played_all(watch, (1..).zip(attempts.chars()).map(attempt))
    }

    pub fn played_all<W: Watch>(mut watch: W, attempts: impl Iterator<Item = Attempt>) -> W {
        for attempt in attempts {
            watch.attempt(&attempt);
            watch.tick(attempt.started);
        }
        watch
    }

    /// An attempt that answered after so many milliseconds, or failed.
    pub fn lasting(ms: Option<u64>) -> Attempt {
        let (started, failure) = (Time(1_000), ms.is_none().then_some(Failure::Refused));
        let ended = started + Duration::from_millis(ms.unwrap_or(1));
        Attempt { flow: FlowId(0), started, ended, failure, details: Details::default() }
    }
}
