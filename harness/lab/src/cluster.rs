//! The cluster a run works on: nodes, pods, Services and DNS.
//!
//! Everything a fault, a workload or a collector accesses is a namespace handle; backends differ only
//! in how they create the namespaces.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use relapse_detectors::signal::{Endpoints, Observed};
use relapse_kernel::NetNs;
use relapse_model::{ClusterPlan, NodeId, OfficeId, OutsideId, Place, PodId, ServiceId, zone};
use relapse_series::Target;
use tokio::sync::{mpsc, watch};

use crate::job::{FaultError, Job};

use ingress::IngressLogs;

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

/// A real kube-proxy that runs beside the node's own; it is killed when this is dropped.
#[derive(Debug)]
pub struct KubeProxy {
    /// Description of the program and its configuration.
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

/// A node's rules for one Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceRules {
    /// As kube-proxy wrote them.
    Whole,
    /// Nothing translates its address.
    Gone,
    /// They lead to this address of a pod that no longer exists.
    Stale(IpAddr),
}

/// Descriptions of what may have been left behind when a cluster was taken down.
pub type LeftBehind = Vec<String>;

/// A host outside the cluster.
#[derive(Debug, Clone)]
pub struct Outside {
    pub name: String,
    pub ns: NetNs,
    /// The load balancer hop in front of it, if any.
    pub load_balancer: Option<NetNs>,
    /// How long its servers wait before they answer.
    pub delay: ServerDelay,
    /// Its records, if it is a resolver.
    pub records: Records,
}

/// Records of a resolver outside, which can be edited while it runs, and names for which it has only SERVFAIL.
#[derive(Debug, Clone, Default)]
pub struct Records(Arc<RwLock<BTreeMap<String, Record>>>, Arc<RwLock<BTreeSet<String>>>);

/// The addresses of a name, and their time to live in seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub addresses: Vec<IpAddr>,
    pub ttl: u32,
}

impl Records {
    #[must_use]
    pub fn new(records: &[(String, Vec<IpAddr>)], ttl: u32) -> Self {
        let record = |addresses: &Vec<IpAddr>| Record { addresses: addresses.clone(), ttl };
        Self(Arc::new(RwLock::new(records.iter().map(|(name, a)| (name.clone(), record(a))).collect())), Arc::default())
    }

    /// The record that answers for a folded name: its own, or a wildcard.
    #[must_use]
    pub fn answering(&self, name: &str) -> Option<Record> {
        let records = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let owner = zone::owner(records.keys().map(String::as_str), name)?;
        records.get(owner).cloned()
    }

    /// A folded name's own record.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Record> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Whether the resolver cannot resolve this folded name.
    #[must_use]
    pub fn is_failing(&self, name: &str) -> bool {
        self.1.read().unwrap_or_else(PoisonError::into_inner).contains(name)
    }

    /// Sets that.
    pub fn set_failing(&self, name: &str, fails: bool) {
        let mut failing = self.1.write().unwrap_or_else(PoisonError::into_inner);
        if fails {
            failing.insert(name.to_owned());
        } else {
            failing.remove(name);
        }
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

/// A delay a server adds before it answers, adjustable while it runs.
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

/// An office: a client host and the VPN gateway in front of it.
#[derive(Debug, Clone)]
pub struct Office {
    pub name: String,
    pub client: NetNs,
    pub gateway: NetNs,
}

/// What an agent on a node currently knows from the kubelet and the API.
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

/// What the components of a real cluster export at present.
#[derive(Debug, Default)]
pub struct Exports {
    pub all: Vec<Export>,
    /// Names of nodes as they are exported, each with the scenario's. None is part of a later one.
    pub names: Vec<(String, String)>,
}

#[derive(Debug)]
pub struct Export {
    pub target: Target,
    pub from: Origin,
}

/// Where an exported text comes from.
#[derive(Debug)]
pub enum Origin {
    /// A server that answers plain HTTP to clients in this namespace.
    Server { ns: NetNs, address: SocketAddr, path: &'static str },
    /// What nothing serves, in the same format.
    Text(String),
}

/// A running cluster.
pub trait Cluster: Send + Sync {
    fn plan(&self) -> &ClusterPlan;
    fn node(&self, id: NodeId) -> &Node;
    /// The current pod: a recreated pod may have another namespace.
    fn pod(&self, id: PodId) -> Pod;
    fn outside(&self, id: OutsideId) -> &Outside;
    fn office(&self, id: OfficeId) -> &Office;
    /// The network that connects all of them.
    fn fabric(&self) -> &NetNs;
    /// Its slow and lossy paths.
    fn paths(&self) -> &paths::Paths;

    /// Pods and endpoints as known to the API, and every change.
    fn inventory(&self) -> watch::Receiver<Inventory>;

    /// Further observations of the API server, with the node each is about, starting from the current state; `None` if
    /// there is no API server. In labs the states of containers only.
    fn news(&self) -> Option<mpsc::UnboundedReceiver<(String, Observed)>>;

    /// What is recorded of its own components, as they are now; called once a second while series are recorded. Nothing in
    /// labs.
    fn exports(&self) -> Exports {
        Exports::default()
    }

    /// Deletes a pod as the kubelet and the CNI would: its processes, its Service endpoints, its rules
    /// and route, its veth.
    fn delete_pod(&self, id: PodId) -> Job<'_, Result<(), FaultError>>;

    /// Restores a deleted pod.
    fn restore_pod(&self, id: PodId) -> Job<'_, Result<(), FaultError>>;

    /// Restores a deleted pod, which is not ready before [`Self::set_running`].
    fn add_pod(&self, id: PodId) -> Job<'_, Result<(), FaultError>>;

    /// Kills the container of a pod (SIGKILL), which stays with its links. It is no endpoint while no container runs.
    fn crash(&self, id: PodId) -> Job<'_, Result<(), FaultError>>;

    /// Waits until the kubelet has started the container again: at once after the first crash, after `back_off` after
    /// the second, then after twice the time before. A real kubelet has a back-off of its own (10 s).
    fn restarted(&self, id: PodId, back_off: Duration) -> Job<'_, Result<(), FaultError>>;

    /// Adds or deletes a pod that no flow or fault uses, the ordinary churn of any cluster.
    fn churn(&self, present: bool) -> Job<'_, Result<(), FaultError>>;

    /// How long that pod stays, and how long it is gone.
    fn churn_pace(&self) -> (Duration, Duration);

    /// Stops (or starts again) the process of a replica of cluster DNS, links intact; its endpoints follow. Other pods only
    /// become ready or unready.
    fn set_running(&self, id: PodId, running: bool) -> Job<'_, Result<(), FaultError>>;

    /// A kube-proxy for a node, ready to be started with a configuration that makes it write this limit; `None`
    /// if only a stand-in programs Services.
    fn kube_proxy(&self, limit: u64) -> Option<Result<KubeProxy, FaultError>>;

    /// Changes a node's rules for a Service behind the back of its kube-proxy, which writes them again only when the
    /// endpoints of that Service change. `Whole` writes the original rules in one transaction.
    fn write_service_rules(
        &self,
        node: NodeId,
        service: ServiceId,
        to: ServiceRules,
    ) -> Job<'_, Result<(), FaultError>>;

    /// The rules of a node that lead to endpoints of a Service, one text each, with the pod or its address.
    fn service_rules(&self, node: NodeId, service: ServiceId) -> Job<'_, Result<Vec<String>, FaultError>>;

    /// Stops a node's kube-proxy, or lets it continue, which then writes what it has missed.
    fn run_kube_proxy(&self, node: NodeId, running: bool) -> Job<'_, Result<(), FaultError>>;

    /// Adds a pod, which keeps running, to the endpoints of its Services, or removes it. Returns when every kube-proxy
    /// that runs has written its rules.
    fn set_endpoint(&self, pod: PodId, is_endpoint: bool) -> Job<'_, Result<(), FaultError>>;

    /// Requests that ingress controllers answered.
    fn ingress_log(&self) -> &IngressLogs;

    /// The port of its Service to which the configuration of an ingress sends.
    ///
    /// # Errors
    /// When the pod is no ingress, or its configuration cannot be read.
    fn ingress_port(&self, id: PodId) -> Result<u16, FaultError>;

    /// Writes a configuration of an ingress that sends to this port of its Service, and reloads it. Returns when it is
    /// in force.
    fn configure_ingress(&self, id: PodId, port: u16) -> Job<'_, Result<(), FaultError>>;

    /// Whether this pod or outside host runs its own server, so that the workload starts none there.
    fn serves_itself(&self, place: Place) -> bool;

    /// Every namespace in which a run may leave connections open.
    fn own_namespaces(&self) -> Vec<NetNs>;

    /// The inodes of all namespaces of the cluster, including its nodes.
    fn inodes(&self) -> Vec<u64>;

    /// Removes what does not end with the last handle, and returns what is left behind.
    fn down(&self) -> Job<'_, LeftBehind>;
}

pub mod backend;
pub mod cable;
pub mod fabric;
pub mod ingress;
pub mod node_network;
pub mod outside;
pub mod paths;
pub mod pods;
pub mod snapshot;
