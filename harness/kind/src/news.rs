//! What an agent learns from the API server besides pods and endpoints: states of containers, conditions
//! of nodes, Events, kube-proxy's configuration, and what cluster DNS complains about in its log.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{AsyncBufReadExt, StreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, ContainerStatus, Event as ApiEvent, Node, Pod};
use kube::api::{Api, LogParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt};
use relapse_detectors::signal::{
    self, Collector, CollectorKind, Container, ContainerState, KubeProxy, NodeCondition, Observed, PodLog, Sight,
};
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::objects::DNS_NAMESPACE;

/// By the API's name of a node: the scenario's.
type Names = BTreeMap<String, String>;

/// Where news goes.
#[derive(Clone)]
struct Desk {
    names: Arc<Names>,
    told: UnboundedSender<(String, Observed)>,
    /// Watches that broke and were not begun anew yet.
    broken: Arc<AtomicUsize>,
}

impl Desk {
    fn tell(&self, node: &str, observed: Observed) {
        // Nobody listens any more once the trial is over.
        let _ = self.told.send((node.to_owned(), observed));
    }

    /// All nodes hear of the same API server.
    fn tell_all(&self, observed: &Observed) {
        self.names.values().for_each(|node| self.tell(node, observed.clone()));
    }

    fn sight(&self, sight: Sight) {
        self.tell_all(&Observed::Collector(Collector { collector: CollectorKind::Api, sight }));
    }

    fn broke(&self, why: &watcher::Error) {
        if self.broken.fetch_add(1, Ordering::Relaxed) == 0 {
            self.sight(Sight::Blind(format!("the API server: {why}")));
        }
    }

    fn mended(&self) {
        if self.broken.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.sight(Sight::Ready);
        }
    }
}

/// Watches until nobody listens any more.
pub fn start(client: &Client, names: Names) -> UnboundedReceiver<(String, Observed)> {
    let (told, news) = unbounded_channel();
    let desk = Desk { names: Arc::new(names), told, broken: Arc::default() };
    tokio::spawn(of_pods(client.clone(), desk.clone()));
    tokio::spawn(of_nodes(client.clone(), desk.clone()));
    tokio::spawn(of_events(client.clone(), desk.clone()));
    tokio::spawn(of_kube_proxy(client.clone(), desk));
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

/// Calls `hear` with the news of all objects, until nobody listens. A watch that breaks is begun anew by itself;
/// until then, that is said.
async fn follow<K>(api: Api<K>, news: News, desk: &Desk, mut hear: impl FnMut(&K))
where
    K: kube::Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let objects = watcher(api, watcher::Config::default()).default_backoff();
    let mut objects = objects.take_until(desk.told.closed()).boxed();
    let mut broken = false;
    while let Some(event) = objects.next().await {
        // One that could be resumed lists nothing again.
        let is_whole = matches!(event, Ok(Event::Apply(_) | Event::Delete(_) | Event::InitDone));
        if is_whole && std::mem::take(&mut broken) {
            desk.mended();
        }
        match event {
            Ok(Event::Apply(object)) => hear(&object),
            Ok(Event::InitApply(object)) if news == News::State => hear(&object),
            Ok(_) => {}
            Err(why) => {
                if !std::mem::replace(&mut broken, true) {
                    desk.broke(&why);
                }
            }
        }
    }
}

async fn of_pods(client: Client, desk: Desk) {
    let mut known: BTreeMap<(String, String), Container> = BTreeMap::new();
    let mut read = HashSet::new();
    let hear = |pod: &Pod| {
        let Some(node) = pod.spec.as_ref().and_then(|spec| desk.names.get(spec.node_name.as_ref()?)) else { return };
        let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        for status in statuses {
            let container = container(pod.name_any(), status);
            let key = (pod.name_any(), status.name.clone());
            if known.get(&key) == Some(&container) {
                continue;
            }
            desk.tell(node, Observed::Container(container.clone()));
            let runs = container.state == ContainerState::Running;
            // A container that is started again has another log.
            let log = (pod.uid(), container.restarts);
            known.insert(key, container);
            let is_dns = pod.labels().get("k8s-app").is_some_and(|app| app == "kube-dns");
            if is_dns && runs && read.insert(log) {
                tokio::spawn(of_log(client.clone(), pod.name_any(), node.clone(), desk.clone()));
            }
        }
    };
    follow(Api::all(client.clone()), News::State, &desk, hear).await;
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
async fn of_log(client: Client, pod: String, node: String, desk: Desk) {
    let pods: Api<Pod> = Api::namespaced(client, DNS_NAMESPACE);
    let parameters = LogParams { follow: true, since_seconds: Some(1), ..LogParams::default() };
    let blind = |why: &dyn std::fmt::Display| {
        let sight = Sight::Blind(format!("the log of {pod}: {why}"));
        desk.tell(&node, Observed::Collector(Collector { collector: CollectorKind::PodLogs, sight }));
    };
    let log = match pods.log_stream(&pod, &parameters).await {
        Ok(log) => log,
        Err(why) => return blind(&why),
    };
    // It ends with its container.
    let mut lines = log.lines().take_until(desk.told.closed()).boxed();
    while let Some(line) = lines.next().await {
        match line {
            Ok(line) if line.contains("[ERROR]") || line.contains("timeout") => {
                desk.tell(&node, Observed::PodLog(PodLog { pod: pod.clone(), line }));
            }
            Ok(_) => {}
            Err(why) => return blind(&why),
        }
    }
}

async fn of_nodes(client: Client, desk: Desk) {
    let mut known = BTreeMap::new();
    let hear = |node: &Node| {
        let Some(name) = desk.names.get(&node.name_any()) else { return };
        let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
        for condition in conditions {
            let now = NodeCondition {
                condition: condition.type_.clone(),
                status: condition.status.clone(),
                reason: condition.reason.clone().unwrap_or_default(),
            };
            let before = known.insert((name.clone(), now.condition.clone()), now.clone());
            if before.as_ref() != Some(&now) {
                desk.tell(name, Observed::NodeCondition(now));
            }
        }
    };
    follow(Api::all(client), News::State, &desk, hear).await;
}

/// Events that name a node, or that a kubelet wrote.
async fn of_events(client: Client, desk: Desk) {
    let hear = |event: &ApiEvent| {
        let about = &event.involved_object;
        let object = about.name.clone().unwrap_or_default();
        let host = event.source.as_ref().and_then(|source| source.host.as_ref());
        let by_host = host.and_then(|host| desk.names.get(host));
        let Some(node) = by_host.or_else(|| desk.names.get(&object)) else { return };
        let told_of = signal::Event {
            warning: event.type_.as_deref() == Some("Warning"),
            reason: event.reason.clone().unwrap_or_default(),
            about: format!("{}/{object}", about.kind.clone().unwrap_or_default()),
            message: event.message.clone().unwrap_or_default(),
        };
        desk.tell(node, Observed::Event(told_of));
    };
    follow(Api::all(client), News::Change, &desk, hear).await;
}

/// One configuration for all nodes.
async fn of_kube_proxy(client: Client, desk: Desk) {
    let maps: Api<ConfigMap> = Api::namespaced(client, "kube-system");
    let hear = |map: &ConfigMap| {
        let text =
            map.data.as_ref().and_then(|data| data.get("config.conf")).filter(|_| map.name_any() == "kube-proxy");
        let Some(config) = text.and_then(|text| serde_yaml::from_str::<Value>(text).ok()) else { return };
        let number = |name: &str| config["conntrack"][name].as_u64();
        desk.tell_all(&Observed::KubeProxy(KubeProxy {
            mode: config["mode"].as_str().unwrap_or_default().to_owned(),
            conntrack_min: number("min"),
            conntrack_max_per_core: number("maxPerCore"),
        }));
    };
    follow(maps, News::State, &desk, hear).await;
}
