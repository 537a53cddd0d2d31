//! What can be observed: one fact, on one node, at one instant.
//!
//! Job: the vocabulary between collectors (which need a kernel) and detectors (which need nothing).
//! Invariant: a signal says only what an agent on a node of the cluster could have seen; it never
//! carries a scenario, a fault or an intention. Every type here survives a round trip through JSON,
//! so that a recorded incident can be replayed on any machine.
//! Left out on purpose: how a fact was obtained, and what it means.

mod api;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::prefix::Prefix;
use crate::time::Time;

pub use api::{Container, ContainerState, Event, KubeProxy, NodeCondition, PodLog};

/// One observed fact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Signal {
    /// When it was observed: `CLOCK_MONOTONIC`, nanoseconds.
    pub at: Time,
    /// The node whose agent observed it.
    pub node: Arc<str>,
    /// The fact.
    pub observed: Observed,
}

/// Whether a kernel or API object came, changed or went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// Present when the collector was armed (state at the start, not news).
    Present,
    Added,
    Changed,
    Removed,
}

/// The kinds of facts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Observed {
    /// A network interface of the node (rtnetlink group `RTNLGRP_LINK`).
    Link(Link),
    /// A policy routing rule (`RTNLGRP_IPV4_RULE`).
    Rule(Rule),
    /// A route (`RTNLGRP_IPV4_ROUTE`), of any table but `local`.
    Route(Route),
    /// The kernel's answer to "where would a packet from this pod to this address go?" (`RTM_GETROUTE`).
    RouteLookup(RouteLookup),
    /// Size of the connection tracking table and its limit (polled; there is no notification).
    ConntrackTable(ConntrackTable),
    /// Connection tracking statistics, summed over processors, cumulative (`IPCTNL_MSG_CT_GET_STATS_CPU`).
    ConntrackStats(ConntrackStats),
    /// A tracked, perhaps translated, flow (ctnetlink events).
    Flow(Flow),
    /// A TCP segment seen by AF_PACKET: SYNs, and segments that end or carry data where asked for.
    Segment(Segment),
    /// State of a TCP socket in the namespace of a pod or of the node (sock_diag, `tcp_info`).
    Socket(Socket),
    /// A line of the kernel log (`/dev/kmsg`), without its prefix.
    KernelLog { line: String },
    /// A DNS question or answer seen on the wire.
    Dns(Dns),
    /// The result of one active probe made by the agent.
    Probe(Probe),
    /// A pod of this node, as the agent knows it from the kubelet.
    Pod(Pod),
    /// The endpoints behind a Service, as the agent knows them from the API.
    Endpoints(Endpoints),
    /// The state of a container changed, as the kubelet tells the API server.
    Container(Container),
    /// A condition of the node changed.
    NodeCondition(NodeCondition),
    /// An Event about something on the node.
    Event(Event),
    /// How kube-proxy is configured.
    KubeProxy(KubeProxy),
    /// A line of cluster DNS's own log.
    PodLog(PodLog),
    /// A collector became able, or unable, to see.
    Collector(Collector),
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    pub change: Change,
    pub index: u32,
    pub name: String,
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// Carrier present (`IFF_LOWER_UP`).
    pub carrier: bool,
}

/// A policy routing rule. `None` prefixes mean "all".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    pub change: Change,
    pub priority: u32,
    pub from: Option<Prefix>,
    pub to: Option<Prefix>,
    pub table: u32,
}

/// A route. `destination: None` is the default route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    pub change: Change,
    pub table: u32,
    pub destination: Option<Prefix>,
    pub gateway: Option<IpAddr>,
    /// Name of the outgoing interface, where known.
    pub link: Option<String>,
    pub metric: u32,
}

/// Answer to a route look-up made as if for a packet of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteLookup {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// The interface it would leave by; `None` when unreachable.
    pub link: Option<String>,
    /// The table that answered, where the kernel says.
    pub table: Option<u32>,
}

/// Connection tracking table of one namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConntrackTable {
    /// `nf_conntrack_count`: entries in this namespace.
    pub count: u64,
    /// `nf_conntrack_max`: the limit each namespace's count is compared with.
    pub limit: u64,
}

/// Cumulative counters; a detector looks at differences.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConntrackStats {
    /// New entries dropped because the table was full.
    pub drop: u64,
    /// Entries evicted early to make room.
    pub early_drop: u64,
    /// Insertions that failed (races, or no free port for a source NAT).
    pub insert_failed: u64,
    /// Clashes resolved (two equal UDP flows at once): harmless.
    pub clash_resolve: u64,
    pub invalid: u64,
}

/// One direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tuple {
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

/// Transport protocols that are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    Tcp,
    Udp,
    Icmp,
    Other(u8),
}

/// A conntrack entry: what the sender wrote, and what the answer will look like.
/// Source NAT shows as `reply.destination != original.source`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    pub change: Change,
    pub protocol: Protocol,
    pub original: Tuple,
    pub reply: Tuple,
    /// Both directions seen (`IPS_SEEN_REPLY`).
    pub replied: bool,
}

/// Which way a segment crossed the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    In,
    Out,
}

/// A TCP segment on an interface of the node. A forwarded SYN is seen twice on purpose (in by one
/// interface, out by another): count `Out` on uplinks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    pub link: String,
    pub direction: Direction,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub flags: TcpFlags,
    pub sequence: u32,
    pub acknowledgment: u32,
    /// Bytes of payload in this segment (the size on the wire where a GSO packet stands for several).
    pub payload: u32,
    /// MSS option, SYNs only (RFC 9293 3.7.1).
    pub mss: Option<u16>,
    /// TSval of the timestamps option (RFC 7323 3.2).
    pub timestamp: Option<u32>,
}

/// The flags that matter here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct TcpFlags {
    pub syn: bool,
    pub ack: bool,
    pub fin: bool,
    pub rst: bool,
}

/// TCP states as the kernel numbers them (`include/net/tcp_states.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TcpState {
    Established,
    SynSent,
    SynRecv,
    FinWait1,
    FinWait2,
    TimeWait,
    Close,
    CloseWait,
    LastAck,
    Listen,
    Closing,
    Unknown(u8),
}

/// A TCP socket, from `struct tcp_info` (`include/uapi/linux/tcp.h`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Socket {
    /// The pod whose namespace holds it; `None` for the node's own.
    pub pod: Option<String>,
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub state: TcpState,
    /// Consecutive retransmission timeouts of the oldest unacknowledged segment (`tcpi_retransmits`).
    pub retransmits: u8,
    /// Over the life of the socket (`tcpi_total_retrans`); tail-loss probes count too.
    pub total_retransmits: u32,
    /// Segments in flight (`tcpi_unacked`).
    pub unacked: u32,
    /// Current retransmission timeout, microseconds.
    pub rto_us: u32,
    /// Smoothed round-trip time, microseconds.
    pub rtt_us: u32,
    /// Maximum segment size towards the peer, bytes (`tcpi_snd_mss`).
    pub send_mss: u32,
    pub bytes_acked: u64,
    pub bytes_received: u64,
    /// Bytes in the send queue that were sent and not acknowledged, or not yet sent.
    pub send_queue: u32,
}

/// A DNS message seen on the wire (RFC 1035).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// The stub resolver or forwarder that asks.
    pub client: SocketAddr,
    /// Who is asked.
    pub server: SocketAddr,
    pub id: u16,
    pub name: String,
    /// A, AAAA, ...
    pub record: String,
    /// `None` for a question; the response code of an answer ("NOERROR", "NXDOMAIN", "SERVFAIL").
    pub response: Option<String>,
    pub answers: Vec<IpAddr>,
}

/// What an agent's probe asks of its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProbeKind {
    /// A DNS question to the cluster DNS Service.
    DnsService,
    /// The same question straight to one endpoint (pod) behind that Service.
    DnsEndpoint,
    /// A question to an upstream resolver outside the cluster.
    DnsUpstream,
    /// ICMP echo to an address that pods talk to.
    Echo,
}

/// One probe and its outcome. Probes of an agent carry a timeout of 400 ms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    pub kind: ProbeKind,
    /// Source address it was sent from (the node's own, or a pod's where the agent probes on its behalf).
    pub source: IpAddr,
    pub target: IpAddr,
    pub ok: bool,
    /// Round-trip time in microseconds if answered, time waited otherwise.
    pub took_us: u64,
    /// Why it failed: "timeout", "SERVFAIL", ...
    pub error: Option<String>,
}

/// A pod of the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    pub change: Change,
    pub name: String,
    pub address: IpAddr,
    /// The node's end of its veth.
    pub link: String,
}

/// The ready endpoints of a Service at this instant (the whole list each time).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    pub service: String,
    pub address: IpAddr,
    pub ready: Vec<Endpoint>,
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    pub pod: String,
    pub address: IpAddr,
    pub node: String,
}

/// The collectors, each feeding some kinds of signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CollectorKind {
    /// `Link`, `Rule`, `Route`.
    Rtnetlink,
    /// `RouteLookup`.
    RouteLookup,
    /// `ConntrackTable`.
    ConntrackTable,
    /// `ConntrackStats`.
    ConntrackStats,
    /// `Flow`.
    ConntrackEvents,
    /// `Segment`.
    Packets,
    /// `Socket`.
    Sockets,
    /// `KernelLog`.
    KernelLog,
    /// `Dns`.
    DnsPackets,
    /// `Probe`.
    Probes,
    /// `Pod`, `Endpoints`.
    Inventory,
    /// `Container`, `NodeCondition`, `Event`, `KubeProxy`; in real clusters alone.
    Api,
    /// `PodLog`; in real clusters alone.
    PodLogs,
}

/// Whether a collector on this node can see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collector {
    pub collector: CollectorKind,
    pub sight: Sight,
}

/// A blind collector is said, and never counted as silence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sight {
    /// Armed and confirmed.
    Ready,
    /// Cannot see, or lost some of what it should have seen: why.
    Blind(String),
}
