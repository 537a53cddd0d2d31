//! Which metrics are recorded, and which of them only grow.
//!
//! Left out are those about the machine that records: CPU, memory, load, disks, times of its own work, and points in time,
//! which evaluating a recording later would take for the wrong age. A kubelet, its cAdvisor, kube-proxy and mysqld exporters
//! have hundreds of families for dashboards: of these, those that published rules use (kube-prometheus, the mixins, Awesome
//! Prometheus alerts) are recorded.

use relapse_series::Exporter;

/// Families of a kubelet. The latencies of its work (`kubelet_pleg_relist_duration_seconds`,
/// `kubelet_pod_worker_duration_seconds`, `kubelet_runtime_operations_duration_seconds`,
/// `storage_operation_duration_seconds`) are the machine's.
const OF_KUBELET: &[&str] = &[
    "kubelet_certificate_manager_client_expiration_renew_errors",
    "kubelet_certificate_manager_client_ttl_seconds",
    "kubelet_certificate_manager_server_ttl_seconds",
    "kubelet_evictions",
    "kubelet_node_name",
    "kubelet_running_containers",
    "kubelet_running_pods",
    "kubelet_runtime_operations_errors_total",
    "kubelet_runtime_operations_total",
    "kubelet_server_expiration_renew_errors",
    "kubelet_started_containers_errors_total",
    "kubelet_started_pods_errors_total",
    "kubelet_volume_stats_",
    "kubernetes_build_info",
    "rest_client_requests_total",
];

const OF_CADVISOR: &[&str] = &["container_network_", "container_oom_events_total"];

const OF_KUBE_PROXY: &[&str] = &[
    "kubeproxy_sync_proxy_rules_endpoint_changes_",
    "kubeproxy_sync_proxy_rules_iptables_restore_failures_total",
    "kubeproxy_sync_proxy_rules_nftables_sync_failures_total",
    "kubeproxy_sync_proxy_rules_service_changes_",
    "kubernetes_build_info",
    "rest_client_requests_total",
];

/// What a server counts; mysqld exporters pass it on as untyped.
const COUNTED_BY_MYSQL: &[&str] = &[
    "mysql_global_status_aborted_clients",
    "mysql_global_status_aborted_connects",
    "mysql_global_status_bytes_",
    "mysql_global_status_connection_errors_total",
    "mysql_global_status_connections",
    "mysql_global_status_created_tmp_",
    "mysql_global_status_innodb_log_waits",
    "mysql_global_status_innodb_row_lock_time",
    "mysql_global_status_innodb_row_lock_waits",
    "mysql_global_status_queries",
    "mysql_global_status_questions",
    "mysql_global_status_select_",
    "mysql_global_status_slow_queries",
    "mysql_global_status_sort_",
    "mysql_global_status_table_locks_",
];
const STATES_OF_MYSQL: &[&str] = &[
    "mysql_global_status_innodb_row_lock_current_waits",
    "mysql_global_status_max_used_connections",
    "mysql_global_status_open_files",
    "mysql_global_status_threads_",
    "mysql_global_variables_long_query_time",
    "mysql_global_variables_max_connections",
    "mysql_global_variables_open_files_limit",
    "mysql_global_variables_slow_query_log",
    "mysql_up",
];

/// Of all other exporters: what their own processes need, how long their own work took, and families of which no rule is known.
const OF_THE_MACHINE: &[&str] = &[
    "coredns_dns_request_size_bytes",
    "coredns_dns_response_size_bytes",
    "coredns_health_request_duration_seconds",
    "coredns_hosts_reload_timestamp_seconds",
    "coredns_kubernetes_dns_programming_duration_seconds",
    "coredns_kubernetes_rest_client_",
    "coredns_reload_",
    "go_",
    "node_scrape_collector_duration_seconds",
    "process_",
    "promhttp_",
];

pub fn is_recorded(exporter: Exporter, metric: &str) -> bool {
    let is_in = |list: &[&str]| list.iter().any(|prefix| metric.starts_with(prefix));
    match exporter {
        Exporter::Kubelet => is_in(OF_KUBELET),
        Exporter::Cadvisor => is_in(OF_CADVISOR),
        Exporter::KubeProxy => is_in(OF_KUBE_PROXY),
        Exporter::Mysqld => is_in(COUNTED_BY_MYSQL) || is_in(STATES_OF_MYSQL),
        Exporter::KubeState => true,
        Exporter::Node | Exporter::Blackbox | Exporter::Dns => !is_in(OF_THE_MACHINE),
    }
}

/// Metrics that only grow, although the node exporter declares them as gauges or untyped: it passes on what the kernel
/// counts in `/proc/net/netstat`, `/proc/net/snmp` and `/proc/net/stat/nf_conntrack`. [`STATES`] are the exceptions.
const GROWING: &[&str] = &["node_netstat_", "node_nf_conntrack_stat_"];
const STATES: &[&str] = &["node_netstat_Tcp_CurrEstab", "node_netstat_Ip_Forwarding"];

/// Metrics that only grow, although they are not declared as counters.
pub fn grows(metric: &str) -> bool {
    let mut growing = GROWING.iter().chain(COUNTED_BY_MYSQL);
    growing.any(|prefix| metric.starts_with(prefix)) && !STATES.contains(&metric)
}

/// Times that a probe took, and sums of times. They are recorded in steps of 10 us: what varies below that is the machine
/// that records.
pub fn is_time(metric: &str) -> bool {
    metric.starts_with("probe_") && metric.ends_with("_seconds") || metric.ends_with("_seconds_sum")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_depends_on_the_machine_is_left_out() {
        let recorded = |exporter, metrics: &[&str]| {
            let kept = metrics.iter().filter(|metric| is_recorded(exporter, metric));
            kept.map(|metric| (*metric).to_owned()).collect::<Vec<_>>()
        };
        let of_kubelet =
            ["kubelet_running_pods", "kubelet_pleg_relist_duration_seconds_bucket", "process_cpu_seconds_total"];
        assert_eq!(recorded(Exporter::Kubelet, &of_kubelet), ["kubelet_running_pods"]);
        let of_cadvisor =
            ["container_cpu_usage_seconds_total", "container_network_receive_bytes_total", "machine_cpu_cores"];
        assert_eq!(recorded(Exporter::Cadvisor, &of_cadvisor), ["container_network_receive_bytes_total"]);
        let of_dns = ["coredns_dns_responses_total", "coredns_health_request_duration_seconds_sum", "go_threads", "up"];
        assert_eq!(recorded(Exporter::Dns, &of_dns), ["coredns_dns_responses_total", "up"]);
    }
}
