//! What an operator knows about the cluster, given to the detectors once: prefixes, names, declared MTUs and limits.
//!
//! The same for every run over the same cluster; no scenario, fault or control can change it. [`Knowledge`] has two
//! variants of it, with which detectors can be tried: nothing, and a wrong copy.

mod knowledge;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::finding::Subject;
use crate::prefix::Prefix;
use crate::signal::{Change, Observed, Signal};

pub use knowledge::Knowledge;

/// The configuration shared by all detectors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operator {
    /// Prefixes that pod addresses come from.
    pub pod_prefixes: Vec<Prefix>,
    /// Interface by which pod traffic leaves a node (`eth1`).
    pub pod_nic: String,
    /// Routing table for pod traffic (2), filled by the CNI's address manager.
    pub pod_table: u32,
    /// Primary interface of a node (`eth0`).
    pub node_nic: String,
    /// Name and address of the cluster DNS Service.
    pub dns_service: String,
    pub dns_address: IpAddr,
    /// Paths with a declared MTU, in bytes.
    pub paths: Vec<DeclaredPath>,
    /// How long a server keeps a closed connection in `TIME_WAIT` (RFC 9293 3.6.1; Linux: 60 s).
    pub time_wait: Duration,
    /// Known peer prefixes: offices, other sites.
    #[serde(default)]
    pub peers: Vec<Prefix>,
    /// Prefix length by which unknown peers are grouped into one path (24).
    pub peer_prefix_length: u8,
    /// Names with declared addresses.
    #[serde(default)]
    pub names: Vec<DeclaredName>,
    /// Servers that have a name.
    #[serde(default)]
    pub servers: Vec<DeclaredServer>,
    /// External names by which clients outside reach the cluster.
    #[serde(default)]
    pub entries: Vec<Entry>,
    /// The smallest `nf_conntrack_max` that operators set on any node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conntrack_limit: Option<u32>,
    /// Addresses of pods that agents saw, whatever prefix was declared.
    #[serde(skip)]
    pub seen_pods: BTreeSet<IpAddr>,
}

/// Maximum number of pods that are remembered beside the declared prefixes.
const SEEN_PODS: usize = 4096;

/// A path to a peer prefix and the largest packet it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeclaredPath {
    pub prefix: Prefix,
    pub mtu: u16,
}

/// A domain name and the prefixes of its addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeclaredName {
    pub name: String,
    pub prefixes: Vec<Prefix>,
}

/// A server and the name that findings have for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeclaredServer {
    pub name: String,
    pub address: SocketAddr,
}

/// An external name by which clients outside reach the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub name: String,
    /// The clients' own resolver.
    pub resolver: IpAddr,
    /// TCP port at the addresses of the name.
    pub port: u16,
}

impl Operator {
    /// Whether this address lies in a pod prefix, or a pod with this address was seen.
    #[must_use]
    pub fn is_pod(&self, address: IpAddr) -> bool {
        self.pod_prefixes.iter().any(|prefix| prefix.contains(address)) || self.seen_pods.contains(&address)
    }

    /// Remembers a pod outside the declared prefixes: declarations may be missing or old.
    pub(crate) fn learn(&mut self, signal: &Signal) {
        let Observed::Pod(pod) = &signal.observed else { return };
        if pod.change != Change::Removed && !self.is_pod(pod.address) {
            if self.seen_pods.len() == SEEN_PODS {
                self.seen_pods.pop_first();
            }
            self.seen_pods.insert(pod.address);
        }
    }

    /// Whether traffic leaves a node through this interface.
    #[must_use]
    pub fn is_uplink(&self, link: &str) -> bool {
        link == self.node_nic || link == self.pod_nic
    }

    /// The path of a peer: its longest known prefix, otherwise a prefix of the configured length. An unknown IPv6 site
    /// is a /64, regardless of the length for IPv4.
    #[must_use]
    pub fn path_of(&self, peer: IpAddr) -> Prefix {
        let known = self.peers.iter().filter(|prefix| prefix.contains(peer)).max_by_key(|prefix| prefix.length());
        if let Some(known) = known {
            return *known;
        }
        let length = if peer.is_ipv4() { self.peer_prefix_length.min(32) } else { 64 };
        Prefix::new(peer, length).unwrap_or_else(|_| Prefix::host(peer))
    }

    /// A server in findings: its declared name, otherwise its address.
    #[must_use]
    pub fn server(&self, address: SocketAddr) -> Subject {
        let declared = self.servers.iter().find(|server| server.address == address);
        declared.map_or_else(|| Subject::server(address), |server| Subject::server(&server.name))
    }

    /// The declared MTU of the path to this peer; the longest prefix decides.
    #[must_use]
    pub fn declared_mtu(&self, peer: IpAddr) -> Option<u16> {
        let covering = self.paths.iter().filter(|path| path.prefix.contains(peer));
        covering.max_by_key(|path| path.prefix.length()).map(|path| path.mtu)
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::operator;

    #[test]
    fn a_known_peer_prefix_is_the_path_whatever_its_length() {
        let mut known = operator();
        let path = |known: &super::Operator| known.path_of("192.168.40.130".parse().unwrap()).to_string();
        assert_eq!(path(&known), "192.168.40.0/24");
        known.peers = ["192.168.40.0/22", "192.168.40.128/25"].map(|prefix| prefix.parse().unwrap()).into();
        assert_eq!(path(&known), "192.168.40.128/25");
    }
}
