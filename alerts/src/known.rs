//! Facts about exporters that recordings do not contain: reviewed by hand, each with its source.

use crate::recording::Exporter;

/// How an exporter is called in messages.
#[must_use]
pub const fn name(exporter: Exporter) -> &'static str {
    match exporter {
        Exporter::Node => "node_exporter",
        Exporter::Blackbox => "blackbox_exporter",
        Exporter::Mysqld => "mysqld_exporter",
        Exporter::Dns => "cluster DNS",
        Exporter::Kubelet => "kubelet",
        Exporter::Cadvisor => "cAdvisor",
        Exporter::KubeProxy => "kube-proxy",
        Exporter::KubeState => "kube-state-metrics",
    }
}

/// The exporter that a metric belongs to by its name. `up` and what every Go program exports belong to none.
#[must_use]
pub fn exporter_of(metric: &str) -> Option<Exporter> {
    const PREFIXES: [(&str, Exporter); 8] = [
        ("node_", Exporter::Node),
        ("probe_", Exporter::Blackbox),
        ("mysql_", Exporter::Mysqld),
        ("coredns_", Exporter::Dns),
        ("kubelet_", Exporter::Kubelet),
        ("container_", Exporter::Cadvisor),
        ("kubeproxy_", Exporter::KubeProxy),
        ("kube_", Exporter::KubeState),
    ];
    PREFIXES.iter().find(|(prefix, _)| metric.starts_with(prefix)).map(|(_, exporter)| *exporter)
}

/// Jobs as the usual installations call them: kube-prometheus, the Helm charts prometheus and kube-prometheus-stack,
/// the mixins' defaults, and the examples in the exporters' documentation. The first is the default.
#[must_use]
pub const fn jobs(exporter: Exporter) -> &'static [&'static str] {
    match exporter {
        Exporter::Node => &["node-exporter", "node", "node_exporter", "nodeexporter", "prometheus-node-exporter"],
        Exporter::Blackbox => &["blackbox", "blackbox-exporter", "blackbox_exporter", "prometheus-blackbox-exporter"],
        Exporter::Mysqld => &["mysqld-exporter", "mysql", "mysqld", "mysqld_exporter", "mysql-exporter", "mariadb"],
        Exporter::Dns => &["coredns", "kube-dns", "core-dns", "dns"],
        Exporter::Kubelet => &["kubelet", "kubernetes-nodes"],
        Exporter::Cadvisor => &["kubelet", "cadvisor", "kubernetes-nodes-cadvisor", "kubernetes-cadvisor"],
        Exporter::KubeProxy => &["kube-proxy"],
        Exporter::KubeState => &["kube-state-metrics"],
    }
}

/// Words in the names of an exporter's own pods and containers.
#[must_use]
pub const fn own_pods(exporter: Exporter) -> &'static [&'static str] {
    match exporter {
        Exporter::Node => &["node-exporter", "node_exporter", "nodeexporter", "exporter", "monitoring"],
        Exporter::Blackbox => &["blackbox", "exporter", "monitoring"],
        Exporter::Mysqld => &["mysql", "mariadb", "exporter", "database", "db"],
        Exporter::Dns => &["coredns", "dns"],
        Exporter::Kubelet | Exporter::Cadvisor => &["kubelet", "cadvisor"],
        Exporter::KubeProxy => &["kube-proxy"],
        Exporter::KubeState => &["kube-state-metrics", "kube-rbac-proxy"],
    }
}

/// Whether labels of the exporter win over those of its target (`honor_labels`), as kube-prometheus and the Helm charts
/// configure it: these describe pods other than their own.
#[must_use]
pub const fn honors_labels(exporter: Exporter) -> bool {
    matches!(exporter, Exporter::Kubelet | Exporter::Cadvisor | Exporter::KubeState)
}

/// Labels that installations add to targets, and no exporter has by itself for all its metrics.
pub const OF_TARGETS: &[&str] = &[
    "account",
    "app",
    "cluster",
    "cluster_id",
    "cluster_name",
    "component",
    "customer",
    "datacenter",
    "dc",
    "domain",
    "endpoint",
    "env",
    "environment",
    "group",
    "host",
    "hostgroup",
    "hostname",
    "ingress",
    "instance_name",
    "kubernetes_cluster",
    "kubernetes_name",
    "kubernetes_namespace",
    "kubernetes_node",
    "kubernetes_pod_name",
    "location",
    "metrics_path",
    "module",
    "namespace",
    "node",
    "nodename",
    "owner",
    "probe",
    "project",
    "prometheus",
    "region",
    "replica",
    "role",
    "service",
    "site",
    "stage",
    "target",
    "team",
    "tenant",
    "url",
    "zone",
];

/// Metrics that an exporter reads from a file which not every kernel has: their beginning, and the file.
const OF_FILES: [(&str, &str); 1] = [("node_nf_conntrack_stat_", "/proc/net/stat/nf_conntrack")];

/// Why there is no such metric, if no `recorded` one is of the same file.
#[must_use]
pub fn blind<'a>(metric: &str, recorded: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let (prefix, file) = OF_FILES.into_iter().find(|(prefix, _)| metric.starts_with(prefix))?;
    let exporter = name(exporter_of(metric)?);
    let blind = !recorded.into_iter().any(|other| other.starts_with(prefix));
    blind.then(|| format!("the recorded kernel has no `{file}`, so {exporter} has no `{metric}`"))
}

/// Families that are not recorded although their exporters have them, because their values would be those of the
/// recording machine: CPU, memory, load, disks, time.
const LEFT_OUT: [&str; 27] = [
    "node_boot_time",
    "node_context_switches",
    "node_cooling_device_",
    "node_cpu",
    "node_disk_",
    "node_edac_",
    "node_entropy_",
    "node_filesystem_",
    "node_forks",
    "node_hwmon_",
    "node_intr",
    "node_load",
    "node_md_",
    "node_memory_",
    "node_pressure_",
    "node_procs_",
    "node_schedstat_",
    "node_thermal_zone_",
    "node_timex_",
    "node_vmstat_",
    "container_cpu_",
    "container_fs_",
    "container_memory_",
    "container_spec_",
    "machine_",
    "process_cpu_",
    "process_resident_memory_",
];

/// Whether a metric is of a family that recordings leave out.
#[must_use]
pub fn is_left_out(metric: &str) -> bool {
    LEFT_OUT.iter().any(|prefix| metric.starts_with(prefix))
}

/// Metrics that exporters have only while or after something happens, so that a recording without them says that it did
/// not: `pkg/kubelet/metrics`, CoreDNS's plugin/pkg/proxy, and kube-state-metrics' docs/metrics.
const OCCASIONAL: [&str; 9] = [
    "coredns_proxy_healthcheck_failures_total",
    "kube_node_spec_taint",
    "kube_pod_container_status_last_terminated_reason",
    "kube_pod_container_status_terminated_reason",
    "kube_pod_container_status_waiting_reason",
    "kube_pod_init_container_status_terminated_reason",
    "kube_pod_init_container_status_waiting_reason",
    "kube_pod_status_unschedulable",
    "kubelet_evictions",
];

/// Whether a recorded exporter has the metric at times only.
#[must_use]
pub fn is_occasional(metric: &str) -> bool {
    OCCASIONAL.contains(&metric)
}

/// A metric that has another name since some version.
pub struct Renamed {
    pub to: &'static str,
    pub since: &'static str,
}

/// Old name, new name, version. Suffixes of histograms are kept.
///
/// CoreDNS: notes/coredns-1.7.0.md and notes/coredns-1.11.0.md, plugin/forward/README.md. Kubernetes: CHANGELOG-1.14,
/// 1.16 and 1.17 (deprecated metrics removed), 1.19. kube-state-metrics: CHANGELOG of 2.0.
const RENAMED: [(&str, &str, &str); 33] = [
    ("coredns_forward_request_duration_seconds", "coredns_proxy_request_duration_seconds", "CoreDNS 1.11"),
    ("coredns_forward_requests_total", "coredns_proxy_request_duration_seconds_count", "CoreDNS 1.11"),
    ("coredns_forward_responses_total", "coredns_proxy_request_duration_seconds_count", "CoreDNS 1.11"),
    ("coredns_forward_healthcheck_failures_total", "coredns_proxy_healthcheck_failures_total", "CoreDNS 1.11"),
    ("coredns_forward_conn_cache_hits_total", "coredns_proxy_conn_cache_hits_total", "CoreDNS 1.11"),
    ("coredns_forward_conn_cache_misses_total", "coredns_proxy_conn_cache_misses_total", "CoreDNS 1.11"),
    ("coredns_forward_request_count_total", "coredns_proxy_request_duration_seconds_count", "CoreDNS 1.7"),
    ("coredns_forward_response_rcode_count_total", "coredns_proxy_request_duration_seconds_count", "CoreDNS 1.7"),
    ("coredns_forward_healthcheck_failure_count_total", "coredns_proxy_healthcheck_failures_total", "CoreDNS 1.7"),
    ("coredns_forward_healthcheck_broken_count_total", "coredns_forward_healthcheck_broken_total", "CoreDNS 1.7"),
    ("coredns_dns_request_count_total", "coredns_dns_requests_total", "CoreDNS 1.7"),
    ("coredns_dns_request_type_count_total", "coredns_dns_requests_total", "CoreDNS 1.7"),
    ("coredns_dns_request_do_count_total", "coredns_dns_do_requests_total", "CoreDNS 1.7"),
    ("coredns_dns_response_rcode_count_total", "coredns_dns_responses_total", "CoreDNS 1.7"),
    ("coredns_panic_count_total", "coredns_panics_total", "CoreDNS 1.7"),
    ("coredns_cache_size", "coredns_cache_entries", "CoreDNS 1.7"),
    ("kubelet_running_pod_count", "kubelet_running_pods", "Kubernetes 1.19"),
    ("kubelet_running_container_count", "kubelet_running_containers", "Kubernetes 1.19"),
    ("kubelet_pod_worker_latency_microseconds", "kubelet_pod_worker_duration_seconds", "Kubernetes 1.14"),
    ("kubelet_pod_start_latency_microseconds", "kubelet_pod_start_duration_seconds", "Kubernetes 1.14"),
    ("kubelet_pleg_relist_latency_microseconds", "kubelet_pleg_relist_duration_seconds", "Kubernetes 1.14"),
    (
        "kubelet_runtime_operations_latency_microseconds",
        "kubelet_runtime_operations_duration_seconds",
        "Kubernetes 1.14",
    ),
    ("kubelet_runtime_operations", "kubelet_runtime_operations_total", "Kubernetes 1.14"),
    ("kubelet_runtime_operations_errors", "kubelet_runtime_operations_errors_total", "Kubernetes 1.14"),
    (
        "kubeproxy_sync_proxy_rules_latency_microseconds",
        "kubeproxy_sync_proxy_rules_duration_seconds",
        "Kubernetes 1.14",
    ),
    (
        "kube_pod_container_resource_requests_cpu_cores",
        "kube_pod_container_resource_requests",
        "kube-state-metrics 2.0",
    ),
    (
        "kube_pod_container_resource_requests_memory_bytes",
        "kube_pod_container_resource_requests",
        "kube-state-metrics 2.0",
    ),
    ("kube_pod_container_resource_limits_cpu_cores", "kube_pod_container_resource_limits", "kube-state-metrics 2.0"),
    ("kube_pod_container_resource_limits_memory_bytes", "kube_pod_container_resource_limits", "kube-state-metrics 2.0"),
    ("kube_node_status_allocatable_cpu_cores", "kube_node_status_allocatable", "kube-state-metrics 2.0"),
    ("kube_node_status_allocatable_memory_bytes", "kube_node_status_allocatable", "kube-state-metrics 2.0"),
    ("kube_node_status_capacity_pods", "kube_node_status_capacity", "kube-state-metrics 2.0"),
    ("kube_node_status_allocatable_pods", "kube_node_status_allocatable", "kube-state-metrics 2.0"),
];

/// The new name of a metric.
#[must_use]
pub fn renamed(metric: &str) -> Option<Renamed> {
    let exact = |name: &str| RENAMED.iter().find(|(old, ..)| *old == name);
    let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| exact(metric.strip_suffix(suffix)?));
    exact(metric).or(of_histogram).map(|(_, to, since)| Renamed { to, since })
}

/// Suffixes that node_exporter 0.16 added to nearly all of its metrics (its CHANGELOG, "Breaking changes").
pub const UNITS_SINCE_016: [&str; 5] = ["_total", "_bytes", "_seconds", "_seconds_total", "_bytes_total"];

/// The new name of a label: cAdvisor's and the kubelet's, Kubernetes 1.16 (CHANGELOG-1.16, "Removed metrics").
#[must_use]
pub fn renamed_label(exporter: Exporter, label: &str) -> Option<Renamed> {
    let to = match (exporter, label) {
        (Exporter::Kubelet | Exporter::Cadvisor, "pod_name") => "pod",
        (Exporter::Kubelet | Exporter::Cadvisor, "container_name") => "container",
        _ => return None,
    };
    Some(Renamed { to, since: "Kubernetes 1.16" })
}
