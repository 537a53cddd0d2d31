//! Description of a created cluster, including the names by which its parts are found.

use std::path::PathBuf;

use relapse_detectors::prefix::Prefix;
use relapse_kernel::{NetNs, Result};
use serde::{Deserialize, Serialize};

/// Label of the Docker networks and of the containers outside the cluster; its value is the cluster's name.
pub(super) const LABEL: &str = "relapse.run";

/// Names of a cluster. All its parts are found by them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// kind's name for the cluster, also the name of its Docker network.
    pub cluster: String,
    /// The folder of its files.
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
    /// The name of the container, and of the node in the API.
    pub name: String,
    /// Its first process, in the host's PID namespace.
    pub pid: u32,
    /// The node's pod CIDR.
    pub pod_prefix: Prefix,
    /// Packets the guard dropped before the cluster was ready, during the node's own start.
    pub dropped: u64,
}

impl NodeRef {
    /// Its network namespace.
    ///
    /// # Errors
    /// If the node no longer runs.
    pub fn namespace(&self) -> Result<NetNs> {
        NetNs::of_process(&self.name, self.pid)
    }
}

/// A cluster that is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Created {
    pub names: Names,
    /// Workers first, in order, then the control plane.
    pub nodes: Vec<NodeRef>,
    /// The Docker network between the nodes.
    pub management: Prefix,
    pub pod_prefix: Prefix,
    pub service_prefix: Prefix,
}
