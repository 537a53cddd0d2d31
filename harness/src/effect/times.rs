//! Times of the attempts of a flow and of their parts, before and since the faults.

use std::time::Duration;

use relapse_lab::workload::Attempt;
use relapse_model::{FlowId, FlowPlan, PartId};
use relapse_reports::units::span;

/// Times of one flow; successful ones only.
#[derive(Debug, Default)]
pub struct Times {
    whole: Series,
    parts: Vec<(String, Series)>,
}

#[derive(Debug, Default)]
struct Series {
    before: Vec<Duration>,
    since: Vec<Duration>,
}

/// Time of an attempt or a part of it; `None` if it failed or is unknown.
#[must_use]
pub fn took(attempt: &Attempt, part: Option<PartId>) -> Option<Duration> {
    match part {
        None => attempt.failure.is_none().then(|| attempt.ended.since(attempt.started)),
        Some(id) => {
            let time = attempt.details.parts.iter().find(|time| time.part == id)?;
            time.failure.is_none().then_some(time.took)
        }
    }
}

impl Times {
    /// For one flow; `before` may contain attempts of other flows.
    #[must_use]
    pub fn new(id: FlowId, flow: &FlowPlan, before: &[Attempt]) -> Self {
        let parts = flow.parts.iter().map(|part| (part.name.clone(), Series::default()));
        let mut times = Self { whole: Series::default(), parts: parts.collect() };
        for attempt in before.iter().filter(|attempt| attempt.flow == id) {
            times.each(attempt, |series| &mut series.before);
        }
        times
    }

    /// Adds an attempt since the faults.
    pub fn add(&mut self, attempt: &Attempt) {
        self.each(attempt, |series| &mut series.since);
    }

    fn each(&mut self, attempt: &Attempt, of: impl Fn(&mut Series) -> &mut Vec<Duration>) {
        of(&mut self.whole).extend(took(attempt, None));
        for (number, (_, series)) in self.parts.iter_mut().enumerate() {
            of(series).extend(took(attempt, Some(PartId(number))));
        }
    }

    /// Median before the faults, of whole attempts or of a part.
    #[must_use]
    pub fn before(&self, part: Option<PartId>) -> Option<Duration> {
        median(&part.map_or(&self.whole, |id| &self.parts[id.0].1).before)
    }

    /// "median 5.31 s (before: 98 ms), queries 5.21 s (13 ms), upload 40 ms (41 ms)", or of one part.
    #[must_use]
    pub fn text(&self, part: Option<PartId>) -> String {
        let time = |times: &[Duration]| median(times).map_or_else(|| "unknown".to_owned(), span);
        let of = part.map_or(&self.whole, |id| &self.parts[id.0].1);
        let median = format!("median {} (before: {})", time(&of.since), time(&of.before));
        let parts = self.parts.iter().filter(|_| part.is_none());
        let parts = parts.map(|(name, series)| format!("{name} {} ({})", time(&series.since), time(&series.before)));
        std::iter::once(median).chain(parts).collect::<Vec<_>>().join(", ")
    }
}

fn median(times: &[Duration]) -> Option<Duration> {
    let mut times = times.to_vec();
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use relapse_lab::workload::{Details, PartTime};
    use relapse_model::{Failure, PartPlan, Place, PodId, Target, Work};

    use super::*;
    use crate::effect::tests::lasting;

    #[test]
    fn medians_before_and_since_of_attempts_and_parts() {
        let place = |number| Target::Place(Place::Pod(PodId(number)));
        let mut flow = FlowPlan::new("call".to_owned(), "call", Place::Pod(PodId(0)), place(1));
        let work = Work::Get { response: 1 };
        let (to, port, keep, timeout) = (place(2), 80, false, None);
        flow.parts = vec![PartPlan { name: "api".to_owned(), kind: "get", to, port, work, keep, timeout }];
        let attempt = |whole: Option<u64>, part: u64, failure| {
            let part = PartTime { part: PartId(0), took: Duration::from_millis(part), failure };
            Attempt { details: Details { parts: vec![part], ..Details::default() }, ..lasting(whole) }
        };
        let before = [attempt(Some(20), 15, None), attempt(Some(24), 16, None), attempt(Some(22), 17, None)];
        let other = Attempt { flow: FlowId(1), ..attempt(Some(900), 900, None) };
        let mut times = Times::new(FlowId(0), &flow, &[&before[..], &[other]].concat());
        times.add(&attempt(Some(400), 15, None));
        times.add(&attempt(None, 300, Some(Failure::Timeout)));
        assert_eq!(times.before(None), Some(Duration::from_millis(22)));
        assert_eq!(times.text(None), "median 400 ms (before: 22 ms), api 15 ms (16 ms)");
        assert_eq!(times.text(Some(PartId(0))), "median 15 ms (before: 16 ms)");
    }
}
