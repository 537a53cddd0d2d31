//! The resolved cluster and workload of a scenario, with all addresses assigned and references as numbers.
//!
//! Scenarios are planned into these types, and labs are built from them.

mod path;
mod steps;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use relapse_detectors::operator::{DeclaredName, DeclaredPath, DeclaredServer, Entry, Operator};
use relapse_detectors::prefix::Prefix;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::zone;
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

/// One client of the workload, running for the whole trial: the generic part. The attempt itself is defined by the
/// flow's kind.
#[derive(Debug, Clone)]
pub struct FlowPlan {
    pub name: String,
    /// Kind in the scenario, such as `tcp`.
    pub kind: &'static str,
    pub from: Place,
    /// The other pods of a counted name: attempts come from `from` and these in turn.
    pub in_turn: Vec<Place>,
    pub to: Target,
    /// Node or load balancer outside through which it reaches a Service, instead of the Service's virtual address.
    pub via: Option<Place>,
    /// Resolver outside that is asked for names. Default: [`ClusterPlan::resolver_of`].
    pub resolver: Option<OutsideId>,
    /// The name it looks up, if it does nothing else.
    pub query: Option<String>,
    /// TCP port of the server it needs at the target, if any.
    pub port: Option<u16>,
    /// Size of that server's response, bytes.
    pub response: u32,
    /// Number of connections it keeps open; 0 if each attempt opens its own.
    pub keeps: u32,
    /// Connection-tracking entries created by an attempt.
    pub entries: u32,
    /// Interval between starts of attempts; with kept connections, a slower attempt delays the next.
    pub every: Duration,
    pub timeout: Duration,
    /// How the client sees a missing response.
    pub late: Failure,
    /// Whether an attempt looks up names, and may fail as `NameError`.
    pub looks_up: bool,
    /// The requests that its server makes before it responds, each measured by itself.
    pub parts: Vec<PartPlan>,
    /// The order of the parts.
    pub steps: Step,
}

impl FlowPlan {
    /// A flow that opens a connection for each attempt, at the default pace.
    #[must_use]
    pub const fn new(name: String, kind: &'static str, from: Place, to: Target) -> Self {
        Self {
            name,
            kind,
            from,
            in_turn: Vec::new(),
            to,
            via: None,
            resolver: None,
            query: None,
            port: None,
            response: 0,
            keeps: 0,
            entries: 1,
            every: Duration::from_millis(100),
            timeout: Duration::from_millis(400),
            late: Failure::Timeout,
            looks_up: false,
            parts: Vec::new(),
            steps: Step::InTurn(Vec::new()),
        }
    }

    /// Target, port and response size (bytes) of the server it needs and of those its parts need.
    pub fn asked(&self) -> impl Iterator<Item = (Target, u16, u32)> {
        let own = self.port.map(|port| (self.to, port, self.response));
        own.into_iter().chain(self.parts.iter().map(|part| (part.to, part.port, part.response())))
    }

    /// Name of the flow or of a part in messages: "call", "queries of call".
    #[must_use]
    pub fn part_name(&self, part: Option<PartId>) -> String {
        part.map_or_else(|| self.name.clone(), |id| format!("{} of {}", self.parts[id.0].name, self.name))
    }

    /// Whether it keeps many connections open, which take time to open.
    #[must_use]
    pub const fn holds(&self) -> bool {
        self.keeps > 1
    }
}

/// How an attempt fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Failure {
    #[default]
    Any,
    /// No answer in time.
    Timeout,
    /// A TCP reset or ICMP unreachable.
    Refused,
    /// The name was not resolved (SERVFAIL, NXDOMAIN or no answer).
    NameError,
    /// An HTTP response with this status (RFC 9110, 15) instead of 200.
    Status(u16),
}

impl Failure {
    /// The failure written in a scenario or in `Server-Timing`: a word, or `http-STATUS`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let status = |text: &str| text.parse().ok().filter(|status| (400..=599).contains(status));
        match text {
            "any" => Some(Self::Any),
            "timeout" => Some(Self::Timeout),
            "refused" => Some(Self::Refused),
            "name-error" => Some(Self::NameError),
            other => other.strip_prefix("http-").and_then(status).map(Self::Status),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Timeout => f.write_str("timeout"),
            Self::Refused => f.write_str("refused"),
            Self::NameError => f.write_str("name-error"),
            Self::Status(status) => write!(f, "http-{status}"),
        }
    }
}

impl ClusterPlan {
    /// The operator's configuration for the detectors: only facts about the cluster.
    #[must_use]
    pub fn operator(&self) -> Operator {
        let dns = self.dns.as_ref().map(|d| &self.services[d.service.0]);
        Operator {
            pod_prefixes: vec![self.network.pod_prefix],
            pod_nic: self.network.pod_nic.clone(),
            pod_table: self.network.pod_table,
            node_nic: self.network.node_nic.clone(),
            dns_service: dns.map_or_else(|| "kube-dns".to_owned(), |s| s.name.clone()),
            dns_address: dns.map_or(self.network.pod_gateway, |s| s.address),
            paths: self
                .offices
                .iter()
                .filter_map(|o| o.declared_mtu.map(|mtu| DeclaredPath { prefix: o.prefix, mtu }))
                .collect(),
            time_wait: Duration::from_secs(60),
            peers: self.offices.iter().map(|office| office.prefix).collect(),
            peer_prefix_length: 24,
            names: self.declared_names.clone(),
            servers: self.declared_servers.clone(),
            entries: self.declared_entries.clone(),
        }
    }

    /// Whether the name is declared, or a resolver outside has a record for it.
    #[must_use]
    pub fn knows(&self, name: &str) -> bool {
        let declared = self.declared_names.iter().any(|declared| declared.name == name);
        let owners =
            |host: &OutsidePlan| zone::owner(host.records.iter().map(|(owner, _)| owner.as_str()), name).is_some();
        declared || self.outside.iter().any(owners)
    }

    /// DNS name of a Service. Cluster DNS itself is in `kube-system`.
    #[must_use]
    pub fn service_domain(&self, id: ServiceId) -> String {
        let is_dns = self.dns.as_ref().is_some_and(|dns| dns.service == id);
        let namespace = if is_dns { "kube-system" } else { "default" };
        format!("{}.{namespace}.svc.cluster.local", self.services[id.0].name)
    }

    /// The pods of a node that have addresses of their own.
    pub fn pods_with_links(&self, node: NodeId) -> impl Iterator<Item = PodId> {
        let here = move |number: &usize| self.pods[*number].node == node && !self.pods[*number].host_network;
        (0..self.pods.len()).filter(here).map(PodId)
    }

    /// The pods' routing table of a node, in messages.
    #[must_use]
    pub fn pod_table_of(&self, node: NodeId) -> String {
        format!("table {} of node/{}", self.network.pod_table, self.nodes[node.0].name)
    }

    /// Whether a pod does not run from the start.
    #[must_use]
    pub fn is_spare(&self, id: PodId) -> bool {
        self.spares.contains(&id) || self.dns.as_ref().is_some_and(|dns| dns.spares.contains(&id))
    }

    /// Whether a fault replaces the pods of its Service, so that each is ready only when its server listens.
    #[must_use]
    pub fn is_replaced(&self, id: PodId) -> bool {
        let has_spares = |service: &ServicePlan| service.pods.iter().any(|pod| self.spares.contains(pod));
        self.services.iter().any(|service| service.pods.contains(&id) && has_spares(service))
    }

    /// All places: nodes, pods, offices, hosts outside.
    pub fn places(&self) -> impl Iterator<Item = Place> {
        let nodes = (0..self.nodes.len()).map(|number| Place::Node(NodeId(number)));
        let pods = (0..self.pods.len()).map(|number| Place::Pod(PodId(number)));
        let offices = (0..self.offices.len()).map(|number| Place::Office(OfficeId(number)));
        let outside = (0..self.outside.len()).map(|number| Place::Outside(OutsideId(number)));
        nodes.chain(pods).chain(offices).chain(outside)
    }

    /// Name of a place in messages.
    #[must_use]
    pub fn place_name(&self, place: Place) -> String {
        match place {
            Place::Pod(id) => format!("pod/{}", self.pods[id.0].name),
            Place::Node(id) => format!("node/{}", self.nodes[id.0].name),
            Place::Outside(id) => format!("outside/{}", self.outside[id.0].name),
            Place::Office(id) => format!("office/{}", self.offices[id.0].name),
        }
    }

    /// Address of a place as seen by its peers.
    #[must_use]
    pub fn address(&self, place: Place) -> IpAddr {
        match place {
            Place::Pod(id) => self.pods[id.0].address,
            Place::Node(id) => self.nodes[id.0].address,
            Place::Outside(id) => self.outside[id.0].address,
            Place::Office(id) => self.offices[id.0].client,
        }
    }

    /// The places that answer for this target; for a Service, its pods.
    #[must_use]
    pub fn behind(&self, target: Target) -> Vec<Place> {
        match target {
            Target::Place(place) => vec![place],
            Target::Service(id) => self.services[id.0].pods.iter().map(|pod| Place::Pod(*pod)).collect(),
            Target::Name(id) => self.names[id.0].places.clone(),
        }
    }

    /// What answers at this port of a place, and at which port: behind a node's address may be an ingress on the host
    /// network or a Service with this node port, behind a load balancer its Service.
    #[must_use]
    pub fn answering(&self, place: Place, port: u16) -> (Target, u16) {
        let service = |id: usize| (Target::Service(ServiceId(id)), self.services[id].ports.first().copied());
        let found = match place {
            Place::Node(node) => match self.host_ingress(node, port) {
                Some(pod) => Some((Target::Place(Place::Pod(pod)), None)),
                None => self.services.iter().position(|service| service.node_port == Some(port)).map(service),
            },
            Place::Outside(id) => self.outside[id.0].balances.map(|id| (Target::Service(id), None)),
            Place::Pod(_) | Place::Office(_) => None,
        };
        found.map_or((Target::Place(place), port), |(target, own)| (target, own.unwrap_or(port)))
    }

    /// The place with this address.
    #[must_use]
    pub fn place_at(&self, address: IpAddr) -> Option<Place> {
        let also = |host: &OutsideId| self.outside[host.0].also_at.contains(&address);
        let outside = || (0..self.outside.len()).map(OutsideId).find(also).map(Place::Outside);
        self.places().find(|place| self.address(*place) == address).or_else(outside)
    }

    /// The resolver used at this place: cluster DNS for pods and nodes, otherwise its own, or the first one outside.
    #[must_use]
    pub fn resolver_at(&self, place: Place) -> Option<Target> {
        let own = match place {
            Place::Pod(_) | Place::Node(_) => return self.dns.as_ref().map(|dns| Target::Service(dns.service)),
            Place::Outside(id) => self.outside[id.0].resolver,
            Place::Office(id) => self.offices[id.0].resolver,
        };
        let first = || self.outside.iter().position(|host| !host.records.is_empty()).map(OutsideId);
        own.or_else(first).map(|host| Target::Place(Place::Outside(host)))
    }

    /// Address of the resolver used at this place.
    #[must_use]
    pub fn resolver_of(&self, place: Place) -> Option<IpAddr> {
        self.resolver_at(place).map(|resolver| self.target_address(resolver))
    }

    /// The ingress on the host network of this node that serves this port.
    #[must_use]
    pub fn host_ingress(&self, node: NodeId, at: u16) -> Option<PodId> {
        let serves = |pod: &PodPlan| {
            pod.host_network && pod.node == node && matches!(pod.role, PodRole::Ingress { port, .. } if port == at)
        };
        self.pods.iter().position(serves).map(PodId)
    }

    /// Address that a flow to this target connects to; of a name, its first address in the scenario.
    #[must_use]
    pub fn target_address(&self, target: Target) -> IpAddr {
        match target {
            Target::Place(place) => self.address(place),
            Target::Service(id) => self.services[id.0].address,
            Target::Name(id) => match self.names[id.0].service {
                Some(service) => self.services[service.0].address,
                None => self.address(self.names[id.0].places[0]),
            },
        }
    }

    /// Whether nodes forward traffic from outside to Services.
    #[must_use]
    pub fn has_node_ports(&self) -> bool {
        self.services.iter().any(|service| service.node_port.is_some())
    }

    /// Address and TCP port that the client of a flow connects to; of a name, its first address in the scenario. A
    /// node is asked at its node port, a load balancer at the Service's own port.
    #[must_use]
    pub fn entry(&self, flow: &FlowPlan) -> SocketAddr {
        let port = flow.port.unwrap_or_default();
        match (flow.via, flow.to) {
            (Some(via @ Place::Node(_)), Target::Service(id)) => {
                SocketAddr::new(self.address(via), self.services[id.0].node_port.unwrap_or(port))
            }
            (Some(via), _) => SocketAddr::new(self.address(via), port),
            (None, to) => SocketAddr::new(self.target_address(to), port),
        }
    }
}
