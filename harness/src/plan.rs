//! What a scenario means once every name in it is resolved: addresses given, references numbers.
//!
//! Job: the data a run works from. Invariant: after planning nothing is looked up by string, and a
//! plan that exists is valid; all that can be wrong with a file is said by [`resolve`] before
//! anything is brought up. No I/O, but for reading the files that are named.

mod entries;
pub mod kind_config;
mod resolve;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use relapse_detectors::operator::{DeclaredPath, Operator};
use relapse_detectors::prefix::Prefix;
use relapse_reports::event::Expectation;

use crate::fault::Fault;
use crate::scenario::cluster::Server;

pub use resolve::{Resolver, load, plan};

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
    /// Index into [`Plan::workload`].
    FlowId
}

/// A scenario, ready to run: the incident and its benign twins over one cluster and workload.
#[derive(Debug)]
pub struct Plan {
    pub name: String,
    pub incident: String,
    pub title: String,
    pub file: PathBuf,
    pub cluster: ClusterPlan,
    pub workload: Vec<FlowPlan>,
    /// How long every flow must have worked before the baseline begins.
    pub steady_for: Duration,
    /// How long the quiet baseline lasts.
    pub baseline: Duration,
    /// How many connections of `hold` flows must be open before the baseline begins.
    pub held: u32,
    /// Standing weaknesses that must have been found when the baseline ends.
    pub risks: Vec<Expectation>,
    pub incident_trial: TrialPlan,
    /// The benign twins, in the order of the file; never empty.
    pub controls: Vec<TrialPlan>,
    /// Every flow must work again, and every finding be cleared, within this time after healing.
    pub recover_within: Duration,
    /// A workload that is not steady by then never will be.
    pub settle_within: Duration,
}

/// What is done to the cluster, what it must do to the workload, and what detectors must say.
#[derive(Debug)]
pub struct TrialPlan {
    /// `None` for the incident, the twin's name for a control.
    pub control: Option<String>,
    /// Why the twin is innocent, in a sentence; empty for the incident.
    pub why: String,
    /// Number of DNS replicas where this trial wants another than the cluster's.
    pub cluster: Option<ClusterPlan>,
    pub inject: Vec<Arc<dyn Fault>>,
    pub effect: Vec<EffectPlan>,
    /// All stated effects must have been seen by then, counted from t0.
    pub effect_within: Duration,
    /// Empty for a control: there, any finding at or above `warning` fails.
    pub detect: Vec<Expectation>,
    /// The same by the deadlines of a real cluster.
    pub detect_in_real_cluster: Vec<Expectation>,
    /// How long a control is watched after t0: at least the incident's longest deadline.
    pub watch: Duration,
}

impl TrialPlan {
    /// What detectors must say, where news passes an API server and where it does not.
    #[must_use]
    pub fn expected(&self, real_cluster: bool) -> &[Expectation] {
        if real_cluster { &self.detect_in_real_cluster } else { &self.detect }
    }
}

impl Plan {
    /// Makes every deadline so many times as long, for a machine that is as much slower. How long a twin is watched
    /// stays as it is.
    pub fn stretch_deadlines(&mut self, factor: f64) {
        let stretch = |within: &mut Duration| *within = within.mul_f64(factor);
        for trial in std::iter::once(&mut self.incident_trial).chain(&mut self.controls) {
            stretch(&mut trial.effect_within);
            let expected = trial.detect.iter_mut().chain(&mut trial.detect_in_real_cluster);
            expected.for_each(|expectation| stretch(&mut expectation.within));
        }
        stretch(&mut self.recover_within);
        stretch(&mut self.settle_within);
    }

    /// The incident's trial and those of the benign twins.
    pub fn trials(&self) -> impl Iterator<Item = &TrialPlan> {
        std::iter::once(&self.incident_trial).chain(&self.controls)
    }

    /// The cluster a trial runs on.
    #[must_use]
    pub fn cluster_of<'a>(&'a self, trial: &'a TrialPlan) -> &'a ClusterPlan {
        trial.cluster.as_ref().unwrap_or(&self.cluster)
    }
}

/// The cluster and the world around it.
#[derive(Debug, Clone)]
pub struct ClusterPlan {
    pub network: NetworkPlan,
    pub nodes: Vec<NodePlan>,
    /// All pods, the DNS replicas (`coredns-1`, ...) and the ingress among them.
    pub pods: Vec<PodPlan>,
    pub services: Vec<ServicePlan>,
    pub dns: Option<DnsPlan>,
    pub outside: Vec<OutsidePlan>,
    pub offices: Vec<OfficePlan>,
    /// Where the kind cluster configuration lies that this scenario wants (ignored by the lab).
    pub kind_config: Option<PathBuf>,
}

/// Addresses and names of the cluster's networks. Defaults are the incidents' own.
#[derive(Debug, Clone)]
pub struct NetworkPlan {
    /// Subnet of the nodes' primary interface, and its gateway (in the fabric).
    pub node_prefix: Prefix,
    pub node_gateway: IpAddr,
    /// Subnet of the pods, and its gateway (10.176.96.1, in the fabric).
    pub pod_prefix: Prefix,
    pub pod_gateway: IpAddr,
    pub service_prefix: Prefix,
    /// Prefixes inside which source NAT does not apply (10.176.0.0/16); pods keep their address there.
    pub vpc: Vec<Prefix>,
    /// Routing table of pod traffic (2) and the priorities of the rules that lead to it.
    pub pod_table: u32,
    pub to_rule_priority: u32,
    pub from_rule_priority: u32,
    /// Names of the interfaces: `eth0`, `eth1`.
    pub node_nic: String,
    pub pod_nic: String,
    /// Conntrack timeouts of the nodes, where the scenario sets them (sysctl name without prefix, seconds).
    pub conntrack_timeouts: Vec<(String, u32)>,
}

#[derive(Debug, Clone)]
pub struct NodePlan {
    pub name: String,
    /// On the primary interface.
    pub address: IpAddr,
    /// The node's share of the pod subnet; the pod NIC itself carries its first address.
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
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodRole {
    /// Runs the clients and servers that flows name.
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
    /// Ports, each TCP and UDP alike; a Service forwards to the same port of its pods.
    pub ports: Vec<u16>,
    pub pods: Vec<PodId>,
}

/// Cluster DNS: a Service over replicas that are pods, forwarding to resolvers outside.
#[derive(Debug, Clone)]
pub struct DnsPlan {
    pub service: ServiceId,
    pub replicas: Vec<PodId>,
    pub upstreams: Vec<OutsideId>,
    /// Search domains of a pod's stub resolver, in order, with `ndots: 5`.
    pub search: Vec<String>,
}

/// A host outside the cluster, reached through the fabric.
#[derive(Debug, Clone)]
pub struct OutsidePlan {
    pub name: String,
    pub address: IpAddr,
    /// The fabric answers ICMP echo on its behalf.
    pub icmp_by_fabric: bool,
    /// A stateful load balancer hop stands in front of it (its own namespace, which forwards).
    pub load_balancer: bool,
    /// Names it resolves, if it is a resolver (`upstreams` name it).
    pub records: Vec<(String, Vec<IpAddr>)>,
    /// A third party's server that answers flows to it, where the backend has containers.
    pub server: Option<Server>,
}

/// An office: clients behind a VPN gateway, whose tunnel ends in the fabric.
#[derive(Debug, Clone)]
pub struct OfficePlan {
    pub name: String,
    pub prefix: Prefix,
    /// First address of the prefix: the gateway's; the clients follow.
    pub gateway: IpAddr,
    pub client: IpAddr,
    /// Addresses of the office's end and the fabric's end of the tunnel.
    pub tunnel: (IpAddr, IpAddr),
    /// Largest packet the tunnel carries, bytes.
    pub tunnel_mtu: u16,
    /// MSS the gateway writes into forwarded SYNs, where it clamps.
    pub clamp: Option<u16>,
    /// "Fragmentation needed" from the tunnel never reaches the sender.
    pub swallow_fragmentation_needed: bool,
    /// What the operator declared to the detectors about this path, bytes.
    pub declared_mtu: Option<u16>,
}

/// Where something runs.
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
}

/// One client of the workload, running for the whole trial.
#[derive(Debug, Clone)]
pub struct FlowPlan {
    pub name: String,
    pub from: Place,
    /// The other pods of a counted name: attempts come from `from` and from these in turn.
    pub in_turn: Vec<Place>,
    pub kind: FlowKind,
    /// Time between the starts of two attempts; a slower attempt delays the next.
    pub every: Duration,
    pub timeout: Duration,
}

/// What one attempt is.
#[derive(Debug, Clone)]
pub enum FlowKind {
    /// A TCP request and its response.
    Tcp { to: Target, port: u16, request: u32, response: u32, kept: bool, server_closes: bool },
    /// An HTTP GET of `response` bytes, directly or through an ingress.
    Http { to: Target, port: u16, response: u32 },
    /// One name as a stub resolver asks it: search domains, A and AAAA over one socket.
    Dns { name: String, server: Target },
    /// ICMP echo.
    Ping { to: Target },
    /// Connections opened at a rate and then held; an attempt is one connection.
    Hold { to: Target, port: u16, connections: u32 },
}

impl FlowKind {
    /// What the flow talks to.
    #[must_use]
    pub const fn target(&self) -> Target {
        match self {
            Self::Tcp { to, .. } | Self::Http { to, .. } | Self::Ping { to } | Self::Hold { to, .. } => *to,
            Self::Dns { server, .. } => *server,
        }
    }
}

/// A stated effect on the workload.
#[derive(Debug, Clone, PartialEq)]
pub enum EffectPlan {
    /// The flow fails, in this way, in this share of its attempts (1.0: three in a row, and all after).
    Fails { flow: FlowId, how: Failure, share: (f64, f64) },
    /// The flow goes on working.
    Works { flow: FlowId },
    /// A SYN (or SYN-ACK) from the one place to the other is, or is never, seen at `at` after t0.
    Packet { at: Place, from: Place, to: Place, syn_ack: bool, seen: bool },
}

/// How an attempt fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    Any,
    /// No answer in time.
    Timeout,
    /// A TCP reset or ICMP unreachable.
    Refused,
    /// The name was not resolved (SERVFAIL, NXDOMAIN or no answer).
    NameError,
}

impl ClusterPlan {
    /// What the operator of this cluster tells the detectors: facts of the cluster alone.
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
        }
    }

    /// Name of a Service in cluster DNS, which itself lives where clusters have it.
    #[must_use]
    pub fn service_domain(&self, id: ServiceId) -> String {
        let is_dns = self.dns.as_ref().is_some_and(|dns| dns.service == id);
        let namespace = if is_dns { "kube-system" } else { "default" };
        format!("{}.{namespace}.svc.cluster.local", self.services[id.0].name)
    }

    /// Name of a place, as messages show it.
    #[must_use]
    pub fn place_name(&self, place: Place) -> String {
        match place {
            Place::Pod(id) => format!("pod/{}", self.pods[id.0].name),
            Place::Node(id) => format!("node/{}", self.nodes[id.0].name),
            Place::Outside(id) => format!("outside/{}", self.outside[id.0].name),
            Place::Office(id) => format!("office/{}", self.offices[id.0].name),
        }
    }

    /// Address of a place, as peers see it.
    #[must_use]
    pub fn address(&self, place: Place) -> IpAddr {
        match place {
            Place::Pod(id) => self.pods[id.0].address,
            Place::Node(id) => self.nodes[id.0].address,
            Place::Outside(id) => self.outside[id.0].address,
            Place::Office(id) => self.offices[id.0].client,
        }
    }

    /// Address a flow to this target is opened to.
    #[must_use]
    pub fn target_address(&self, target: Target) -> IpAddr {
        match target {
            Target::Place(place) => self.address(place),
            Target::Service(id) => self.services[id.0].address,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::load;

    #[test]
    fn stretched_deadlines_are_all_longer_and_twins_are_watched_as_long_as_before() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios/policy-route-lost.yaml");
        let mut plans = [1.0, 2.5].map(|factor| {
            let mut plan = load(std::slice::from_ref(&file)).unwrap_or_else(|wrong| panic!("{wrong}")).remove(0);
            plan.stretch_deadlines(factor);
            plan
        });
        let deadlines = plans.each_mut().map(|plan| {
            let trials: Vec<_> = plan.trials().collect();
            let detect = trials.iter().flat_map(|t| t.detect.iter().chain(&t.detect_in_real_cluster)).map(|e| e.within);
            let effects = trials.iter().map(|trial| trial.effect_within);
            detect.chain(effects).chain([plan.recover_within, plan.settle_within]).collect::<Vec<Duration>>()
        });
        let [stated, stretched] = deadlines;
        assert!(stated.len() > 8, "{stated:?}");
        assert_eq!(stretched, stated.iter().map(|deadline| deadline.mul_f64(2.5)).collect::<Vec<_>>());
        let [before, after] =
            plans.each_ref().map(|plan| plan.controls.iter().map(|twin| twin.watch).collect::<Vec<_>>());
        assert_eq!(before, after);
    }
}
