//! A stated effect: what a fault does to the workload, or leaves alone, and whether that was seen.
//!
//! New ones: one file under `effects/` and one registry line. Neither too little nor too much of an effect will do.

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
    stated: Vec<(FlowId, Option<PartId>)>,
}

impl<'r, 'a> Stating<'r, 'a> {
    pub const fn new(resolver: &'r mut Resolver<'a>, within: Duration) -> Self {
        Self { resolver, within, stated: Vec::new() }
    }

    /// The flow of this name; tells where another effect speaks of it.
    pub fn flow(&mut self, name: &Spanned<String>) -> Option<FlowId> {
        self.part(name, None).map(|(flow, _)| flow)
    }

    /// The flow of this name, or a part of it; tells where another effect speaks of the same.
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
    pub flows: &'a [FlowPlan],
    /// Attempts that worked before any fault.
    pub before: &'a [Attempt],
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
    pub fn played<W: Watch>(watch: W, attempts: &str) -> W {
        let attempt = |(number, outcome): (u64, char)| {
            let failure = match outcome {
                't' => Some(Failure::Timeout),
                'r' => Some(Failure::Refused),
                _ => None,
            };
            let (started, ended) = (Time(number * 10), Time(number * 10 + 5));
            Attempt { flow: FlowId(0), started, ended, failure, parts: Vec::new() }
        };
        played_all(watch, (1..).zip(attempts.chars()).map(attempt))
    }

    pub fn played_all<W: Watch>(mut watch: W, attempts: impl Iterator<Item = Attempt>) -> W {
        attempts.for_each(|attempt| watch.attempt(&attempt));
        watch
    }

    /// An attempt that answered after so many milliseconds, or failed.
    pub fn lasting(ms: Option<u64>) -> Attempt {
        let (started, failure) = (Time(1_000), ms.is_none().then_some(Failure::Refused));
        let ended = started + Duration::from_millis(ms.unwrap_or(1));
        Attempt { flow: FlowId(0), started, ended, failure, parts: Vec::new() }
    }
}
