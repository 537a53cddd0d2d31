//! The API server of the run's own cluster, reached only through the run's own kubeconfig.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::reflector::{self, reflector};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Config, ResourceExt};
use relapse_detectors::prefix::Prefix;
use serde_json::json;

use super::created::Names;

/// Polling interval of the stop condition.
const LOOK: Duration = Duration::from_millis(50);

/// A one-line error of the API server.
pub fn failed(e: impl std::fmt::Display) -> String {
    format!("the API server: {e}")
}

/// Connects to a cluster of this run. Any other API server is refused, regardless of the kubeconfig.
///
/// # Errors
/// If the kubeconfig cannot be read, names another cluster, or yields no client.
pub async fn connect(names: &Names) -> Result<Client, String> {
    let file = names.kubeconfig();
    let text = Kubeconfig::read_from(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    let named = text.clusters.iter().any(|cluster| cluster.name == format!("kind-{}", names.cluster));
    let config = Config::from_custom_kubeconfig(text, &KubeConfigOptions::default()).await;
    let config = config.map_err(|e| format!("{}: {e}", file.display()))?;
    if !named || config.cluster_url.host() != Some("127.0.0.1") {
        return Err(format!("{} does not belong to this run's cluster {}: refused", file.display(), names.cluster));
    }
    Client::try_from(config).map_err(failed)
}

/// Runs a job against the API server from synchronous code.
///
/// # Errors
/// The job's own error, a timeout, or "stopped".
pub fn ask<T, F: Future<Output = Result<T, String>>>(
    names: &Names,
    job: impl FnOnce(Client) -> F,
    limit: Duration,
    stop: &dyn Fn() -> bool,
) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| format!("no runtime: {e}"))?;
    runtime.block_on(async {
        let connected = async { job(connect(names).await?).await };
        let stopped = async {
            while !stop() {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::select! {
            answer = tokio::time::timeout(limit, connected) => {
                answer.unwrap_or_else(|_| Err(format!("timed out after {} s waiting for the API server", limit.as_secs())))
            }
            () = stopped => Err("stopped".into()),
        }
    })
}

/// Returns the pod CIDR of each of `count` nodes, and scales kubeadm's cluster DNS to zero: the scenario makes its own
/// replicas.
///
/// # Errors
/// The error of the API server.
pub async fn prepare(client: Client, count: usize) -> Result<BTreeMap<String, Prefix>, String> {
    let dns: Api<Deployment> = Api::namespaced(client.clone(), "kube-system");
    let none = Patch::Merge(json!({ "spec": { "replicas": 0 } }));
    dns.patch_scale("coredns", &PatchParams::default(), &none).await.map_err(failed)?;
    let share = |node: &Node| Some((node.name_any(), node.spec.as_ref()?.pod_cidr.as_ref()?.parse().ok()?));
    Ok(nodes(client, count, share).await.into_iter().collect())
}

/// Waits until `count` nodes are ready.
///
/// # Errors
/// None. The caller sets the time limit.
pub async fn nodes_ready(client: Client, count: usize) -> Result<(), String> {
    let is_ready = |node: &Node| {
        let mut conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True").then_some(())
    };
    nodes(client, count, is_ready).await;
    Ok(())
}

/// Watches nodes until `count` of them match. A broken watch restarts automatically.
async fn nodes<T>(client: Client, count: usize, wanted: impl Fn(&Node) -> Option<T>) -> Vec<T> {
    let (nodes, writer) = reflector::store();
    let stream = watcher(Api::<Node>::all(client), watcher::Config::default()).default_backoff();
    let mut stream = reflector(writer, stream).boxed();
    loop {
        let found: Vec<T> = nodes.state().iter().filter_map(|node| wanted(node)).collect();
        if found.len() >= count {
            return found;
        }
        stream.next().await;
    }
}
