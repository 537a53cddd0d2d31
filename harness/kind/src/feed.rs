//! Signals of the API server other than pods and endpoints: container states, node conditions, Events, kube-proxy's
//! configuration, and errors in the log of cluster DNS.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{AsyncBufReadExt, StreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, ContainerStatus, Event as ApiEvent, Node, Pod};
use kube::api::{Api, LogParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, Resource, ResourceExt};
use relapse_detectors::signal::{
    self, Collector, CollectorKind, Container, ContainerState, KubeProxy, NodeCondition, Observed, PodLog, Sight,
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::objects::DNS_NAMESPACE;

/// Maps a node's name in the API to its name in the scenario.
type Names = BTreeMap<String, String>;

/// Sends observations to the trial.
#[derive(Clone)]
struct Feed {
    names: Arc<Names>,
    sender: UnboundedSender<(String, Observed)>,
    /// The number of broken watches that have not recovered yet.
    broken: Arc<AtomicUsize>,
}

impl Feed {
    fn send(&self, node: &str, observed: Observed) {
        // The receiver is dropped when the trial ends.
        let _ = self.sender.send((node.to_owned(), observed));
    }

    /// Sends an observation for every node.
    fn send_all(&self, observed: &Observed) {
        self.names.values().for_each(|node| self.send(node, observed.clone()));
    }

    fn sight(&self, sight: Sight) {
        self.send_all(&Observed::Collector(Collector { collector: CollectorKind::Api, sight }));
    }

    fn broke(&self, why: &watcher::Error) {
        if self.broken.fetch_add(1, Ordering::Relaxed) == 0 {
            self.sight(Sight::Blind(format!("the API server: {why}")));
        }
    }

    fn recovered(&self) {
        if self.broken.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.sight(Sight::Ready);
        }
    }

    /// Calls `handle` with new objects until the receiver is dropped. A broken watch restarts automatically and is
    /// reported as blind until it has recovered.
    fn follow<K>(&self, api: Api<K>, objects_of: Objects, mut handle: impl FnMut(&Self, &K) + Send + 'static)
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let feed = self.clone();
        tokio::spawn(async move {
            let objects = watcher(api, watcher::Config::default()).default_backoff();
            let mut objects = objects.take_until(feed.sender.closed()).boxed();
            let mut broken = false;
            while let Some(event) = objects.next().await {
                // A resumed watch does not list again.
                let is_whole = matches!(event, Ok(Event::Apply(_) | Event::Delete(_) | Event::InitDone));
                if is_whole && std::mem::take(&mut broken) {
                    feed.recovered();
                }
                match event {
                    Ok(Event::Apply(object)) => handle(&feed, &object),
                    Ok(Event::InitApply(object)) if objects_of == Objects::All => handle(&feed, &object),
                    Ok(_) => {}
                    Err(why) => {
                        if !std::mem::replace(&mut broken, true) {
                            feed.broke(&why);
                        }
                    }
                }
            }
        });
    }
}

/// Which objects of a watch are handled.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Objects {
    /// Existing objects and every later change.
    All,
    /// Only changes: existing objects are from before the trial.
    Changes,
}

/// Watches until the receiver is dropped.
pub fn start(client: &Client, names: Names) -> UnboundedReceiver<(String, Observed)> {
    let (sender, receiver) = unbounded_channel();
    let feed = Feed { names: Arc::new(names), sender, broken: Arc::default() };
    let logs = CollectorKind::PodLogs;
    feed.send_all(&Observed::Collector(Collector { collector: logs, sight: Sight::Ready }));
    feed.follow(Api::all(client.clone()), Objects::All, of_pods(client.clone()));
    feed.follow(Api::all(client.clone()), Objects::All, of_nodes());
    feed.follow(Api::all(client.clone()), Objects::Changes, of_event);
    feed.follow(Api::namespaced(client.clone(), "kube-system"), Objects::All, of_kube_proxy);
    receiver
}

/// Container states, and the logs of cluster DNS replicas.
fn of_pods(client: Client) -> impl FnMut(&Feed, &Pod) {
    let (mut known, mut read) = (BTreeMap::new(), HashSet::new());
    move |feed, pod| {
        let Some(node) = pod.spec.as_ref().and_then(|spec| feed.names.get(spec.node_name.as_ref()?)) else { return };
        let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        for status in statuses {
            let container = container(pod.name_any(), status);
            let before = known.insert((pod.name_any(), status.name.clone()), container.clone());
            if before.as_ref() == Some(&container) {
                continue;
            }
            // A restarted container has a new log.
            let log = (pod.uid(), container.restarts);
            let runs = container.state == ContainerState::Running;
            feed.send(node, Observed::Container(container));
            let is_dns = pod.labels().get("k8s-app").is_some_and(|app| app == "kube-dns");
            if is_dns && runs && read.insert(log) {
                tokio::spawn(of_log(client.clone(), pod.name_any(), node.clone(), feed.clone()));
            }
        }
    }
}

fn container(pod: String, status: &ContainerStatus) -> Container {
    let state = status.state.clone().unwrap_or_default();
    let state = match (state.terminated, state.waiting) {
        (Some(ended), _) => {
            let reason = ended.reason.unwrap_or_default();
            ContainerState::Terminated { reason, exit_code: ended.exit_code }
        }
        (None, Some(waiting)) => ContainerState::Waiting { reason: waiting.reason.unwrap_or_default() },
        (None, None) => ContainerState::Running,
    };
    let restarts = u32::try_from(status.restart_count).unwrap_or_default();
    Container { pod, container: status.name.clone(), state, restarts }
}

/// Errors that a replica of cluster DNS logs from now on.
async fn of_log(client: Client, pod: String, node: String, feed: Feed) {
    let pods: Api<Pod> = Api::namespaced(client, DNS_NAMESPACE);
    let parameters = LogParams { follow: true, since_seconds: Some(1), ..LogParams::default() };
    let blind = |why: &dyn std::fmt::Display| {
        let sight = Sight::Blind(format!("the log of {pod}: {why}"));
        feed.send(&node, Observed::Collector(Collector { collector: CollectorKind::PodLogs, sight }));
    };
    let log = match pods.log_stream(&pod, &parameters).await {
        Ok(log) => log,
        Err(why) => return blind(&why),
    };
    // The stream ends with the container.
    let mut lines = log.lines().take_until(feed.sender.closed()).boxed();
    while let Some(line) = lines.next().await {
        match line {
            Ok(line) if line.contains("[ERROR]") || line.contains("timeout") => {
                feed.send(&node, Observed::PodLog(PodLog { pod: pod.clone(), line }));
            }
            Ok(_) => {}
            Err(why) => return blind(&why),
        }
    }
}

fn of_nodes() -> impl FnMut(&Feed, &Node) {
    let mut known = BTreeMap::new();
    move |feed, node| {
        let Some(name) = feed.names.get(&node.name_any()) else { return };
        let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
        for condition in conditions {
            let now = NodeCondition {
                condition: condition.type_.clone(),
                status: condition.status.clone(),
                reason: condition.reason.clone().unwrap_or_default(),
            };
            let before = known.insert((name.clone(), now.condition.clone()), now.clone());
            if before.as_ref() != Some(&now) {
                feed.send(name, Observed::NodeCondition(now));
            }
        }
    }
}

/// Events about a node or from a kubelet.
fn of_event(feed: &Feed, event: &ApiEvent) {
    let about = &event.involved_object;
    let object = about.name.clone().unwrap_or_default();
    let host = event.source.as_ref().and_then(|source| source.host.as_ref());
    let by_host = host.and_then(|host| feed.names.get(host));
    let Some(node) = by_host.or_else(|| feed.names.get(&object)) else { return };
    let reported = signal::Event {
        warning: event.type_.as_deref() == Some("Warning"),
        reason: event.reason.clone().unwrap_or_default(),
        about: format!("{}/{object}", about.kind.clone().unwrap_or_default()),
        message: event.message.clone().unwrap_or_default(),
    };
    feed.send(node, Observed::Event(reported));
}

/// kube-proxy's configuration, which is the same for all nodes.
fn of_kube_proxy(feed: &Feed, map: &ConfigMap) {
    let text = map.data.as_ref().and_then(|data| data.get("config.conf")).filter(|_| map.name_any() == "kube-proxy");
    let Some(config) = text.and_then(|text| serde_yaml::from_str::<Value>(text).ok()) else { return };
    let number = |name: &str| config["conntrack"][name].as_u64();
    feed.send_all(&Observed::KubeProxy(KubeProxy {
        mode: config["mode"].as_str().unwrap_or_default().to_owned(),
        conntrack_min: number("min"),
        conntrack_max_per_core: number("maxPerCore"),
    }));
}
