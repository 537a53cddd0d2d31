//! Real pods: created through the API, entered through the network namespace of their processes.

use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use relapse_kernel::builder::Builder;
use relapse_kernel::route::{self, MAIN};
use relapse_kernel::sockdiag::{SockDiag, mask, state};
use relapse_kernel::{NetNs, link, sysctl};
use relapse_lab::cluster::node_network::{pod_rules, unless};
use relapse_lab::cluster::pods::port_share;
use relapse_model::{ClusterPlan, PodId, PodRole};
use serde_json::json;

use super::api;
use super::objects::{GATE, namespace};
use super::watch::{self, Seen};
use super::{failed, pids};

/// Polling interval while waiting for a link to disappear.
const LOOK: Duration = Duration::from_millis(20);

/// A running pod that is attached to the node's routing.
#[derive(Debug, Clone)]
pub struct Plugged {
    pub ns: NetNs,
    /// The node's end of its veth.
    pub link: String,
    pub address: IpAddr,
    pub uid: String,
    /// Being deleted, or deleted.
    pub leaving: bool,
    /// Its process was asked to terminate.
    pub stopped: bool,
    /// The container that was killed last.
    pub killed: Option<String>,
}

/// Creates a pod and waits until it runs (for a replica of cluster DNS, until it is ready).
pub async fn make(client: &Client, seen: &Seen, object: &Pod, role: PodRole) -> Result<Arc<Pod>, String> {
    let name = object.name_any();
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace(role));
    pods.create(&PostParams::default(), object).await.map_err(|e| format!("pod {name}: {}", api::failed(e)))?;
    if role == PodRole::Dns {
        gate(client, &name, role, true).await?;
    }
    let is_up = |pod: &Arc<Pod>| {
        let ready = role != PodRole::Dns || watch::is_ready(pod);
        ready && watch::runs(pod) && watch::address(pod).is_some()
    };
    seen.until(&format!("pod {name} to come up"), |seen| seen.pod(&name).filter(is_up)).await
}

/// Sets the readiness gate of a pod, which makes it an endpoint or not.
pub async fn gate(client: &Client, name: &str, role: PodRole, open: bool) -> Result<(), String> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace(role));
    let status = if open { "True" } else { "False" };
    let patch = Patch::Strategic(json!({ "status": { "conditions": [{ "type": GATE, "status": status }] } }));
    pods.patch_status(name, &PatchParams::default(), &patch).await.map(drop).map_err(api::failed)
}

/// Deletes a pod. A pod that no longer exists is not an error.
pub async fn delete(client: &Client, name: &str, namespace: &str) -> Result<(), String> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    match pods.delete(name, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        result => result.map(drop).map_err(api::failed),
    }
}

/// Processes of a pod (by its uid) or container (by its id) on this machine, found by the cgroup that was made for it.
pub fn processes(uid: &str) -> Vec<u32> {
    let names = [uid.to_owned(), uid.replace('-', "_")];
    let is_of_it = |pid: &u32| {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        names.iter().any(|name| groups.contains(name))
    };
    pids().filter(is_of_it).collect()
}

/// Attaches a running pod: settings, its own port range, MTU, and the two rules that the address manager keeps for it.
pub async fn plug(plan: &ClusterPlan, id: PodId, pod: &Pod, node: &NetNs) -> Result<Plugged, String> {
    let spec = &plan.pods[id.0];
    let uid = pod.uid().unwrap_or_default();
    if spec.host_network {
        let (ns, link) = (node.clone(), String::new());
        return Ok(Plugged { ns, link, address: spec.address, uid, leaving: false, stopped: false, killed: None });
    }
    let pid = processes(&uid).into_iter().min();
    let pid = pid.ok_or_else(|| format!("pod {} has no process on this machine", spec.name))?;
    let address = watch::address(pod).ok_or_else(|| format!("pod {} has no address", spec.name))?;
    let plugged = async {
        let ns = NetNs::of_process(&spec.name, pid)?;
        sysctl::apply(&ns, &sysctl::lab_settings(false))?;
        sysctl::write_all(&ns, &[("net.ipv4.ip_local_port_range", &port_share(plan, id))])?;
        let missing = || relapse_kernel::Error::NotFound { what: format!("the veth of pod {}", spec.name) };
        let to_it = route::routes(node, Some(MAIN))?.into_iter().find(|route| route.destination.0 == address);
        let index = to_it.and_then(|route| route.oif).ok_or_else(missing)?;
        let veth = link::get(node, index)?.ok_or_else(missing)?;
        let inside = link::find(&ns, "eth0")?.ok_or_else(missing)?;
        if inside.mtu != u32::from(spec.mtu) {
            link::set_mtu(&ns, inside.index, spec.mtu.into())?;
            link::set_mtu(node, veth.index, spec.mtu.into())?;
        }
        let builder = Builder::open(node)?;
        for rule in pod_rules(&plan.network, address) {
            unless(ErrorKind::AlreadyExists, builder.add_rule(&rule).await)?;
        }
        Ok(Plugged { ns, link: veth.name, address, uid, leaving: false, stopped: false, killed: None })
    };
    plugged.await.map_err(|e: relapse_kernel::Error| format!("pod {}: failed to {e}", spec.name))
}

/// Deletes the pod's two rules, as the address manager does when a pod is deleted.
pub fn unplug(plan: &ClusterPlan, address: IpAddr, node: &NetNs) -> relapse_kernel::Result<()> {
    pod_rules(&plan.network, address)
        .iter()
        .try_for_each(|rule| unless(ErrorKind::NotFound, route::delete_rule(node, rule)))
}

/// Ends the connections of a server, which keeps running and listening; on the host network, only those at its `address`.
pub fn end_connections(ns: &NetNs, address: Option<IpAddr>) -> relapse_kernel::Result<()> {
    let sockets = SockDiag::open(ns)?;
    let all = sockets.tcp_sockets(!mask(&[state::LISTEN]))?;
    let mut own = all.iter().filter(|socket| address.is_none_or(|address| socket.local.ip() == address));
    own.try_for_each(|socket| unless(ErrorKind::NotFound, sockets.destroy(socket)))
}

/// Waits until the node's end of a pod's veth is gone. The CNI plugins finish about when the API reports the deletion.
pub async fn link_gone(node: &NetNs, name: &str) -> Result<(), String> {
    let gone = async {
        while link::find(node, name).map_err(failed)?.is_some() {
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    };
    let late = |_| Err(format!("{name} of {} is still there", node.name()));
    tokio::time::timeout(watch::PATIENCE, gone).await.unwrap_or_else(late)
}
