//! `works`: a flow, or a part of it, keeps working, optionally within a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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

/// A flow keeps working.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WorksSpec {
    /// Name of a flow.
    pub flow: Spanned<String>,
    /// Name of a part of a `call`. Default: the whole attempt.
    pub part: Option<Spanned<String>>,
    /// Maximum time. Default: its `timeout`.
    pub within: Option<Spanned<values::Duration>>,
}

impl EffectSpec for WorksSpec {
    fn plan(&self, planner: &mut EffectPlanner<'_, '_>) -> Option<Arc<dyn Effect>> {
        let of = planner.part(&self.flow, self.part.as_ref());
        let within = self.within.as_ref().map(|within| planner.resolver.duration("within", within));
        let (flow, part) = of?;
        let resolver = &mut *planner.resolver;
        let timeout = resolver.workload[flow.0].timeout;
        if let (Some(Some(within)), Some(at)) = (within, &self.within)
            && within > timeout
        {
            let message = format!("no attempt of {} takes longer: its `timeout` is {timeout:?}", quoted(&self.flow));
            resolver.error(at.span, message, "write a shorter time, or leave `within` out");
        }
        Some(Arc::new(Works { flow, part, within: within.flatten() }))
    }
}

#[derive(Debug)]
struct Works {
    flow: FlowId,
    part: Option<PartId>,
    within: Option<Duration>,
}

impl Effect for Works {
    fn text(&self, flows: &[FlowPlan], _: &ClusterPlan) -> String {
        let within = self.within.map(|within| format!(" within {}", limit(within))).unwrap_or_default();
        format!("{} works{within}", flows[self.flow.0].part_name(self.part))
    }

    fn flow(&self) -> Option<FlowId> {
        Some(self.flow)
    }

    fn watch(&self, on: &mut Ground<'_>) -> Result<Box<dyn Watch>> {
        let flow = &on.flows[self.flow.0];
        let timeout = flow.timeout;
        let timed = self.within.is_some() || !flow.parts.is_empty();
        let times = timed.then(|| Times::new(self.flow, flow, on.before));
        let in_force = Arc::clone(on.in_force);
        let (part, within, recorded) = (self.part, self.within, on.recorded);
        Ok(Box::new(Working { part, within, timeout, times, in_force, recorded, ..Working::default() }))
    }
}

#[derive(Default)]
struct Working {
    part: Option<PartId>,
    within: Option<Duration>,
    /// Of an attempt.
    timeout: Duration,
    /// Recorded for a flow with parts, or if `within` is given.
    times: Option<Times>,
    /// Of thousands of attempts, a few fail on a busy machine.
    recorded: bool,
    attempts: u32,
    worked: u32,
    /// Clock time in nanoseconds from which the faults are in force.
    in_force: Arc<AtomicU64>,
    /// When successful attempts started.
    successes: Vec<Time>,
    now: Time,
    failures_in_a_row: u32,
    most_in_a_row: u32,
    /// Number of latest attempts in a row that were in time.
    in_time: u32,
}

impl Watch for Working {
    fn attempt(&mut self, attempt: &Attempt) {
        self.times.iter_mut().for_each(|times| times.add(attempt));
        // Another part failed, and this one was cancelled or never began.
        let unknown = |id| attempt.failure.is_some() && attempt.details.parts.iter().all(|time| time.part != id);
        if self.part.is_some_and(unknown) {
            return;
        }
        self.attempts += 1;
        let Some(took) = took(attempt, self.part) else {
            self.failures_in_a_row += 1;
            self.most_in_a_row = self.most_in_a_row.max(self.failures_in_a_row);
            return;
        };
        self.worked += 1;
        self.successes.push(attempt.started);
        self.failures_in_a_row = 0;
        self.in_time = if self.within.is_none_or(|within| took <= within) { self.in_time + 1 } else { 0 };
    }

    fn tick(&mut self, now: Time) {
        self.now = now;
    }

    /// A single lost attempt on a busy machine is noise; two in a row are an effect. The latest attempts must be in time.
    /// It must have worked all the time.
    fn judge(&self) -> (bool, String) {
        let spread = self.is_spread();
        let holds = self.in_time >= ENOUGH && self.is_unbroken() && spread;
        let times = self.times.as_ref().map(|times| format!("; {}", times.text(self.part))).unwrap_or_default();
        let gap = if spread || self.worked == 0 { "" } else { ", not all the time" };
        (holds, format!("{} of {} attempts worked{gap}{times}", self.worked, self.attempts))
    }

    fn wants_attempts(&self) -> bool {
        (self.in_time < ENOUGH || !self.is_spread()) && self.is_unbroken()
    }
}

impl Working {
    /// Whether failures are noise: none in a row, and at most one in twenty; where series are recorded at most one in
    /// fifty.
    fn is_unbroken(&self) -> bool {
        let failures = self.attempts - self.worked;
        let few = failures * 20 <= self.attempts.max(20);
        self.most_in_a_row < 2 && few || self.recorded && failures * 50 <= self.attempts
    }

    /// Whether an attempt worked in each third of the time since the faults were in force. Left out is the end, at most a
    /// third, in which attempts may not have ended yet.
    fn is_spread(&self) -> bool {
        let from = Time(self.in_force.load(Ordering::Relaxed));
        let elapsed = self.now.since(from);
        let third = (elapsed - self.timeout.min(elapsed / 3)) / 3;
        let worked = |number: u32| {
            let (begin, end) = (from + third * number, from + third * (number + 1));
            // Thirds are rounded down.
            self.successes.iter().any(|at| *at >= begin && (*at <= end || number == 2))
        };
        (0..3).all(worked)
    }
}

#[cfg(test)]
mod tests {
    use relapse_lab::workload::{Details, PartTime};
    use relapse_model::Failure;

    use super::*;
    use crate::effect::tests::{lasting, played, played_all};

    #[test]
    fn a_flow_works_though_one_attempt_was_lost_but_not_two_in_a_row() {
        let works = |attempts| played(Working::default(), attempts).judge().0;
        assert!(works("..."));
        assert!(works("...t.."));
        assert!(!works("...tt.."));
        assert!(!works(".t.t.t..."), "a third of them fail");
        assert!(!works(".."), "too few to decide");
    }

    #[test]
    fn it_works_in_each_third_of_the_time_the_fault_is_in_force() {
        // From 10 on, an attempt each 10 ns.
        let works = |attempts| {
            let watch = Working { in_force: Arc::new(10.into()), ..Working::default() };
            let worked = |(number, outcome): (u64, char)| (outcome == '.').then_some(Time(number * 10));
            let started = (1..).zip(str::chars(attempts)).filter_map(worked);
            played_all(watch, started.map(|started| Attempt { started, ..lasting(Some(1)) })).judge()
        };
        assert!(works("...").0);
        assert!(works("..... ...").0, "one has not ended");
        assert!(!works("      ...").0, "only the last three");
        assert!(!works(".      ..").0, "not in the middle");
        assert_eq!(works("      ...").1, "3 of 3 attempts worked, not all the time");
    }

    #[test]
    fn attempts_that_never_end_show_nothing() {
        let watch = Working { in_force: Arc::new(10.into()), timeout: Duration::from_secs(10), ..Working::default() };
        let mut watch = played(watch, "...");
        watch.tick(Time(40));
        assert!(watch.judge().0, "the next may not have ended yet");
        watch.tick(Time(100));
        assert!(!watch.judge().0);
    }

    #[test]
    fn it_works_in_time_when_the_latest_three_did() {
        let works = |attempts: &[Option<u64>]| {
            let (within, in_force) = (Some(Duration::from_millis(100)), Arc::new(lasting(None).started.0.into()));
            let watch = Working { within, in_force, ..Working::default() };
            played_all(watch, attempts.iter().map(|ms| lasting(*ms))).judge().0
        };
        assert!(works(&[Some(2), Some(100), Some(3)]));
        assert!(works(&[Some(500), Some(2), Some(2), Some(2)]), "it is fast now");
        assert!(works(&[Some(2), Some(2), None, Some(2)]), "one was lost");
        assert!(!works(&[Some(2), Some(2), Some(2), Some(101)]), "it is slow now");
        assert!(!works(&[Some(2), Some(2)]), "too few to tell");
    }

    #[test]
    fn a_part_works_though_another_fails() {
        let attempt = |parts: &[(usize, bool)]| {
            let time = |(part, works): &(usize, bool)| PartTime {
                part: PartId(*part),
                took: Duration::from_millis(1),
                failure: (!works).then_some(Failure::Timeout),
            };
            let parts = parts.iter().map(time).collect();
            Attempt { details: Details { parts, ..Details::default() }, ..lasting(None) }
        };
        let works = |attempts: &[&[(usize, bool)]]| {
            let in_force = Arc::new(lasting(None).started.0.into());
            let watch = Working { part: Some(PartId(0)), in_force, ..Working::default() };
            played_all(watch, attempts.iter().map(|parts| attempt(parts))).judge().0
        };
        assert!(works(&[&[(0, true), (1, false)], &[(1, false)], &[(1, false)], &[(0, true)], &[(0, true)]]));
        assert!(!works(&[&[(0, true)], &[(0, true)], &[(0, true)], &[(0, false)], &[(0, false)]]));
    }

    #[test]
    fn more_attempts_are_wanted_only_where_nothing_else_is_wrong() {
        let wanted = |attempts| played(Working::default(), attempts).wants_attempts();
        assert!(wanted("..") && !wanted("...") && !wanted(".tt"));
    }
}
