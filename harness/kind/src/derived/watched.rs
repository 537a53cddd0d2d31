//! Watches all objects from which series are derived.

use std::sync::Arc;

use futures_util::FutureExt;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Endpoints, Namespace, Node, PersistentVolume, Pod, Service};
use kube::runtime::reflector::Store;
use kube::{Client, Resource};

use super::super::watch::keep_all;
use super::Objects;

/// Watches that last until the process ends.
pub struct Watched {
    pods: Store<Pod>,
    nodes: Store<Node>,
    namespaces: Store<Namespace>,
    deployments: Store<Deployment>,
    replica_sets: Store<ReplicaSet>,
    stateful_sets: Store<StatefulSet>,
    daemon_sets: Store<DaemonSet>,
    jobs: Store<Job>,
    services: Store<Service>,
    endpoints: Store<Endpoints>,
    persistent_volumes: Store<PersistentVolume>,
}

impl Watched {
    pub fn start(client: &Client) -> Self {
        Self {
            pods: keep_all(client),
            nodes: keep_all(client),
            namespaces: keep_all(client),
            deployments: keep_all(client),
            replica_sets: keep_all(client),
            stateful_sets: keep_all(client),
            daemon_sets: keep_all(client),
            jobs: keep_all(client),
            services: keep_all(client),
            endpoints: keep_all(client),
            persistent_volumes: keep_all(client),
        }
    }

    /// All objects at this moment; `None` until those of each kind are listed.
    pub fn now(&self) -> Option<Objects> {
        Some(Objects {
            pods: listed(&self.pods)?,
            nodes: listed(&self.nodes)?,
            namespaces: listed(&self.namespaces)?,
            deployments: listed(&self.deployments)?,
            replica_sets: listed(&self.replica_sets)?,
            stateful_sets: listed(&self.stateful_sets)?,
            daemon_sets: listed(&self.daemon_sets)?,
            jobs: listed(&self.jobs)?,
            services: listed(&self.services)?,
            endpoints: listed(&self.endpoints)?,
            persistent_volumes: listed(&self.persistent_volumes)?,
        })
    }
}

fn listed<K: Resource<DynamicType = ()> + Clone + 'static>(store: &Store<K>) -> Option<Vec<Arc<K>>> {
    store.wait_until_ready().now_or_never()?.ok()?;
    Some(store.state())
}
