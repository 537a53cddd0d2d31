//! What an operator knows of the cluster and tells the detectors once: prefixes, names, declared MTUs.
//!
//! The same for every run over the same cluster; no scenario, fault or control can change it.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::prefix::Prefix;

/// The one configuration all detectors are armed with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operator {
    /// Prefixes pods get their addresses from.
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
    /// Paths whose MTU somebody declared, in bytes.
    pub paths: Vec<DeclaredPath>,
    /// How long a server keeps a closed connection in TIME_WAIT (RFC 9293 3.6.1; Linux: 60 s).
    pub time_wait: Duration,
    /// Prefix length by which unknown peers are grouped into one path (24).
    pub peer_prefix_length: u8,
}

/// A path to a peer prefix and the largest packet it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeclaredPath {
    pub prefix: Prefix,
    pub mtu: u16,
}
