//! What is known of a cluster that was made: by its names everything of it is found.

use std::path::PathBuf;

use relapse_detectors::prefix::Prefix;
use relapse_kernel::{NetNs, Result};
use serde::{Deserialize, Serialize};

/// By which Docker's networks, and containers beside the cluster, tell whose they are.
pub(super) const LABEL: &str = "relapse.run";

/// What a cluster is called: everything of it is found by these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// kind's name for it, and of its Docker network.
    pub cluster: String,
    /// Where its files lie.
    pub folder: PathBuf,
}

impl Names {
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }
}

/// One node's container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRef {
    /// Of the container, and of the node in the API.
    pub name: String,
    /// Its first process, as this machine counts.
    pub pid: u32,
    /// The node's share of the pod network.
    pub pod_prefix: Prefix,
    /// Packets that its guard had dropped by the time the cluster was ready: those of its own start.
    pub dropped: u64,
}

impl NodeRef {
    /// Its network namespace.
    ///
    /// # Errors
    /// When it does not run any more.
    pub fn namespace(&self) -> Result<NetNs> {
        NetNs::of_process(&self.name, self.pid)
    }
}

/// A cluster that is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Created {
    pub names: Names,
    /// Workers first, in their order, then the control plane.
    pub nodes: Vec<NodeRef>,
    /// Docker's network between the nodes.
    pub management: Prefix,
    pub pod_prefix: Prefix,
    pub service_prefix: Prefix,
}
