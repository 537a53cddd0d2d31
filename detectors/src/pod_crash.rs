//! `pod-crash`: a container of a pod ends by itself again and again.
//!
//! What it sees: the kubelet's state of a container. `warning` when it failed twice within 10 minutes, or waits in
//! CrashLoopBackOff, which a kubelet may report ten seconds later; `info` at the first failure. Over when it has run for
//! 10 s, when the pod is deleted, or when another takes its place.
//! Why it matters: the pod leaves its Services whenever it is down, and the cause is in the pod.
//! Which incident: W5.
//!
//! Left out: containers that end with exit code 0, which is what pods that are deleted or replaced do.

use std::time::Duration;

use crate::capped::Capped;
use crate::detector::{Context, Detector, DetectorInfo, Scope, State, new};
use crate::finding::{Level, Severity, Subject, SubjectKind};
use crate::signal::{Change, CollectorKind, Container, ContainerState, Observed, Signal};
use crate::time::Time;

pub const INFO: DetectorInfo = DetectorInfo {
    name: "pod-crash",
    incident: "W5",
    level: Level::Cause,
    subjects: &[SubjectKind::Pod],
    what: "A container of a pod fails and is started again and again.",
    facts: "It finds the same with none and with stale facts.",
    wants: &[CollectorKind::Api, CollectorKind::Inventory],
    needs: &[&[CollectorKind::Api]],
    scope: Scope::Cluster,
    state: State::Cluster(new::<PodCrash>),
};

/// The reason of a container that waits for its back-off.
const BACK_OFF: &str = "CrashLoopBackOff";
/// Failures that are enough, and the time they count for: a kubelet forgets its back-off after it.
const FAILURES: usize = 2;
const WINDOW: Duration = Duration::from_mins(10);
/// A container that has run for so long is well.
const STABLE: Duration = Duration::from_secs(10);
/// Limit on containers.
const CAP: usize = 4096;

#[derive(Default)]
struct PodCrash {
    /// By pod and container.
    containers: Capped<(String, String), Crashing, CAP>,
}

#[derive(Default)]
struct Crashing {
    restarts: u32,
    /// Its last exit code, where one was seen since it last ran.
    exit: Option<i32>,
    /// The first failure.
    since: Option<Time>,
    /// When it failed.
    failures: Vec<Time>,
    runs_since: Option<Time>,
}

impl Crashing {
    /// How severe it is now.
    fn state(&mut self, at: Time, container: &Container) -> Option<Severity> {
        self.runs_since = None;
        match &container.state {
            ContainerState::Terminated { exit_code, .. } => {
                // The same end may be reported again.
                let is_known = self.exit.replace(*exit_code).is_some() && container.restarts == self.restarts;
                if *exit_code != 0 {
                    self.failures.retain(|before| at.since(*before) < WINDOW);
                    if !is_known {
                        self.failures.push(at);
                    }
                    self.since.get_or_insert(at);
                    let is_loop = self.failures.len() >= FAILURES;
                    return Some(if is_loop { Severity::Warning } else { Severity::Info });
                }
            }
            ContainerState::Waiting { reason } if reason == BACK_OFF => {
                self.since.get_or_insert(at);
                let ended_well = self.exit == Some(0);
                return Some(if ended_well { Severity::Info } else { Severity::Warning });
            }
            ContainerState::Waiting { .. } => {}
            ContainerState::Running => {
                self.runs_since = Some(at);
                self.exit = None;
            }
        }
        None
    }
}

impl PodCrash {
    fn container(&mut self, cx: &mut Context<'_>, at: Time, container: &Container) {
        let Some(known) = self.containers.entry((container.pod.clone(), container.container.clone())) else { return };
        let subject = Subject::pod(&container.pod);
        if container.restarts < known.restarts {
            cx.claims.withdraw_of(subject.clone(), "another pod has taken its place");
            *known = Crashing::default();
        }
        let severity = known.state(at, container);
        known.restarts = container.restarts;
        if let (Some(severity), Some(since)) = (severity, known.since) {
            cx.claims.make_of(subject, severity, since, || {
                let Container { container, state, restarts, .. } = container;
                let times = if *restarts == 1 { "once".to_owned() } else { format!("{restarts} times") };
                format!("container {container} is {state}, restarted {times}")
            });
        }
    }
}

impl Detector for PodCrash {
    fn observe(&mut self, cx: &mut Context<'_>, signal: &Signal) {
        match &signal.observed {
            Observed::Container(container) => self.container(cx, signal.at, container),
            Observed::Pod(pod) if pod.change == Change::Removed => {
                self.containers.retain(|(name, _), _| *name != pod.name);
                cx.claims.withdraw_of(Subject::pod(&pod.name), "the pod was deleted");
            }
            _ => {}
        }
    }

    fn tick(&mut self, cx: &mut Context<'_>) {
        for ((pod, _), container) in self.containers.iter_mut() {
            let is_stable = container.runs_since.is_some_and(|since| cx.now.since(since) >= STABLE);
            if is_stable && container.since.take().is_some() {
                container.failures.clear();
                cx.claims.withdraw_of(Subject::pod(pod), "its container runs for 10 s");
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::testing::{Scene, play, scene};

    const NAME: &str = INFO.name;
    const RUNS: &str = "0 pod shop-1 10.176.98.10; 0 container shop-1 running 0";

    /// The second failure within moments: the kubelet waits.
    pub(crate) fn incident() -> Scene {
        let mut scene = scene!(NAME, "{RUNS}; 1000 container shop-1 exit=137 0; 1100 container shop-1 running 1");
        play!(scene, "1200 container shop-1 exit=137 1; 1300 container shop-1 CrashLoopBackOff 1");
        scene
    }

    #[test]
    fn incident_at_the_second_failure_and_over_when_the_pod_is_replaced() {
        let mut scene = incident();
        play!(scene, "? info 1000 pod/shop-1 ? warning 1200 pod/shop-1");
        play!(scene, "? evidence container app is terminated (Error, exit code 137), restarted once");
        play!(scene, "2300 container shop-1 running 2; 2400 container shop-1 exit=137 2 ? not over");
        play!(scene, "3000 pod -shop-1 10.176.98.10 ? over; 4000 container shop-1 running 0; 9000 ? over");
    }

    #[test]
    fn the_states_between_may_be_missed() {
        play!(scene!(NAME, "{RUNS}; 1300 container shop-1 CrashLoopBackOff 1"), "? warning 1300 pod/shop-1");
        // Without the running container in between, and the same end twice.
        let mut scene = scene!(NAME, "{RUNS}; 1000 container shop-1 exit=1 0; 1100 container shop-1 exit=1 0 ? info");
        play!(scene, "1200 container shop-1 exit=1 1 ? warning 1200 pod/shop-1; 1300 container shop-1 running 2");
        play!(scene, "11200 ? not over; 11400 ? over");
        play!({ incident() }, "3000 container shop-1 running 0 ? over");
    }

    #[test]
    fn twin_a_rolling_update() {
        let mut scene = scene!(NAME, "{RUNS}; 1000 pod +shop-2 10.176.98.11; 1000 container shop-2 running 0");
        play!(scene, "1500 container shop-1 exit=0 0; 1600 pod -shop-1 10.176.98.10; 9000 ? silence");
    }

    #[test]
    fn twin_programs_that_end_as_they_should() {
        let mut scene = scene!(NAME, "{RUNS}");
        for n in 0..4 {
            play!(
                scene,
                "{} container shop-1 exit=0 {n}; {} container shop-1 running {}",
                n * 100,
                n * 100 + 50,
                n + 1
            );
        }
        play!(scene, "9000 ? nothing; 9000 container shop-1 exit=0 4; 9100 container shop-1 CrashLoopBackOff 4 ? info");
    }

    #[test]
    fn twin_one_failure() {
        let mut scene = scene!(NAME, "{RUNS}; 1000 container shop-1 exit=1 0; 1100 container shop-1 running 1");
        play!(scene, "? quiet ? info; 11200 ? over");
        // Restarts from before are no news.
        play!(scene!(NAME, "0 container shop-1 running 7; 5000"), "? nothing");
    }

    #[test]
    fn failures_that_lie_far_apart() {
        let mut scene = scene!(NAME, "{RUNS}");
        for n in 0..3 {
            play!(scene, "{} container shop-1 exit=1 {n}", 1000 + n * 700_000);
            play!(scene, "{} container shop-1 running {}", 2000 + n * 700_000, n + 1);
        }
        play!(scene, "? quiet");
    }
}
