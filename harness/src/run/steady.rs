//! Determines whether every flow has worked for a given time.

use std::time::Duration;

use relapse_detectors::time::Time;
use relapse_lab::workload::Attempt;

use crate::plan::{Failure, FlowPlan};

/// The state of each flow since a given instant.
#[derive(Debug)]
pub struct Steady {
    flows: Vec<FlowState>,
}

#[derive(Debug, Clone, Default)]
struct FlowState {
    name: String,
    /// Start of the current run of successes.
    working_since: Option<Time>,
    attempts: u32,
    failures: u32,
    /// How the last one failed.
    last: Option<Failure>,
}

impl Steady {
    #[must_use]
    pub fn new(flows: &[FlowPlan]) -> Self {
        let state = |flow: &FlowPlan| FlowState { name: flow.name.clone(), ..FlowState::default() };
        Self { flows: flows.iter().map(state).collect() }
    }

    /// Records an attempt. Attempts that began before `from` are ignored.
    pub fn attempt(&mut self, from: Time, attempt: &Attempt) {
        if attempt.started < from {
            return;
        }
        let state = &mut self.flows[attempt.flow.0];
        state.attempts += 1;
        if attempt.failure.is_some() {
            state.working_since = None;
            state.failures += 1;
            state.last = attempt.failure;
        } else if state.working_since.is_none() {
            state.working_since = Some(attempt.started);
        }
    }

    /// Whether every flow has worked without a failure for this long.
    #[must_use]
    pub fn holds(&self, now: Time, span: Duration) -> bool {
        self.flows.iter().all(|flow| flow.working_since.is_some_and(|since| now.since(since) >= span))
    }

    /// Flows of which more than one attempt in so many has failed.
    pub fn failed(&self, one_in: u32) -> impl Iterator<Item = &str> {
        self.flows.iter().filter(move |flow| flow.failures > flow.attempts / one_in).map(|flow| flow.name.as_str())
    }

    /// Describes the flows that do not work.
    #[must_use]
    pub fn describe(&self) -> String {
        let failing = self.flows.iter().filter(|flow| flow.working_since.is_none()).map(|flow| match flow.last {
            None => format!("{} never answered", flow.name),
            Some(last) => {
                format!("{} failed {} of {} times, last with {last}", flow.name, flow.failures, flow.attempts)
            }
        });
        let text: Vec<_> = failing.collect();
        if text.is_empty() { "not steady for long enough yet".into() } else { text.join(", ") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Failure, FlowId, Place, PodId, Target};
    use relapse_lab::workload::Details;

    fn steady(names: &[&str]) -> Steady {
        let pod = |number| Place::Pod(PodId(number));
        let flow = |name: &&str| FlowPlan::new((*name).to_owned(), "ping", pod(0), Target::Place(pod(1)));
        Steady::new(&names.iter().map(flow).collect::<Vec<_>>())
    }

    fn attempt(flow: usize, started: u64, works: bool) -> Attempt {
        let failure = (!works).then_some(Failure::Timeout);
        Attempt {
            flow: FlowId(flow),
            started: Time(started),
            ended: Time(started + 1),
            failure,
            details: Details::default(),
        }
    }

    const SPAN: Duration = Duration::from_nanos(100);

    #[test]
    fn every_flow_must_have_worked_for_the_whole_span() {
        let mut steady = steady(&["a", "b"]);
        steady.attempt(Time(0), &attempt(0, 10, true));
        assert!(!steady.holds(Time(1000), SPAN), "b never answered");
        steady.attempt(Time(0), &attempt(1, 950, true));
        assert!(!steady.holds(Time(1000), SPAN), "b has worked for 50 ns only");
        assert!(steady.holds(Time(1050), SPAN));
    }

    #[test]
    fn a_failure_starts_the_span_again() {
        let mut steady = steady(&["a"]);
        for (at, works) in [(10, true), (500, false), (600, true)] {
            steady.attempt(Time(0), &attempt(0, at, works));
        }
        assert!(!steady.holds(Time(650), SPAN));
        assert!(steady.holds(Time(700), SPAN));
        assert_eq!(steady.failed(u32::MAX).collect::<Vec<_>>(), ["a"]);
        assert_eq!(steady.failed(3).count(), 0);
        steady.attempt(Time(0), &attempt(0, 700, false));
        assert_eq!(steady.describe(), "a failed 2 of 4 times, last with timeout");
    }

    #[test]
    fn attempts_from_before_say_nothing_about_now() {
        let mut steady = steady(&["a"]);
        steady.attempt(Time(100), &attempt(0, 50, false));
        assert_eq!(steady.failed(u32::MAX).count(), 0);
        assert_eq!(steady.describe(), "a never answered");
    }
}
