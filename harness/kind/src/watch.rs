//! What the API server tells about the run's pods and about endpoints, as it changes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::objects::{LABEL, content};

/// A pod of the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodState {
    pub uid: String,
    pub namespace: String,
    /// What it was made from.
    pub content: Option<String>,
    /// The node's name in the API.
    pub node: String,
    pub address: Option<IpAddr>,
    pub running: bool,
    pub ready: bool,
    /// Told to go.
    pub leaving: bool,
}

impl PodState {
    /// It is there and stays.
    pub fn serves(&self) -> bool {
        self.running && self.ready && !self.leaving && self.address.is_some()
    }
}

/// One slice of a Service's endpoints: (pod, address, ready).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    pub service: String,
    pub endpoints: Vec<(String, IpAddr, bool)>,
}

/// All of it at this instant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    pub pods: BTreeMap<String, PodState>,
    pub slices: BTreeMap<String, Slice>,
    /// Pods were listed to the end once.
    pub whole: bool,
}

/// Watches for the length of a trial; a watch that breaks is begun anew.
pub fn start(client: &Client, run_id: &str) -> (watch::Receiver<Seen>, [JoinHandle<()>; 2]) {
    let (sender, receiver) = watch::channel(Seen::default());
    let ours = watcher::Config::default().labels(&format!("{LABEL}={run_id}"));
    let pods: Api<Pod> = Api::all(client.clone());
    let slices: Api<EndpointSlice> = Api::all(client.clone());
    let (of_pods, of_slices) = (sender.clone(), sender);
    let pods = tokio::spawn(follow(pods, ours, pod_state, move |known| {
        of_pods.send_if_modified(|seen| {
            let first = !std::mem::replace(&mut seen.whole, true);
            replace(&mut seen.pods, known) || first
        });
    }));
    let slices = tokio::spawn(follow(slices, watcher::Config::default(), slice_state, move |known| {
        of_slices.send_if_modified(|seen| replace(&mut seen.slices, known));
    }));
    (receiver, [pods, slices])
}

fn replace<S: Clone + PartialEq>(seen: &mut BTreeMap<String, S>, known: &BTreeMap<String, S>) -> bool {
    let changed = seen != known;
    if changed {
        seen.clone_from(known);
    }
    changed
}

/// Keeps what is known up to date. A list that is begun anew is told when it is whole.
async fn follow<K, S>(
    api: Api<K>,
    config: watcher::Config,
    state: impl Fn(&K) -> Option<S>,
    mut tell: impl FnMut(&BTreeMap<String, S>),
) where
    K: kube::Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let mut events = watcher(api, config).default_backoff().boxed();
    let mut known = BTreeMap::new();
    while let Some(event) = events.next().await {
        let (object, whole) = match event {
            Ok(Event::Apply(object)) => (Some((object, false)), true),
            Ok(Event::Delete(object)) => (Some((object, true)), true),
            Ok(Event::InitApply(object)) => (Some((object, false)), false),
            Ok(Event::Init) => {
                known.clear();
                (None, false)
            }
            Ok(Event::InitDone) => (None, true),
            // Begun anew by itself.
            Err(_) => continue,
        };
        if let Some((object, gone)) = object {
            match state(&object).filter(|_| !gone) {
                Some(state) => drop(known.insert(object.name_any(), state)),
                None => drop(known.remove(&object.name_any())),
            }
        }
        if whole {
            tell(&known);
        }
    }
}

fn pod_state(pod: &Pod) -> Option<PodState> {
    let status = pod.status.clone().unwrap_or_default();
    let holds = |wanted: &str| {
        let conditions = status.conditions.iter().flatten();
        conditions.clone().any(|condition| condition.type_ == wanted && condition.status == "True")
    };
    Some(PodState {
        uid: pod.uid()?,
        namespace: pod.namespace()?,
        content: content(pod),
        node: pod.spec.as_ref()?.node_name.clone()?,
        address: status.pod_ip.as_ref().and_then(|ip| ip.parse().ok()),
        running: status.phase.as_deref() == Some("Running"),
        ready: holds("Ready"),
        leaving: pod.metadata.deletion_timestamp.is_some(),
    })
}

fn slice_state(slice: &EndpointSlice) -> Option<Slice> {
    let service = slice.labels().get("kubernetes.io/service-name")?.clone();
    let endpoints = slice.endpoints.iter().filter_map(|endpoint| {
        let pod = endpoint.target_ref.as_ref()?.name.clone()?;
        let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true);
        Some((pod, endpoint.addresses.first()?.parse().ok()?, ready))
    });
    Some(Slice { service, endpoints: endpoints.collect() })
}
