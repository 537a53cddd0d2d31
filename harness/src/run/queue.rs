//! The trials of a run that have not begun, and which of them is next: one that may run beside those that do.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};

use relapse_lab::cluster::backend::Wanted;

use super::Job;
use super::share::Share;

/// The trials of a run that have not begun.
pub struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    waiting: VecDeque<Job>,
    running: Vec<Running>,
    /// Of clusters that nobody uses: what was wanted of them last, whose pods are still there.
    at_rest: Vec<Wanted>,
}

struct Running {
    share: Share,
    wanted: Wanted,
}

impl Queue {
    pub fn new(jobs: Vec<Job>) -> Self {
        let state = State { waiting: jobs.into(), running: Vec::new(), at_rest: Vec::new() };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// The first that may run beside those that do, waiting for it; none when all have begun.
    pub fn next(&self) -> Option<Job> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if state.waiting.is_empty() {
                return None;
            }
            if let Some(job) = state.take() {
                return Some(job);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// One that [`Queue::next`] gave has ended.
    pub fn done(&self, job: &Job) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = |running: &Running| running.share == job.share && running.wanted == job.wanted;
        if let Some(place) = state.running.iter().position(is_it) {
            let ended = state.running.swap_remove(place);
            if job.backend.places().is_some() {
                state.at_rest.push(ended.wanted);
            }
        }
        drop(state);
        self.changed.notify_all();
    }
}

impl State {
    fn take(&mut self) -> Option<Job> {
        let fits = |job: &Job| {
            let there = self.running.iter().filter(|running| running.share == Share::Cluster).count();
            job.backend.places().is_none_or(|places| there < places.number)
                && self.running.iter().all(|running| job.share.beside(running.share))
        };
        let all = self.waiting.iter().enumerate().filter(|(_, job)| fits(job));
        let all = all.filter_map(|(place, job)| Some((self.effort(job)?, place)));
        let (_, place) = all.min()?;
        let job = self.waiting.remove(place)?;
        if job.backend.places().is_some() && !self.at_rest.is_empty() {
            let at = |is: &dyn Fn(&Wanted) -> bool| self.at_rest.iter().position(is);
            let same = at(&|at_rest| at_rest.scenario == job.wanted.scenario);
            let fits = same.or_else(|| at(&|at_rest| at_rest.kind_config == job.wanted.kind_config));
            self.at_rest.remove(fits.unwrap_or_default());
        }
        self.running.push(Running { share: job.share, wanted: job.wanted.clone() });
        Some(job)
    }

    /// On a cluster where a scenario's pods are already, its next trial begins at once. One whose pods are on
    /// a cluster that is in use would need them twice, and waits if it needed another cluster for that.
    fn effort(&self, job: &Job) -> Option<u8> {
        let wanted = &job.wanted;
        if job.backend.places().is_none() || self.at_rest.iter().any(|at_rest| at_rest.scenario == wanted.scenario) {
            return Some(0);
        }
        if !self.running.iter().any(|running| running.wanted.scenario == wanted.scenario) {
            return Some(1);
        }
        let there = self.at_rest.iter().any(|at_rest| at_rest.kind_config == wanted.kind_config);
        (there || self.at_rest.is_empty()).then_some(2)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use relapse_reports::event::TrialId;

    use super::*;
    use crate::run::needs::Needs;
    use relapse_lab::cluster::backend::{Backend, Lease, Places};

    struct Clusters(Places);

    impl Backend for Clusters {
        fn name(&self) -> &'static str {
            "clusters"
        }
        fn unable(&self) -> Option<String> {
            None
        }
        fn is_real_cluster(&self) -> bool {
            true
        }
        fn places(&self) -> Option<&Places> {
            Some(&self.0)
        }
        fn lease<'a>(
            &'a self,
            _: &Wanted,
            _: &dyn Fn(String),
            _: &dyn Fn() -> bool,
        ) -> Result<Box<dyn Lease + 'a>, String> {
            Err("nothing is built here".into())
        }
        fn close(&self) -> Vec<String> {
            Vec::new()
        }
    }

    fn job(scenario: &str, share: Share, backend: &Arc<dyn Backend>) -> Job {
        let backend = Arc::clone(backend);
        let id = TrialId { scenario: scenario.into(), control: None, backend: "clusters".into(), repetition: 1 };
        let wanted =
            Wanted { nodes: 2, scenario: scenario.into(), ingress: false, servers: Vec::new(), kind_config: None };
        let (incident, file) = (String::new(), std::path::PathBuf::new());
        let (needs, at_most) = (Needs::default(), std::time::Duration::ZERO);
        Job { id, backend, wanted, incident, file, needs, share, at_most }
    }

    fn scenario(job: Option<&Job>) -> &str {
        job.map_or("none", |job| job.id.scenario.as_str())
    }

    #[test]
    fn a_cluster_stays_with_its_scenario_and_the_other_takes_the_next() {
        let all = [("a", Share::Cluster), ("a", Share::Cluster), ("b", Share::Cluster), ("b", Share::Cluster)];
        let writer = [("w", Share::Alone)];
        let clusters: Arc<dyn Backend> = Arc::new(Clusters(Places::new(2)));
        let queue = Queue::new(all.iter().chain(&writer).map(|(name, share)| job(name, *share, &clusters)).collect());
        let take = || queue.state.lock().unwrap().take();
        let (first, second) = (take().unwrap(), take().unwrap());
        assert_eq!([&first, &second].map(|job| scenario(Some(job))), ["a", "b"]);
        assert_eq!(scenario(take().as_ref()), "none", "there are two clusters");
        queue.done(&second);
        let third = take().unwrap();
        assert_eq!(scenario(Some(&third)), "b", "its pods are there");
        queue.done(&third);
        let fourth = take().unwrap();
        assert_eq!(scenario(Some(&fourth)), "a", "nothing else is left for that cluster");
        queue.done(&first);
        assert_eq!(scenario(take().as_ref()), "none", "who is alone waits for all");
        queue.done(&fourth);
        assert_eq!(scenario(take().as_ref()), "w");
    }
}
