//! A scenario's cluster on a real cluster: nodes attached to the fabric; pods, Services and cluster DNS replicas as API
//! objects; hosts outside.

mod changes;
mod exports;
mod ingress;
mod make;
mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use k8s_openapi::api::core::v1::PodSpec;
use kube::Client;
use relapse_detectors::signal::{Endpoint, Endpoints, Observed};
use relapse_kernel::NetNs;
use relapse_lab::cluster::fabric::Fabric;
use relapse_lab::cluster::ingress::IngressLogs;
use relapse_lab::cluster::paths::Paths;
use relapse_lab::cluster::pods::{passer_by, with_passer_by};
use relapse_lab::cluster::{
    Cluster, Exports, Inventory, KubeProxy, LeftBehind, Node, Office, Outside, Pod, PodEntry, ServiceRules,
};
use relapse_lab::job::{FaultError, Job};
use relapse_model::{ClusterPlan, NodeId, OfficeId, OutsideId, Place, PodId, PodRole, ServiceId};
use tokio::sync::{mpsc, watch};

use super::build::{build_network, fit, template};
use super::derived::Watched;
use super::ground::Ground;
use super::nodes::Attached;
use super::pods::{self, Plugged};
use super::service_rules::Rules;
use super::watch::{Endpoint as Behind, Seen, is_leaving};
use super::{api, cni, failed, failures, feed, kube_proxy, servers};

/// Creating a pod takes about a second, deleting it another, and both cost CPU time.
const CHURN: (Duration, Duration) = (Duration::from_millis(2400), Duration::from_millis(100));

/// A scenario's cluster on a real cluster.
pub struct KindCluster {
    plan: ClusterPlan,
    ground: Ground,
    client: Client,
    fabric: Fabric,
    paths: Paths,
    nodes: Vec<Attached>,
    outside: Vec<Outside>,
    offices: Vec<Office>,
    /// By pod number. A deleted pod keeps its last state.
    pods: Mutex<Vec<Plugged>>,
    coming_back: tokio::sync::Mutex<()>,
    /// Pods that their Services do not select.
    unselected: Mutex<BTreeSet<PodId>>,
    /// Rules that a fault has changed, as kube-proxy wrote them.
    originals: Mutex<BTreeMap<(NodeId, ServiceId), Rules>>,
    seen: Seen,
    /// What series are derived from, once they are recorded.
    objects: OnceLock<Watched>,
    inventory: watch::Sender<Inventory>,
    pause_image: String,
    /// The pod template of kubeadm's CoreDNS Deployment.
    replica: Option<PodSpec>,
    ingress_log: IngressLogs,
}

impl KindCluster {
    /// Builds everything in the plan. Pods get their addresses from the node's CNI plugins.
    ///
    /// # Errors
    /// The step that failed. Whatever was made before it is detected, and the cluster is replaced.
    pub async fn up(ground: &Ground, plan: &ClusterPlan) -> Result<Arc<Self>, String> {
        let mut plan = with_passer_by(plan);
        fit(&mut plan, ground)?;
        let client = api::connect(&ground.cluster.names).await?;
        let seen = Seen::start(&client, &ground.run_id).await?;
        let built = build_network(&plan, ground).await.map_err(failed)?;
        let (fabric, paths, nodes, outside, offices) = built;
        let replica = if plan.dns.is_some() { Some(template(&client).await?) } else { None };
        let node = ground.cluster.nodes.first().ok_or("the cluster has no nodes")?;
        let mut cluster = Self {
            client,
            fabric,
            paths,
            nodes,
            outside,
            offices,
            pods: Mutex::default(),
            coming_back: tokio::sync::Mutex::default(),
            unselected: Mutex::default(),
            originals: Mutex::default(),
            seen,
            objects: OnceLock::new(),
            inventory: watch::Sender::default(),
            pause_image: cni::pause_image(node)?,
            replica,
            ingress_log: IngressLogs::default(),
            ground: ground.clone(),
            plan,
        };
        let unwanted = cluster.delete_unwanted_pods().await?;
        cluster.make_objects().await?;
        let made = cluster.make_all_pods(&unwanted).await?;
        cluster.until_gone(&unwanted, None).await?;
        for (pod, made) in cluster.plan.pods.iter_mut().zip(&made) {
            pod.address = made.address;
        }
        cluster.pods = Mutex::new(made);
        cluster.until_endpoints_are_ready().await?;
        cluster.start_ingresses().await?;
        // Pods of the previous scenario were in the fabric until they were deleted.
        cluster.nodes.iter().try_for_each(Attached::forget_flows)?;
        let cluster = Arc::new(cluster);
        cluster.update_inventory();
        tokio::spawn(follow(Arc::downgrade(&cluster), cluster.seen.clone()));
        Ok(cluster)
    }

    /// Services and their ready endpoints, by the scenario's names.
    fn services(&self) -> Vec<Endpoints> {
        let ready = self.seen.endpoints();
        let entry = |plan: &relapse_model::ServicePlan| {
            let behind = ready.iter().filter(|endpoint| endpoint.service == plan.name);
            let with_node = behind.filter_map(|Behind { pod, address, .. }| {
                let known = self.plan.pods.iter().find(|known| known.name == *pod)?;
                let node = self.plan.nodes[known.node.0].name.clone();
                Some(Endpoint { pod: pod.clone(), address: *address, node })
            });
            Endpoints { service: plan.name.clone(), address: plan.address, ready: with_node.collect() }
        };
        self.plan.services.iter().map(entry).collect()
    }

    /// Updates the inventory from the API objects and the attached pods.
    fn update_inventory(&self) {
        let plugged = self.lock_pods();
        let is_present = |(spec, plugged): &(&relapse_model::PodPlan, &Plugged)| {
            let pod = self.seen.same_pod(&spec.name, &plugged.uid);
            // A pod on the host network has neither address nor link of its own.
            !spec.host_network && !plugged.leaving && pod.is_some_and(|pod| !is_leaving(&pod))
        };
        let pods = self.plan.pods.iter().zip(plugged.iter()).filter(is_present).map(|(spec, plugged)| PodEntry {
            name: spec.name.clone(),
            node: self.plan.nodes[spec.node.0].name.clone(),
            address: plugged.address,
            link: plugged.link.clone(),
        });
        let now = Inventory { pods: pods.collect(), services: self.services() };
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

    /// Whether this pod runs a server of its own that keeps running between trials.
    fn lives_on(&self, id: PodId) -> bool {
        self.plan.pods[id.0].role == PodRole::Dns || self.serves_itself(Place::Pod(id))
    }

    /// Hosts outside that run a third party's server (`served`), or those that do not.
    fn outside_served(&self, served: bool) -> impl Iterator<Item = &Outside> {
        let all = self.outside.iter().enumerate();
        all.filter(move |(id, _)| self.serves_itself(Place::Outside(OutsideId(*id))) == served).map(|(_, host)| host)
    }

    /// Detaches the nodes from the fabric. Pods and Services stay for the next trial of the scenario, which deletes the
    /// ones it does not want, and are removed with the cluster. Continues after errors.
    fn take_down(&self) -> LeftBehind {
        let mut left = Vec::new();
        let pods = self.lock_pods().clone();
        for (number, (spec, pod)) in self.plan.pods.iter().zip(&pods).enumerate() {
            let serves = self.serves_itself(Place::Pod(PodId(number)));
            let ended = serves.then(|| pods::end_connections(&pod.ns, spec.host_network.then_some(pod.address)));
            let unplugged = pods::unplug(&self.plan, pod.address, &self.nodes[spec.node.0].node().ns);
            left.extend(failures(&format!("pod {}", spec.name), ended.into_iter().chain([unplugged])));
        }
        left.extend(self.outside_served(true).flat_map(servers::unplug));
        left.extend(self.nodes.iter().flat_map(Attached::detach));
        left.extend(self.nodes.iter().filter_map(|node| node.forget_flows().err()));
        left
    }
}

/// Updates the inventory on every change until the cluster is dropped.
async fn follow(cluster: Weak<KindCluster>, mut seen: Seen) {
    while seen.changed().await {
        let Some(cluster) = cluster.upgrade() else { return };
        cluster.update_inventory();
    }
}

fn refused(what: &str) -> impl FnOnce(String) -> FaultError {
    move |why| FaultError::Refused { what: what.to_owned(), why }
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
        &self.fabric.at.ns
    }
    fn paths(&self) -> &Paths {
        &self.paths
    }

    fn inventory(&self) -> watch::Receiver<Inventory> {
        self.inventory.subscribe()
    }

    fn delete_pod(&self, id: PodId) -> Job<'_, Result<(), FaultError>> {
        Box::pin(async move { self.delete(id).await.map_err(refused("delete a pod")) })
    }

    fn restore_pod(&self, id: PodId) -> Job<'_, Result<(), FaultError>> {
        Box::pin(async move {
            self.restore(id).await.map_err(refused("put a pod back"))?;
            self.set_ready(id, true).await.map_err(refused("put a pod back"))
        })
    }

    fn add_pod(&self, id: PodId) -> Job<'_, Result<(), FaultError>> {
        Box::pin(async move { self.restore(id).await.map_err(refused("put a pod back")) })
    }

    fn crash(&self, id: PodId) -> Job<'_, Result<(), FaultError>> {
        Box::pin(async move { self.kill(id).map_err(refused("kill a container")) })
    }

    fn restarted(&self, id: PodId, _: Duration) -> Job<'_, Result<(), FaultError>> {
        Box::pin(async move { self.until_restarted(id).await.map_err(refused("wait for a container")) })
    }

    fn churn(&self, present: bool) -> Job<'_, Result<(), FaultError>> {
        match passer_by(&self.plan) {
            Some(id) if present => self.restore_pod(id),
            Some(id) => self.delete_pod(id),
            None => Box::pin(async { Ok(()) }),
        }
    }

    fn churn_pace(&self) -> (Duration, Duration) {
        CHURN
    }

    fn news(&self) -> Option<mpsc::UnboundedReceiver<(String, Observed)>> {
        let names = self.ground.cluster.nodes.iter().zip(&self.plan.nodes);
        let names = names.map(|(kind, node)| (kind.name.clone(), node.name.clone())).collect();
        Some(feed::start(&self.client, names))
    }

    fn exports(&self) -> Exports {
        self.all_exports()
    }

    fn kube_proxy(&self, limit: u64) -> Option<Result<KubeProxy, FaultError>> {
        Some(kube_proxy::prepare(&self.nodes[0].node().ns, limit))
    }

    fn write_service_rules(
        &self,
        node: NodeId,
        service: ServiceId,
        to: ServiceRules,
    ) -> Job<'_, Result<(), FaultError>> {
        Box::pin(async move { self.write_rules(node, service, to).await.map_err(refused("write rules of a Service")) })
    }

    fn service_rules(&self, node: NodeId, service: ServiceId) -> Job<'_, Result<Vec<String>, FaultError>> {
        Box::pin(async move { self.rules_of(node, service).await.map_err(refused("read rules of a Service")) })
    }

    fn run_kube_proxy(&self, node: NodeId, running: bool) -> Job<'_, Result<(), FaultError>> {
        let what = if running { "let kube-proxy continue" } else { "suspend kube-proxy" };
        Box::pin(async move { self.run_proxy(node, running).await.map_err(refused(what)) })
    }

    fn set_endpoint(&self, id: PodId, is_endpoint: bool) -> Job<'_, Result<(), FaultError>> {
        Box::pin(
            async move { self.select(id, is_endpoint).await.map_err(refused("change the endpoints of a Service")) },
        )
    }

    fn ingress_log(&self) -> &IngressLogs {
        &self.ingress_log
    }

    fn ingress_port(&self, id: PodId) -> Result<u16, FaultError> {
        self.configured_port(id).map_err(refused("read the configuration of an ingress"))
    }

    fn configure_ingress(&self, id: PodId, port: u16) -> Job<'_, Result<(), FaultError>> {
        Box::pin(async move { self.configure(id, port).await.map_err(refused("configure an ingress")) })
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
        // A server in a pod or container keeps running, with its listening sockets.
        let all = self.lock_pods().clone().into_iter().enumerate();
        let pods: Vec<NetNs> = all.filter(|(id, _)| !self.lives_on(PodId(*id))).map(|(_, pod)| pod.ns).collect();
        std::iter::once(self.fabric.at.ns.clone()).chain(outside).chain(offices).chain(pods).collect()
    }

    fn inodes(&self) -> Vec<u64> {
        let all = self.ground.cluster.nodes.iter().filter_map(|node| node.namespace().ok());
        let pods: Vec<NetNs> = self.lock_pods().iter().map(|pod| pod.ns.clone()).collect();
        let served = self.outside_served(true).map(|outside| outside.ns.clone());
        all.chain(pods).chain(served).chain(self.own_namespaces()).map(|ns| ns.inode()).collect()
    }

    fn down(&self) -> Job<'_, LeftBehind> {
        Box::pin(async { self.take_down() })
    }

    fn set_running(&self, id: PodId, running: bool) -> Job<'_, Result<(), FaultError>> {
        Box::pin(async move {
            if self.plan.pods[id.0].role != PodRole::Dns {
                self.set_ready(id, running).await.map_err(refused("change whether a pod is ready"))
            } else if running {
                self.start_replica(id).await.map_err(refused("start a replica"))
            } else {
                self.stop_replica(id).await.map_err(refused("stop a replica"))
            }
        })
    }
}
