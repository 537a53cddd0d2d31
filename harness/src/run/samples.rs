//! Aggregates attempts of each flow over short periods, for timelines.

use std::time::Duration;

use relapse_detectors::time::Time;
use relapse_lab::workload::Attempt;
use relapse_reports::event::{FlowSample, TrialEvent};

use crate::plan::FlowPlan;

/// Length of a period.
const SPAN: Duration = Duration::from_millis(250);

/// Aggregates attempts and emits a sample of each flow at the end of its period.
pub struct Samples {
    flows: Vec<Flow>,
}

#[derive(Default)]
struct Flow {
    name: String,
    since: Option<Time>,
    failures: u32,
    /// Durations of successful attempts.
    times: Vec<Duration>,
}

impl Samples {
    #[must_use]
    pub fn new(flows: &[FlowPlan]) -> Self {
        let flow = |plan: &FlowPlan| Flow { name: plan.name.clone(), ..Flow::default() };
        Self { flows: flows.iter().map(flow).collect() }
    }

    /// Adds an attempt.
    pub fn attempt(&mut self, attempt: &Attempt, events: &dyn Fn(TrialEvent)) {
        let flow = &mut self.flows[attempt.flow.0];
        let since = *flow.since.get_or_insert(attempt.ended);
        if attempt.failure.is_some() {
            flow.failures += 1;
        } else {
            flow.times.push(attempt.ended.since(attempt.started));
        }
        if attempt.ended.since(since) >= SPAN {
            events(TrialEvent::Flow(flow.sum_up()));
        }
    }
}

impl Flow {
    fn sum_up(&mut self) -> FlowSample {
        let mut times = std::mem::take(&mut self.times);
        times.sort_unstable();
        let failures = std::mem::take(&mut self.failures);
        self.since = None;
        FlowSample {
            flow: self.name.clone(),
            attempts: failures + u32::try_from(times.len()).unwrap_or(u32::MAX),
            failures,
            median: times.get(times.len() / 2).copied(),
        }
    }
}
