//! A scenario's cluster on a real one: its nodes in the fabric, its pods, Services and replicas of cluster
//! DNS as objects of the API, the outside world around it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, PodSpec, Service};
use kube::Client;
use kube::api::Api;
use relapse_detectors::signal::Observed;
use relapse_kernel::{NetNs, process};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::build::{build_network, fit, keep_or_make, template};
use super::nodes::Attached;
use super::objects::{self, DNS_NAMESPACE, NAMESPACE};
use super::pods::{self, Plugged, until};
use super::watch::{PodState, Seen};
use super::{Ground, api, cni, dns, kube_proxy, news, servers};
use crate::cluster::fabric::Fabric;
use crate::cluster::pods::with_passer_by;
use crate::cluster::{Cluster, Inventory, KubeProxy, LeftBehind, Node, Office, Outside, Pod, PodEntry, ServiceEntry};
use crate::fault::{FaultError, Job};
use crate::plan::{ClusterPlan, NodeId, OfficeId, OutsideId, Place, PodId, PodRole};

/// A pod takes a second to come and another to go, and some of the machine.
const CHURN: (Duration, Duration) = (Duration::from_millis(2400), Duration::from_millis(100));

/// A scenario's cluster, on a real one.
pub struct KindCluster {
    plan: ClusterPlan,
    ground: Ground,
    client: Client,
    fabric: Fabric,
    nodes: Vec<Attached>,
    outside: Vec<Outside>,
    offices: Vec<Office>,
    /// By number; what was deleted is remembered as it was.
    pods: Mutex<Vec<Plugged>>,
    coming_back: tokio::sync::Mutex<()>,
    seen: watch::Receiver<Seen>,
    watches: Mutex<Vec<JoinHandle<()>>>,
    inventory: watch::Sender<Inventory>,
    pause_image: String,
    /// What kubeadm's Deployment of CoreDNS runs.
    replica: Option<PodSpec>,
}

/// Pods of the trial before that this one does not want.
type Strangers = Vec<(String, PodState)>;

impl KindCluster {
    /// Builds everything the plan names; pods get the addresses the node's plugins give.
    ///
    /// # Errors
    /// What was refused, in words. What was made by then is found, and the cluster thrown away.
    pub async fn up(ground: &Ground, plan: &ClusterPlan) -> Result<Arc<Self>, String> {
        let mut plan = with_passer_by(plan);
        fit(&mut plan, ground)?;
        let client = api::connect(&ground.cluster.names).await?;
        let (seen, watches) = super::watch::start(&client, &ground.run_id);
        let built = build_network(&plan, ground).map_err(|e| format!("failed to {e}"))?;
        let (fabric, nodes, outside, offices) = built;
        let replica = if plan.dns.is_some() { Some(template(&client).await?) } else { None };
        let node = ground.cluster.nodes.first().ok_or("the cluster has no nodes")?;
        let mut cluster = Self {
            client,
            fabric,
            nodes,
            outside,
            offices,
            pods: Mutex::default(),
            coming_back: tokio::sync::Mutex::default(),
            seen,
            watches: Mutex::new(watches.into()),
            inventory: watch::Sender::default(),
            pause_image: cni::pause_image(node)?,
            replica,
            ground: ground.clone(),
            plan,
        };
        let strangers = cluster.send_strangers_away().await?;
        cluster.make_objects().await?;
        let made = cluster.make_all_pods(&strangers).await?;
        cluster.gone(&strangers, None).await?;
        for (pod, made) in cluster.plan.pods.iter_mut().zip(&made) {
            pod.address = made.address;
        }
        cluster.pods = Mutex::new(made);
        cluster.endpoints_there().await?;
        let cluster = Arc::new(cluster);
        cluster.tell();
        cluster.lock_watches().push(tokio::spawn(follow(Arc::downgrade(&cluster), cluster.seen.clone())));
        Ok(cluster)
    }

    /// Services and the Corefile, unless they are there from the trial before.
    async fn make_objects(&self) -> Result<(), String> {
        let run = self.run();
        let dns = self.plan.dns.as_ref().map(|dns| dns.service.0);
        let services = self.plan.services.iter().enumerate().filter(|(number, _)| Some(*number) != dns);
        let services: Vec<Service> = services.map(|(_, plan)| objects::service(plan, &run)).collect();
        let maps: Vec<ConfigMap> =
            dns::corefile(&self.plan).map(|text| objects::corefile(&text, &run)).into_iter().collect();
        let ingresses = self.plan.pods.iter().filter_map(|pod| match pod.role {
            PodRole::Ingress { backend, port } => {
                let to = SocketAddr::new(self.plan.services[backend.0].address, port);
                Some(objects::ingress_configuration(&pod.name, port, to, &run))
            }
            PodRole::Plain | PodRole::Dns => None,
        });
        keep_or_make(&Api::namespaced(self.client.clone(), NAMESPACE), &run, ingresses.collect::<Vec<_>>()).await?;
        keep_or_make(&Api::namespaced(self.client.clone(), NAMESPACE), &run, services).await?;
        keep_or_make(&Api::namespaced(self.client.clone(), DNS_NAMESPACE), &run, maps).await
    }

    fn run(&self) -> objects::Run {
        objects::Run { id: self.ground.run_id.clone(), scenario: self.ground.scenario.clone() }
    }

    /// Sends away what no pod of this plan is, and says what that was.
    async fn send_strangers_away(&self) -> Result<Strangers, String> {
        let wanted: Vec<_> = (0..self.plan.pods.len()).map(|number| self.object(PodId(number))).collect();
        let stays = |name: &str, pod: &PodState| {
            let same = |object: &objects::PodObject| {
                object.metadata.name.as_deref() == Some(name) && pod.content == objects::content(object)
            };
            pod.serves() && wanted.iter().any(same)
        };
        let mut seen = self.seen.clone();
        let all =
            until(&mut seen, || "the API server told of pods".into(), |seen| seen.whole.then(|| seen.pods.clone()))
                .await?;
        let leave: Strangers = all.into_iter().filter(|(name, pod)| !stays(name, pod)).collect();
        for (name, pod) in &leave {
            pods::send_away(&self.client, name, &pod.namespace).await?;
        }
        Ok(leave)
    }

    /// Waits until they are gone, or the one of this name is.
    async fn gone(&self, strangers: &Strangers, name: Option<&str>) -> Result<(), String> {
        let gone = |seen: &Seen| {
            let still = |(one, pod): &(String, PodState)| {
                name.is_none_or(|name| name == one) && seen.pods.get(one).is_some_and(|now| now.uid == pod.uid)
            };
            (!strangers.iter().any(still)).then_some(())
        };
        until(&mut self.seen.clone(), || "pods of other trials were gone".into(), gone).await
    }

    /// All pods at once.
    async fn make_all_pods(&self, strangers: &Strangers) -> Result<Vec<Plugged>, String> {
        let jobs = (0..self.plan.pods.len()).map(|number| async move {
            self.gone(strangers, Some(&self.plan.pods[number].name)).await?;
            self.make_pod(PodId(number)).await
        });
        futures_util::future::join_all(jobs).await.into_iter().collect()
    }

    async fn make_pod(&self, id: PodId) -> Result<Plugged, String> {
        let spec = &self.plan.pods[id.0];
        let there = self.seen.borrow().pods.get(&spec.name).cloned();
        let state = match there {
            Some(state) => state,
            None => pods::make(&self.client, &mut self.seen.clone(), &self.object(id), spec.role).await?,
        };
        pods::plug(&self.plan, id, &state, &self.nodes[spec.node.0].node().ns)
    }

    fn object(&self, id: PodId) -> objects::PodObject {
        let spec = &self.plan.pods[id.0];
        let node = &self.ground.cluster.nodes[spec.node.0].name;
        match (&self.replica, spec.role) {
            (_, PodRole::Ingress { .. }) if self.ground.nginx.is_some() => {
                let image = self.ground.nginx.as_deref().unwrap_or_default();
                objects::ingress(&spec.name, node, image, &self.run())
            }
            (Some(template), PodRole::Dns) => objects::replica(&spec.name, node, template, &self.run()),
            _ => objects::plain(&self.plan, id, node, &self.pause_image, &self.run()),
        }
    }

    /// Every Service has its endpoints.
    async fn endpoints_there(&self) -> Result<(), String> {
        let all = |seen: &Seen| {
            let whole = |entry: &ServiceEntry, wanted: usize| entry.ready.len() >= wanted;
            let entries = self.services(seen);
            entries.iter().zip(&self.plan.services).all(|(entry, plan)| whole(entry, plan.pods.len())).then_some(())
        };
        until(&mut self.seen.clone(), || "all Services had their endpoints".into(), all).await
    }

    /// Services and their ready endpoints, by the names of the scenario.
    fn services(&self, seen: &Seen) -> Vec<ServiceEntry> {
        let entry = |plan: &crate::plan::ServicePlan| {
            let slices = seen.slices.values().filter(|slice| slice.service == plan.name);
            let ready = slices.flat_map(|slice| &slice.endpoints).filter(|(_, _, ready)| *ready);
            let with_node = ready.filter_map(|(pod, address, _)| {
                let known = self.plan.pods.iter().find(|known| known.name == *pod)?;
                Some((pod.clone(), *address, self.plan.nodes[known.node.0].name.clone()))
            });
            ServiceEntry { name: plan.name.clone(), address: plan.address, ready: with_node.collect() }
        };
        self.plan.services.iter().map(entry).collect()
    }

    /// Lets the inventory follow what the API server told and what was plugged in.
    fn tell(&self) {
        let seen = self.seen.borrow().clone();
        let plugged = self.lock_pods();
        let there = |(spec, plugged): &(&crate::plan::PodPlan, &Plugged)| {
            let pod = seen.pods.get(&spec.name);
            !plugged.leaving && pod.is_some_and(|pod| pod.uid == plugged.uid && !pod.leaving)
        };
        let pods = self.plan.pods.iter().zip(plugged.iter()).filter(there).map(|(spec, plugged)| PodEntry {
            name: spec.name.clone(),
            node: self.plan.nodes[spec.node.0].name.clone(),
            address: plugged.address,
            link: plugged.link.clone(),
        });
        let now = Inventory { pods: pods.collect(), services: self.services(&seen) };
        self.inventory.send_if_modified(|known| {
            let changed = *known != now;
            if changed {
                *known = now;
            }
            changed
        });
    }

    fn lock_pods(&self) -> MutexGuard<'_, Vec<Plugged>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_watches(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn delete(&self, id: PodId) -> Result<(), String> {
        let spec = &self.plan.pods[id.0];
        let plugged = self.lock_pods()[id.0].clone();
        pods::send_away(&self.client, &spec.name, objects::namespace(spec.role)).await?;
        let here = |seen: &Seen| seen.pods.get(&spec.name).filter(|pod| pod.uid == plugged.uid).cloned();
        let told = |seen: &Seen| here(seen).is_none_or(|pod| pod.leaving).then_some(());
        until(&mut self.seen.clone(), || format!("pod {} was told to go", spec.name), told).await?;
        self.lock_pods()[id.0].leaving = true;
        self.tell();
        let gone = |seen: &Seen| here(seen).is_none().then_some(());
        until(&mut self.seen.clone(), || format!("pod {} was gone", spec.name), gone).await?;
        // As a CNI does: with the veth, when its processes have ended.
        let node = &self.nodes[spec.node.0].node().ns;
        pods::link_gone(node, &plugged.link).await?;
        pods::unplug(&self.plan, plugged.address, node).map_err(|e| format!("failed to {e}"))
    }

    async fn restore(&self, id: PodId) -> Result<(), String> {
        let spec = &self.plan.pods[id.0];
        if !self.lock_pods()[id.0].leaving {
            return Ok(());
        }
        // The plugins give the address behind the last they gave: one pod at a time.
        let one = self.coming_back.lock().await;
        let node = &self.ground.cluster.nodes[spec.node.0];
        cni::next_address(node, spec.address).map_err(|e| format!("{}: {e}", node.name))?;
        let made = self.make_pod(id).await?;
        drop(one);
        if made.address != spec.address {
            return Err(format!("pod {} came back as {}, not as {}", spec.name, made.address, spec.address));
        }
        self.lock_pods()[id.0] = made;
        self.tell();
        Ok(())
    }

    /// A replica is left out first, then told to end: what is under way is still answered.
    async fn stop_replica(&self, id: PodId) -> Result<(), String> {
        let spec = &self.plan.pods[id.0];
        if spec.role != PodRole::Dns {
            return Err(format!("pod {} runs nothing of its own", spec.name));
        }
        pods::gate(&self.client, &spec.name, false).await?;
        let left_out = |seen: &Seen| {
            let mut endpoints = seen.slices.values().flat_map(|slice| &slice.endpoints);
            (!endpoints.any(|(pod, _, ready)| *pod == spec.name && *ready)).then_some(())
        };
        until(&mut self.seen.clone(), || format!("{} was left out", spec.name), left_out).await?;
        self.tell();
        let uid = {
            let pod = &mut self.lock_pods()[id.0];
            pod.stopped = true;
            pod.uid.clone()
        };
        for (pid, command) in pods::processes(&uid) {
            if command != "pause" {
                process::ask_to_end(pid).map_err(|e| format!("failed to {e}"))?;
            }
        }
        Ok(())
    }

    async fn start_replica(&self, id: PodId) -> Result<(), String> {
        // Its process has ended: a pod takes its place, by the same name and address.
        if !self.lock_pods()[id.0].stopped {
            return self.restore(id).await;
        }
        self.delete(id).await?;
        self.restore(id).await?;
        let spec = &self.plan.pods[id.0];
        let served = |seen: &Seen| {
            let mut endpoints = seen.slices.values().flat_map(|slice| &slice.endpoints);
            endpoints.any(|(pod, _, ready)| *pod == spec.name && *ready).then_some(())
        };
        until(&mut self.seen.clone(), || format!("{} was an endpoint", spec.name), served).await?;
        self.tell();
        Ok(())
    }

    /// Something of its own runs in this pod, and goes on between trials.
    fn lives_on(&self, id: PodId) -> bool {
        self.plan.pods[id.0].role == PodRole::Dns || self.serves_itself(Place::Pod(id))
    }

    /// Hosts outside on which a third party's server runs, or the others.
    fn outside_served(&self, served: bool) -> impl Iterator<Item = &Outside> {
        let all = self.outside.iter().enumerate();
        all.filter(move |(id, _)| self.serves_itself(Place::Outside(OutsideId(*id))) == served).map(|(_, host)| host)
    }

    /// The nodes leave the fabric. Pods and Services stay for the next trial of the scenario, which sends
    /// away what it does not want; all of them go with the cluster. Goes on past what fails.
    fn take_down(&self) -> LeftBehind {
        let mut left = Vec::new();
        let pods = self.lock_pods().clone();
        for (number, (spec, pod)) in self.plan.pods.iter().zip(&pods).enumerate() {
            if self.serves_itself(Place::Pod(PodId(number)))
                && let Err(e) = pods::end_connections(&pod.ns)
            {
                left.push(format!("pod {}: failed to {e}", spec.name));
            }
            if let Err(e) = pods::unplug(&self.plan, pod.address, &self.nodes[spec.node.0].node().ns) {
                left.push(format!("pod {}: failed to {e}", spec.name));
            }
        }
        left.extend(self.outside_served(true).flat_map(servers::unplug));
        left.extend(self.nodes.iter().flat_map(Attached::detach));
        self.lock_watches().drain(..).for_each(|watch| watch.abort());
        left
    }
}

/// Ends with the cluster.
async fn follow(cluster: Weak<KindCluster>, mut seen: watch::Receiver<Seen>) {
    while seen.changed().await.is_ok() {
        let Some(cluster) = cluster.upgrade() else { return };
        cluster.tell();
    }
}

fn failed(what: impl Into<String>) -> impl FnOnce(String) -> FaultError {
    let what = what.into();
    move |why| FaultError::Refused { what, why }
}

impl Cluster for KindCluster {
    fn plan(&self) -> &ClusterPlan {
        &self.plan
    }
    fn node(&self, id: NodeId) -> &Node {
        self.nodes[id.0].node()
    }
    fn pod(&self, id: PodId) -> Pod {
        let plugged = self.lock_pods()[id.0].clone();
        Pod { name: self.plan.pods[id.0].name.clone(), ns: plugged.ns, link: plugged.link }
    }
    fn outside(&self, id: OutsideId) -> &Outside {
        &self.outside[id.0]
    }
    fn office(&self, id: OfficeId) -> &Office {
        &self.offices[id.0]
    }
    fn fabric(&self) -> &NetNs {
        &self.fabric.ns
    }

    fn inventory(&self) -> watch::Receiver<Inventory> {
        self.inventory.subscribe()
    }

    fn delete_pod(&self, id: PodId) -> Job<'_, Result<(), FaultError>> {
        Box::pin(async move { self.delete(id).await.map_err(failed("delete a pod")) })
    }

    fn restore_pod(&self, id: PodId) -> Job<'_, Result<(), FaultError>> {
        Box::pin(async move { self.restore(id).await.map_err(failed("put a pod back")) })
    }

    fn churn(&self, present: bool) -> Job<'_, Result<(), FaultError>> {
        let passer_by = PodId(self.plan.pods.len() - 1);
        if present { self.restore_pod(passer_by) } else { self.delete_pod(passer_by) }
    }

    fn churn_pace(&self) -> (Duration, Duration) {
        CHURN
    }

    fn news(&self) -> Option<mpsc::UnboundedReceiver<(String, Observed)>> {
        let names = self.ground.cluster.nodes.iter().zip(&self.plan.nodes);
        let names = names.map(|(kind, node)| (kind.name.clone(), node.name.clone())).collect();
        Some(news::start(&self.client, names))
    }

    fn kube_proxy(&self, limit: u64) -> Option<Result<KubeProxy, FaultError>> {
        Some(kube_proxy::prepare(&self.nodes[0].node().ns, limit))
    }

    fn serves_itself(&self, place: Place) -> bool {
        match place {
            Place::Pod(id) => {
                self.ground.nginx.is_some() && matches!(self.plan.pods[id.0].role, PodRole::Ingress { .. })
            }
            Place::Outside(id) => self.ground.server_on(&self.plan.outside[id.0].name).is_some(),
            Place::Node(_) | Place::Office(_) => false,
        }
    }

    fn own_namespaces(&self) -> Vec<NetNs> {
        let hops = self.outside.iter().filter_map(|o| o.load_balancer.clone());
        let outside = self.outside_served(false).map(|o| o.ns.clone()).chain(hops);
        let offices = self.offices.iter().flat_map(|o| [o.client.clone(), o.gateway.clone()]);
        // What runs in a pod or a container by itself lives on, with its listening sockets.
        let all = self.lock_pods().clone().into_iter().enumerate();
        let pods: Vec<NetNs> = all.filter(|(id, _)| !self.lives_on(PodId(*id))).map(|(_, pod)| pod.ns).collect();
        std::iter::once(self.fabric.ns.clone()).chain(outside).chain(offices).chain(pods).collect()
    }

    fn inodes(&self) -> Vec<u64> {
        let all = self.ground.cluster.nodes.iter().filter_map(|node| NetNs::of_process(&node.name, node.pid).ok());
        let pods: Vec<NetNs> = self.lock_pods().iter().map(|pod| pod.ns.clone()).collect();
        let served = self.outside_served(true).map(|outside| outside.ns.clone());
        all.chain(pods).chain(served).chain(self.own_namespaces()).map(|ns| ns.inode()).collect()
    }

    fn down(&self) -> Job<'_, LeftBehind> {
        Box::pin(async { self.take_down() })
    }

    fn set_running(&self, id: PodId, running: bool) -> Job<'_, Result<(), FaultError>> {
        Box::pin(async move {
            if running {
                self.start_replica(id).await.map_err(failed("start a replica"))
            } else {
                self.stop_replica(id).await.map_err(failed("stop a replica"))
            }
        })
    }
}
