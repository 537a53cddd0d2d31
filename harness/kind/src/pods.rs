//! Real pods: made through the API, entered by the namespace of their processes.

use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::time::Duration;

use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use relapse_kernel::builder::Builder;
use relapse_kernel::route::{self, MAIN};
use relapse_kernel::sockdiag::{SockDiag, mask, state};
use relapse_kernel::{NetNs, link, sysctl};
use relapse_lab::cluster::node_network::{pod_rules, unless};
use relapse_lab::cluster::pods::port_share;
use relapse_model::{ClusterPlan, PodId, PodRole};
use serde_json::json;
use tokio::sync::watch;

use super::api::said;
use super::objects::{GATE, namespace};
use super::watch::{PodState, Seen};

/// A pod that is not there by then, or not gone by then, never will be.
const PATIENCE: Duration = Duration::from_secs(30);

/// A pod that is there and has its place in the node's routing.
#[derive(Debug, Clone)]
pub struct Plugged {
    pub ns: NetNs,
    /// The node's end of its veth.
    pub link: String,
    pub address: IpAddr,
    pub uid: String,
    /// Told to go, or gone.
    pub leaving: bool,
    /// Its process was told to end.
    pub stopped: bool,
}

type Object = k8s_openapi::api::core::v1::Pod;

/// Waits for the API server to tell of something.
pub async fn until<T>(
    seen: &mut watch::Receiver<Seen>,
    what: impl Fn() -> String,
    wanted: impl Fn(&Seen) -> Option<T>,
) -> Result<T, String> {
    let watched = async {
        loop {
            if let Some(found) = wanted(&seen.borrow_and_update()) {
                return Ok(found);
            }
            seen.changed().await.map_err(|_| "nobody watches the API server any more".to_owned())?;
        }
    };
    let late = || Err(format!("{} not within {} s", what(), PATIENCE.as_secs()));
    tokio::time::timeout(PATIENCE, watched).await.unwrap_or_else(|_| late())
}

/// Makes a pod and waits until it runs (a replica of cluster DNS: until it is ready).
pub async fn make(
    client: &Client,
    seen: &mut watch::Receiver<Seen>,
    object: &Object,
    role: PodRole,
) -> Result<PodState, String> {
    let name = object.metadata.name.clone().unwrap_or_default();
    let api: Api<Object> = Api::namespaced(client.clone(), namespace(role));
    api.create(&PostParams::default(), object).await.map_err(|e| format!("pod {name}: {}", said(e)))?;
    if role == PodRole::Dns {
        gate(client, &name, true).await?;
    }
    let there = |seen: &Seen| {
        let pod = seen.pods.get(&name).filter(|pod| pod.address.is_some() && pod.running)?;
        (pod.ready || role != PodRole::Dns).then(|| pod.clone())
    };
    until(seen, || format!("pod {name} came up"), there).await
}

/// Lets a replica of cluster DNS be an endpoint, or no longer.
pub async fn gate(client: &Client, name: &str, open: bool) -> Result<(), String> {
    let api: Api<Object> = Api::namespaced(client.clone(), namespace(PodRole::Dns));
    let status = if open { "True" } else { "False" };
    let patch = Patch::Strategic(json!({ "status": { "conditions": [{ "type": GATE, "status": status }] } }));
    api.patch_status(name, &PatchParams::default(), &patch).await.map(drop).map_err(said)
}

/// Tells a pod to go. One that is gone has gone.
pub async fn send_away(client: &Client, name: &str, namespace: &str) -> Result<(), String> {
    let api: Api<Object> = Api::namespaced(client.clone(), namespace);
    match api.delete(name, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        result => result.map(drop).map_err(said),
    }
}

/// Processes of a pod on this machine, by the control group that the kubelet made for it.
pub fn processes(uid: &str) -> Vec<(u32, String)> {
    let slice = uid.replace('-', "_");
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let groups = fs::read_to_string(entry.path().join("cgroup")).ok()?;
        if !groups.contains(uid) && !groups.contains(&slice) {
            return None;
        }
        let command = fs::read_to_string(entry.path().join("comm")).ok()?;
        Some((pid, command.trim().to_owned()))
    })
    .collect()
}

/// Enters a pod that runs and gives it its place: settings, ports of its own, MTU, the two rules that the
/// address manager keeps for it.
pub async fn plug(plan: &ClusterPlan, id: PodId, state: &PodState, node: &NetNs) -> Result<Plugged, String> {
    let spec = &plan.pods[id.0];
    let pid = processes(&state.uid).into_iter().map(|(pid, _)| pid).min();
    let pid = pid.ok_or_else(|| format!("pod {} has no process on this machine", spec.name))?;
    let address = state.address.ok_or_else(|| format!("pod {} has no address", spec.name))?;
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
        Ok(Plugged { ns, link: veth.name, address, uid: state.uid.clone(), leaving: false, stopped: false })
    };
    plugged.await.map_err(|e: relapse_kernel::Error| format!("pod {}: failed to {e}", spec.name))
}

/// Takes the pod's two rules away, as the address manager does when a pod goes.
pub fn unplug(plan: &ClusterPlan, address: IpAddr, node: &NetNs) -> relapse_kernel::Result<()> {
    pod_rules(&plan.network, address)
        .iter()
        .try_for_each(|rule| unless(ErrorKind::NotFound, route::delete_rule(node, rule)))
}

/// Ends the connections of a server that goes on; it goes on listening.
pub fn end_connections(ns: &NetNs) -> relapse_kernel::Result<()> {
    let sockets = SockDiag::open(ns)?;
    let all = !mask(&[state::LISTEN]);
    sockets.tcp_sockets(all)?.iter().try_for_each(|socket| unless(ErrorKind::NotFound, sockets.destroy(socket)))
}

/// Waits until the node's end of a pod's veth is gone; the plugins' work ends about when the API tells so.
pub async fn link_gone(node: &NetNs, name: &str) -> Result<(), String> {
    let begin = tokio::time::Instant::now();
    while link::find(node, name).map_err(|e| format!("failed to {e}"))?.is_some() {
        if begin.elapsed() > PATIENCE {
            return Err(format!("{name} of {} is still there", node.name()));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// How often a link that is about to go is looked for.
const LOOK: Duration = Duration::from_millis(20);
