//! The API objects of a trial. All carry the run's label, by which they are watched and removed.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use k8s_openapi::api::core::v1::{ConfigMap, Pod, PodSpec, Service};
use kube::ResourceExt;
use relapse_model::{ClusterPlan, ForwardPolicy, PodId, PodRole, ServicePlan, TrafficPolicy};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The label with the run's id.
pub const LABEL: &str = "relapse.dev/run";
/// The label with a hash of the object's content. An object with the wanted hash is reused by the next trial.
const CONTENT: &str = "relapse.dev/content";
/// Namespace of a scenario's pods and Services.
pub const NAMESPACE: &str = "default";
/// Namespace of cluster DNS.
pub const DNS_NAMESPACE: &str = "kube-system";
/// Folder of the configuration of an ingress.
pub const INGRESS_FOLDER: &str = "/etc/nginx/conf.d";
/// Name of the ConfigMap of cluster DNS during a trial.
const COREFILE: &str = "relapse-coredns";
/// The readiness gate of replicas of cluster DNS and of pods that are replaced: endpoints only while this condition is true.
pub const GATE: &str = "relapse.dev/serves";

/// Grace period of a pod, in seconds. Pods have no work to finish.
const GRACE: i64 = 1;

/// Where cluster DNS serves its metrics, as kubeadm configures it.
pub const DNS_METRICS_PORT: u16 = 9153;

/// How long a terminating replica of cluster DNS still answers: longer than kube-proxy takes to remove it.
const LAMEDUCK: &str = "2s";

/// The label of a pod with the hash of the ConfigMap that its program reads at start.
const CONFIGURATION: &str = "relapse.dev/configuration";

/// The run that owns the objects.
#[derive(Debug, Clone)]
pub struct Run {
    pub id: String,
}

impl Run {
    /// Builds an object from its content, labelled with its owner and the hash of its content. So the next trial reuses
    /// exactly the objects that it would make, whatever its scenario.
    fn object<K: DeserializeOwned>(&self, namespace: &str, name: &str, mut object: Value) -> K {
        let metadata = &mut object["metadata"];
        (metadata["namespace"], metadata["name"]) = (namespace.into(), name.into());
        metadata["labels"][LABEL] = self.id.as_str().into();
        let mut hasher = DefaultHasher::new();
        object.to_string().hash(&mut hasher);
        object["metadata"]["labels"][CONTENT] = format!("{:016x}", hasher.finish()).into();
        serde_json::from_value(object).expect("the object is built here and valid")
    }

    /// A pod on a node, with one container.
    fn pod(&self, name: &str, node: &str, container: Value, mut object: Value) -> Pod {
        let spec = &mut object["spec"];
        spec["nodeName"] = node.into();
        spec["automountServiceAccountToken"] = false.into();
        spec["enableServiceLinks"] = false.into();
        spec["terminationGracePeriodSeconds"] = GRACE.into();
        spec["tolerations"] = json!([{ "operator": "Exists" }]);
        spec["containers"] = json!([container]);
        self.object(NAMESPACE, name, object)
    }
}

/// The namespace of a pod.
#[must_use]
pub const fn namespace(role: PodRole) -> &'static str {
    match role {
        PodRole::Dns => DNS_NAMESPACE,
        PodRole::Plain | PodRole::Ingress { .. } => NAMESPACE,
    }
}

/// Whether two objects have the same name and content label.
pub fn same<K: ResourceExt>(one: &K, other: &K) -> bool {
    let of = |object: &K| (object.name_any(), object.labels().get(CONTENT).cloned());
    of(one) == of(other)
}

/// The labels of a pod that reads this ConfigMap: it is replaced when the content changes.
fn reads(map: &ConfigMap) -> Value {
    json!({ CONFIGURATION: map.labels()[CONTENT] })
}

/// A pod that only holds its network namespace open. Its clients and servers run outside it and enter that namespace.
pub fn plain(plan: &ClusterPlan, id: PodId, node: &str, image: &str, run: &Run) -> Pod {
    let container = json!({ "name": "pause", "image": image, "imagePullPolicy": "IfNotPresent" });
    let gates = if plan.is_replaced(id) { json!([{ "conditionType": GATE }]) } else { json!([]) };
    let object = json!({ "metadata": { "labels": labels(plan, id) }, "spec": { "readinessGates": gates } });
    run.pod(&plan.pods[id.0].name, node, container, object)
}

/// The labels by which Services select a pod.
fn labels(plan: &ClusterPlan, id: PodId) -> BTreeMap<String, &'static str> {
    let services = plan.services.iter().filter(|service| service.pods.contains(&id));
    services.map(|service| (behind(service), "true")).collect()
}

/// An ingress: a real nginx that starts without a server. Its [`ingress_configuration`] is written and reloaded as a
/// controller does; the image needs no shell for that.
pub fn ingress(plan: &ClusterPlan, id: PodId, node: &str, image: &str, run: &Run) -> Pod {
    let pod = &plan.pods[id.0];
    let container = json!({
        "name": "nginx", "image": image, "imagePullPolicy": "Never",
        "command": ["nginx", "-g", "daemon off;"],
        "volumeMounts": [{ "name": "configuration", "mountPath": INGRESS_FOLDER }],
    });
    let volume = json!({ "name": "configuration", "emptyDir": {} });
    let spec = json!({ "hostNetwork": pod.host_network, "volumes": [volume] });
    run.pod(&pod.name, node, container, json!({ "metadata": { "labels": labels(plan, id) }, "spec": spec }))
}

/// A reverse proxy in front of port `to` of a Service. If the cluster has DNS, the Service is looked up there when a
/// request arrives, at most once a second. Responses are buffered in memory, so that the client sets the pace.
pub fn ingress_configuration(plan: &ClusterPlan, id: PodId, to: u16) -> Option<String> {
    let PodRole::Ingress { backend, port } = plan.pods[id.0].role else { return None };
    let (resolver, host) = match &plan.dns {
        Some(dns) => {
            let (server, name) = (plan.services[dns.service.0].address, plan.service_domain(backend));
            let resolver = format!(
                "    resolver {server} valid=1s ipv6=off;\n    resolver_timeout 1s;\n    set $backend {name};\n"
            );
            (resolver, "$backend".to_owned())
        }
        None => (String::new(), plan.services[backend.0].address.to_string()),
    };
    Some(format!(
        "log_format relapse '$status|$upstream_addr|$upstream_status|$upstream_bytes_received|$request_time';
server {{
    listen {port};
    access_log /dev/stdout relapse;
{resolver}    location / {{
        proxy_pass http://{host}:{to};
        proxy_http_version 1.1;
        proxy_buffers 64 8k;
        proxy_max_temp_file_size 0;
        proxy_connect_timeout 2s;
    }}
}}
"
    ))
}

/// A replica of cluster DNS: the pod template of kubeadm's Deployment, on the scenario's node, with the scenario's
/// Corefile. It is never restarted, so that its loss lasts.
pub fn replica(name: &str, node: &str, template: &PodSpec, corefile: &ConfigMap, run: &Run) -> Pod {
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
    let mut labels = reads(corefile);
    labels["k8s-app"] = "kube-dns".into();
    run.object(DNS_NAMESPACE, name, json!({ "metadata": { "labels": labels }, "spec": spec }))
}

/// A Service over pods of the scenario, with the scenario's address.
pub fn service(plan: &ServicePlan, run: &Run) -> Service {
    let ports = plan.ports.iter().flat_map(|port| {
        ["TCP", "UDP"].map(|protocol| {
            let name = format!("{}-{port}", protocol.to_lowercase());
            let mut object = json!({ "name": name, "port": port, "protocol": protocol });
            if let Some(node_port) = plan.node_port {
                object["nodePort"] = node_port.into();
            }
            object
        })
    });
    let mut spec = json!({
        "clusterIP": plan.address,
        "selector": { behind(plan): "true" },
        "ports": ports.collect::<Vec<Value>>(),
    });
    if plan.node_port.is_some() {
        spec["type"] = "NodePort".into();
        spec["externalTrafficPolicy"] = match plan.policy {
            TrafficPolicy::Cluster => "Cluster",
            TrafficPolicy::Local => "Local",
        }
        .into();
    }
    run.object(NAMESPACE, &plan.name, json!({ "spec": spec }))
}

/// The label of pods behind a Service.
pub fn behind(service: &ServicePlan) -> String {
    format!("relapse.dev/behind-{}", service.name)
}

/// The Corefile of a trial: the cluster's own zone; everything else is forwarded to the scenario's upstream resolvers.
/// By default without a cache, which would only delay the incidents; a cache leaves the cluster's own zone out, as
/// kubeadm's does.
pub fn corefile(plan: &ClusterPlan, run: &Run) -> Option<ConfigMap> {
    let dns = plan.dns.as_ref()?;
    let upstreams = dns.upstreams.iter().map(|id| plan.outside[id.0].address.to_string());
    let upstreams = upstreams.collect::<Vec<_>>().join(" ");
    let policy = match dns.policy {
        ForwardPolicy::Sequential => "sequential",
        ForwardPolicy::RoundRobin => "round_robin",
        ForwardPolicy::Random => "random",
    };
    let cache = dns.cache.map(|seconds| {
        format!(
            "    cache {seconds} {{
        disable success cluster.local
        disable denial cluster.local
    }}
"
        )
    });
    let cache = cache.unwrap_or_default();
    let text = format!(
        ".:53 {{
    errors
    health {{
        lameduck {LAMEDUCK}
    }}
    ready
    prometheus :{DNS_METRICS_PORT}
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
    }}
    forward . {upstreams} {{
        policy {policy}
    }}
{cache}}}
"
    );
    Some(run.object(DNS_NAMESPACE, COREFILE, json!({ "data": { "Corefile": text } })))
}
