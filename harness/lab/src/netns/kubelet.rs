//! The states of containers as a kubelet reports them: a stand-in. Each pod has one container, and its program runs
//! elsewhere (the workload's servers, [`super::coredns`]).

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use relapse_detectors::signal::{Container, ContainerState, Observed};
use relapse_model::{ClusterPlan, PodId};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Of a program that was killed: 128 and the number of SIGKILL (signal(7)).
const KILLED: i32 = 137;
/// The longest back-off (`MaxContainerBackOff`, pkg/kubelet/kubelet.go).
const LONGEST: Duration = Duration::from_mins(5);

/// A node's name and an observation of its agent.
type News = (String, Observed);

/// The kubelets of all nodes.
pub struct Kubelets(Mutex<State>);

struct State {
    /// Node and last report of each pod's container; `None` for a pod that does not exist.
    containers: Vec<(String, String, Option<Container>)>,
    agents: Vec<UnboundedSender<News>>,
}

impl Kubelets {
    /// All pods exist but the spare ones.
    pub fn new(plan: &ClusterPlan) -> Self {
        let of = |pod: &relapse_model::PodPlan| (plan.nodes[pod.node.0].name.clone(), pod.name.clone(), None);
        let kubelets = Self(Mutex::new(State { containers: plan.pods.iter().map(of).collect(), agents: Vec::new() }));
        (0..plan.pods.len()).map(PodId).filter(|id| !plan.is_spare(*id)).for_each(|id| kubelets.started(id));
        kubelets
    }

    /// The current states and every change from now on.
    pub fn news(&self) -> UnboundedReceiver<News> {
        let (sender, receiver) = unbounded_channel();
        let mut state = self.lock();
        for (node, _, container) in &state.containers {
            if let Some(container) = container {
                let _ = sender.send((node.clone(), Observed::Container(container.clone())));
            }
        }
        state.agents.push(sender);
        receiver
    }

    /// The container of a new pod runs.
    pub fn started(&self, id: PodId) {
        self.report(id, ContainerState::Running, |_| 0);
    }

    /// Its program ended because it was asked to.
    pub fn ended(&self, id: PodId) {
        self.report(id, ContainerState::Terminated { reason: "Completed".into(), exit_code: 0 }, |restarts| restarts);
    }

    /// Its program was killed.
    pub fn failed(&self, id: PodId) {
        let reason = "Error".into();
        self.report(id, ContainerState::Terminated { reason, exit_code: KILLED }, |restarts| restarts);
    }

    /// Starts it again: the first time at once, then after the back-off, which doubles.
    pub async fn restart(&self, id: PodId, back_off: Duration) {
        let restarts = self.lock().containers[id.0].2.as_ref().map_or(0, |container| container.restarts);
        if let Some(doublings) = restarts.checked_sub(1) {
            self.report(id, ContainerState::Waiting { reason: "CrashLoopBackOff".into() }, |restarts| restarts);
            let times = 2_u32.checked_pow(doublings).unwrap_or(u32::MAX);
            tokio::time::sleep(back_off.saturating_mul(times).min(LONGEST)).await;
        }
        self.report(id, ContainerState::Running, |restarts| restarts + 1);
    }

    fn report(&self, id: PodId, now: ContainerState, restarts: impl FnOnce(u32) -> u32) {
        let State { containers, agents } = &mut *self.lock();
        let (node, pod, last) = &mut containers[id.0];
        let before = last.as_ref().map_or(0, |container| container.restarts);
        let container = Container { pod: pod.clone(), container: "app".into(), state: now, restarts: restarts(before) };
        *last = Some(container.clone());
        // An agent that has ended is forgotten.
        agents.retain(|agent| agent.send((node.clone(), Observed::Container(container.clone()))).is_ok());
    }

    /// The pod is gone.
    pub fn removed(&self, id: PodId) {
        self.lock().containers[id.0].2 = None;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
