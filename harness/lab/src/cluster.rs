//! A cluster a run works on: where nodes, pods, Services and DNS come from.
//!
//! Everything a fault, a workload or a collector touches is a namespace handle; backends differ only
//! in how those come to be.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use relapse_detectors::signal::{Endpoints, Observed};
use relapse_kernel::NetNs;
use relapse_model::{ClusterPlan, NodeId, OfficeId, OutsideId, Place, PodId, zone};
use tokio::sync::{mpsc, watch};

use crate::job::{FaultError, Job};

/// A node: its namespace, in which its NICs, rules, routes and connection tracking live.
#[derive(Debug, Clone)]
pub struct Node {
    pub name: String,
    pub ns: NetNs,
}

/// A pod and the node's end of its veth.
#[derive(Debug, Clone)]
pub struct Pod {
    pub name: String,
    pub ns: NetNs,
    /// Name of the interface on the node.
    pub link: String,
}

/// A real kube-proxy that runs beside the node's own; it ends when this is dropped.
#[derive(Debug)]
pub struct KubeProxy {
    /// What it is and how it is configured, in words.
    pub what: String,
    pub command: Command,
    pub process: Option<Child>,
}

impl KubeProxy {
    /// Starts it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&mut self) -> Result<(), FaultError> {
        let started = self.command.spawn().map_err(|e| FaultError::kernel(format!("start {}", self.what), e));
        self.process = Some(started?);
        Ok(())
    }
}

impl Drop for KubeProxy {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// What may have been left behind when a cluster went down, in words.
pub type LeftBehind = Vec<String>;

/// A host outside the cluster.
#[derive(Debug, Clone)]
pub struct Outside {
    pub name: String,
    pub ns: NetNs,
    /// The load balancer hop in front of it, where it has one.
    pub load_balancer: Option<NetNs>,
    /// How long its servers wait before they answer.
    pub delay: ServerDelay,
    /// What it answers as a resolver.
    pub records: Records,
}

/// Records of a resolver outside, which may be edited while it answers.
#[derive(Debug, Clone, Default)]
pub struct Records(Arc<RwLock<BTreeMap<String, Record>>>);

/// The addresses of a name, and how long an answer may be kept, seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub addresses: Vec<IpAddr>,
    pub ttl: u32,
}

impl Records {
    #[must_use]
    pub fn new(records: &[(String, Vec<IpAddr>)], ttl: u32) -> Self {
        let record = |addresses: &Vec<IpAddr>| Record { addresses: addresses.clone(), ttl };
        Self(Arc::new(RwLock::new(records.iter().map(|(name, a)| (name.clone(), record(a))).collect())))
    }

    /// The record that answers for a folded name, by a wildcard perhaps.
    #[must_use]
    pub fn answering(&self, name: &str) -> Option<Record> {
        let records = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let owner = zone::owner(records.keys().map(String::as_str), name)?;
        records.get(owner).cloned()
    }

    /// The record of a folded name itself.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Record> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Replaces the record of a folded name, or removes it.
    pub fn set(&self, name: &str, record: Option<Record>) {
        let mut records = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match record {
            Some(record) => records.insert(name.to_owned(), record),
            None => records.remove(name),
        };
    }
}

/// A delay that a server adds before it answers, adjustable while it runs.
#[derive(Debug, Clone, Default)]
pub struct ServerDelay(Arc<AtomicU64>);

impl ServerDelay {
    #[must_use]
    pub fn get(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }

    pub fn set(&self, delay: Duration) {
        self.0.store(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// An office: a client host and the VPN gateway before it.
#[derive(Debug, Clone)]
pub struct Office {
    pub name: String,
    pub client: NetNs,
    pub gateway: NetNs,
}

/// What an agent on a node knows from the kubelet and the API at this instant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    pub pods: Vec<PodEntry>,
    /// With their ready endpoints.
    pub services: Vec<Endpoints>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodEntry {
    pub name: String,
    pub node: String,
    pub address: IpAddr,
    pub link: String,
}

/// A cluster that is up.
pub trait Cluster: Send + Sync {
    fn plan(&self) -> &ClusterPlan;
    fn node(&self, id: NodeId) -> &Node;
    /// The pod as it is now: one that was deleted and came back may live in another namespace.
    fn pod(&self, id: PodId) -> Pod;
    fn outside(&self, id: OutsideId) -> &Outside;
    fn office(&self, id: OfficeId) -> &Office;
    /// The network between all of them.
    fn fabric(&self) -> &NetNs;

    /// Pods and endpoints as the API has them, and each change.
    fn inventory(&self) -> watch::Receiver<Inventory>;

    /// What the API server tells besides, by the node it is about, from the state of now on; none where there
    /// is no API server.
    fn news(&self) -> Option<mpsc::UnboundedReceiver<(String, Observed)>>;

    /// Deletes a pod as the kubelet and the CNI do: its processes, its Service endpoints, its rules
    /// and route, its veth.
    fn delete_pod(&self, id: PodId) -> Job<'_, Result<(), FaultError>>;

    /// Puts a deleted pod back as it was.
    fn restore_pod(&self, id: PodId) -> Job<'_, Result<(), FaultError>>;

    /// One pod that no flow and no fault knows comes or goes, as in any cluster all the time.
    fn churn(&self, present: bool) -> Job<'_, Result<(), FaultError>>;

    /// How long that pod stays, and how long it is away.
    fn churn_pace(&self) -> (Duration, Duration);

    /// Stops (or starts again) the process of a pod, links intact; its endpoints follow.
    fn set_running(&self, id: PodId, running: bool) -> Job<'_, Result<(), FaultError>>;

    /// A node's kube-proxy, ready to be started with a configuration by which it writes this limit; none
    /// where nothing but a stand-in programs Services.
    fn kube_proxy(&self, limit: u64) -> Option<Result<KubeProxy, FaultError>>;

    /// A server of its own runs in this pod, or on this host outside: the workload starts none there.
    fn serves_itself(&self, place: Place) -> bool;

    /// Every namespace in which a run may leave connections that nobody will end.
    fn own_namespaces(&self) -> Vec<NetNs>;

    /// The kernel's numbers for all namespaces that belong to the cluster, nodes among them.
    fn inodes(&self) -> Vec<u64>;

    /// Takes down what does not go with the last handle, and says what is left behind.
    fn down(&self) -> Job<'_, LeftBehind>;
}

pub mod backend;
pub mod cable;
pub mod fabric;
pub mod node_network;
pub mod outside;
pub mod pods;
pub mod snapshot;
