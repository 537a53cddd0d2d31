//! Expected effects: what a fault does to the workload or leaves unaffected, and whether it was observed.
//!
//! A new kind is one file under `effects/` and one registry line. An effect fails if there is too little or too much of
//! it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use relapse_detectors::signal::CollectorKind;
use relapse_detectors::time::Time;
use relapse_kernel::Result;
use relapse_lab::cluster::Cluster;
use relapse_lab::workload::Attempt;
use relapse_model::diagnostics::quoted;
use relapse_model::spanned::Spanned;
use relapse_model::{ClusterPlan, FlowId, FlowPlan, Resolver};
use tokio::task::JoinSet;

/// Minimum number of failed or successful attempts to decide that a flow fails or works.
pub const ENOUGH: u32 = 3;

/// An effect as written in a scenario.
pub trait EffectSpec {
    /// Resolves names and checks numbers. Errors are reported to the resolver; then there is no effect.
    fn plan(&self, stating: &mut Stating<'_, '_>) -> Option<Arc<dyn Effect>>;
}

/// The effects being planned.
pub struct Stating<'r, 'a> {
    pub resolver: &'r mut Resolver<'a>,
    /// Time within which all of them must be observed.
    pub within: Duration,
    /// Flows that already have an effect.
    flows: Vec<FlowId>,
}

impl<'r, 'a> Stating<'r, 'a> {
    pub const fn new(resolver: &'r mut Resolver<'a>, within: Duration) -> Self {
        Self { resolver, within, flows: Vec::new() }
    }

    /// The flow with this name. Reports an error if it already has an effect.
    pub fn flow(&mut self, name: &Spanned<String>) -> Option<FlowId> {
        let flow = self.resolver.flow(name)?;
        if self.flows.contains(&flow) {
            let message = format!("flow {} already has an effect", quoted(name));
            self.resolver.error(name.span, message, "state one effect per flow");
        }
        self.flows.push(flow);
        Some(flow)
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
    /// Clock time in nanoseconds from which the faults are in force; 0 before.
    pub in_force: &'a Arc<AtomicU64>,
    /// Background tasks that observe.
    pub tasks: &'a mut JoinSet<()>,
}

/// Observes one effect.
pub trait Watch: Send {
    /// Records an attempt of the effect's flow that started after t0.
    fn attempt(&mut self, attempt: &Attempt) {
        let _ = attempt;
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

    /// Attempts one after another: `.` worked, `t` timed out, `r` was refused.
    pub fn played(mut watch: impl Watch, attempts: &str) -> impl Watch {
        for (number, outcome) in (1..).zip(attempts.chars()) {
            let failure = match outcome {
                't' => Some(Failure::Timeout),
                'r' => Some(Failure::Refused),
                _ => None,
            };
            let (started, ended) = (Time(number * 10), Time(number * 10 + 5));
            watch.attempt(&Attempt { flow: FlowId(0), started, ended, failure });
        }
        watch
    }
}
