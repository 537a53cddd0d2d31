//! Watches the run's pods and all endpoints through the API server.

use std::fmt::Debug;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::{self, Store, reflector};
use kube::runtime::watcher::{self, watcher};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::objects::LABEL;

/// Time limit of all waits: for a pod to come up or to be deleted, for an endpoint.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The current state.
#[derive(Clone)]
pub struct Seen {
    pods: Store<Pod>,
    slices: Store<EndpointSlice>,
    changed: watch::Receiver<()>,
}

/// A ready pod behind a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub service: String,
    pub pod: String,
    pub address: IpAddr,
}

impl Seen {
    /// Starts watches that last until the process ends; returns once the existing pods are listed.
    ///
    /// # Errors
    /// If the API server lists no pods in time.
    pub async fn start(client: &Client, run_id: &str) -> Result<Self, String> {
        let (sender, changed) = watch::channel(());
        let ours = watcher::Config::default().labels(&format!("{LABEL}={run_id}"));
        let pods = keep(Api::all(client.clone()), ours, sender.clone());
        let slices = keep(Api::all(client.clone()), watcher::Config::default(), sender);
        match tokio::time::timeout(PATIENCE, pods.wait_until_ready()).await {
            Ok(Ok(())) => Ok(Self { pods, slices, changed }),
            _ => Err(format!("the API server listed no pods within {} s", PATIENCE.as_secs())),
        }
    }

    /// All pods of the run.
    pub fn pods(&self) -> Vec<Arc<Pod>> {
        self.pods.state()
    }

    /// The current pod of the run with this name.
    pub fn pod(&self, name: &str) -> Option<Arc<Pod>> {
        self.pods.find(|pod| pod.name_any() == name)
    }

    /// The pod with this name and UID, not its replacement.
    pub fn same_pod(&self, name: &str, uid: &str) -> Option<Arc<Pod>> {
        self.pod(name).filter(|pod| pod.uid().as_deref() == Some(uid))
    }

    /// Ready endpoints of all Services.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        let mut endpoints = Vec::new();
        for slice in self.slices.state() {
            let Some(service) = slice.labels().get("kubernetes.io/service-name") else { continue };
            let ready = slice.endpoints.iter().filter(|endpoint| {
                endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
            });
            endpoints.extend(ready.filter_map(|endpoint| {
                let pod = endpoint.target_ref.as_ref()?.name.clone()?;
                let address = endpoint.addresses.first()?.parse().ok()?;
                Some(Endpoint { service: service.clone(), pod, address })
            }));
        }
        endpoints
    }

    /// Waits for a change. Returns false when the watches have ended.
    pub async fn changed(&mut self) -> bool {
        self.changed.changed().await.is_ok()
    }

    /// Waits until `wanted` returns a value.
    ///
    /// # Errors
    /// A timeout, naming `what`.
    pub async fn until<T>(&self, what: &str, wanted: impl Fn(&Self) -> Option<T>) -> Result<T, String> {
        let mut seen = self.clone();
        let watched = async {
            loop {
                // Changes that arrive during the check are checked again.
                seen.changed.mark_unchanged();
                if let Some(found) = wanted(&seen) {
                    return Ok(found);
                }
                if !seen.changed().await {
                    return Err("the watch on the API server has ended".to_owned());
                }
            }
        };
        let late = |_| Err(format!("timed out after {} s waiting for {what}", PATIENCE.as_secs()));
        tokio::time::timeout(PATIENCE, watched).await.unwrap_or_else(late)
    }
}

/// Keeps a store up to date. A broken watch restarts automatically, and its new list replaces the store once it is
/// complete.
fn keep<K>(api: Api<K>, config: watcher::Config, sender: watch::Sender<()>) -> Store<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Default + Eq + Hash + Clone + Send + Sync,
{
    let (store, writer) = reflector::store();
    let mut events = reflector(writer, watcher(api, config).default_backoff()).boxed();
    tokio::spawn(async move {
        while events.next().await.is_some() {
            sender.send_replace(());
        }
    });
    store
}

/// Keeps all objects of a kind.
pub fn keep_all<K>(client: &Client) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    keep(Api::all(client.clone()), watcher::Config::default(), watch::Sender::default())
}

/// The pod's address, once assigned.
pub fn address(pod: &Pod) -> Option<IpAddr> {
    pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()
}

pub fn runs(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"))
}

pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Whether the pod is being deleted.
pub fn is_leaving(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Whether the pod is ready and stays.
pub fn serves(pod: &Pod) -> bool {
    runs(pod) && is_ready(pod) && !is_leaving(pod) && address(pod).is_some()
}
