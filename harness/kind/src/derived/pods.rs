use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodStatus};

use super::families::{Families, Object};

/// `kube_pod_status_reason` has one of these, or `Other`.
const REASONS: [&str; 8] = [
    "Evicted",
    "NodeAffinity",
    "NodeLost",
    "PreemptionByScheduler",
    "SchedulingGated",
    "Shutdown",
    "TerminationByKubelet",
    "UnexpectedAdmissionError",
];
const PHASES: [&str; 5] = ["Pending", "Running", "Succeeded", "Failed", "Unknown"];

pub fn pod(families: &mut Families, pod: &Pod) {
    let meta = &pod.metadata;
    let mut of = families.of(&[
        ("namespace", meta.namespace.as_deref()),
        ("pod", meta.name.as_deref()),
        ("uid", meta.uid.as_deref()),
    ]);
    let spec = pod.spec.clone().unwrap_or_default();
    let status = pod.status.clone().unwrap_or_default();
    let node = spec.node_name.as_deref().unwrap_or_default();
    let creator = meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
    let labels = [
        ("host_ip", status.host_ip.as_deref().unwrap_or_default()),
        ("pod_ip", status.pod_ip.as_deref().unwrap_or_default()),
        ("node", node),
        ("created_by_kind", creator.map_or("", |owner| &owner.kind)),
        ("created_by_name", creator.map_or("", |owner| &owner.name)),
        ("priority_class", spec.priority_class_name.as_deref().unwrap_or_default()),
        ("host_network", if spec.host_network == Some(true) { "true" } else { "false" }),
    ];
    of.put("kube_pod_info", &labels, 1);
    of.put_owners("kube_pod_owner", meta.owner_references.as_ref());
    of.put("kube_pod_restart_policy", &[("type", spec.restart_policy.as_deref().unwrap_or_default())], 1);
    state(&mut of, &status);
    for (prefix, containers, statuses) in [
        ("kube_pod_container", &spec.containers, status.container_statuses),
        ("kube_pod_init_container", &spec.init_containers.unwrap_or_default(), status.init_container_statuses),
    ] {
        for Container { name, resources, .. } in containers {
            of.put_resources(prefix, &[("container", name), ("node", node)], resources.as_ref());
        }
        for status in statuses.iter().flatten() {
            container(&mut of, prefix, status);
        }
    }
}

fn state(of: &mut Object<'_>, status: &PodStatus) {
    if let Some(phase) = &status.phase {
        of.put_state("kube_pod_status_phase", &[], "phase", &PHASES, phase);
    }
    for condition in status.conditions.iter().flatten() {
        match condition.type_.as_str() {
            "Ready" => of.put_condition("kube_pod_status_ready", &[], "condition", &condition.status),
            "PodScheduled" => {
                of.put_condition("kube_pod_status_scheduled", &[], "condition", &condition.status);
                if condition.status == "False" {
                    of.put("kube_pod_status_unschedulable", &[], 1);
                }
            }
            _ => {}
        }
    }
    let ended = status.container_statuses.iter().flatten().filter_map(|c| c.state.as_ref()?.terminated.as_ref());
    let reasons = ended.filter_map(|ended| ended.reason.as_deref());
    let conditions = status.conditions.iter().flatten().filter_map(|condition| condition.reason.as_deref());
    for reason in status.reason.as_deref().into_iter().chain(conditions).chain(reasons) {
        if REASONS.contains(&reason) {
            of.put("kube_pod_status_reason", &[("reason", reason)], 1);
        }
    }
    if status.reason.as_deref().is_some_and(|reason| !reason.is_empty() && !REASONS.contains(&reason)) {
        of.put("kube_pod_status_reason", &[("reason", "Other")], 1);
    }
}

fn container(of: &mut Object<'_>, prefix: &str, status: &ContainerStatus) {
    let container = ("container", status.name.as_str());
    let state = status.state.clone().unwrap_or_default();
    let mut put = |metric: &str, value: f64| of.put(&format!("{prefix}_status_{metric}"), &[container], value);
    put("ready", status.ready.into());
    put("restarts_total", status.restart_count.into());
    put("running", state.running.is_some().into());
    put("terminated", state.terminated.is_some().into());
    put("waiting", state.waiting.is_some().into());
    let last = status.last_state.as_ref().and_then(|last| last.terminated.as_ref());
    if let Some(last) = last {
        put("last_terminated_exitcode", last.exit_code.into());
    }
    for (metric, reason) in [
        ("waiting_reason", state.waiting.map(|waiting| waiting.reason)),
        ("terminated_reason", state.terminated.map(|terminated| terminated.reason)),
        ("last_terminated_reason", last.map(|last| last.reason.clone())),
    ] {
        let Some(reason) = reason else { continue };
        let labels = [container, ("reason", reason.as_deref().unwrap_or_default())];
        of.put(&format!("{prefix}_status_{metric}"), &labels, 1);
    }
}
