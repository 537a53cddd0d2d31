//! A scenario's cluster on a real one: its nodes in the fabric, its pods, Services and replicas of cluster
//! DNS as objects of the API, the outside world around it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, PodSpec, Service};
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::{Client, ResourceExt};
use relapse_kernel::{NetNs, process};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::nodes::{Attached, attach};
use super::objects::{self, DNS_NAMESPACE, LABEL, NAMESPACE};
use super::pods::{self, Plugged, until};
use super::watch::Seen;
use super::{Ground, api, cni, dns, guard};
use crate::cluster::fabric::Fabric;
use crate::cluster::outside::{build, build_office};
use crate::cluster::pods::with_passer_by;
use crate::cluster::{Cluster, Inventory, LeftBehind, Node, Office, Outside, Pod, PodEntry, ServiceEntry};
use crate::fault::{FaultError, Job};
use crate::plan::{ClusterPlan, NodeId, OfficeId, OutsideId, PodId, PodRole};

/// What a node's primary interface is called here, where Docker has taken the scenario's name for its own.
const NODE_NIC: &str = "prim0";

/// A pod takes a second or so to come, and another to go.
const CHURN: Duration = Duration::from_secs(2);

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
    seen: watch::Receiver<Seen>,
    watches: Mutex<Vec<JoinHandle<()>>>,
    inventory: watch::Sender<Inventory>,
    pause_image: String,
    /// What kubeadm's Deployment of CoreDNS runs.
    replica: Option<PodSpec>,
}

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
            seen,
            watches: Mutex::new(watches.into()),
            inventory: watch::Sender::default(),
            pause_image: cni::pause_image(node)?,
            replica,
            ground: ground.clone(),
            plan,
        };
        cluster.make_objects().await?;
        let made = cluster.make_all_pods().await?;
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

    /// Services and the Corefile.
    async fn make_objects(&self) -> Result<(), String> {
        let create = PostParams::default();
        let services: Api<Service> = Api::namespaced(self.client.clone(), NAMESPACE);
        let dns = self.plan.dns.as_ref().map(|dns| dns.service.0);
        for (_, plan) in self.plan.services.iter().enumerate().filter(|(number, _)| Some(*number) != dns) {
            let object = objects::service(plan, &self.ground.run_id);
            services.create(&create, &object).await.map_err(|e| format!("Service {}: {}", plan.name, api::said(e)))?;
        }
        if let Some(text) = dns::corefile(&self.plan) {
            let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), DNS_NAMESPACE);
            let object = objects::corefile(&text, &self.ground.run_id);
            maps.create(&create, &object).await.map_err(|e| format!("the Corefile: {}", api::said(e)))?;
        }
        Ok(())
    }

    /// All pods at once.
    async fn make_all_pods(&self) -> Result<Vec<Plugged>, String> {
        let mut jobs = Vec::new();
        for number in 0..self.plan.pods.len() {
            jobs.push(self.make_pod(PodId(number)));
        }
        futures_util::future::join_all(jobs).await.into_iter().collect()
    }

    async fn make_pod(&self, id: PodId) -> Result<Plugged, String> {
        let spec = &self.plan.pods[id.0];
        let node = &self.ground.cluster.nodes[spec.node.0].name;
        let object = match (&self.replica, spec.role) {
            (Some(template), PodRole::Dns) => objects::replica(&spec.name, node, template, &self.ground.run_id),
            _ => objects::plain(&self.plan, id, node, &self.pause_image, &self.ground.run_id),
        };
        let state = pods::make(&self.client, &mut self.seen.clone(), &object, spec.role).await?;
        pods::plug(&self.plan, id, &state, &self.nodes[spec.node.0].node().ns)
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

    async fn delete(&self, id: PodId, at_once: bool) -> Result<(), String> {
        let spec = &self.plan.pods[id.0];
        let plugged = self.lock_pods()[id.0].clone();
        pods::send_away(&self.client, &spec.name, spec.role, at_once).await?;
        let here = |seen: &Seen| seen.pods.get(&spec.name).filter(|pod| pod.uid == plugged.uid).cloned();
        let told = |seen: &Seen| here(seen).is_none_or(|pod| pod.leaving).then_some(());
        until(&mut self.seen.clone(), || format!("pod {} was told to go", spec.name), told).await?;
        self.lock_pods()[id.0].leaving = true;
        self.tell();
        let node = &self.nodes[spec.node.0].node().ns;
        pods::unplug(&self.plan, plugged.address, node).map_err(|e| format!("failed to {e}"))?;
        let gone = |seen: &Seen| here(seen).is_none().then_some(());
        until(&mut self.seen.clone(), || format!("pod {} was gone", spec.name), gone).await?;
        pods::link_gone(node, &plugged.link).await
    }

    async fn restore(&self, id: PodId) -> Result<(), String> {
        let spec = &self.plan.pods[id.0];
        if !self.lock_pods()[id.0].leaving {
            return Ok(());
        }
        let passes_by = id.0 + 1 == self.plan.pods.len();
        if !passes_by {
            let node = &self.ground.cluster.nodes[spec.node.0];
            cni::next_address(node, spec.address).map_err(|e| format!("{}: {e}", node.name))?;
        }
        let made = self.make_pod(id).await?;
        if !passes_by && made.address != spec.address {
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
        let uid = self.lock_pods()[id.0].uid.clone();
        for (pid, command) in pods::processes(&uid) {
            if command != "pause" {
                process::ask_to_end(pid).map_err(|e| format!("failed to {e}"))?;
            }
        }
        Ok(())
    }

    async fn start_replica(&self, id: PodId) -> Result<(), String> {
        self.delete(id, false).await?;
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

    /// Everything of the API first, then the nodes; goes on past what fails.
    async fn take_down(&self) -> LeftBehind {
        let mut left = Vec::new();
        let ours = ListParams::default().labels(&format!("{LABEL}={}", self.ground.run_id));
        for (number, spec) in self.plan.pods.iter().enumerate() {
            let known = self.lock_pods().get(number).cloned();
            let Some(plugged) = known else { continue };
            if spec.role == PodRole::Dns {
                // Nobody asks it any more.
                pods::processes(&plugged.uid).iter().filter(|(_, command)| command != "pause").for_each(|(pid, _)| {
                    let _ = process::end(*pid);
                });
            }
            if let Err(e) = pods::unplug(&self.plan, plugged.address, &self.nodes[spec.node.0].node().ns) {
                left.push(format!("pod {}: failed to {e}", spec.name));
            }
        }
        let delete = DeleteParams::default();
        for namespace in [NAMESPACE, DNS_NAMESPACE] {
            let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(self.client.clone(), namespace);
            left.extend(pods.delete_collection(&delete, &ours).await.err().map(api::said));
            let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
            left.extend(maps.delete_collection(&delete, &ours).await.err().map(api::said));
            let services: Api<Service> = Api::namespaced(self.client.clone(), namespace);
            match services.list(&ours).await {
                Ok(found) => {
                    for service in found {
                        left.extend(services.delete(&service.name_any(), &delete).await.err().map(api::said));
                    }
                }
                Err(e) => left.push(api::said(e)),
            }
        }
        left.extend(self.nodes.iter().flat_map(Attached::detach));
        let none = |seen: &Seen| seen.pods.is_empty().then_some(());
        left.extend(until(&mut self.seen.clone(), || "all pods were gone".into(), none).await.err());
        let plugged = self.lock_pods().clone();
        for (spec, plugged) in self.plan.pods.iter().zip(&plugged) {
            left.extend(pods::link_gone(&self.nodes[spec.node.0].node().ns, &plugged.link).await.err());
        }
        self.lock_watches().drain(..).for_each(|watch| watch.abort());
        left
    }
}

/// The scenario's cluster as this one can have it.
fn fit(plan: &mut ClusterPlan, ground: &Ground) -> Result<(), String> {
    let cluster = &ground.cluster;
    for (of, scenario, kind, key) in [
        ("podPrefix", plan.network.pod_prefix, cluster.pod_prefix, "podSubnet"),
        ("servicePrefix", plan.network.service_prefix, cluster.service_prefix, "serviceSubnet"),
    ] {
        if scenario != kind {
            return Err(format!("the scenario's {of} is {scenario}, and the kind configuration's {key} is {kind}"));
        }
    }
    if plan.network.node_nic == guard::MANAGEMENT_NIC {
        plan.network.node_nic = NODE_NIC.into();
    }
    for (node, kind) in plan.nodes.iter_mut().zip(&cluster.nodes) {
        node.pod_prefix = kind.pod_prefix;
        node.pod_nic_address =
            cni::nic_address(kind.pod_prefix).ok_or_else(|| format!("{} has no room", kind.pod_prefix))?;
    }
    if let Some(dns) = &plan.dns {
        let (wanted, real) = (plan.services[dns.service.0].address, cluster.service_prefix.nth(10));
        if real != Some(wanted) || plan.services[dns.service.0].name != "kube-dns" {
            return Err(format!("cluster DNS is kube-dns at {real:?} in a real cluster, not at {wanted}"));
        }
    }
    Ok(())
}

type Network = (Fabric, Vec<Attached>, Vec<Outside>, Vec<Office>);

fn build_network(plan: &ClusterPlan, ground: &Ground) -> relapse_kernel::Result<Network> {
    let network = &plan.network;
    let mut fabric = Fabric::create(network.pod_prefix, &[network.pod_gateway, network.node_gateway])?;
    let (mut nodes, mut outside, mut offices) = (Vec::new(), Vec::new(), Vec::new());
    for (number, (node, kind)) in plan.nodes.iter().zip(&ground.cluster.nodes).enumerate() {
        nodes.push(attach(&mut fabric, number, &ground.cluster, kind, node, network)?);
    }
    for (number, host) in plan.outside.iter().enumerate() {
        outside.push(build(&mut fabric, number, host, network.node_gateway)?);
    }
    for (number, office) in plan.offices.iter().enumerate() {
        offices.push(build_office(&mut fabric, number, office)?);
    }
    fabric.arm()?;
    Ok((fabric, nodes, outside, offices))
}

/// What kubeadm's Deployment of CoreDNS runs.
async fn template(client: &Client) -> Result<PodSpec, String> {
    let all: Api<Deployment> = Api::namespaced(client.clone(), DNS_NAMESPACE);
    let found = all.get("coredns").await.map_err(api::said)?;
    found.spec.and_then(|spec| spec.template.spec).ok_or_else(|| "the Deployment of CoreDNS is empty".into())
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
        Box::pin(async move { self.delete(id, false).await.map_err(failed("delete a pod")) })
    }

    fn restore_pod(&self, id: PodId) -> Job<'_, Result<(), FaultError>> {
        Box::pin(async move { self.restore(id).await.map_err(failed("put a pod back")) })
    }

    fn churn(&self, present: bool) -> Job<'_, Result<(), FaultError>> {
        let passer_by = PodId(self.plan.pods.len() - 1);
        if present { self.restore_pod(passer_by) } else { self.delete_pod(passer_by) }
    }

    fn churn_every(&self) -> Duration {
        CHURN
    }

    fn own_namespaces(&self) -> Vec<NetNs> {
        let hops = self.outside.iter().filter_map(|o| o.load_balancer.clone());
        let outside = self.outside.iter().map(|o| o.ns.clone()).chain(hops);
        let offices = self.offices.iter().flat_map(|o| [o.client.clone(), o.gateway.clone()]);
        let pods: Vec<NetNs> = self.lock_pods().iter().map(|pod| pod.ns.clone()).collect();
        std::iter::once(self.fabric.ns.clone()).chain(outside).chain(offices).chain(pods).collect()
    }

    fn inodes(&self) -> Vec<u64> {
        let all = self.ground.cluster.nodes.iter().filter_map(|node| NetNs::of_process(&node.name, node.pid).ok());
        all.chain(self.own_namespaces()).map(|ns| ns.inode()).collect()
    }

    fn down(&self) -> Job<'_, LeftBehind> {
        Box::pin(self.take_down())
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
