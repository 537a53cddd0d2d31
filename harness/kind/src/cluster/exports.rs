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
        let derived = objects.now().map(|objects| Export { target, from: Origin::Text(exposition(&objects)) });
        Exports { all: of_nodes.chain(of_dns).chain(derived).collect(), names: self.names() }
    }

    /// Longer names first: `worker` is the beginning of `worker2`.
    fn names(&self) -> Vec<(String, String)> {
        let cluster = &self.ground.cluster;
        let own = |name: &str| name.strip_prefix(&format!("{}-", cluster.names.cluster)).unwrap_or(name).to_owned();
        let names = cluster.nodes.iter().enumerate().map(|(number, kind)| {
            let ours = self.plan.nodes.get(number).map_or_else(|| own(&kind.name), |node| node.name.clone());
            (kind.name.clone(), ours)
        });
        let mut names: Vec<_> = names.collect();
        names.sort_by_key(|(name, _)| Reverse(name.len()));
        names
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

fn place(node: &str, address: SocketAddr, more: &[(&str, &str)]) -> BTreeMap<String, String> {
    let address = address.to_string();
    let parts = [("node", node), ("address", &address)];
    parts.iter().chain(more).map(|(part, value)| ((*part).to_owned(), (*value).to_owned())).collect()
}
