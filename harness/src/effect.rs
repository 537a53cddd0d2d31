//! A stated effect: what a fault does to the workload, or leaves alone, and whether that was seen.
//!
//! New ones: one file under `effects/` and one registry line. Neither too little nor too much of an effect will do.

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

/// Attempts that must have failed, or worked, before it is said that a flow fails, or works.
pub const ENOUGH: u32 = 3;

/// An effect as a scenario writes it.
pub trait EffectSpec {
    /// Resolves its names and judges its numbers. What is wrong is told to the resolver; then there is no effect.
    fn plan(&self, stating: &mut Stating<'_, '_>) -> Option<Arc<dyn Effect>>;
}

/// Effects that are being planned.
pub struct Stating<'r, 'a> {
    pub resolver: &'r mut Resolver<'a>,
    /// All of them must have been seen by then.
    pub within: Duration,
    /// Of which something is stated already.
    flows: Vec<FlowId>,
}

impl<'r, 'a> Stating<'r, 'a> {
    pub const fn new(resolver: &'r mut Resolver<'a>, within: Duration) -> Self {
        Self { resolver, within, flows: Vec::new() }
    }

    /// The flow of this name; tells where another effect speaks of it.
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
    /// What is stated, in words.
    fn text(&self, flows: &[FlowPlan], cluster: &ClusterPlan) -> String;

    /// The flow whose attempts show it.
    fn flow(&self) -> Option<FlowId> {
        None
    }

    /// Whether users complain of it.
    fn hurts(&self) -> bool {
        false
    }

    /// One of these collectors must be able to see what shows it.
    fn needs(&self) -> Option<&'static [CollectorKind]> {
        None
    }

    /// Begins to look for it.
    ///
    /// # Errors
    /// When what shows it cannot be seen.
    fn watch(&self, on: &mut Ground<'_>) -> Result<Box<dyn Watch>>;
}

/// Where effects are looked for.
pub struct Ground<'a> {
    pub cluster: &'a Arc<dyn Cluster>,
    /// Nanoseconds of the clock, from which on the faults are in force; 0 before.
    pub in_force: &'a Arc<AtomicU64>,
    /// What looks by itself.
    pub tasks: &'a mut JoinSet<()>,
}

/// Looks for one effect.
pub trait Watch: Send {
    /// Takes an attempt of the effect's flow into account that started after t0.
    fn attempt(&mut self, attempt: &Attempt) {
        let _ = attempt;
    }

    /// Whether it is there, as far as can be told now, and by what that is told.
    fn judge(&self) -> (bool, String);

    /// It has begun and nothing speaks against it, but too few attempts have ended to say that it is there: a busy
    /// machine makes fewer of them.
    fn wants_attempts(&self) -> bool {
        false
    }

    /// When users felt it first, where they do.
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
            watch.attempt(&Attempt { flow: FlowId(0), started, ended, failure, addresses: Vec::new() });
        }
        watch
    }
}
