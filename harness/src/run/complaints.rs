//! What users see: failed requests, and those that take far longer than before the fault.

use std::time::Duration;

use relapse_detectors::time::Time;
use relapse_detectors::triage::{Outcome, Seen};
use relapse_lab::workload::Attempt;

use crate::plan::{Failure, FlowId, FlowPlan};

/// Slow: so many times the usual time, and by so much longer.
const TIMES: u32 = 3;
const ABOVE: Duration = Duration::from_millis(50);

/// What it takes to complain.
pub const NONE: &str = "no request failed, and none took three times as long as before and 50 ms more";

/// The usual times of all flows, and what is seen of them since.
pub struct Complaints {
    flows: Vec<Flow>,
    /// Requests that began earlier do not count; none do before the fault.
    since: Option<Time>,
    /// The flows whose users complain; all if empty.
    affected: Vec<FlowId>,
    /// Users see nothing wrong: a single lost or slow request is noise, as it is to the effect `works`.
    unseen: bool,
}

struct Flow {
    name: String,
    times: Vec<Duration>,
    usual: Option<Duration>,
    /// The latest request went well.
    well: bool,
}

impl Complaints {
    pub fn new(flows: &[FlowPlan]) -> Self {
        let flow = |plan: &FlowPlan| Flow { name: plan.name.clone(), times: Vec::new(), usual: None, well: true };
        Self { flows: flows.iter().map(flow).collect(), since: None, affected: Vec::new(), unseen: false }
    }

    /// From now on requests count. What was usual before the first call stays usual.
    pub fn begin(&mut self, since: Time, affected: &[FlowId], unseen: bool) {
        if self.since.is_none() {
            for flow in &mut self.flows {
                flow.times.sort_unstable();
                flow.usual = flow.times.get(flow.times.len() / 2).copied();
            }
        }
        self.since = Some(since);
        self.affected = affected.to_vec();
        self.unseen = unseen;
        self.flows.iter_mut().for_each(|flow| flow.well = true);
    }

    /// What the user of this request saw, with the flow's name.
    pub fn attempt(&mut self, attempt: &Attempt) -> Option<(&str, Seen)> {
        let flow = &mut self.flows[attempt.flow.0];
        let took = attempt.ended.since(attempt.started);
        let Some(since) = self.since else {
            flow.times.extend(attempt.failure.is_none().then_some(took));
            return None;
        };
        let complains = self.affected.is_empty() || self.affected.contains(&attempt.flow);
        if attempt.started < since || !complains {
            return None;
        }
        let is_slow = |usual: Duration| took >= usual * TIMES && took >= usual + ABOVE;
        let outcome = match attempt.failure {
            None if flow.usual.is_some_and(is_slow) => Outcome::Slow(took),
            None => Outcome::Well,
            Some(Failure::Timeout) => Outcome::Timeout,
            Some(Failure::Refused) => Outcome::Refused,
            Some(Failure::NameError) => Outcome::NameError,
            Some(Failure::Status(status)) => Outcome::Status(status),
            Some(Failure::Any) => Outcome::Failed,
        };
        let was_well = std::mem::replace(&mut flow.well, outcome == Outcome::Well);
        let is_noise = self.unseen && was_well && !flow.well;
        (!is_noise).then_some((&flow.name, Seen { at: attempt.ended, outcome }))
    }
}

#[cfg(test)]
mod tests {
    use relapse_lab::workload::Details;

    use super::*;
    use crate::plan::{Place, PodId, Target};

    fn attempt(at: u64, took: u64, failure: Option<Failure>) -> Attempt {
        let ms = |ms: u64| Time(ms * 1_000_000);
        let (started, ended, details) = (ms(at), ms(at + took), Details::default());
        Attempt { flow: FlowId(0), started, ended, failure, details }
    }

    #[test]
    fn slow_is_far_slower_than_before_the_fault() {
        let place = |number| Place::Pod(PodId(number));
        let mut complaints =
            Complaints::new(&[FlowPlan::new("a".to_owned(), "tcp", place(0), Target::Place(place(1)))]);
        for at in 0..5 {
            assert!(complaints.attempt(&attempt(at, 30, None)).is_none(), "before the fault");
        }
        complaints.begin(Time(1_000_000_000), &[], false);
        let mut outcome =
            |at, took, failure| complaints.attempt(&attempt(at, took, failure)).map(|seen| seen.1.outcome);
        assert_eq!(outcome(990, 400, Some(Failure::Timeout)), None, "it began before the fault");
        assert_eq!(outcome(1_000, 89, None), Some(Outcome::Well), "three times as long");
        assert_eq!(outcome(1_000, 90, None), Some(Outcome::Slow(Duration::from_millis(90))));
        assert_eq!(outcome(1_000, 400, Some(Failure::NameError)), Some(Outcome::NameError));
        complaints.begin(Time(2_000_000_000), &[FlowId(1)], false);
        assert!(complaints.attempt(&attempt(2_000, 400, Some(Failure::Timeout))).is_none(), "another flow is affected");
    }

    #[test]
    fn where_users_see_nothing_wrong_a_single_lost_request_is_noise() {
        let place = |number| Place::Pod(PodId(number));
        let plan = FlowPlan::new("a".to_owned(), "tcp", place(0), Target::Place(place(1)));
        let mut complaints = Complaints::new(&[plan]);
        complaints.begin(Time(1_000_000_000), &[FlowId(0)], true);
        let mut outcome = |at, failure| complaints.attempt(&attempt(at, 40, failure)).map(|seen| seen.1.outcome);
        let lost = Some(Failure::Timeout);
        assert_eq!((outcome(1_000, None), outcome(1_050, lost)), (Some(Outcome::Well), None));
        assert_eq!((outcome(1_100, None), outcome(1_150, lost)), (Some(Outcome::Well), None));
        assert_eq!(outcome(1_200, lost), Some(Outcome::Timeout), "the second in a row");
    }
}
