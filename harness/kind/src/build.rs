//! The parts of a scenario's cluster other than pods: the plan adapted to the real cluster, nodes in the fabric, hosts
//! outside, and API objects that may remain from the previous trial.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::PodSpec;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::{Client, ResourceExt};
use relapse_lab::cluster::fabric::Fabric;
use relapse_lab::cluster::outside::{as_host, build, build_office, host_namespace};
use relapse_lab::cluster::paths::Paths;
use relapse_lab::cluster::{Office, Outside};
use relapse_model::ClusterPlan;

use super::ground::Ground;
use super::nodes::{Attached, attach};
use super::objects::{self, DNS_NAMESPACE, LABEL, same};
use super::{api, cni, guard};

/// Name of a node's primary interface when Docker's interface already has the scenario's name.
const NODE_NIC: &str = "prim0";

/// Creates missing objects and deletes objects of the run that are not wanted.
pub async fn keep_or_make<K>(api: &Api<K>, run: &objects::Run, wanted: Vec<K>) -> Result<(), String>
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + serde::Serialize,
{
    let ours = ListParams::default().labels(&format!("{LABEL}={}", run.id));
    let existing = api.list(&ours).await.map_err(api::failed)?.items;
    for object in existing.iter().filter(|object| !wanted.iter().any(|wanted| same(*object, wanted))) {
        api.delete(&object.name_any(), &DeleteParams::default()).await.map_err(api::failed)?;
    }
    for object in wanted.iter().filter(|wanted| !existing.iter().any(|object| same(object, *wanted))) {
        let made = api.create(&PostParams::default(), object).await;
        made.map_err(|e| format!("{}: {}", object.name_any(), api::failed(e)))?;
    }
    Ok(())
}

/// Adapts the scenario's plan to the real cluster.
pub fn fit(plan: &mut ClusterPlan, ground: &Ground) -> Result<(), String> {
    let cluster = &ground.cluster;
    for (of, scenario, kind, key) in [
        ("podPrefix", plan.network.pod_prefix, cluster.pod_prefix, "podSubnet"),
        ("servicePrefix", plan.network.service_prefix, cluster.service_prefix, "serviceSubnet"),
    ] {
        if scenario != kind {
            return Err(format!("the scenario's {of} is {scenario}, but the kind configuration's {key} is {kind}"));
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

/// The network around the pods.
pub type Network = (Fabric, Paths, Vec<Attached>, Vec<Outside>, Vec<Office>);

/// Builds the fabric, attaches the nodes to it, and builds the hosts outside.
pub async fn build_network(plan: &ClusterPlan, ground: &Ground) -> relapse_kernel::Result<Network> {
    let network = &plan.network;
    let mut fabric = Fabric::create(network.pod_prefix, &[network.pod_gateway, network.node_gateway]).await?;
    let (mut nodes, mut outside, mut offices) = (Vec::new(), Vec::new(), Vec::new());
    for (number, kind) in ground.cluster.nodes.iter().enumerate().take(plan.nodes.len()) {
        nodes.push(attach(&mut fabric, number, &ground.cluster, kind, plan).await?);
    }
    for (number, host) in plan.outside.iter().enumerate() {
        let at = match ground.server_on(&host.name) {
            Some(served) => as_host(&served.namespace()?, false).await?,
            None => host_namespace(&host.name, host.balances.is_some()).await?,
        };
        outside.push(build(&mut fabric, number, host, at, network.node_gateway).await?);
    }
    for (number, office) in plan.offices.iter().enumerate() {
        offices.push(build_office(&mut fabric, number, office).await?);
    }
    let paths = fabric.arm(plan)?;
    Ok((fabric, paths, nodes, outside, offices))
}

/// The pod template of kubeadm's CoreDNS Deployment.
pub async fn template(client: &Client) -> Result<PodSpec, String> {
    let all: Api<Deployment> = Api::namespaced(client.clone(), DNS_NAMESPACE);
    let found = all.get("coredns").await.map_err(api::failed)?;
    found.spec.and_then(|spec| spec.template.spec).ok_or_else(|| "the Deployment of CoreDNS is empty".into())
}
