//! The objects a trial makes in the cluster, as the API takes them. All carry the trial's label, by which
//! they are watched and removed.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;

use k8s_openapi::api::core::v1::{ConfigMap, Pod, PodSpec, Service};
use kube::ResourceExt;
use relapse_model::{ClusterPlan, PodId, PodRole, ServicePlan};
use serde_json::{Value, json};

/// Its value is the run's id.
pub const LABEL: &str = "relapse.dev/run";
/// Its value stands for all that is in the object: one that has it is what is wanted, and may stay for the
/// next trial of the same scenario.
pub const CONTENT: &str = "relapse.dev/content";
/// Where pods and Services of a scenario live.
pub const NAMESPACE: &str = "default";
/// Where cluster DNS does.
pub const DNS_NAMESPACE: &str = "kube-system";
/// Its configuration for the length of a trial.
pub const COREFILE: &str = "relapse-coredns";
/// A replica of cluster DNS is an endpoint only while this condition holds.
pub const GATE: &str = "relapse.dev/serves";

/// Pods die at once when they are told to: nothing in them has work to finish.
const GRACE: i64 = 1;

/// Whose objects they are.
#[derive(Debug, Clone)]
pub struct Run {
    pub id: String,
    pub scenario: String,
}

impl Run {
    /// On every object; what differs between scenarios is not handed on from one to the other.
    fn labels(&self) -> Value {
        json!({ LABEL: self.id, "relapse.dev/scenario": self.scenario })
    }
}

/// The namespace a pod lives in.
#[must_use]
pub const fn namespace(role: PodRole) -> &'static str {
    match role {
        PodRole::Dns => DNS_NAMESPACE,
        PodRole::Plain | PodRole::Ingress { .. } => NAMESPACE,
    }
}

pub type PodObject = Pod;

/// What an object says, as its label has it.
pub fn content<K: ResourceExt>(object: &K) -> Option<String> {
    object.labels().get(CONTENT).cloned()
}

/// A pod that holds its namespace open; what it does is done from outside, through that.
pub fn plain(plan: &ClusterPlan, id: PodId, node: &str, image: &str, run: &Run) -> Pod {
    let mut labels = run.labels();
    for service in plan.services.iter().filter(|service| service.pods.contains(&id)) {
        labels[behind(service)] = "true".into();
    }
    object(json!({
        "metadata": { "name": plan.pods[id.0].name, "namespace": NAMESPACE, "labels": labels },
        "spec": {
            "nodeName": node,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": GRACE,
            "tolerations": [{ "operator": "Exists" }],
            "containers": [{ "name": "pause", "image": image, "imagePullPolicy": "IfNotPresent" }],
        },
    }))
}

/// An ingress: a real nginx, with [`ingress_configuration`].
pub fn ingress(name: &str, node: &str, image: &str, run: &Run) -> Pod {
    object(json!({
        "metadata": { "name": name, "namespace": NAMESPACE, "labels": run.labels() },
        "spec": {
            "nodeName": node,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": GRACE,
            "tolerations": [{ "operator": "Exists" }],
            "containers": [{
                "name": "nginx", "image": image, "imagePullPolicy": "Never",
                "command": ["nginx", "-g", "daemon off;"],
                "volumeMounts": [{ "name": "configuration", "mountPath": "/etc/nginx/conf.d" }],
            }],
            "volumes": [{ "name": "configuration", "configMap": { "name": name } }],
        },
    }))
}

/// A reverse proxy in front of a Service. Responses are held in memory, so that the pace is the client's.
pub fn ingress_configuration(name: &str, port: u16, to: SocketAddr, run: &Run) -> ConfigMap {
    let text = format!(
        "server {{
    listen {port};
    access_log off;
    location / {{
        proxy_pass http://{to};
        proxy_http_version 1.1;
        proxy_buffers 64 8k;
        proxy_max_temp_file_size 0;
        proxy_connect_timeout 2s;
    }}
}}
"
    );
    object(json!({
        "metadata": { "name": name, "namespace": NAMESPACE, "labels": run.labels() },
        "data": { "default.conf": text },
    }))
}

/// A replica of cluster DNS: what kubeadm's Deployment runs, on the scenario's node, with the scenario's
/// Corefile. It does not come back by itself, so that a loss lasts.
pub fn replica(name: &str, node: &str, template: &PodSpec, run: &Run) -> Pod {
    let mut spec = serde_json::to_value(template).unwrap_or_default();
    for gone in ["affinity", "nodeSelector", "topologySpreadConstraints"] {
        spec.as_object_mut().map(|spec| spec.remove(gone));
    }
    spec["nodeName"] = node.into();
    spec["restartPolicy"] = "Never".into();
    spec["terminationGracePeriodSeconds"] = GRACE.into();
    spec["tolerations"] = json!([{ "operator": "Exists" }]);
    spec["readinessGates"] = json!([{ "conditionType": GATE }]);
    for container in spec["containers"].as_array_mut().into_iter().flatten() {
        container.as_object_mut().map(|container| container.remove("livenessProbe"));
        container["readinessProbe"]["periodSeconds"] = 1.into();
        container["readinessProbe"]["failureThreshold"] = 3.into();
        container["imagePullPolicy"] = "IfNotPresent".into();
    }
    for volume in spec["volumes"].as_array_mut().into_iter().flatten() {
        if let Some(map) = volume.get_mut("configMap") {
            map["name"] = COREFILE.into();
        }
    }
    let mut labels = run.labels();
    labels["k8s-app"] = "kube-dns".into();
    object(json!({
        "metadata": { "name": name, "namespace": DNS_NAMESPACE, "labels": labels },
        "spec": spec,
    }))
}

/// A Service over pods of the scenario, with the scenario's address.
pub fn service(plan: &ServicePlan, run: &Run) -> Service {
    let ports = plan.ports.iter().flat_map(|port| {
        ["TCP", "UDP"].map(|protocol| {
            json!({ "name": format!("{}-{port}", protocol.to_lowercase()), "port": port, "protocol": protocol })
        })
    });
    object(json!({
        "metadata": { "name": plan.name, "namespace": NAMESPACE, "labels": run.labels() },
        "spec": {
            "clusterIP": plan.address,
            "selector": { behind(plan): "true" },
            "ports": ports.collect::<Vec<Value>>(),
        },
    }))
}

/// The Corefile of a trial. No cache: it would only delay what the incidents are about.
pub fn corefile(text: &str, run: &Run) -> ConfigMap {
    object(json!({
        "metadata": { "name": COREFILE, "namespace": DNS_NAMESPACE, "labels": run.labels() },
        "data": { "Corefile": text },
    }))
}

/// The label of pods behind a Service.
fn behind(service: &ServicePlan) -> String {
    format!("relapse.dev/behind-{}", service.name)
}

/// Written here and read here: it fits. Labelled with what it says.
fn object<K: serde::de::DeserializeOwned>(mut value: Value) -> K {
    let mut hasher = DefaultHasher::new();
    value.to_string().hash(&mut hasher);
    value["metadata"]["labels"][CONTENT] = format!("{:016x}", hasher.finish()).into();
    serde_json::from_value(value).expect("an object of the API")
}
