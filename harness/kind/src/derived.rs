//! The series of kube-state-metrics, derived from the objects it watches.
//!
//! kube-state-metrics computes each series from one object, without state of its own, so an object at a moment says
//! what it would export at that moment. Metrics, labels and values are those that its documentation lists
//! (kube-state-metrics 2.x, `docs/metrics/*.md`), without the ones that its defaults leave out (`--metric-labels-allowlist`,
//! `--metric-annotations-allowlist`) and without these:
//!
//! - Times (`kube_pod_created`, `kube_job_status_start_time`, ...): a recording has no date.
//! - Kinds of objects that clusters made here do not have: HorizontalPodAutoscaler, PodDisruptionBudget, ResourceQuota,
//!   PersistentVolumeClaim, CronJob, Ingress and others.
//! - Cluster DNS as a Deployment: a scenario makes its replicas as pods.
//! - Metrics about kube-state-metrics itself (`kube_state_metrics_*`).

mod families;
mod nodes;
mod pods;
mod watched;
mod workloads;

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Endpoints, Namespace, Node, PersistentVolume, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use families::Families;

pub use watched::Watched;

/// All objects of a cluster at one moment, as reflectors hold them. Kinds that are not watched stay empty: their series
/// are missing.
#[derive(Default)]
pub struct Objects {
    pub pods: Vec<Arc<Pod>>,
    pub nodes: Vec<Arc<Node>>,
    pub namespaces: Vec<Arc<Namespace>>,
    pub deployments: Vec<Arc<Deployment>>,
    pub replica_sets: Vec<Arc<ReplicaSet>>,
    pub stateful_sets: Vec<Arc<StatefulSet>>,
    pub daemon_sets: Vec<Arc<DaemonSet>>,
    pub jobs: Vec<Arc<Job>>,
    pub services: Vec<Arc<Service>>,
    pub endpoints: Vec<Arc<Endpoints>>,
    pub persistent_volumes: Vec<Arc<PersistentVolume>>,
}

/// What kube-state-metrics would export, in Prometheus's text format 0.0.4, families and lines in order.
#[must_use]
pub fn exposition(objects: &Objects) -> String {
    let mut families = Families::default();
    objects.pods.iter().for_each(|pod| pods::pod(&mut families, pod));
    objects.nodes.iter().for_each(|node| nodes::node(&mut families, node));
    objects.namespaces.iter().for_each(|namespace| nodes::namespace(&mut families, namespace));
    objects.persistent_volumes.iter().for_each(|volume| nodes::persistent_volume(&mut families, volume));
    objects.services.iter().for_each(|service| nodes::service(&mut families, service));
    objects.endpoints.iter().for_each(|endpoints| nodes::endpoints(&mut families, endpoints));
    let deployments = objects.deployments.iter().filter(|set| !is_replaced(&set.metadata));
    deployments.for_each(|set| workloads::deployment(&mut families, set));
    let replica_sets = objects.replica_sets.iter().filter(|set| !is_replaced(&set.metadata));
    replica_sets.for_each(|set| workloads::replica_set(&mut families, set));
    objects.stateful_sets.iter().for_each(|set| workloads::stateful_set(&mut families, set));
    objects.daemon_sets.iter().for_each(|set| workloads::daemon_set(&mut families, set));
    objects.jobs.iter().for_each(|job| workloads::job(&mut families, job));
    families.text()
}

/// Whether it is kubeadm's cluster DNS, which is scaled to zero here because the scenario makes its own replicas.
/// Elsewhere it has as many as cluster DNS has.
fn is_replaced(of: &ObjectMeta) -> bool {
    let name = of.name.as_deref().unwrap_or_default();
    of.namespace.as_deref() == Some("kube-system") && (name == "coredns" || name.starts_with("coredns-"))
}

#[cfg(test)]
mod tests;
