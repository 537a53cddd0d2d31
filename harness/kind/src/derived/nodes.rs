//! Nodes, and other objects that do not run pods.

use k8s_openapi::api::core::v1::{Endpoints, Namespace, Node, PersistentVolume, Service};

use super::families::Families;

pub fn node(families: &mut Families, node: &Node) {
    let mut of = families.of(&[("node", node.metadata.name.as_deref())]);
    let spec = node.spec.clone().unwrap_or_default();
    let status = node.status.clone().unwrap_or_default();
    let info = status.node_info.unwrap_or_default();
    let addresses = status.addresses.unwrap_or_default();
    let internal = addresses.iter().rfind(|address| address.type_ == "InternalIP");
    let labels = [
        ("kernel_version", info.kernel_version.as_str()),
        ("os_image", &info.os_image),
        ("container_runtime_version", &info.container_runtime_version),
        ("kubelet_version", &info.kubelet_version),
        ("kubeproxy_version", "deprecated"),
        ("provider_id", spec.provider_id.as_deref().unwrap_or_default()),
        ("pod_cidr", spec.pod_cidr.as_deref().unwrap_or_default()),
        ("system_uuid", &info.system_uuid),
        ("internal_ip", internal.map_or("", |address| &address.address)),
    ];
    of.put("kube_node_info", &labels, 1);
    for label in node.metadata.labels.iter().flat_map(|labels| labels.keys()) {
        if let Some(role) = label.strip_prefix("node-role.kubernetes.io/") {
            of.put("kube_node_role", &[("role", role)], 1);
        }
    }
    of.put("kube_node_spec_unschedulable", &[], spec.unschedulable == Some(true));
    for taint in spec.taints.iter().flatten() {
        let value = taint.value.as_deref().unwrap_or_default();
        of.put("kube_node_spec_taint", &[("key", &taint.key), ("value", value), ("effect", &taint.effect)], 1);
    }
    for condition in status.conditions.iter().flatten() {
        let labels = [("condition", condition.type_.as_str())];
        of.put_condition("kube_node_status_condition", &labels, "status", &condition.status);
    }
    of.put_amounts("kube_node_status_capacity", &[], status.capacity.as_ref());
    of.put_amounts("kube_node_status_allocatable", &[], status.allocatable.as_ref());
}

pub fn namespace(families: &mut Families, namespace: &Namespace) {
    let phase = namespace.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
    let mut of = families.of(&[("namespace", namespace.metadata.name.as_deref())]);
    of.put_state("kube_namespace_status_phase", &[], "phase", &["Active", "Terminating"], phase);
}

pub fn persistent_volume(families: &mut Families, volume: &PersistentVolume) {
    const PHASES: [&str; 5] = ["Pending", "Available", "Bound", "Released", "Failed"];
    let Some(phase) = volume.status.as_ref().and_then(|status| status.phase.as_deref()) else { return };
    let mut of = families.of(&[("persistentvolume", volume.metadata.name.as_deref())]);
    of.put_state("kube_persistentvolume_status_phase", &[], "phase", &PHASES, phase);
}

pub fn service(families: &mut Families, service: &Service) {
    let meta = &service.metadata;
    let mut of = families.of(&[
        ("namespace", meta.namespace.as_deref()),
        ("service", meta.name.as_deref()),
        ("uid", meta.uid.as_deref()),
    ]);
    let spec = service.spec.clone().unwrap_or_default();
    let labels = [
        ("cluster_ip", spec.cluster_ip.as_deref()),
        ("external_name", spec.external_name.as_deref()),
        ("external_traffic_policy", spec.external_traffic_policy.as_deref()),
        ("load_balancer_ip", spec.load_balancer_ip.as_deref()),
    ];
    of.put("kube_service_info", &labels.map(|(name, value)| (name, value.unwrap_or_default())), 1);
    of.put("kube_service_spec_type", &[("type", spec.type_.as_deref().unwrap_or_default())], 1);
}

pub fn endpoints(families: &mut Families, endpoints: &Endpoints) {
    let meta = &endpoints.metadata;
    let mut of = families.of(&[("namespace", meta.namespace.as_deref()), ("endpoint", meta.name.as_deref())]);
    of.put("kube_endpoint_info", &[], 1);
    for subset in endpoints.subsets.iter().flatten() {
        for port in subset.ports.iter().flatten() {
            let number = port.port.to_string();
            let ready = subset.addresses.iter().flatten().map(|address| (address, "true"));
            let others = subset.not_ready_addresses.iter().flatten().map(|address| (address, "false"));
            for (address, ready) in ready.chain(others) {
                let labels = [
                    ("port_protocol", port.protocol.as_deref().unwrap_or_default()),
                    ("port_number", &number),
                    ("port_name", port.name.as_deref().unwrap_or_default()),
                    ("ip", &address.ip),
                    ("ready", ready),
                ];
                of.put("kube_endpoint_address", &labels, 1);
            }
        }
    }
}
