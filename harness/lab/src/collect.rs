//! Collectors turn a node's kernel and API events into signals.
//!
//! Each node has its own set, which sees only what an agent on that node could see: its own namespace, the namespaces
//! of its own pods, the kernel log, and the kubelet's and the API's data. Invariant: a collector
//! that cannot be armed, or that lost something, reports it with a `Collector` signal; silence means
//! that nothing happened. When [`Collectors::arm`] returns, every collector is armed or has reported why not.
//!
//! One file per source of signals, with everything about its collectors, registered below;
//! `detectors/src/signal` defines the signals in files of the same names.

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

/// Why a collector disabled by a self-test is blind.
const DISABLED: &str = "disabled for a self-test";

/// A registered collector.
pub struct CollectorInfo {
    /// The signals it delivers.
    pub kinds: &'static [CollectorKind],
    start: Start,
    /// A check that this machine supports it; `None` if every lab does.
    pub trial: Option<Trial>,
}

/// Whether a collector is armed, or why not.
type Armed = Result<(), String>;
/// The open file, or why it could not be opened.
type Opened = Result<File, String>;

/// Arms a collector that each node has for itself.
type StartEach = fn(&Arc<Agent>, &mut JoinSet<()>) -> relapse_kernel::Result<()>;
/// Arms a collector shared by all nodes, possibly reading the kernel log; `None` if the cluster has no such source.
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

/// Tries what a collector does, on a host of a throw-away lab.
pub struct Trial {
    /// The feature of the machine that is tried.
    pub what: &'static str,
    /// The result on success.
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
    load,
    api,
    ingress_log,
    databases,
    kernel_log,
}

/// All registered collectors.
pub fn info() -> impl Iterator<Item = &'static CollectorInfo> {
    COLLECTORS.iter().copied().flatten()
}

/// All collectors of a cluster. Dropping it stops them.
pub struct Collectors {
    tasks: JoinSet<()>,
}

impl Collectors {
    /// Arms every collector on every node. `without` disables one kind, which then reports itself as blind.
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
                external_peers: Mutex::default(),
                external_name: Mutex::default(),
                signals: signals.clone(),
            })
        };
        let agents: Vec<_> = (0..cluster.plan().nodes.len()).map(agent).collect();
        let mut tasks = JoinSet::new();
        for collector in info() {
            let is_left_out = without.is_some_and(|without| collector.kinds.contains(&without));
            let report = |agent: &Agent, armed: Armed| {
                let sight = armed.map_or_else(Sight::Blind, |()| Sight::Ready);
                collector.kinds.iter().for_each(|kind| agent.sight(*kind, sight.clone()));
            };
            match collector.start {
                _ if is_left_out => agents.iter().for_each(|agent| report(agent, Err(DISABLED.to_owned()))),
                Start::EachNode(start) => {
                    for agent in &agents {
                        report(agent, start(agent, &mut tasks).map_err(|e| e.to_string()));
                    }
                }
                Start::Once(start) => {
                    let Some(armed) = start(&agents, kernel_log, &mut tasks) else { continue };
                    agents.iter().for_each(|agent| report(agent, armed.clone()));
                }
            }
        }
        Self { tasks }
    }

    /// Stops all of them.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

fn upstreams(cluster: &dyn Cluster) -> Vec<IpAddr> {
    let plan = cluster.plan();
    plan.dns.iter().flat_map(|dns| dns.upstreams.iter().map(|id| plan.outside[id.0].address)).collect()
}

/// State shared by the collectors of one node.
struct Agent {
    node: Arc<str>,
    ns: NetNs,
    address: IpAddr,
    /// Upstream resolvers of cluster DNS.
    upstreams: Vec<IpAddr>,
    operator: Arc<Operator>,
    cluster: Arc<dyn Cluster>,
    inventory: watch::Receiver<Inventory>,
    /// Names of the node's interfaces, kept up to date by the routing collector.
    links: RwLock<HashMap<u32, String>>,
    /// Addresses outside the cluster to which pods of this node opened connections.
    external_peers: Mutex<BTreeSet<IpAddr>>,
    /// The last name outside the cluster for which a pod of this node got an address.
    external_name: Mutex<Option<String>>,
    signals: UnboundedSender<Signal>,
}

/// Maximum number of addresses in `external_peers`.
const MAX_EXTERNAL_PEERS: usize = 16;

impl Agent {
    /// Whether this address is that of a pod: by the declared prefixes, or because a pod has it.
    fn is_pod(&self, address: IpAddr) -> bool {
        self.operator.is_pod(address) || self.inventory.borrow().pods.iter().any(|pod| pod.address == address)
    }

    fn record_connection(&self, from: IpAddr, to: IpAddr) {
        if self.is_pod(from) && !self.is_pod(to) {
            let mut known = self.external_peers.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() < MAX_EXTERNAL_PEERS {
                known.insert(to);
            }
        }
    }

    fn emit(&self, observed: impl Into<Observed>) {
        self.emit_at(Time(clock::now()), observed);
    }

    fn emit_at(&self, at: Time, observed: impl Into<Observed>) {
        // The receiver is dropped when the trial ends.
        let _ = self.signals.send(Signal { at, node: Arc::clone(&self.node), observed: observed.into() });
    }

    fn sight(&self, collector: CollectorKind, sight: Sight) {
        self.emit(Observed::Collector(Collector { collector, sight }));
    }

    /// Reports that a stream failed, or that the kernel dropped part of it.
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

    /// The current pods of this node.
    fn pods(&self) -> Vec<PodEntry> {
        self.inventory.borrow().pods.iter().filter(|pod| *pod.node == *self.node).cloned().collect()
    }
}
