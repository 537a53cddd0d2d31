//! The queue of a run's trials: the next one is the first that may run beside the running ones.

use std::sync::{Condvar, Mutex, PoisonError};

use super::Job;

/// The queue of a run's trials.
pub struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// In the order in which they should start.
    waiting: Vec<Job>,
    running: Vec<Job>,
}

impl Queue {
    pub fn new(waiting: Vec<Job>) -> Self {
        Self { state: Mutex::new(State { waiting, running: Vec::new() }), changed: Condvar::new() }
    }

    /// Returns the next job of this worker, which has finished `ended`: the first that may run beside the running ones,
    /// waiting until there is one; `None` when all have started.
    pub fn next(&self, worker: usize, ended: Option<&Job>) -> Option<Job> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ended) = ended {
            state.running.retain(|running| running.id != ended.id);
            self.changed.notify_all();
        }
        loop {
            if state.waiting.is_empty() {
                return None;
            }
            if let Some(job) = state.take(worker, ended) {
                return Some(job);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl State {
    fn take(&mut self, worker: usize, ended: Option<&Job>) -> Option<Job> {
        let all = self.waiting.iter().enumerate().filter(|(_, job)| self.fits(job, worker));
        let (_, place) = all.filter_map(|(place, job)| Some((self.effort(job, ended)?, place))).min()?;
        let job = self.waiting.remove(place);
        self.running.push(job.clone());
        Some(job)
    }

    /// The first workers have one cluster each. No lab runs beside a cluster.
    fn fits(&self, job: &Job, worker: usize) -> bool {
        job.clusters.is_none_or(|clusters| worker < clusters)
            && self
                .running
                .iter()
                .all(|other| other.clusters.is_some() == job.clusters.is_some() && other.claim.beside(job.claim))
    }

    /// The cost of starting a job, or `None` to wait. On a cluster that already has its scenario's pods, a trial starts
    /// immediately. If another cluster has them and is in use, they would have to be created twice; the trial waits if
    /// it would also need another cluster.
    fn effort(&self, job: &Job, ended: Option<&Job>) -> Option<u8> {
        let same = |other: &Job| other.wanted.scenario == job.wanted.scenario;
        let ended = ended.filter(|ended| ended.clusters.is_some());
        if job.clusters.is_none() || ended.is_some_and(same) {
            return Some(0);
        }
        if !self.running.iter().any(same) {
            return Some(1);
        }
        ended.is_none_or(|ended| ended.wanted.kind_config == job.wanted.kind_config).then_some(2)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use relapse_lab::cluster::backend::Wanted;
    use relapse_lab::fault::Requirement;
    use relapse_lab::netns::Labs;
    use relapse_reports::event::TrialId;

    use super::*;
    use crate::run::claim::Claim;
    use crate::run::needs::Needs;
    use crate::scenario::trial::Armed;

    fn job(scenario: &str, number: u32, requires: &[Requirement]) -> Job {
        let wanted =
            Wanted { nodes: 2, scenario: scenario.into(), ingress: false, servers: Vec::new(), kind_config: None };
        Job {
            id: TrialId {
                scenario: scenario.into(),
                control: None,
                backend: "clusters".into(),
                repetition: number,
                ..TrialId::default()
            },
            backend: Arc::new(Labs::of_program(Path::new("none"))),
            clusters: Some(2),
            wanted,
            incident: String::new(),
            file: "none".into(),
            armed: Armed::Before,
            needs: Needs::default(),
            claim: Claim::of(requires, 0, true),
            at_most: std::time::Duration::ZERO,
        }
    }

    #[test]
    fn a_cluster_stays_with_its_scenario_and_the_other_takes_the_next() {
        let (a, b) = (|number| job("a", number, &[]), |number| job("b", number, &[]));
        let writer = job("w", 1, &[Requirement::ConntrackLimit(500)]);
        let queue = Queue::new(vec![a(1), a(2), b(1), b(2), writer]);
        let end = |ended: &Job| queue.state.lock().unwrap().running.retain(|running| running.id != ended.id);
        let take = |worker, ended: Option<&Job>| {
            let job = queue.state.lock().unwrap().take(worker, ended);
            job.as_ref().map_or(String::from("none"), |job| format!("{} {}", job.id.scenario, job.id.repetition))
        };
        assert_eq!([take(0, None), take(1, None)], ["a 1", "b 1"]);
        assert_eq!(take(2, None), "none", "there are two clusters");
        end(&b(1));
        assert_eq!(take(1, Some(&b(1))), "b 2", "its pods exist there");
        end(&b(2));
        assert_eq!(take(1, Some(&b(2))), "a 2", "nothing else is left for that cluster");
        end(&a(1));
        assert_eq!(take(0, Some(&a(1))), "none", "a job that must run alone waits for all others");
        end(&a(2));
        assert_eq!(take(1, Some(&a(2))), "w 1");
    }
}
