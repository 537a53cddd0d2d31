//! Load of a node.

use serde::{Deserialize, Serialize};

/// Load and memory of the node. In labs, whose nodes are namespaces, these are the machine's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeLoad {
    /// Runnable and waiting tasks, averaged over a minute (proc_loadavg(5)).
    pub load1: f64,
    pub cpus: u32,
    /// Bytes (`MemAvailable` and `MemTotal` of proc_meminfo(5)).
    pub memory_available: u64,
    pub memory_total: u64,
}
