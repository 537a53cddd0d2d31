//! The cluster of a scenario, and the hosts and offices outside it.

use std::collections::BTreeMap;
use std::fmt;

use relapse_lab::workload::servers::Server;
use relapse_model::spanned::Spanned;
use relapse_model::values::{Address, Duration, Name, Percent, Prefix, Rate, ServerAddress};
use relapse_model::{ForwardPolicy, TrafficPolicy, WrittenPath};
use schemars::JsonSchema;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Nodes, pods, Services and DNS, and the hosts and offices outside.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cluster {
    /// Number of nodes (named `worker-1`, `worker-2`, ...), or a list of their names. At most 64.
    pub nodes: Spanned<Nodes>,
    #[serde(default)]
    pub network: Network,
    #[serde(default)]
    pub pods: Vec<Pod>,
    #[serde(default)]
    pub services: Vec<Service>,
    /// Cluster DNS. Default: none.
    pub dns: Option<Dns>,
    /// Hosts outside the cluster: databases, resolvers, other clusters.
    #[serde(default)]
    pub outside: Vec<Outside>,
    /// Offices: clients behind a VPN gateway.
    #[serde(default)]
    pub offices: Vec<Office>,
    /// Paths that addresses outside the cluster share, in addition to the paths of their hosts.
    #[serde(default)]
    pub prefixes: Vec<SharedPath>,
    /// Facts that the operator declares to the detectors.
    #[serde(default)]
    pub declared: Declared,
    /// Facts that the operator declares to the detectors, in a file that scenarios share: its path, relative to this
    /// file. Default: none.
    pub operator: Option<Spanned<String>>,
    /// kind cluster configuration: a file in `kind-configs`, or next to the scenario.
    pub kind_config: Option<Spanned<String>>,
}

/// Addresses and names of the cluster's networks.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Network {
    /// Subnet of the nodes' primary interface. Default 10.176.64.0/20.
    pub node_prefix: Option<Spanned<Prefix>>,
    /// Gateway of `nodePrefix`. Default: its first address.
    pub node_gateway: Option<Spanned<Address>>,
    /// Subnet of the pods, divided among the nodes. Default 10.176.96.0/20.
    pub pod_prefix: Option<Spanned<Prefix>>,
    /// Gateway of `podPrefix`. Default: its first address.
    pub pod_gateway: Option<Spanned<Address>>,
    /// Virtual addresses of Services. Default 192.168.0.0/20.
    pub service_prefix: Option<Spanned<Prefix>>,
    /// Destinations to which pods keep their own address (no source NAT). Default [10.176.0.0/16].
    pub vpc: Option<Vec<Spanned<Prefix>>>,
    /// Routing table of pod traffic. Default 2.
    pub pod_table: Option<Spanned<u32>>,
    /// Priority of the rules that route traffic to pods. Default 512.
    #[schemars(range(min = 1, max = 32765))]
    pub to_rule_priority: Option<Spanned<u32>>,
    /// Priority of the rules that route traffic from pods. Default 1536.
    #[schemars(range(min = 1, max = 32765))]
    pub from_rule_priority: Option<Spanned<u32>>,
    /// Name of a node's primary interface. Default eth0.
    pub node_nic: Option<Spanned<String>>,
    /// Name of the interface for pod traffic. Default eth1.
    pub pod_nic: Option<Spanned<String>>,
    /// Conntrack timeouts of the nodes in seconds, by sysctl name without `nf_conntrack_`.
    #[serde(default)]
    pub conntrack_timeouts: BTreeMap<Spanned<String>, Spanned<u32>>,
}

/// A pod, or several identical ones.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pod {
    /// Name of the pod.
    pub name: Spanned<Name>,
    /// Node to run on. Default: the node its address belongs to, else the nodes in turn.
    pub node: Option<Spanned<String>>,
    /// Address of the pod. Default: the next free one of its node.
    pub address: Option<Spanned<Address>>,
    /// MTU of its interface, bytes. Default 1500.
    #[schemars(range(min = 576, max = 65535))]
    pub mtu: Option<Spanned<u16>>,
    /// Makes it a reverse proxy (HTTP) in front of a Service.
    pub ingress: Option<Ingress>,
    /// Creates this many pods, named NAME-1, NAME-2, ...
    #[schemars(range(min = 1, max = 64))]
    pub count: Option<Spanned<u16>>,
}

/// The Service behind a reverse proxy. If the cluster has DNS, the proxy looks the Service up there.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ingress {
    /// Name of the Service.
    pub service: Spanned<String>,
    /// Port of the Service and of the proxy. Default: the Service's only port.
    #[schemars(range(min = 1))]
    pub port: Option<Spanned<u16>>,
    /// Runs the proxy in its node's network namespace, at the node's address. Default false.
    #[serde(default)]
    pub host_network: bool,
}

/// A Service: one address in front of several pods.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Service {
    /// Name of the Service.
    pub name: Spanned<Name>,
    /// Port of the Service and of its pods.
    #[schemars(range(min = 1))]
    pub port: Option<Spanned<u16>>,
    /// Ports, for a Service that has more than one.
    pub ports: Option<Spanned<Vec<Spanned<u16>>>>,
    /// Names of pods. The name of a pod with `count` stands for all of them.
    pub pods: Vec<Spanned<String>>,
    /// Address of the Service. Default: the next free one of `servicePrefix`.
    pub address: Option<Spanned<Address>>,
    /// Port at which every node forwards to the Service, in the default range of the API server. Default: none.
    #[schemars(range(min = 30000, max = 32767))]
    pub node_port: Option<Spanned<u16>>,
    /// What a node does with traffic to `nodePort`. Default cluster.
    pub external_traffic_policy: Option<Spanned<TrafficPolicy>>,
}

/// Cluster DNS: replicas behind a Service that forward unknown names to upstream resolvers.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dns {
    /// Number of replicas.
    #[schemars(range(min = 1, max = 16))]
    pub replicas: Spanned<u16>,
    /// Nodes that run the replicas, in turn. Default: all nodes.
    pub nodes: Option<Spanned<Vec<Spanned<String>>>>,
    /// Upstream resolvers: hosts in `outside` that have `records`.
    pub upstreams: Vec<Spanned<String>>,
    /// Address of the Service. Default 192.168.0.10.
    pub address: Option<Spanned<Address>>,
    /// Name of the Service. Default kube-dns.
    pub service: Option<Spanned<Name>>,
    /// Search domains of pods. Default [default.svc.cluster.local, svc.cluster.local, cluster.local].
    pub search: Option<Vec<Spanned<String>>>,
    /// Longest time that replicas cache an answer. As in CoreDNS, an answer is cached for its TTL, at least 5s, at most
    /// this. Default: no cache.
    pub cache: Option<Spanned<Duration>>,
    /// Upstream resolver that is tried first. Default sequential.
    #[serde(default)]
    pub policy: ForwardPolicy,
}

/// Facts that the operator declares to the detectors.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Declared {
    /// Domain names, and the prefixes of their addresses.
    #[serde(default)]
    pub names: BTreeMap<Spanned<String>, Vec<Spanned<Prefix>>>,
    /// Names of servers, which findings use instead of address and port.
    #[serde(default)]
    pub servers: BTreeMap<Spanned<String>, Spanned<ServerAddress>>,
    /// External names by which clients outside reach the cluster.
    #[serde(default)]
    pub entries: BTreeMap<Spanned<String>, Entry>,
    #[serde(default)]
    pub limits: Limits,
}

/// Limits that operators set on every node.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// The smallest `nf_conntrack_max` of a node. On a machine with a smaller one a trial is inconclusive.
    #[schemars(range(min = 1))]
    pub nf_conntrack_max: Option<Spanned<u32>>,
}

/// An external name of the cluster.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The clients' own resolver: `outside/NAME`.
    pub resolver: Spanned<String>,
    /// TCP port at the addresses of the name.
    #[schemars(range(min = 1))]
    pub port: Spanned<u16>,
}

/// A host outside the cluster.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Outside {
    /// Name of the host.
    pub name: Spanned<Name>,
    /// Its address, outside all prefixes of the cluster.
    pub address: Spanned<Address>,
    /// Further addresses of the host.
    #[serde(default)]
    pub also_at: Vec<Spanned<Address>>,
    /// What answers pings to it. Default fabric.
    #[serde(default)]
    pub icmp: Icmp,
    /// Puts a stateful load balancer in front of it.
    #[serde(default)]
    pub load_balancer: bool,
    /// Makes it a load balancer: it forwards its own address and the Service's port to the node ports of this Service,
    /// at random, with its own address as the source.
    pub balances: Option<Spanned<String>>,
    /// Makes it a resolver: names and their addresses.
    /// `"*.example.com"` answers for names below example.com without a record of their own.
    pub records: Option<BTreeMap<Spanned<String>, Vec<Spanned<Address>>>>,
    /// Time to live of its records. Default 5s.
    pub ttl: Option<Spanned<Duration>>,
    /// A third-party server to run on this host: in a container next to a real cluster. In labs, relapse's own
    /// server answers instead.
    pub server: Option<Server>,
    /// Resolver of its clients: the name of a host in `outside` that has `records`. Default: the first one.
    pub resolver: Option<Spanned<String>>,
    /// One-way delay of each packet; the RTT grows by twice as much. Default: none.
    pub delay: Option<Spanned<Duration>>,
    /// Variation of the delay, up or down; packets stay in order. Default: none.
    pub jitter: Option<Spanned<Duration>>,
    /// Share of packets lost in each direction. Default: none.
    pub loss: Option<Spanned<Percent>>,
    /// Bandwidth of each direction. Default: unlimited.
    pub rate: Option<Spanned<Rate>>,
}

/// What answers pings to a host outside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Icmp {
    /// The network, on the host's behalf.
    #[default]
    Fabric,
    /// The host itself.
    #[serde(rename = "self")]
    Itself,
}

/// An office: a client behind a VPN gateway whose tunnel ends in the cloud.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Office {
    /// Name of the office.
    pub name: Spanned<Name>,
    /// Subnet of the office. The gateway has the first address, the client the tenth.
    pub prefix: Spanned<Prefix>,
    /// MTU of the tunnel, bytes. Default 1500.
    #[schemars(range(min = 576, max = 65535))]
    pub tunnel_mtu: Option<Spanned<u16>>,
    /// MSS the gateway writes into forwarded SYNs. Default: unchanged.
    #[schemars(range(min = 88, max = 65495))]
    pub clamp: Option<Spanned<u16>>,
    /// "Fragmentation needed" never reaches the sender. Default true.
    pub swallow_fragmentation_needed: Option<bool>,
    /// MTU of this path that the operator declares to the detectors, bytes. Default: none.
    #[schemars(range(min = 576, max = 65535))]
    pub declared_mtu: Option<Spanned<u16>>,
    /// Resolver of its clients: the name of a host in `outside` that has `records`. Default: the first one.
    pub resolver: Option<Spanned<String>>,
    /// One-way delay of each packet; the RTT grows by twice as much. Default: none.
    pub delay: Option<Spanned<Duration>>,
    /// Variation of the delay, up or down; packets stay in order. Default: none.
    pub jitter: Option<Spanned<Duration>>,
    /// Share of packets lost in each direction. Default: none.
    pub loss: Option<Spanned<Percent>>,
    /// Bandwidth of each direction. Default: unlimited.
    pub rate: Option<Spanned<Rate>>,
}

/// A path that addresses outside the cluster share. The longest prefix of an address applies.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SharedPath {
    /// The addresses, outside the cluster's own prefixes.
    pub prefix: Spanned<Prefix>,
    /// One-way delay of each packet; the RTT grows by twice as much. Default: none.
    pub delay: Option<Spanned<Duration>>,
    /// Variation of the delay, up or down; packets stay in order. Default: none.
    pub jitter: Option<Spanned<Duration>>,
    /// Share of packets lost in each direction. Default: none.
    pub loss: Option<Spanned<Percent>>,
    /// Bandwidth of each direction. Default: unlimited.
    pub rate: Option<Spanned<Rate>>,
}

macro_rules! has_a_path {
    ($($type:ident),*) => {$(
        impl $type {
            pub(crate) const fn path(&self) -> WrittenPath<'_> {
                WrittenPath {
                    delay: self.delay.as_ref(),
                    jitter: self.jitter.as_ref(),
                    loss: self.loss.as_ref(),
                    rate: self.rate.as_ref(),
                }
            }
        }
    )*};
}
has_a_path!(Outside, Office, SharedPath);

/// A number of nodes, or their names.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(inline, untagged)]
pub enum Nodes {
    Count(#[schemars(range(min = 1, max = 64))] u64),
    Names(#[schemars(length(min = 1, max = 64))] Vec<Spanned<Name>>),
}

impl<'de> Deserialize<'de> for Nodes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Nodes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of nodes or a list of names")
            }
            fn visit_u64<E>(self, count: u64) -> Result<Nodes, E> {
                Ok(Nodes::Count(count))
            }
            fn visit_i64<E: serde::de::Error>(self, count: i64) -> Result<Nodes, E> {
                u64::try_from(count).map(Nodes::Count).map_err(|_| E::custom("a number of nodes is not negative"))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Nodes, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = seq.next_element()? {
                    names.push(name);
                }
                Ok(Nodes::Names(names))
            }
        }
        deserializer.deserialize_any(Either)
    }
}
