//! The lab: a cluster of network namespaces on this machine, started in milliseconds.
//!
//! Stand-ins replace what a real cluster runs: [`kube_proxy`] with the rules of [`services`], [`coredns`] for CoreDNS,
//! [`kubelet`] for the states of containers;
//! everything else (fabric, NICs, policy table, source NAT, outside world) is shared with other backends. Dropping
//! the last handles takes it down: namespaces are anonymous.

mod coredns;
mod kube_proxy;
mod kubelet;
mod labs;
pub mod probe;
mod services;

pub use labs::Labs;

use std::io::ErrorKind;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use relapse_detectors::signal::{Endpoint, Endpoints, Observed};
use relapse_kernel::builder::Builder;
use relapse_kernel::route::{self, Route};
use relapse_kernel::{NetNs, Result, link, sysctl};
use relapse_model::{ClusterPlan, NodeId, OfficeId, OutsideId, Place, PodId, PodRole, ServiceId};
use tokio::sync::{mpsc, watch};

use crate::cluster::cable::{End, connect};
use crate::cluster::fabric::Fabric;
use crate::cluster::ingress::{IngressLogs, Ingresses};
use crate::cluster::node_network::{attach_nics, host, node_port_rule, node_ports, pod_rules, snat, unless};
use crate::cluster::outside::{build, build_office, host_namespace};
use crate::cluster::paths::Paths;
use crate::cluster::pods::{passer_by, port_share, with_passer_by};
use crate::cluster::{Cluster, Inventory, KubeProxy, LeftBehind, Node, Office, Outside, Pod, PodEntry, ServiceRules};
use crate::job::{FaultError, Job};

/// Registers the lab backend.
pub fn register() {
    crate::cluster::backend::register(&labs::REGISTERED);
}

/// A running lab.
pub struct Lab {
    plan: ClusterPlan,
    fabric: Fabric,
    paths: Paths,
    nodes: Vec<Node>,
    pods: Vec<Pod>,
    outside: Vec<Outside>,
    offices: Vec<Office>,
    dns: coredns::Replicas,
    /// By node.
    kube_proxies: Vec<Arc<kube_proxy::KubeProxy>>,
    kubelets: kubelet::Kubelets,
    /// Which pods exist, and which of them are ready.
    state: Mutex<Vec<PodState>>,
    inventory: watch::Sender<Inventory>,
    ingresses: Ingresses,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PodState {
    exists: bool,
    ready: bool,
    /// Whether its Services select it.
    selected: bool,
}

impl PodState {
    const fn is_endpoint(self) -> bool {
        self.exists && self.ready && self.selected
    }
}

impl Lab {
    /// Builds everything in the plan and returns when all of it is in force.
    ///
    /// # Errors
    /// The first error of the kernel. What was built by then is removed with its handles.
    pub async fn up(plan: &ClusterPlan) -> Result<Arc<Self>> {
        let plan = &with_passer_by(plan);
        let network = &plan.network;
        let mut fabric = Fabric::create(network.pod_prefix, &[network.pod_gateway, network.node_gateway]).await?;
        let mut hosts = Vec::with_capacity(plan.nodes.len());
        for (number, node) in plan.nodes.iter().enumerate() {
            let host = host_namespace(&node.name, true).await?;
            for (name, seconds) in &network.conntrack_timeouts {
                sysctl::write(&host.ns, &format!("net.netfilter.nf_conntrack_{name}"), &seconds.to_string())?;
            }
            attach_nics(&mut fabric, number, &host, node, network).await?;
            snat(network, None).apply(&host.ns)?;
            if plan.has_node_ports() {
                host.add_rule(&node_port_rule()).await?;
                node_ports(network, node).apply(&host.ns)?;
            }
            hosts.push(host);
        }
        let mut pods = Vec::with_capacity(plan.pods.len());
        for (number, pod) in plan.pods.iter().enumerate() {
            if pod.host_network {
                let ns = hosts[pod.node.0].ns.clone();
                pods.push(Pod { name: pod.name.clone(), ns, link: String::new() });
                continue;
            }
            let inside = host_namespace(&pod.name, false).await?;
            let made = Pod { name: pod.name.clone(), ns: inside.ns.clone(), link: pod_link(number) };
            if !plan.is_spare(PodId(number)) {
                plug_pod(plan, PodId(number), &made.link, &inside, &hosts[pod.node.0]).await?;
            }
            pods.push(made);
        }
        let mut outside = Vec::with_capacity(plan.outside.len());
        for (number, host) in plan.outside.iter().enumerate() {
            let at = host_namespace(&host.name, host.balances.is_some()).await?;
            outside.push(build(&mut fabric, number, host, at, network.node_gateway).await?);
        }
        let mut offices = Vec::with_capacity(plan.offices.len());
        for (number, office) in plan.offices.iter().enumerate() {
            offices.push(build_office(&mut fabric, number, office).await?);
        }
        let paths = fabric.arm(plan)?;
        let is_there = |number| !plan.is_spare(PodId(number));
        let state = (0..pods.len()).map(|number| PodState {
            exists: is_there(number),
            ready: is_there(number),
            selected: true,
        });
        let state: Vec<PodState> = state.collect();
        let nodes = plan.nodes.iter().zip(hosts).map(|(node, host)| Node { name: node.name.clone(), ns: host.ns });
        let nodes: Vec<Node> = nodes.collect();
        let inventory = watch::Sender::new(inventory(plan, &state));
        let shared = Arc::new(plan.clone());
        let kube_proxy = |(id, node): (usize, &Node)| {
            kube_proxy::KubeProxy::new(NodeId(id), &node.ns, &shared, inventory.subscribe())
        };
        let lab = Arc::new(Self {
            dns: coredns::Replicas::new(plan, &pods),
            kubelets: kubelet::Kubelets::new(plan),
            plan: plan.clone(),
            fabric,
            paths,
            kube_proxies: nodes.iter().enumerate().map(kube_proxy).collect(),
            nodes,
            pods,
            outside,
            offices,
            inventory,
            state: Mutex::new(state),
            ingresses: Ingresses::new(plan),
        });
        for kube_proxy in &lab.kube_proxies {
            kube_proxy.start().await?;
        }
        for (number, pod) in plan.pods.iter().enumerate() {
            if pod.role == PodRole::Dns && is_there(number) {
                lab.dns.start(PodId(number))?;
            }
        }
        Ok(lab)
    }

    fn each_namespace(&self) -> impl Iterator<Item = &NetNs> {
        let hops = self.outside.iter().filter_map(|o| o.load_balancer.as_ref());
        let own = |number: &usize| !self.plan.pods[*number].host_network;
        std::iter::once(&self.fabric.at.ns)
            .chain(self.nodes.iter().map(|n| &n.ns))
            .chain((0..self.pods.len()).filter(own).map(|number| &self.pods[number].ns))
            .chain(self.outside.iter().map(|o| &o.ns))
            .chain(hops)
            .chain(self.offices.iter().flat_map(|o| [&o.client, &o.gateway]))
    }

    /// Changes the state of a pod, and updates the inventory. Returns when the rules of the Services it belongs to are
    /// in force, where kube-proxy runs.
    async fn set_state(
        &self,
        id: PodId,
        change: impl FnOnce(&mut PodState) + Send,
    ) -> std::result::Result<(), FaultError> {
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            change(&mut state[id.0]);
            self.inventory.send_replace(inventory(&self.plan, &state));
        }
        for kube_proxy in &self.kube_proxies {
            let refused = |why| FaultError::Refused { what: "write the rules of Services".into(), why };
            kube_proxy.until_written().await.map_err(refused)?;
        }
        Ok(())
    }
}

/// Gives a pod its veth (`link` is the node's end), its address and its routes and rules on the node.
async fn plug_pod(plan: &ClusterPlan, id: PodId, link: &str, pod: &Builder, node: &Builder) -> Result<()> {
    let spec = &plan.pods[id.0];
    let (inside, outside) =
        connect(&End { at: pod, name: "eth0", mtu: spec.mtu }, &End { at: node, name: link, mtu: spec.mtu }).await?;
    let (address, length) = host(spec.address);
    pod.add_address(inside.index, address, length).await?;
    inside.add_neighbour(POD_GATEWAY, &outside).await?;
    pod.add_route(&Route::default_via(POD_GATEWAY).dev(inside.index).onlink()).await?;
    sysctl::write_all(&pod.ns, &[("net.ipv4.ip_local_port_range", &port_share(plan, id))])?;
    outside.add_neighbour(spec.address, &inside).await?;
    node.add_route(&Route::to(address, length).dev(outside.index)).await?;
    // As in a CNI, rules that exist already (restored by the undo of a fault) are not an error.
    for rule in pod_rules(&plan.network, spec.address) {
        unless(ErrorKind::AlreadyExists, node.add_rule(&rule).await)?;
    }
    Ok(())
}

/// The link-local next hop of every pod, at the node's end of its veth.
const POD_GATEWAY: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::new(169, 254, 1, 1));

/// The node's end of a pod's veth, named as most CNIs do it: rules about the NICs of nodes leave out `veth.+`.
fn pod_link(number: usize) -> String {
    format!("veth{number}")
}

/// The time between the kubelet's decision to delete a pod and the CNI's work on the node.
const CNI_CALL: Duration = Duration::from_millis(5);

/// How long the churn pod stays, and how long it is gone: creating pods is cheap here.
const CHURN: (Duration, Duration) = (Duration::from_millis(400), Duration::from_millis(100));

fn inventory(plan: &ClusterPlan, state: &[PodState]) -> Inventory {
    let node = |id: usize| plan.nodes[plan.pods[id].node.0].name.clone();
    // A pod on the host network has neither address nor link of its own.
    let own = |id: &usize| state[*id].exists && !plan.pods[*id].host_network;
    let pods = (0..plan.pods.len()).filter(own).map(|id| PodEntry {
        name: plan.pods[id].name.clone(),
        node: node(id),
        address: plan.pods[id].address,
        link: pod_link(id),
    });
    let services = plan.services.iter().map(|service| Endpoints {
        service: service.name.clone(),
        address: service.address,
        ready: service
            .pods
            .iter()
            .filter(|id| state[id.0].is_endpoint())
            .map(|id| Endpoint {
                pod: plan.pods[id.0].name.clone(),
                address: plan.pods[id.0].address,
                node: node(id.0),
            })
            .collect(),
    });
    Inventory { pods: pods.collect(), services: services.collect() }
}

impl Cluster for Lab {
    fn plan(&self) -> &ClusterPlan {
        &self.plan
    }
    fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }
    fn pod(&self, id: PodId) -> Pod {
        self.pods[id.0].clone()
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

    fn delete_pod(&self, id: PodId) -> Job<'_, std::result::Result<(), FaultError>> {
        Box::pin(async move {
            self.set_running(id, false).await?;
            self.kubelets.ended(id);
            self.kubelets.removed(id);
            self.set_state(id, |state| state.exists = false).await?;
            let spec = &self.plan.pods[id.0];
            if spec.host_network {
                return Ok(());
            }
            // The kubelet updates its state before it calls the CNI.
            tokio::time::sleep(CNI_CALL).await;
            let node = &self.nodes[spec.node.0].ns;
            for rule in pod_rules(&self.plan.network, spec.address) {
                // As in a CNI, rules that are missing already (removed by a fault) are not an error.
                unless(ErrorKind::NotFound, route::delete_rule(node, &rule))?;
            }
            match link::find(node, &self.pods[id.0].link)? {
                Some(veth) => link::delete(node, veth.index),
                None => Ok(()),
            }
        })
    }

    fn restore_pod(&self, id: PodId) -> Job<'_, std::result::Result<(), FaultError>> {
        Box::pin(async move {
            self.add_pod(id).await?;
            self.set_running(id, true).await
        })
    }

    fn add_pod(&self, id: PodId) -> Job<'_, std::result::Result<(), FaultError>> {
        Box::pin(async move {
            let spec = &self.plan.pods[id.0];
            if !spec.host_network && link::find(&self.nodes[spec.node.0].ns, &self.pods[id.0].link)?.is_none() {
                let (inside, host) = (Builder::open(&self.pods[id.0].ns)?, Builder::open(&self.nodes[spec.node.0].ns)?);
                plug_pod(&self.plan, id, &self.pods[id.0].link, &inside, &host).await?;
            }
            self.kubelets.started(id);
            self.set_state(id, |state| state.exists = true).await?;
            self.set_running(id, true).await
        })
    }

    fn crash(&self, id: PodId) -> Job<'_, std::result::Result<(), FaultError>> {
        Box::pin(async move {
            self.kubelets.failed(id);
            self.set_state(id, |state| state.ready = false).await
        })
    }

    fn restarted(&self, id: PodId, back_off: Duration) -> Job<'_, std::result::Result<(), FaultError>> {
        Box::pin(async move {
            self.kubelets.restart(id, back_off).await;
            self.set_state(id, |state| state.ready = true).await
        })
    }

    fn churn(&self, present: bool) -> Job<'_, std::result::Result<(), FaultError>> {
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
        Some(self.kubelets.news())
    }

    fn kube_proxy(&self, _: u64) -> Option<std::result::Result<KubeProxy, FaultError>> {
        None
    }

    fn write_service_rules(
        &self,
        node: NodeId,
        service: ServiceId,
        to: ServiceRules,
    ) -> Job<'_, std::result::Result<(), FaultError>> {
        Box::pin(async move { self.kube_proxies[node.0].change(service, to) })
    }

    fn service_rules(&self, node: NodeId, service: ServiceId) -> Job<'_, std::result::Result<Vec<String>, FaultError>> {
        Box::pin(async move { self.kube_proxies[node.0].read(service) })
    }

    fn run_kube_proxy(&self, node: NodeId, running: bool) -> Job<'_, std::result::Result<(), FaultError>> {
        Box::pin(async move {
            let kube_proxy = &self.kube_proxies[node.0];
            if running {
                return kube_proxy.start().await;
            }
            kube_proxy.stop().await;
            Ok(())
        })
    }

    fn set_endpoint(&self, id: PodId, is_endpoint: bool) -> Job<'_, std::result::Result<(), FaultError>> {
        Box::pin(self.set_state(id, move |state| state.selected = is_endpoint))
    }

    fn ingress_log(&self) -> &IngressLogs {
        &self.ingresses.log
    }

    fn ingress_port(&self, id: PodId) -> std::result::Result<u16, FaultError> {
        self.ingresses.port(id)
    }

    fn configure_ingress(&self, id: PodId, port: u16) -> Job<'_, std::result::Result<(), FaultError>> {
        Box::pin(std::future::ready(self.ingresses.configure(id, port)))
    }

    fn serves_itself(&self, _: Place) -> bool {
        false
    }

    fn own_namespaces(&self) -> Vec<NetNs> {
        self.each_namespace().cloned().collect()
    }

    fn inodes(&self) -> Vec<u64> {
        self.each_namespace().map(NetNs::inode).collect()
    }

    /// Everything is removed with its last handle.
    fn down(&self) -> Job<'_, LeftBehind> {
        Box::pin(std::future::ready(LeftBehind::new()))
    }

    fn set_running(&self, id: PodId, running: bool) -> Job<'_, std::result::Result<(), FaultError>> {
        Box::pin(async move {
            let is_dns = self.plan.pods[id.0].role == PodRole::Dns;
            if is_dns && running {
                self.dns.start(id)?;
                self.kubelets.started(id);
            }
            self.set_state(id, |state| state.ready = running).await?;
            // Endpoints are removed before the process stops, so that requests under way are still answered.
            if is_dns && !running {
                self.dns.stop(id).await;
                self.kubelets.ended(id);
            }
            Ok(())
        })
    }
}
