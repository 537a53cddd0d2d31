//! Active probes of a node's agent.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// What an agent probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProbeKind {
    /// A DNS query to the cluster DNS Service.
    DnsService,
    /// The same query sent directly to one endpoint (pod) behind that Service.
    DnsEndpoint,
    /// A query to an upstream resolver outside the cluster, for the same external name.
    DnsUpstream,
    /// ICMP echo to an address that pods use.
    Echo,
    /// A TCP connect from the node to a Service's virtual address.
    Service,
    /// The same to one ready endpoint (pod) behind that Service.
    Endpoint,
    /// An HTTP request for kube-proxy's own health on the node (`/healthz` on port 10256).
    KubeProxy,
    /// A look-up of a declared external name at the clients' own resolver.
    ExternalName,
    /// A TCP connect to the address behind a declared external name.
    Entry,
}

/// One probe and its outcome. Probes of an agent carry a timeout of 400 ms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    pub kind: ProbeKind,
    /// Source address it was sent from (the node's own, or a pod's where the agent probes on its behalf).
    pub source: IpAddr,
    pub target: IpAddr,
    /// TCP port of the target, where it is not given by the kind.
    #[serde(default)]
    pub port: Option<u16>,
    /// The Service or name it is about. Cluster DNS is asked for a name of its own and for an external one; `None` if
    /// no external one is known.
    #[serde(default)]
    pub about: Option<String>,
    pub ok: bool,
    /// Round-trip time in microseconds if answered, time waited otherwise.
    pub took_us: u64,
    /// Why it failed: "timeout", "refused", "SERVFAIL", an HTTP status, ...
    pub error: Option<String>,
}
