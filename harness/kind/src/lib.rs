//! Real clusters by kind: kubelet, kube-proxy, CoreDNS and API server in Docker containers on this machine.
//!
//! In the order of a run: [`keeper`] (clusters for all trials; [`journal`], [`create`], [`docker`], [`guard`],
//! [`cni`], [`servers`] of the outside world, [`proof`] that a trial left nothing), which leases a [`ground`]; then in
//! each trial's process [`cluster`] over [`build`], [`nodes`], [`pods`], [`objects`], [`watch`] and [`news`]. A kind node
//! is a network namespace like a lab's, so fabric, second NIC, policy table, source NAT, workload, faults and
//! collectors are the lab's own.
//!
//! The program alone names this crate: it calls [`register`], and everybody else asks what is registered.

mod api;
mod build;
mod cluster;
mod cni;
mod create;
mod created;
mod docker;
mod ground;
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
mod until;
mod watch;

use std::sync::Arc;

use relapse_lab::cluster::Cluster;
use relapse_lab::cluster::backend::{Registered, Rising};
use relapse_model::ClusterPlan;
use serde::Deserialize;

use ground::Ground;

pub use cluster::KindCluster;
pub use docker::noted;
pub use journal::NODE_WRITES;
pub use keeper::Kind;
pub use parts::parts;

/// An error that is the end of a sentence.
fn failed(e: impl std::fmt::Display) -> String {
    format!("failed to {e}")
}

/// What went wrong of steps that are all taken, and where.
fn failures(place: &str, steps: impl IntoIterator<Item = relapse_kernel::Result<()>>) -> Vec<String> {
    steps.into_iter().filter_map(Result::err).map(|e| format!("{place}: {}", failed(e))).collect()
}

/// Processes of this machine.
fn pids() -> impl Iterator<Item = u32> {
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

static REGISTERED: Registered = Registered {
    name: ground::BACKEND,
    help: "Real clusters in Docker containers, made by kind (run `make kind` first; needs root)",
    make: |run| Arc::new(Kind::new(run.run_id, run.image, &run.folder.join(ground::BACKEND), run.clusters)),
    up,
    parts,
    remover: Some(journal::REMOVER),
};

/// Makes real clusters known to this program.
pub fn register() {
    relapse_lab::cluster::backend::register(&REGISTERED);
}

fn up<'a>(ground: &'a serde_json::Value, plan: &'a ClusterPlan) -> Rising<'a> {
    Box::pin(async move {
        let ground = Ground::deserialize(ground).map_err(|e| format!("the ground of a real cluster: {e}"))?;
        KindCluster::up(&ground, plan).await.map(|cluster| cluster as Arc<dyn Cluster>)
    })
}
