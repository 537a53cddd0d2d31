//! What the components of a real cluster export.
//!
//! A kubelet is asked on its read-only port, in its node's namespace: that needs neither TLS nor a token that the kubelet
//! would have the API server check, and goes on while the node is cut off. kube-proxy listens on loopback only. Both are
//! recorded under the addresses of `:10250` and `:10249` at which a Prometheus would find them.
//!
//! A replica of cluster DNS is asked at its pod's address from another node, as by a Prometheus that runs there: it has no
//! network but its pod's, and `up{job="coredns"}` falls to 0 when that network is cut off. It is a target while its pod
//! runs.
//!
//! Series of kube-state-metrics are derived from the API's objects ([`super::super::derived`]). Of the control plane, which
//! is no node of the scenario, only these are recorded.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use relapse_lab::cluster::{Export, Exports, Origin};
use relapse_model::kind_config::PLAIN_METRICS_PORT;
use relapse_model::{NodeId, PodId, PodRole};
use relapse_series::{Exporter, Target};

use super::super::created::{Created, NodeRef};
use super::super::derived::{Watched, exposition};
use super::super::kube_proxy;
use super::super::objects::{DNS_METRICS_PORT, DNS_NAMESPACE};
use super::super::watch::{is_leaving, runs};
use super::KindCluster;

const KUBELET_PORT: u16 = 10250;

impl KindCluster {
    pub(super) fn all_exports(&self) -> Exports {
        let of_nodes = (0..self.plan.nodes.len()).flat_map(|number| self.of_node(NodeId(number)));
        let of_dns = (0..self.plan.pods.len()).filter_map(|number| self.of_replica(PodId(number)));
        let objects = self.objects.get_or_init(|| Watched::start(&self.client));
        let target = Target { exporter: Exporter::KubeState, place: BTreeMap::new() };
        let names = names(&self.ground.cluster, self.plan.nodes.iter().map(|node| node.name.as_str()));
        let derived = objects.now().map(|objects| Export { target, from: Origin::Text(exposition(&objects)) });
        Exports { all: of_nodes.chain(of_dns).chain(derived).collect(), names }
    }

    fn of_node(&self, id: NodeId) -> [Export; 3] {
        let (ns, plan) = (&self.nodes[id.0].node().ns, &self.plan.nodes[id.0]);
        let kubelet = SocketAddr::from(([127, 0, 0, 1], PLAIN_METRICS_PORT));
        [
            (Exporter::Kubelet, KUBELET_PORT, kubelet, "/metrics"),
            (Exporter::Cadvisor, KUBELET_PORT, kubelet, "/metrics/cadvisor"),
            (Exporter::KubeProxy, kube_proxy::METRICS.port(), kube_proxy::METRICS, "/metrics"),
        ]
        .map(|(exporter, port, address, path)| Export {
            target: Target { exporter, place: place(&plan.name, (plan.address, port).into(), &[]) },
            from: Origin::Server { ns: ns.clone(), address, path },
        })
    }

    /// A replica of cluster DNS, if its pod runs.
    fn of_replica(&self, id: PodId) -> Option<Export> {
        let spec = &self.plan.pods[id.0];
        if spec.role != PodRole::Dns {
            return None;
        }
        let plugged = self.lock_pods()[id.0].clone();
        self.seen.same_pod(&spec.name, &plugged.uid).filter(|pod| runs(pod) && !is_leaving(pod))?;
        let address = (plugged.address, DNS_METRICS_PORT).into();
        let pod = [("namespace", DNS_NAMESPACE), ("pod", &spec.name), ("service", "kube-dns")];
        let other = (spec.node.0 + 1) % self.plan.nodes.len();
        Some(Export {
            target: Target { exporter: Exporter::Dns, place: place(&self.plan.nodes[spec.node.0].name, address, &pod) },
            from: Origin::Server { ns: self.nodes[other].node().ns.clone(), address, path: "/metrics" },
        })
    }
}

/// The names of nodes in the API with those of the scenario. Nodes that it does not have, as the control plane, are called
/// as kind does, without the cluster's name. Longer names come first: `worker` is the beginning of `worker2`.
fn names<'a>(cluster: &Created, mut scenario: impl Iterator<Item = &'a str>) -> Vec<(String, String)> {
    let prefix = format!("{}-", cluster.names.cluster);
    let named = cluster.nodes.iter().map(|NodeRef { name, .. }| {
        let ours = scenario.next().unwrap_or_else(|| name.strip_prefix(&prefix).unwrap_or(name));
        (name.clone(), ours.to_owned())
    });
    let mut names: Vec<_> = named.collect();
    names.sort_by_key(|(name, _)| Reverse(name.len()));
    names
}

fn place(node: &str, address: SocketAddr, more: &[(&str, &str)]) -> BTreeMap<String, String> {
    let address = address.to_string();
    let parts = [("node", node), ("address", &address)];
    parts.iter().chain(more).map(|(part, value)| ((*part).to_owned(), (*value).to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::created::Names;

    #[test]
    fn nodes_are_called_as_in_the_scenario() {
        let prefix = "10.0.0.0/24".parse().unwrap();
        let node = |name: &str| NodeRef { name: name.to_owned(), pid: 1, pod_prefix: prefix, dropped: 0 };
        let cluster = Created {
            names: Names { cluster: "relapse-1".into(), folder: "/".into() },
            nodes: ["worker", "worker2", "worker3", "control-plane"].map(|n| node(&format!("relapse-1-{n}"))).to_vec(),
            management: prefix,
            pod_prefix: prefix,
            service_prefix: prefix,
        };
        let names = names(&cluster, ["worker-1", "worker-2"].into_iter());
        let text = "relapse-1-worker, relapse-1-worker2, relapse-1-worker3, etcd-relapse-1-control-plane".to_owned();
        let renamed = names.iter().fold(text, |text, (name, ours)| text.replace(name, ours));
        assert_eq!(renamed, "worker-1, worker-2, worker3, etcd-control-plane");
    }
}
