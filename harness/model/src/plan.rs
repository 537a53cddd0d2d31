//! The resolved cluster and workload of a scenario, with all addresses assigned and references as numbers.
//!
//! Scenarios are planned into these types, and labs are built from them.

mod flow;
mod lookup;
mod path;
mod steps;

use std::net::IpAddr;
use std::path::PathBuf;

use relapse_detectors::operator::{DeclaredName, DeclaredServer, Entry};
use relapse_detectors::prefix::Prefix;
use schemars::JsonSchema;
use serde::Deserialize;

pub use flow::{Failure, FlowPlan};
pub use path::{PathId, PathPlan, PrefixPlan};
pub use steps::{PartId, PartPlan, Query, Step, Work};

macro_rules! index {
    ($($(#[$doc:meta])* $name:ident),*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub usize);
    )*};
}
index! {
    /// Index into [`ClusterPlan::nodes`].
    NodeId,
    /// Index into [`ClusterPlan::pods`].
    PodId,
    /// Index into [`ClusterPlan::services`].
    ServiceId,
    /// Index into [`ClusterPlan::outside`].
    OutsideId,
    /// Index into [`ClusterPlan::offices`].
    OfficeId,
    /// Index into [`ClusterPlan::names`].
    NameId,
    /// Index into the workload.
    FlowId
}

/// The cluster and the hosts and offices outside it.
#[derive(Debug, Clone)]
pub struct ClusterPlan {
    pub network: NetworkPlan,
    pub nodes: Vec<NodePlan>,
    /// All pods, including the DNS replicas (`coredns-1`, ...) and the ingress.
    pub pods: Vec<PodPlan>,
    /// Pods that do not run from the start: faults add them. Replicas of cluster DNS are in [`DnsPlan::spares`].
    pub spares: Vec<PodId>,
    pub services: Vec<ServicePlan>,
    pub dns: Option<DnsPlan>,
    pub outside: Vec<OutsidePlan>,
    pub offices: Vec<OfficePlan>,
    /// Addresses outside the cluster that share a path.
    pub prefixes: Vec<PrefixPlan>,
    /// Names that the operator declares to the detectors.
    pub declared_names: Vec<DeclaredName>,
    /// Domain names that flows connect to.
    pub names: Vec<NamePlan>,
    /// What the operator declared to the detectors about servers.
    pub declared_servers: Vec<DeclaredServer>,
    /// External names of the cluster that the operator declares to the detectors.
    pub declared_entries: Vec<Entry>,
    /// The smallest `nf_conntrack_max` that the operator declares to the detectors.
    pub declared_conntrack_limit: Option<u32>,
    /// Path of the scenario's kind cluster configuration (ignored by the lab).
    pub kind_config: Option<PathBuf>,
}

/// Addresses and names of the cluster's networks. Defaults are those of the incidents.
#[derive(Debug, Clone)]
pub struct NetworkPlan {
    /// Subnet of the nodes' primary interface, and its gateway (in the fabric).
    pub node_prefix: Prefix,
    pub node_gateway: IpAddr,
    /// Subnet of the pods, and its gateway (10.176.96.1, in the fabric).
    pub pod_prefix: Prefix,
    pub pod_gateway: IpAddr,
    pub service_prefix: Prefix,
    /// Destinations exempt from source NAT (10.176.0.0/16); pods keep their address there.
    pub vpc: Vec<Prefix>,
    /// Routing table of pod traffic (2) and the priorities of the rules that lead to it.
    pub pod_table: u32,
    pub to_rule_priority: u32,
    pub from_rule_priority: u32,
    /// Names of the interfaces: `eth0`, `eth1`.
    pub node_nic: String,
    pub pod_nic: String,
    /// Conntrack timeouts of the nodes that the scenario sets (sysctl name without prefix, seconds).
    pub conntrack_timeouts: Vec<(String, u32)>,
}

impl Default for NetworkPlan {
    /// The addresses of the incidents.
    fn default() -> Self {
        let prefix = |a: [u8; 4], length| Prefix::new(a.into(), length).unwrap_or_else(|_| Prefix::host(a.into()));
        Self {
            node_prefix: prefix([10, 176, 64, 0], 20),
            node_gateway: [10, 176, 64, 1].into(),
            pod_prefix: prefix([10, 176, 96, 0], 20),
            pod_gateway: [10, 176, 96, 1].into(),
            service_prefix: prefix([192, 168, 0, 0], 20),
            vpc: vec![prefix([10, 176, 0, 0], 16)],
            pod_table: 2,
            to_rule_priority: 512,
            from_rule_priority: 1536,
            node_nic: "eth0".to_owned(),
            pod_nic: "eth1".to_owned(),
            conntrack_timeouts: Vec::new(),
        }
    }
}

#[derive(Debug, Clone)]
pub struct NodePlan {
    pub name: String,
    /// Address of the primary interface.
    pub address: IpAddr,
    /// The node's part of the pod subnet; the pod NIC itself has its first address.
    pub pod_prefix: Prefix,
    pub pod_nic_address: IpAddr,
}

#[derive(Debug, Clone)]
pub struct PodPlan {
    pub name: String,
    pub node: NodeId,
    pub address: IpAddr,
    /// MTU of the pod's interface, bytes (1500).
    pub mtu: u16,
    pub role: PodRole,
    /// It runs in its node's network namespace, at the node's address.
    pub host_network: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodRole {
    /// Runs the clients and servers of flows.
    Plain,
    /// A replica of cluster DNS.
    Dns,
    /// A reverse proxy (HTTP) in front of a Service.
    Ingress { backend: ServiceId, port: u16 },
}

#[derive(Debug, Clone)]
pub struct ServicePlan {
    pub name: String,
    pub address: IpAddr,
    /// Ports, each for TCP and UDP; a Service forwards to the same port of its pods.
    pub ports: Vec<u16>,
    pub pods: Vec<PodId>,
    /// Port at which the primary address of every node forwards to it, if any (`type: NodePort`).
    pub node_port: Option<u16>,
    /// What a node does with traffic to its node port.
    pub policy: TrafficPolicy,
}

/// What a node does with traffic to a node port (`externalTrafficPolicy`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TrafficPolicy {
    /// Forwards it to any endpoint, with its own address as the source.
    #[default]
    Cluster,
    /// Forwards it only to endpoints on this node, with the client's address; without any, drops it.
    Local,
}

/// Cluster DNS: a Service over replica pods that forward to resolvers outside.
#[derive(Debug, Clone)]
pub struct DnsPlan {
    pub service: ServiceId,
    pub replicas: Vec<PodId>,
    /// Replicas that do not run from the start: faults add them.
    pub spares: Vec<PodId>,
    pub upstreams: Vec<OutsideId>,
    /// Search domains of a pod's stub resolver, in order, with `ndots: 5`.
    pub search: Vec<String>,
    /// Longest time that a replica caches an answer, seconds; `None` without a cache.
    pub cache: Option<u32>,
    /// Order of the upstreams.
    pub policy: ForwardPolicy,
}

/// Shortest time an answer is cached, seconds, unless the longest is shorter.
const SHORTEST_IN_CACHE: u32 = 5;

/// Time that CoreDNS's cache plugin keeps an answer (plugin/cache, plugin/pkg/dnsutil/ttl.go), seconds. `longest` is the
/// plugin's option.
#[must_use]
pub fn time_in_cache(ttl: u32, longest: u32) -> u32 {
    ttl.max(SHORTEST_IN_CACHE).min(longest)
}

/// The upstream resolver that a question is forwarded to first (CoreDNS, plugin/forward/policy.go); if it does not
/// answer, the others follow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ForwardPolicy {
    /// The first in the list.
    #[default]
    Sequential,
    /// All in turn.
    RoundRobin,
    /// A random one.
    Random,
}

/// A host outside the cluster, reached through the fabric.
#[derive(Debug, Clone)]
pub struct OutsidePlan {
    pub name: String,
    pub address: IpAddr,
    /// Further addresses of the host.
    pub also_at: Vec<IpAddr>,
    pub path: PathPlan,
    /// The fabric answers ICMP echo on its behalf.
    pub icmp_by_fabric: bool,
    /// A stateful load balancer hop in front of it (a forwarding namespace of its own).
    pub load_balancer: bool,
    /// Service to whose node ports it forwards, if it is a load balancer outside.
    pub balances: Option<ServiceId>,
    /// Names it resolves, if it is a resolver (listed in `upstreams`).
    pub records: Vec<(String, Vec<IpAddr>)>,
    /// Time to live of these records, seconds.
    pub ttl: u32,
    /// Name of a third party's server that answers flows to it, on backends with containers.
    pub server: Option<&'static str>,
    /// Resolver of its clients. Default: the first resolver outside.
    pub resolver: Option<OutsideId>,
}

/// An office: clients behind a VPN gateway, whose tunnel ends in the fabric.
#[derive(Debug, Clone)]
pub struct OfficePlan {
    pub name: String,
    pub prefix: Prefix,
    /// The gateway has the first address of the prefix; the clients follow.
    pub gateway: IpAddr,
    pub client: IpAddr,
    /// Addresses of the office's end and the fabric's end of the tunnel.
    pub tunnel: (IpAddr, IpAddr),
    /// Largest packet the tunnel carries, bytes.
    pub tunnel_mtu: u16,
    /// MSS that the gateway writes into forwarded SYNs, if it clamps.
    pub clamp: Option<u16>,
    /// "Fragmentation needed" from the tunnel never reaches the sender.
    pub swallow_fragmentation_needed: bool,
    /// What the operator declared to the detectors about this path, bytes.
    pub declared_mtu: Option<u16>,
    pub path: PathPlan,
    /// Resolver of its clients. Default: the first resolver outside.
    pub resolver: Option<OutsideId>,
}

/// A domain name that flows look up at each attempt.
#[derive(Debug, Clone)]
pub struct NamePlan {
    pub name: String,
    /// The Service whose name it is in the cluster's zone.
    pub service: Option<ServiceId>,
    /// The places with its addresses in the scenario, or the pods of the Service; at least one.
    pub places: Vec<Place>,
}

/// A place where something runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    Pod(PodId),
    Node(NodeId),
    Outside(OutsideId),
    /// The client host of an office.
    Office(OfficeId),
}

/// What a flow talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Place(Place),
    Service(ServiceId),
    /// The address that the name has at each attempt.
    Name(NameId),
}
