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
mod journal;
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

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::cluster::Cluster;
use crate::cluster::backend::{Registered, Rising};
use crate::plan::ClusterPlan;

pub use cluster::KindCluster;
pub use docker::noted;
pub use journal::NODE_WRITES;
pub use keeper::Kind;
pub use parts::parts;

const NAME: &str = "kind";

static REGISTERED: Registered = Registered {
    name: NAME,
    help: "Real clusters in Docker containers, by kind (make kind; needs root)",
    make: |run| Arc::new(Kind::new(run.run_id, run.image, &run.folder.join(NAME), run.clusters)),
    up,
    parts,
    remover: Some(journal::REMOVER),
};

/// Makes real clusters known to this program.
pub fn register() {
    crate::cluster::backend::register(&REGISTERED);
}

fn up<'a>(ground: &'a serde_json::Value, plan: &'a ClusterPlan) -> Rising<'a> {
    Box::pin(async move {
        let ground = Ground::deserialize(ground).map_err(|e| format!("the ground of a real cluster: {e}"))?;
        KindCluster::up(&ground, plan).await.map(|cluster| cluster as Arc<dyn Cluster>)
    })
}

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
