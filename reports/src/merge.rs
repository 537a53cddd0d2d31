//! Merges several runs: shards of one run, or runs of several days.
//!
//! Job: merges the events of runs, so that every report can cover all of them. Invariants: no trial is lost; trials
//! that several runs replayed become repetitions, in the order of the runs. Times within a trial remain comparable;
//! those of different runs may come from different machines and are not compared.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::event::{Outcome, RunEvent, RunPart, RunStarted, TrialId, What};

/// Merges runs in this order. An incomplete file contributes what it has.
#[must_use]
pub fn merge(runs: Vec<Vec<RunEvent>>) -> Vec<RunEvent> {
    let mut merged = Merged::default();
    let mut events = Vec::new();
    for run in runs {
        // Counted by run starts, because a file may have lost its own.
        let part = merged.parts();
        let mut renamed = BTreeMap::new();
        for RunEvent { at, what } in run {
            let what = match what {
                What::RunStarted(mut started) => {
                    for info in &mut started.trials {
                        merged.rename(&mut info.trial, &mut renamed);
                        info.part = Some(part);
                    }
                    merged.started(started);
                    continue;
                }
                What::RunEnded { outcome, took } => {
                    merged.ended.push((outcome, took));
                    continue;
                }
                What::Trial { mut trial, event } => {
                    merged.rename(&mut trial, &mut renamed);
                    What::Trial { trial, event }
                }
                notice @ What::Notice { .. } => notice,
            };
            events.push(RunEvent { at, what });
        }
    }
    let at = |event: Option<&RunEvent>| event.map(|event| event.at).unwrap_or_default();
    let (first, last) = (at(events.first()), at(events.last()));
    let complete = merged.ended.len() == merged.parts();
    let outcome = merged.ended.iter().map(|(outcome, _)| *outcome).max().unwrap_or(Outcome::Inconclusive);
    let took: Duration = merged.ended.iter().map(|(_, took)| *took).sum();
    if let Some(run) = merged.run {
        events.insert(0, RunEvent { at: first, what: What::RunStarted(run) });
    }
    if complete {
        events.push(RunEvent { at: last, what: What::RunEnded { outcome, took } });
    }
    events
}

#[derive(Default)]
struct Merged {
    run: Option<RunStarted>,
    ended: Vec<(Outcome, Duration)>,
    /// How often each trial occurred; its repetition is 0 here.
    repetitions: BTreeMap<TrialId, u32>,
}

impl Merged {
    fn parts(&self) -> usize {
        self.run.as_ref().map_or(0, |run| run.parts.len())
    }

    fn started(&mut self, started: RunStarted) {
        let part = RunPart { run_id: started.run_id.clone(), started: started.started.clone() };
        let Some(run) = &mut self.run else {
            self.run = Some(RunStarted { parts: vec![part], ..started });
            return;
        };
        run.parts.push(part);
        for (own, new) in [(&mut run.version, started.version), (&mut run.kernel, started.kernel)] {
            if !own.split(", ").any(|known| known == new) {
                *own = format!("{own}, {new}");
            }
        }
        run.root &= started.root;
        run.host_writes |= started.host_writes;
        run.deadline_factor = run.deadline_factor.max(started.deadline_factor);
        run.trials.extend(started.trials);
        let new = started.detectors.into_iter().filter(|name| !run.detectors.contains(name));
        run.detectors.extend(new.collect::<Vec<_>>());
    }

    /// The next free repetition of this trial, the same one for all its events.
    fn rename(&mut self, trial: &mut TrialId, renamed: &mut BTreeMap<TrialId, u32>) {
        let repetitions = &mut self.repetitions;
        trial.repetition = *renamed.entry(trial.clone()).or_insert_with(|| {
            let count = repetitions.entry(TrialId { repetition: 0, ..trial.clone() }).or_default();
            *count += 1;
            *count
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;
    use crate::summary::RunSummary;
    use crate::times;

    #[test]
    fn the_same_run_twice_is_repeated_and_compared_run_by_run() {
        let once = RunSummary::of(&sample::run());
        let twice = RunSummary::of(&merge(vec![sample::run(), sample::run()]));
        assert_eq!(twice.trials.len(), 2 * once.trials.len());
        assert!(twice.is_repeated() && twice.ended.is_some() && twice.outcome() == once.outcome());
        assert_eq!(times::by_run(&once), None);
        let table = times::by_run(&twice).expect("times of two runs");
        assert_eq!(table.head.len(), 5 + 2);
    }

    #[test]
    fn parts_of_a_run_are_whole_together_and_a_lost_beginning_is_no_reason_to_fail() {
        let mut lost = sample::run();
        lost.remove(0);
        for runs in [vec![lost.clone(), sample::run(), sample::run()], vec![sample::run(), lost.clone()], vec![lost]] {
            let count = runs.len();
            let run = RunSummary::of(&merge(runs));
            assert_eq!(run.trials.len(), count * RunSummary::of(&sample::run()).trials.len());
            let _ = times::by_run(&run);
        }
        assert_eq!(RunSummary::of(&merge(Vec::new())).trials.len(), 0);
    }
}
