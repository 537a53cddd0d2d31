//! What an agent learns from the API server besides pods and endpoints: states of containers, conditions
//! of nodes, Events, kube-proxy's configuration, and what cluster DNS complains about in its log.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use futures_util::{AsyncBufReadExt, StreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, ContainerStatus, Event as ApiEvent, Node, Pod};
use kube::api::{Api, LogParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use relapse_detectors::signal::{Container, ContainerState, Event, KubeProxy, NodeCondition, Observed, PodLog};
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::objects::DNS_NAMESPACE;

/// By the API's name of a node: the scenario's.
type Names = BTreeMap<String, String>;
type Told = UnboundedSender<(String, Observed)>;

/// Watches until nobody listens any more.
pub fn start(client: &Client, names: Names) -> UnboundedReceiver<(String, Observed)> {
    let (told, news) = unbounded_channel();
    let names = Arc::new(names);
    let (pods, nodes, events) = (Api::all(client.clone()), Api::all(client.clone()), Api::all(client.clone()));
    tokio::spawn(of_pods(client.clone(), pods, Arc::clone(&names), told.clone()));
    tokio::spawn(of_nodes(nodes, Arc::clone(&names), told.clone()));
    tokio::spawn(of_events(events, Arc::clone(&names), told.clone()));
    tokio::spawn(of_kube_proxy(client.clone(), names, told));
    news
}

/// What of the objects is news.
#[derive(Clone, Copy, PartialEq, Eq)]
enum News {
    /// How each is: now, and whenever that changes.
    State,
    /// That one appears or changes; what is there already is from before.
    Change,
}

/// Calls `hear` with the news of all objects, until nobody listens.
async fn follow<K>(api: Api<K>, news: News, told: &Told, mut hear: impl FnMut(&K))
where
    K: kube::Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let mut objects = watcher(api, watcher::Config::default()).default_backoff().boxed();
    loop {
        tokio::select! {
            () = told.closed() => return,
            next = objects.next() => match next {
                Some(Ok(watcher::Event::Apply(object))) => hear(&object),
                Some(Ok(watcher::Event::InitApply(object))) if news == News::State => hear(&object),
                Some(Ok(_)) => {}
                // Begun anew by itself.
                Some(Err(_)) => {}
                None => return,
            },
        }
    }
}

async fn of_pods(client: Client, pods: Api<Pod>, names: Arc<Names>, told: Told) {
    let mut known: BTreeMap<(String, String), Container> = BTreeMap::new();
    let mut read = HashSet::new();
    let hear = |pod: &Pod| {
        let Some(node) = pod.spec.as_ref().and_then(|spec| names.get(spec.node_name.as_ref()?)) else { return };
        let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        for status in statuses {
            let container = container(pod.name_any(), status);
            let key = (pod.name_any(), status.name.clone());
            if known.get(&key) == Some(&container) {
                continue;
            }
            let _ = told.send((node.clone(), Observed::Container(container.clone())));
            let runs = container.state == ContainerState::Running;
            known.insert(key, container);
            let is_dns = pod.labels().get("k8s-app").is_some_and(|app| app == "kube-dns");
            if is_dns && runs && read.insert(pod.uid()) {
                tokio::spawn(of_log(client.clone(), pod.name_any(), node.clone(), told.clone()));
            }
        }
    };
    follow(pods, News::State, &told, hear).await;
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

/// What a replica of cluster DNS complains about from now on.
async fn of_log(client: Client, pod: String, node: String, told: Told) {
    let pods: Api<Pod> = Api::namespaced(client, DNS_NAMESPACE);
    let parameters = LogParams { follow: true, since_seconds: Some(1), ..LogParams::default() };
    let Ok(log) = pods.log_stream(&pod, &parameters).await else { return };
    let mut lines = log.lines();
    loop {
        tokio::select! {
            () = told.closed() => return,
            line = lines.next() => match line {
                Some(Ok(line)) if line.contains("[ERROR]") || line.contains("timeout") => {
                    let _ = told.send((node.clone(), Observed::PodLog(PodLog { pod: pod.clone(), line })));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            },
        }
    }
}

async fn of_nodes(nodes: Api<Node>, names: Arc<Names>, told: Told) {
    let mut known = BTreeMap::new();
    let hear = |node: &Node| {
        let Some(name) = names.get(&node.name_any()) else { return };
        let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
        for condition in conditions {
            let now = NodeCondition {
                condition: condition.type_.clone(),
                status: condition.status.clone(),
                reason: condition.reason.clone().unwrap_or_default(),
            };
            let before = known.insert((name.clone(), now.condition.clone()), now.clone());
            if before.as_ref() != Some(&now) {
                let _ = told.send((name.clone(), Observed::NodeCondition(now)));
            }
        }
    };
    follow(nodes, News::State, &told, hear).await;
}

/// Events that name a node, or that a kubelet wrote.
async fn of_events(events: Api<ApiEvent>, names: Arc<Names>, told: Told) {
    let hear = |event: &ApiEvent| {
        let about = &event.involved_object;
        let object = about.name.clone().unwrap_or_default();
        let host = event.source.as_ref().and_then(|source| source.host.as_ref());
        let Some(node) = host.and_then(|host| names.get(host)).or_else(|| names.get(&object)) else { return };
        let told_of = Event {
            warning: event.type_.as_deref() == Some("Warning"),
            reason: event.reason.clone().unwrap_or_default(),
            about: format!("{}/{object}", about.kind.clone().unwrap_or_default()),
            message: event.message.clone().unwrap_or_default(),
        };
        let _ = told.send((node.clone(), Observed::Event(told_of)));
    };
    follow(events, News::Change, &told, hear).await;
}

/// One configuration for all nodes.
async fn of_kube_proxy(client: Client, names: Arc<Names>, told: Told) {
    let maps: Api<ConfigMap> = Api::namespaced(client, "kube-system");
    let hear = |map: &ConfigMap| {
        let text =
            map.data.as_ref().and_then(|data| data.get("config.conf")).filter(|_| map.name_any() == "kube-proxy");
        let Some(config) = text.and_then(|text| serde_yaml::from_str::<Value>(text).ok()) else { return };
        let number = |name: &str| config["conntrack"][name].as_u64();
        let kube_proxy = KubeProxy {
            mode: config["mode"].as_str().unwrap_or_default().to_owned(),
            conntrack_min: number("min"),
            conntrack_max_per_core: number("maxPerCore"),
        };
        for node in names.values() {
            let _ = told.send((node.clone(), Observed::KubeProxy(kube_proxy.clone())));
        }
    };
    follow(maps, News::State, &told, hear).await;
}
