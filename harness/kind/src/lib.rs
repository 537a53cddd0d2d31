//! Real clusters made by kind: kubelet, kube-proxy, CoreDNS and API server in Docker containers on this machine.
//!
//! In the order of a run: [`keeper`] provides clusters for all trials (with [`journal`], [`create`], [`docker`],
//! [`guard`], [`cni`], the [`servers`] outside, and [`proof`] that a trial left nothing behind) and leases a
//! [`ground`]. In each trial's process, [`cluster`] builds on [`build`], [`nodes`], [`pods`], [`objects`], [`watch`]
//! and [`feed`]. A kind node is a network namespace like a lab's, so fabric, second NIC, policy table, source NAT,
//! workload, faults and collectors are those of the lab.
//!
//! Only the binary depends on this crate and calls [`register`]; other crates use the registry.

mod api;
mod build;
mod cluster;
mod cni;
mod create;
mod created;
pub mod derived;
mod docker;
mod feed;
mod ground;
mod guard;
mod journal;
mod keeper;
mod kube_proxy;
mod nodes;
mod objects;
mod parts;
mod pods;
mod proof;
mod servers;
mod service_rules;
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

/// Formats an error as "failed to ...".
fn failed(e: impl std::fmt::Display) -> String {
    format!("failed to {e}")
}

/// The errors of independent steps, prefixed with the place.
fn failures(place: &str, steps: impl IntoIterator<Item = relapse_kernel::Result<()>>) -> Vec<String> {
    steps.into_iter().filter_map(Result::err).map(|e| format!("{place}: {}", failed(e))).collect()
}

/// All processes of this machine.
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

/// Registers the backend.
pub fn register() {
    relapse_lab::cluster::backend::register(&REGISTERED);
}

fn up<'a>(ground: &'a serde_json::Value, plan: &'a ClusterPlan) -> Rising<'a> {
    Box::pin(async move {
        let ground = Ground::deserialize(ground).map_err(|e| format!("the ground of a real cluster: {e}"))?;
        KindCluster::up(&ground, plan).await.map(|cluster| cluster as Arc<dyn Cluster>)
    })
}
