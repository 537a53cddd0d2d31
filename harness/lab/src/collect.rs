//! Collectors: what turns a node's kernel and API events into signals.
//!
//! One set per node, seeing only what an agent on that node could: its own namespace, the namespaces
//! of its own pods, the kernel log, and what the kubelet and the API tell. Invariant: a collector
//! that cannot be armed, or that lost something, says so with a `Collector` signal; silence means
//! that nothing happened. When [`Collectors::arm`] returns, every one of them is armed or has said why not.

mod api;
mod conntrack;
mod inventory;
mod kernel_log;
mod packets;
mod probes;
mod routing;
mod sockets;

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

use crate::cluster::{Cluster, Inventory};

/// Why a collector is blind that a self-test left out.
const TAKEN_AWAY: &str = "taken away for a self-test";

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
        kernel_log: Result<File, String>,
    ) -> Self {
        let mut tasks = JoinSet::new();
        let mut agents = Vec::new();
        for number in 0..cluster.plan().nodes.len() {
            let node = cluster.node(NodeId(number));
            let agent = Arc::new(Agent {
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
            });
            let mut arm =
                |kinds: &[CollectorKind], start: fn(&Arc<Agent>, &mut JoinSet<()>) -> relapse_kernel::Result<()>| {
                    let started = if kinds.iter().any(|kind| Some(*kind) == without) {
                        Err(TAKEN_AWAY.to_owned())
                    } else {
                        start(&agent, &mut tasks).map_err(|e| e.to_string())
                    };
                    for kind in kinds {
                        agent.sight(*kind, started.clone().map_or_else(Sight::Blind, |()| Sight::Ready));
                    }
                };
            arm(&[CollectorKind::Inventory], inventory::start);
            arm(&[CollectorKind::Rtnetlink, CollectorKind::RouteLookup], routing::start);
            arm(&[CollectorKind::ConntrackTable, CollectorKind::ConntrackStats], conntrack::start_polling);
            arm(&[CollectorKind::ConntrackEvents], conntrack::start_events);
            arm(&[CollectorKind::Packets, CollectorKind::DnsPackets], packets::start);
            arm(&[CollectorKind::Sockets], sockets::start);
            arm(&[CollectorKind::Probes], probes::start);
            agents.push(agent);
        }
        api::start(&agents, cluster.news(), without, &mut tasks);
        let log = if without == Some(CollectorKind::KernelLog) { Err(TAKEN_AWAY.to_owned()) } else { kernel_log };
        kernel_log::start(agents, log, &mut tasks);
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

    fn tell(&self, observed: Observed) {
        self.tell_at(Time(clock::now()), observed);
    }

    fn tell_at(&self, at: Time, observed: Observed) {
        // Nobody listens any more once the trial is over.
        let _ = self.signals.send(Signal { at, node: Arc::clone(&self.node), observed });
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
    fn pods(&self) -> Vec<crate::cluster::PodEntry> {
        self.inventory.borrow().pods.iter().filter(|pod| *pod.node == *self.node).cloned().collect()
    }
}
