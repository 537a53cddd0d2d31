//! Objects of the API server that an agent sees in a real cluster, beyond pods and endpoints of its node. Labs have
//! containers only.

use serde::{Deserialize, Serialize};

/// A container of a pod of the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    pub pod: String,
    pub container: String,
    pub state: ContainerState,
    pub restarts: u32,
}

/// A container's state, as reported by the kubelet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContainerState {
    Running,
    /// Not started, or not restarted: "CrashLoopBackOff", "ContainerCreating", ...
    Waiting {
        reason: String,
    },
    /// "Completed", "Error", "OOMKilled", ...
    Terminated {
        reason: String,
        exit_code: i32,
    },
}

/// A condition of the node: "Ready", "NetworkUnavailable", ...
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeCondition {
    pub condition: String,
    /// "True", "False", "Unknown".
    pub status: String,
    pub reason: String,
}

/// An Event about something on the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Of type Warning.
    pub warning: bool,
    /// "BackOff", "Unhealthy", ...
    pub reason: String,
    /// Kind and name: "Pod/coredns-1".
    pub about: String,
    pub message: String,
}

/// The configuration of the cluster's kube-proxy. Unset values are empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubeProxy {
    pub mode: String,
    pub conntrack_min: Option<u64>,
    pub conntrack_max_per_core: Option<u64>,
}

/// An error line in the log of a pod of the node (cluster DNS).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodLog {
    pub pod: String,
    pub line: String,
}

impl std::fmt::Display for ContainerState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Running => f.write_str("running"),
            Self::Waiting { reason } => write!(f, "waiting ({reason})"),
            Self::Terminated { reason, exit_code } => write!(f, "terminated ({reason}, exit code {exit_code})"),
        }
    }
}
