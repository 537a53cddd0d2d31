//! kind cluster configurations: the scenario's file or a default, adapted to the fabric.

use std::path::Path;

use relapse_detectors::prefix::Prefix;
use serde_json::{Value, json};

use crate::yaml::{any, read};

/// The configuration of a cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The configuration passed to kind.
    pub value: Value,
    /// The number of workers.
    pub workers: usize,
    /// The number of nodes.
    pub nodes: usize,
    pub pod_prefix: Prefix,
    pub service_prefix: Prefix,
}

/// Makes kube-proxy serve node ports at every address of a node.
const NODE_PORTS_EVERYWHERE: &str = "kind: KubeProxyConfiguration
apiVersion: kubeproxy.config.k8s.io/v1alpha1
nodePortAddresses: [0.0.0.0/0]
";

/// Makes kubelets serve their metrics to plain HTTP as well, in the cluster's own network, which has no NAT to the outside:
/// asking `:10250` takes TLS and a token, which the kubelet has the API server check.
const PLAIN_METRICS: &str = "kind: KubeletConfiguration
apiVersion: kubelet.config.k8s.io/v1beta1
readOnlyPort: 10255
";
/// The port of these metrics.
pub const PLAIN_METRICS_PORT: u16 = 10255;

/// Default prefixes of the incidents.
const POD_PREFIX: &str = "10.176.96.0/20";
const SERVICE_PREFIX: &str = "192.168.0.0/20";

/// Workers of a cluster that no scenario's configuration describes. Most scenarios need one or two, and creating a
/// cluster is slow.
pub const WORKERS: usize = 2;

impl Config {
    /// Whether a file describes what is used without one: `two-workers.yaml` does.
    #[must_use]
    pub fn is_usual(file: &Path) -> bool {
        Self::read(file).is_ok_and(|config| config == Self::of_workers(WORKERS))
    }

    /// One control plane and `workers` workers.
    #[must_use]
    pub fn of_workers(workers: usize) -> Self {
        let workers_listed = std::iter::repeat_n(json!({ "role": "worker" }), workers);
        let nodes: Vec<Value> = std::iter::once(json!({ "role": "control-plane" })).chain(workers_listed).collect();
        let value = json!({ "kind": "Cluster", "apiVersion": "kind.x-k8s.io/v1alpha4", "nodes": nodes,
            "networking": { "kubeProxyMode": "iptables" } });
        Self::fit(value).expect("the default configuration is valid")
    }

    /// Reads a configuration file.
    ///
    /// # Errors
    /// The error, with the file's name.
    pub fn read(file: &Path) -> Result<Self, String> {
        let wrong = |why: String| format!("{}: {why}", file.display());
        let source = read(file, "kind configuration").map_err(|diagnostic| wrong(diagnostic.message))?;
        any(&source.text).and_then(Self::fit).map_err(wrong)
    }

    /// Disables kind's pod network, which the harness replaces, and sets the prefixes, which it must know.
    fn fit(mut value: Value) -> Result<Self, String> {
        if value.is_null() {
            return Err("the file is empty".into());
        }
        if value.get("kind").and_then(Value::as_str) != Some("Cluster") {
            return Err("not a kind cluster configuration: `kind: Cluster` is missing".into());
        }
        let root = value.as_object_mut().ok_or("not a mapping")?;
        // The run chooses the name.
        root.remove("name");
        let nodes = root.entry("nodes").or_insert_with(|| json!([{ "role": "control-plane" }]));
        let nodes = nodes.as_array().ok_or("`nodes` is not a list")?;
        let is_worker = |node: &&Value| node.get("role").and_then(Value::as_str) == Some("worker");
        let (workers, nodes) = (nodes.iter().filter(is_worker).count(), nodes.len());
        let networking = root.entry("networking").or_insert_with(|| json!({}));
        let networking = networking.as_object_mut().ok_or("`networking` is not a mapping")?;
        networking.insert("disableDefaultCNI".into(), json!(true));
        // Reachable only from this machine.
        networking.insert("apiServerAddress".into(), json!("127.0.0.1"));
        let mut prefix = |key: &str, usual: &str| {
            let text = networking.entry(key).or_insert_with(|| json!(usual)).as_str().unwrap_or_default().to_owned();
            text.parse::<Prefix>().map_err(|e| format!("networking.{key} `{text}`: {e}"))
        };
        let (pod_prefix, service_prefix) = (prefix("podSubnet", POD_PREFIX)?, prefix("serviceSubnet", SERVICE_PREFIX)?);
        // The nodes' addresses in the fabric come and go. In nftables mode kube-proxy serves only the primary address
        // by default, which is Docker's.
        let patches = root.entry("kubeadmConfigPatches").or_insert_with(|| json!([]));
        let patches = patches.as_array_mut().ok_or("`kubeadmConfigPatches` is not a list")?;
        patches.extend([NODE_PORTS_EVERYWHERE, PLAIN_METRICS].map(|patch| json!(patch)));
        Ok(Self { value, workers, nodes, pod_prefix, service_prefix })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_file_keeps_its_nodes_and_gets_the_pod_network_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("mine.yaml");
        std::fs::write(&file, "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nname: mine\nnodes:\n- role: control-plane\n- role: worker\n  labels: {a: b}\nnetworking: {kubeProxyMode: nftables}\n").unwrap();
        let config = Config::read(&file).unwrap();
        assert_eq!((config.workers, config.nodes), (1, 2));
        assert_eq!(config.value["networking"]["disableDefaultCNI"], true);
        assert_eq!(config.value["networking"]["kubeProxyMode"], "nftables");
        assert_eq!(config.value["nodes"][1]["labels"]["a"], "b");
        assert!(config.value.get("name").is_none());
    }

    #[test]
    fn what_is_made_unasked_is_what_two_workers_says() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kind-configs/two-workers.yaml");
        assert_eq!(Config::read(&file).unwrap(), Config::of_workers(WORKERS));
        assert!(Config::is_usual(&file) && !Config::is_usual(&file.with_file_name("one-worker.yaml")));
    }

    #[test]
    fn what_is_no_configuration_is_told_with_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("wrong.yaml");
        std::fs::write(&file, "kind: Deployment\n").unwrap();
        assert!(
            Config::read(&file)
                .unwrap_err()
                .ends_with("wrong.yaml: not a kind cluster configuration: `kind: Cluster` is missing")
        );
        std::fs::write(&file, "kind: Cluster\nnetworking: {podSubnet: nonsense}\n").unwrap();
        assert!(Config::read(&file).unwrap_err().contains("networking.podSubnet `nonsense`"));
    }
}
