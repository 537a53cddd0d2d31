//! `slow`: a flow, or a part of it, succeeds and takes long.

use std::sync::Arc;
use std::time::Duration;

use relapse_detectors::time::Time;
use relapse_kernel::Result;
use relapse_lab::workload::Attempt;
use relapse_model::diagnostics::quoted;
use relapse_model::spanned::Spanned;
use relapse_model::{ClusterPlan, FlowId, FlowPlan, PartId, values};
use relapse_reports::units::limit;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::effect::times::{Times, took};
use crate::effect::{ENOUGH, Effect, EffectPlanner, EffectSpec, Ground, Watch};

/// A flow succeeds and takes long.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SlowSpec {
    /// Name of a flow.
    pub flow: Spanned<String>,
    /// Name of a part of a `call`. Default: the whole attempt.
    pub part: Option<Spanned<String>>,
    /// Minimum time.
    pub at_least: Option<Spanned<values::Duration>>,
    /// Minimum time as a multiple of the median before the fault.
    #[schemars(range(min = 1.1, max = 1000))]
    pub times: Option<Spanned<f64>>,
}

impl EffectSpec for SlowSpec {
    fn plan(&self, planner: &mut EffectPlanner<'_, '_>) -> Option<Arc<dyn Effect>> {
        let of = planner.part(&self.flow, self.part.as_ref());
        let within = planner.within;
        let resolver = &mut *planner.resolver;
        let bound = match (&self.at_least, &self.times) {
            (Some(least), None) => resolver.duration("atLeast", least).map(Bound::AtLeast),
            (None, Some(times)) => Some(Bound::Times(times.value)),
            _ => {
                let message = format!("how slow {} is must be given once", quoted(&self.flow));
                resolver.error(self.flow.span, message, "write `atLeast: 300ms` or `times: 3`");
                None
            }
        };
        let (flow, part) = of?;
        let timeout = resolver.workload[flow.0].timeout;
        if let (Some(Bound::AtLeast(least)), Some(at)) = (bound, &self.at_least)
            && least >= timeout.min(within)
        {
            let message = format!(
                "no attempt of {} can be seen to take {least:?}: its `timeout` is {timeout:?}, and the effect must be seen within {within:?}",
                quoted(&self.flow)
            );
            resolver.error(at.span, message, "write a shorter time, or lengthen these");
        }
        Some(Arc::new(Slow { flow, part, bound: bound? }))
    }
}

#[derive(Debug)]
struct Slow {
    flow: FlowId,
    part: Option<PartId>,
    bound: Bound,
}

#[derive(Debug, Clone, Copy)]
enum Bound {
    AtLeast(Duration),
    Times(f64),
}

impl Effect for Slow {
    fn text(&self, flows: &[FlowPlan], _: &ClusterPlan) -> String {
        let flow = &flows[self.flow.0];
        let what = flow.part_name(self.part);
        match self.bound {
            Bound::AtLeast(least) => format!("{what} takes {} or more", limit(least)),
            Bound::Times(times) => format!("{what} takes {times} times as long as before, or longer"),
        }
    }

    fn flow(&self) -> Option<FlowId> {
        Some(self.flow)
    }

    fn hurts(&self) -> bool {
        true
    }

    fn watch(&self, on: &mut Ground<'_>) -> Result<Box<dyn Watch>> {
        let times = Times::new(self.flow, &on.flows[self.flow.0], on.before);
        let least = match self.bound {
            Bound::AtLeast(least) => Some(least),
            Bound::Times(factor) => times.before(self.part).map(|before| before.mul_f64(factor)),
        };
        Ok(Box::new(Slowness { part: self.part, least, times, ..Slowness::default() }))
    }
}

/// The latest attempts decide: a cache or a kept connection may delay the effect.
#[derive(Default)]
struct Slowness {
    part: Option<PartId>,
    /// `None` if no attempt succeeded before the fault.
    least: Option<Duration>,
    times: Times,
    slow: u32,
    attempts: u32,
    in_a_row: u32,
    /// Start of the first of these.
    begin: Option<Time>,
}

impl Watch for Slowness {
    fn attempt(&mut self, attempt: &Attempt) {
        self.times.add(attempt);
        self.attempts += 1;
        let answered = attempt.failure.is_none();
        let is_slow = took(attempt, self.part).zip(self.least).is_some_and(|(took, least)| answered && took >= least);
        if is_slow {
            self.slow += 1;
            self.in_a_row += 1;
            self.begin = Some(self.begin.map_or(attempt.started, |begin| begin.min(attempt.started)));
        } else {
            self.in_a_row = 0;
            self.begin = None;
        }
    }

    /// The latest three must be slow.
    fn judge(&self) -> (bool, String) {
        let Some(least) = self.least else { return (false, "no attempt worked before the fault".into()) };
        let (slow, of, times) = (self.slow, self.attempts, self.times.text(self.part));
        (self.in_a_row >= ENOUGH, format!("{slow} of {of} attempts took {} or more; {times}", limit(least)))
    }

    fn wants_attempts(&self) -> bool {
        (1..ENOUGH).contains(&self.in_a_row)
    }

    fn begin(&self) -> Option<Time> {
        self.begin
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effect::tests::{lasting, played_all};

    fn slow(least: Option<u64>, attempts: &[Option<u64>]) -> Slowness {
        let watch = Slowness { least: least.map(Duration::from_millis), ..Slowness::default() };
        played_all(watch, attempts.iter().map(|ms| lasting(*ms)))
    }

    #[test]
    fn a_flow_is_slow_when_the_latest_three_answered_and_took_long() {
        let holds = |attempts: &[Option<u64>]| slow(Some(300), attempts).judge().0;
        assert!(holds(&[Some(2), Some(400), Some(300), Some(5000)]));
        assert!(!holds(&[Some(400), Some(400)]), "too few to tell");
        assert!(!holds(&[Some(400), Some(400), Some(400), Some(2)]), "it came back by itself");
        assert!(!holds(&[Some(400), Some(400), None]), "what fails does not answer");
        assert!(!holds(&[Some(299), Some(299), Some(299)]));
        assert!(!slow(None, &[Some(400), Some(400), Some(400)]).judge().0, "nothing is known from before");
    }

    #[test]
    fn it_begins_with_the_first_of_those_in_a_row() {
        let watch = slow(Some(300), &[Some(400), Some(2), Some(400), Some(400)]);
        assert!(watch.wants_attempts());
        assert_eq!(watch.begin(), Some(lasting(Some(400)).started));
    }
}
