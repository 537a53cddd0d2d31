//! Pods of a node and endpoints of Services, as known to its agent.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Change;

/// A pod of the node, as reported by the kubelet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    pub change: Change,
    pub name: String,
    pub address: IpAddr,
    /// The node's end of its veth.
    pub link: String,
}

/// All ready endpoints of a Service at this instant, as reported by the API.
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
