//! The API server of the run's own cluster: connected to by the run's own kubeconfig alone.

use std::future::Future;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Config};
use serde_json::json;

use super::created::{Names, Shares, share};

/// How often a wish to stop is looked for.
const LOOK: Duration = Duration::from_millis(50);

/// An error of the API in one line.
pub fn said(e: impl std::fmt::Display) -> String {
    format!("the API server: {e}")
}

/// Connects to a cluster of ours; any other API server is refused, whatever the file says.
///
/// # Errors
/// When the file cannot be read, names something else, or makes no client.
pub async fn connect(names: &Names) -> Result<Client, String> {
    let file = names.kubeconfig();
    let text = Kubeconfig::read_from(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    let named = text.clusters.iter().any(|cluster| cluster.name == format!("kind-{}", names.cluster));
    let config = Config::from_custom_kubeconfig(text, &KubeConfigOptions::default()).await;
    let config = config.map_err(|e| format!("{}: {e}", file.display()))?;
    if !named || config.cluster_url.host() != Some("127.0.0.1") {
        return Err(format!("{} is not of this run's cluster {}: refused", file.display(), names.cluster));
    }
    Client::try_from(config).map_err(said)
}

/// Asks from where there is no runtime.
///
/// # Errors
/// The job's own; that it took too long, or is no longer wanted.
pub fn ask<T, F: Future<Output = Result<T, String>>>(
    names: &Names,
    job: impl FnOnce(Client) -> F,
    limit: Duration,
    stop: &dyn Fn() -> bool,
) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| format!("no runtime: {e}"))?;
    runtime.block_on(async {
        let asked = async { job(connect(names).await?).await };
        let stopped = async {
            while !stop() {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::select! {
            answer = tokio::time::timeout(limit, asked) => {
                answer.unwrap_or_else(|_| Err(format!("the API server was not as it should be within {} s", limit.as_secs())))
            }
            () = stopped => Err("stopped".into()),
        }
    })
}

/// Each of so many nodes' share of the pod network. Cluster DNS of kubeadm steps aside: replicas are the scenario's.
///
/// # Errors
/// What the API server says.
pub async fn prepare(client: Client, count: usize) -> Result<Shares, String> {
    let dns: Api<Deployment> = Api::namespaced(client.clone(), "kube-system");
    let none = Patch::Merge(json!({ "spec": { "replicas": 0 } }));
    dns.patch_scale("coredns", &PatchParams::default(), &none).await.map_err(said)?;
    let nodes: Api<Node> = Api::all(client);
    until_nodes(&nodes, |all| all.iter().filter(|node| share_of(node).is_some()).count() >= count).await?;
    let all = nodes.list(&ListParams::default()).await.map_err(said)?;
    Ok(all.items.iter().filter_map(share_of).collect())
}

fn share_of(node: &Node) -> Option<(String, relapse_detectors::prefix::Prefix)> {
    share(&serde_json::to_value(node).ok()?)
}

/// So many nodes are ready.
///
/// # Errors
/// What the API server says.
pub async fn nodes_ready(client: Client, count: usize) -> Result<(), String> {
    let is_ready = |node: &&Node| {
        let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    };
    until_nodes(&Api::all(client), |all| all.iter().filter(is_ready).count() >= count).await
}

/// Watches nodes until they are as wanted.
async fn until_nodes(nodes: &Api<Node>, wanted: impl Fn(&[Node]) -> bool) -> Result<(), String> {
    let mut known: Vec<Node> = Vec::new();
    let stream = watcher(nodes.clone(), watcher::Config::default()).default_backoff().touched_objects();
    let mut stream = stream.boxed();
    loop {
        if wanted(&known) && !known.is_empty() {
            return Ok(());
        }
        // A watch that broke is begun anew by itself.
        let Ok(Some(node)) = stream.try_next().await else { continue };
        known.retain(|other| other.metadata.name != node.metadata.name);
        known.push(node);
    }
}
