//! Controllers of pods.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::families::{Families, Object};

/// What the Deployment controller gives as reasons (`pkg/controller/deployment/util`); others are `unknown`.
const REASONS: [&str; 11] = [
    "ReplicaSetUpdated",
    "ReplicaSetCreateError",
    "NewReplicaSetCreated",
    "FoundNewReplicaSet",
    "NewReplicaSetAvailable",
    "ProgressDeadlineExceeded",
    "DeploymentPaused",
    "DeploymentResumed",
    "MinimumReplicasAvailable",
    "MinimumReplicasUnavailable",
    "",
];

fn of<'a>(families: &'a mut Families, kind: &'a str, meta: &'a ObjectMeta) -> Object<'a> {
    families.of(&[("namespace", meta.namespace.as_deref()), (kind, meta.name.as_deref())])
}

pub fn deployment(families: &mut Families, deployment: &Deployment) {
    let mut of = of(families, "deployment", &deployment.metadata);
    let spec = deployment.spec.clone().unwrap_or_default();
    let status = deployment.status.clone().unwrap_or_default();
    for (metric, value) in [
        ("kube_deployment_status_replicas", status.replicas),
        ("kube_deployment_status_replicas_ready", status.ready_replicas),
        ("kube_deployment_status_replicas_available", status.available_replicas),
        ("kube_deployment_status_replicas_unavailable", status.unavailable_replicas),
        ("kube_deployment_status_replicas_updated", status.updated_replicas),
    ] {
        of.put(metric, &[], value.unwrap_or_default());
    }
    of.put_some("kube_deployment_spec_replicas", spec.replicas);
    of.put("kube_deployment_spec_paused", &[], spec.paused == Some(true));
    of.put_generation("kube_deployment_metadata_generation", deployment.metadata.generation);
    of.put_generation("kube_deployment_status_observed_generation", status.observed_generation);
    for condition in status.conditions.iter().flatten() {
        let reason = condition.reason.as_deref().unwrap_or_default();
        let reason = if REASONS.contains(&reason) { reason } else { "unknown" };
        let labels = [("reason", reason), ("condition", &condition.type_)];
        of.put_condition("kube_deployment_status_condition", &labels, "status", &condition.status);
    }
}

pub fn replica_set(families: &mut Families, set: &ReplicaSet) {
    let mut of = of(families, "replicaset", &set.metadata);
    let status = set.status.clone().unwrap_or_default();
    of.put("kube_replicaset_status_replicas", &[], status.replicas);
    of.put("kube_replicaset_status_ready_replicas", &[], status.ready_replicas.unwrap_or_default());
    of.put("kube_replicaset_status_fully_labeled_replicas", &[], status.fully_labeled_replicas.unwrap_or_default());
    of.put_some("kube_replicaset_spec_replicas", set.spec.as_ref().and_then(|spec| spec.replicas));
    of.put_generation("kube_replicaset_metadata_generation", set.metadata.generation);
    of.put_generation("kube_replicaset_status_observed_generation", status.observed_generation);
    of.put_owners("kube_replicaset_owner", set.metadata.owner_references.as_ref());
}

pub fn stateful_set(families: &mut Families, set: &StatefulSet) {
    let mut of = of(families, "statefulset", &set.metadata);
    let status = set.status.clone().unwrap_or_default();
    of.put("kube_statefulset_status_replicas", &[], status.replicas);
    for (metric, value) in [
        ("kube_statefulset_status_replicas_available", status.available_replicas),
        ("kube_statefulset_status_replicas_current", status.current_replicas),
        ("kube_statefulset_status_replicas_ready", status.ready_replicas),
        ("kube_statefulset_status_replicas_updated", status.updated_replicas),
    ] {
        of.put(metric, &[], value.unwrap_or_default());
    }
    of.put_some("kube_statefulset_replicas", set.spec.as_ref().and_then(|spec| spec.replicas));
    of.put_generation("kube_statefulset_metadata_generation", set.metadata.generation);
    of.put_generation("kube_statefulset_status_observed_generation", status.observed_generation);
    for (metric, revision) in [
        ("kube_statefulset_status_current_revision", status.current_revision),
        ("kube_statefulset_status_update_revision", status.update_revision),
    ] {
        of.put(metric, &[("revision", revision.as_deref().unwrap_or_default())], 1);
    }
}

pub fn daemon_set(families: &mut Families, set: &DaemonSet) {
    let mut of = of(families, "daemonset", &set.metadata);
    let status = set.status.clone().unwrap_or_default();
    for (metric, value) in [
        ("kube_daemonset_status_current_number_scheduled", status.current_number_scheduled),
        ("kube_daemonset_status_desired_number_scheduled", status.desired_number_scheduled),
        ("kube_daemonset_status_number_available", status.number_available.unwrap_or_default()),
        ("kube_daemonset_status_number_misscheduled", status.number_misscheduled),
        ("kube_daemonset_status_number_ready", status.number_ready),
        ("kube_daemonset_status_number_unavailable", status.number_unavailable.unwrap_or_default()),
        ("kube_daemonset_status_updated_number_scheduled", status.updated_number_scheduled.unwrap_or_default()),
    ] {
        of.put(metric, &[], value);
    }
    of.put_generation("kube_daemonset_metadata_generation", set.metadata.generation);
    of.put_generation("kube_daemonset_status_observed_generation", status.observed_generation);
}

pub fn job(families: &mut Families, job: &Job) {
    const FAILURES: [&str; 3] = ["BackoffLimitExceeded", "DeadlineExceeded", "Evicted"];
    let mut of = of(families, "job_name", &job.metadata);
    let spec = job.spec.clone().unwrap_or_default();
    let status = job.status.clone().unwrap_or_default();
    of.put("kube_job_info", &[], 1);
    of.put_owners("kube_job_owner", job.metadata.owner_references.as_ref());
    of.put_some("kube_job_spec_parallelism", spec.parallelism);
    of.put_some("kube_job_spec_completions", spec.completions);
    of.put("kube_job_status_active", &[], status.active.unwrap_or_default());
    of.put("kube_job_status_ready", &[], status.ready.unwrap_or_default());
    of.put("kube_job_status_succeeded", &[], status.succeeded.unwrap_or_default());
    let failed = status.failed.unwrap_or_default();
    let mut reason = None;
    for condition in status.conditions.iter().flatten() {
        match condition.type_.as_str() {
            "Complete" => of.put_condition("kube_job_complete", &[], "condition", &condition.status),
            "Failed" => {
                of.put_condition("kube_job_failed", &[], "condition", &condition.status);
                reason = condition.reason.as_deref();
                if failed > 0 {
                    let reason = reason.unwrap_or_default();
                    of.put_state("kube_job_status_failed", &[], "reason", &FAILURES, reason);
                }
            }
            _ => {}
        }
    }
    match reason {
        _ if failed == 0 => of.put("kube_job_status_failed", &[], 0),
        Some(reason) if FAILURES.contains(&reason) => {}
        _ => of.put("kube_job_status_failed", &[("reason", "")], failed),
    }
}
