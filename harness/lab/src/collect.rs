//! Collectors: what turns a node's kernel and API events into signals.
//!
//! One set per node, seeing only what an agent on that node could: its own namespace, the namespaces
//! of its own pods, the kernel log, and what the kubelet and the API tell. Invariant: a collector
//! that cannot be armed, or that lost something, says so with a `Collector` signal; silence means
//! that nothing happened. When [`Collectors::arm`] returns, every one of them is armed or has said why not.
//!
//! One file a source of signals, with all that is to be known of its collectors, and its name in the registry below;
//! `detectors/src/signal` has the vocabulary in files of the same names.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use relapse_detectors::operator::Operator;
use relapse_detectors::signal::{Collector, CollectorKind, Observed, Sight, Signal};
use relapse_detectors::time::Time;
use relapse_kernel::{NetNs, clock};
use relapse_model::NodeId;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::cluster::{Cluster, Inventory, PodEntry};

/// Why a collector is blind that a self-test left out.
const TAKEN_AWAY: &str = "taken away for a self-test";

/// What is known of a collector.
pub struct CollectorInfo {
    /// What it delivers.
    pub kinds: &'static [CollectorKind],
    start: Start,
    /// What a machine is asked before it is relied on; none where every lab can.
    pub trial: Option<Trial>,
}

/// Whether it sees, or why it does not.
type Armed = Result<(), String>;
/// The open file, or why there is none.
type Opened = Result<File, String>;

/// Arms what each node has for itself.
type StartEach = fn(&Arc<Agent>, &mut JoinSet<()>) -> relapse_kernel::Result<()>;
/// Arms one that hands on to all nodes, perhaps from the kernel log; none where the cluster has no such source.
type StartOnce = fn(&[Arc<Agent>], &Opened, &mut JoinSet<()>) -> Option<Armed>;

enum Start {
    EachNode(StartEach),
    Once(StartOnce),
}

impl CollectorInfo {
    const fn on_each_node(kinds: &'static [CollectorKind], start: StartEach) -> Self {
        Self { kinds, start: Start::EachNode(start), trial: None }
    }

    const fn tried(self, what: &'static str, seen: &'static str, attempt: Attempt) -> Self {
        Self { trial: Some(Trial { what, seen, attempt }), ..self }
    }
}

/// An attempt, on a host of a throw-away lab, to do what a collector does.
pub struct Trial {
    /// The part of the machine that is tried.
    pub what: &'static str,
    /// What was seen where it succeeded.
    pub seen: &'static str,
    pub attempt: Attempt,
}

type Attempt = fn(&NetNs) -> relapse_kernel::Result<()>;

macro_rules! collectors {
    ($($module:ident,)+) => {
        $(mod $module;)+

        static COLLECTORS: &[&[CollectorInfo]] = &[$($module::COLLECTORS),+];
    };
}

/// Fed by `packets`.
mod exchanges;

collectors! {
    inventory,
    routing,
    conntrack,
    packets,
    sockets,
    probes,
    api,
    kernel_log,
}

/// What is known of all collectors.
pub fn info() -> impl Iterator<Item = &'static CollectorInfo> {
    COLLECTORS.iter().copied().flatten()
}

/// All collectors of a cluster. Dropping it ends them.
pub struct Collectors {
    tasks: JoinSet<()>,
}

impl Collectors {
    /// Arms every collector on every node. `without` leaves one kind out, which then is blind.
    pub fn arm(
        cluster: &Arc<dyn Cluster>,
        operator: &Arc<Operator>,
        signals: &UnboundedSender<Signal>,
        without: Option<CollectorKind>,
        kernel_log: &Result<File, String>,
    ) -> Self {
        let agent = |number| {
            let node = cluster.node(NodeId(number));
            Arc::new(Agent {
                node: node.name.as_str().into(),
                ns: node.ns.clone(),
                address: cluster.plan().nodes[number].address,
                upstreams: upstreams(cluster.as_ref()),
                operator: Arc::clone(operator),
                cluster: Arc::clone(cluster),
                inventory: cluster.inventory(),
                links: RwLock::default(),
                talked_to: Mutex::default(),
                external_name: Mutex::default(),
                signals: signals.clone(),
            })
        };
        let agents: Vec<_> = (0..cluster.plan().nodes.len()).map(agent).collect();
        let mut tasks = JoinSet::new();
        for collector in info() {
            let is_left_out = without.is_some_and(|without| collector.kinds.contains(&without));
            let say = |agent: &Agent, armed: Armed| {
                let sight = armed.map_or_else(Sight::Blind, |()| Sight::Ready);
                collector.kinds.iter().for_each(|kind| agent.sight(*kind, sight.clone()));
            };
            match collector.start {
                _ if is_left_out => agents.iter().for_each(|agent| say(agent, Err(TAKEN_AWAY.to_owned()))),
                Start::EachNode(start) => {
                    for agent in &agents {
                        say(agent, start(agent, &mut tasks).map_err(|e| e.to_string()));
                    }
                }
                Start::Once(start) => {
                    let Some(armed) = start(&agents, kernel_log, &mut tasks) else { continue };
                    agents.iter().for_each(|agent| say(agent, armed.clone()));
                }
            }
        }
        Self { tasks }
    }

    /// Ends all of them.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

fn upstreams(cluster: &dyn Cluster) -> Vec<IpAddr> {
    let plan = cluster.plan();
    plan.dns.iter().flat_map(|dns| dns.upstreams.iter().map(|id| plan.outside[id.0].address)).collect()
}

/// What the collectors of one node share.
struct Agent {
    node: Arc<str>,
    ns: NetNs,
    address: IpAddr,
    /// Upstream resolvers, as cluster DNS is configured with.
    upstreams: Vec<IpAddr>,
    operator: Arc<Operator>,
    cluster: Arc<dyn Cluster>,
    inventory: watch::Receiver<Inventory>,
    /// Names of the node's interfaces, kept up to date by the routing collector.
    links: RwLock<HashMap<u32, String>>,
    /// Addresses outside the cluster that pods of this node opened connections to.
    talked_to: Mutex<BTreeSet<IpAddr>>,
    /// The last name outside the cluster that a pod of this node got an address for.
    external_name: Mutex<Option<String>>,
    signals: UnboundedSender<Signal>,
}

/// Most addresses that are kept in `talked_to`.
const MOST_TALKED_TO: usize = 16;

impl Agent {
    fn talks_to(&self, from: IpAddr, to: IpAddr) {
        if self.operator.is_pod(from) && !self.operator.is_pod(to) {
            let mut known = self.talked_to.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() < MOST_TALKED_TO {
                known.insert(to);
            }
        }
    }

    fn tell(&self, observed: impl Into<Observed>) {
        self.tell_at(Time(clock::now()), observed);
    }

    fn tell_at(&self, at: Time, observed: impl Into<Observed>) {
        // Nobody listens any more once the trial is over.
        let _ = self.signals.send(Signal { at, node: Arc::clone(&self.node), observed: observed.into() });
    }

    fn sight(&self, collector: CollectorKind, sight: Sight) {
        self.tell(Observed::Collector(Collector { collector, sight }));
    }

    /// A stream broke, or the kernel had to drop some of it.
    fn lost(&self, collector: CollectorKind, why: impl std::fmt::Display) {
        self.sight(collector, Sight::Blind(why.to_string()));
    }

    fn link_name(&self, index: u32) -> Option<String> {
        self.links.read().unwrap_or_else(PoisonError::into_inner).get(&index).cloned()
    }

    fn link_index(&self, name: &str) -> Option<u32> {
        let links = self.links.read().unwrap_or_else(PoisonError::into_inner);
        links.iter().find(|(_, known)| *known == name).map(|(index, _)| *index)
    }

    /// Pods of this node, now.
    fn pods(&self) -> Vec<PodEntry> {
        self.inventory.borrow().pods.iter().filter(|pod| *pod.node == *self.node).cloned().collect()
    }
}
