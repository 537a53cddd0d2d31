//! Real clusters by kind: kubelet, kube-proxy, CoreDNS and API server in Docker containers on this machine.
//!
//! In the order of a run: [`keeper`] (clusters for all trials; [`create`], [`docker`], [`guard`], [`cni`],
//! [`servers`] of the outside world, [`proof`] that a trial left nothing), then in each trial's process [`cluster`] over
//! [`build`], [`nodes`], [`pods`],
//! [`dns`], [`watch`] and [`news`]. A kind node is a network namespace like a lab's, so fabric, second NIC, policy table,
//! source NAT, workload, faults and collectors are the lab's own.

mod api;
mod build;
mod cluster;
mod cni;
pub mod create;
mod dns;
mod docker;
mod guard;
mod keeper;
mod kube_proxy;
mod news;
mod nodes;
mod objects;
mod parts;
mod pods;
mod proof;
mod servers;
mod watch;

use serde::{Deserialize, Serialize};

pub use cluster::KindCluster;
pub use docker::noted;
pub use keeper::Kind;
pub use parts::parts;

/// What a trial's process is told of the cluster it works on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ground {
    pub run_id: String,
    pub scenario: String,
    pub cluster: create::Created,
    /// The image of a real nginx, loaded into every node, where an ingress is wanted and there is one.
    pub nginx: Option<String>,
    /// Hosts outside on which a third party's server runs.
    pub servers: Vec<servers::Served>,
}

impl Ground {
    /// The server that runs on this host outside, where one does.
    fn server_on(&self, host: &str) -> Option<&servers::Served> {
        self.servers.iter().find(|served| served.host == host)
    }
}
