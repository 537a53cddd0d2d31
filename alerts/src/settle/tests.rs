use super::*;
use crate::recording::Exporter;
use crate::testing::{catalogue, rules};

/// One line for each rule: how it is settled, or `-`.
fn settled_with(labels: impl FnOnce(&mut Labels), expressions: &[&str]) -> String {
    let (rules, catalogue) = (rules(expressions), catalogue());
    let mut of = Labels::infer(&rules, &catalogue);
    labels(&mut of);
    let settled = settle(&rules, &catalogue, &of);
    let line = |(index, text): (usize, &&str)| {
        let verdict = match settled.get(&RuleId(index)) {
            None => "-".to_owned(),
            Some(OfRule::NotCovered { metrics }) => format!("NOT COVERED {}", metrics.join(", ")),
            Some(OfRule::CannotFire { why, nearest }) => {
                format!("CANNOT FIRE {why}{}", nearest.iter().map(|n| format!("; nearest: {n}")).collect::<String>())
            }
            Some(OfRule::AlwaysOn { why }) => format!("ALWAYS ON {why}"),
            Some(OfRule::Undecided { why }) => format!("UNDECIDED {why}"),
            Some(OfRule::Error { message }) => format!("ERROR {message}"),
        };
        format!("{text}\n    {verdict}\n")
    };
    expressions.iter().enumerate().map(line).collect()
}

fn settled(expressions: &[&str]) -> String {
    settled_with(|_| {}, expressions)
}

#[test]
fn renamed_metrics_can_never_fire() {
    insta::assert_snapshot!(settled(&[
        // The alerts of coredns-mixin's forward.libsonnet.
        r#"histogram_quantile(0.99, sum(rate(coredns_forward_request_duration_seconds_bucket{job="kube-dns"}[5m])) by(to, le)) > 4"#,
        r#"sum(rate(coredns_forward_responses_total{job="kube-dns",rcode="SERVFAIL"}[5m])) / sum(rate(coredns_forward_responses_total{job="kube-dns"}[5m])) > 0.03"#,
        r#"sum(rate(coredns_forward_healthcheck_failures_total{job="kube-dns"}[5m])) by (to) > 0"#,
        r#"sum(rate(coredns_forward_healthcheck_broken_total{job="kube-dns"}[5m])) > 0"#,
        "node_nf_conntrack_entries_limt - node_nf_conntrack_entries < 100",
        "rate(node_network_recieve_bytes_total[5m]) == 0",
        "rate(node_network_receive_packets[5m]) == 0",
        "node_network_up == 0 unless node_network_recieve_bytes_total",
        "coredns_forward_responses_total > 1 or node_network_up == 0",
    ]));
}

#[test]
fn a_job_that_the_reader_does_not_have() {
    let job = |labels: &mut Labels| labels.set(Exporter::Dns, [("job".to_owned(), "coredns".to_owned())]);
    insta::assert_snapshot!(settled_with(
        job,
        &[
            r#"absent(up{job="kube-dns"} == 1)"#,
            r#"absent(up{job="coredns"} == 1)"#,
            r#"rate(coredns_panics_total{job="kube-dns"}[5m]) > 0"#,
            r#"rate(coredns_panics_total{job!="kube-dns"}[5m]) > 0"#,
        ]
    ));
    // Without it the job is that of the rules.
    insta::assert_snapshot!(settled(&[
        r#"absent(up{job="kube-dns"} == 1)"#,
        r#"rate(coredns_panics_total{job="kube-dns"}[5m]) > 0"#,
        r#"rate(coredns_panics_total{job="kube-dns",pod=~"x"}[5m]) > 0"#,
        r#"rate(coredns_panics_total{job="coredns"}[5m]) > 0"#,
        r#"rate(coredns_panics_total{job="dns-2"}[5m]) > 0"#,
    ]));
}

#[test]
fn labels_of_the_exporter_and_labels_that_nothing_has() {
    insta::assert_snapshot!(settled(&[
        r#"node_network_up{pod=~"node-exporter-.*"} == 0"#,
        r#"node_network_up{pod="app"} == 0"#
    ]));
    insta::assert_snapshot!(settled(&[
        r#"node_network_up{pod=~"app-.*"} == 0"#,
        r#"node_network_up{interface="eth0"} == 0"#,
        r#"node_network_up{devise="eth0"} == 0"#,
        r#"node_network_up{device="ens5"} == 0"#,
        r#"node_network_up{device!="lo",cluster="prod"} == 0"#,
        r#"node_network_up{interface=""} == 0"#,
        r#"rate(container_network_receive_bytes_total{pod_name="app"}[5m]) == 0"#,
        r#"rate(container_network_receive_bytes_total{pod="other",namespace="prod"}[5m]) == 0"#,
        r#"kube_deployment_status_replicas_unavailable{exported_namespace="x",label_app="y"} > 0"#,
        r#"node_network_up{instance="db-1:9100"} == 0"#,
        r#"up{instance="db-1:9100"} == 0"#,
        r#"coredns_dns_responses_total{rcode="SERVFAIL"} > 0"#,
        r#"up{tier="gold"} == 0"#,
        r#"{__name__=~"nothing_.*"} > 0"#,
        r#"{__name__="node_network_up",__name__=~"node_.*"} > 0"#,
        r#"rate(container_network_receive_bytes_total{image!=""}[5m]) == 0"#,
    ]));
}

#[test]
fn what_was_not_recorded_is_not_covered_under_absent_either() {
    insta::assert_snapshot!(settled(&[
        "istio_requests_total > 1",
        "node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes < 0.1",
        "node_memory_MemAvailabel_bytes < 1",
        r#"node_systemd_unit_state{state="failed"} == 1"#,
        "kube_deployment_status_replicas_available > 0",
        "node_netstat_Udp6_InErrors > 0",
        r#"absent(up{job="apiserver"} == 1)"#,
        r#"up{job="apiserver"} == 0"#,
        "(count(istio_up) or vector(0)) < 1",
        "absent(istio_up) and node_network_up == 0",
        "absent(istio_up) or node_network_up == 0",
        "istio_requests_total > 1 or node_network_up == 0",
        "node_network_up == 0 unless istio_up",
        "node_network_up == 0 and istio_up",
        "vector(1)",
    ]));
    // The node exporter reads them from a file that not every kernel has.
    insta::assert_snapshot!(settled(&[
        "increase(node_nf_conntrack_stat_drop[5m]) > 0",
        "absent(node_nf_conntrack_stat_drop)",
        "node_nf_conntrack_stat_drop > 0 or node_network_up == 0",
    ]));
}

#[test]
fn recording_rules_and_alerts_are_followed() {
    insta::assert_snapshot!(settled(&[
        "a:live := rate(node_network_up[5m])",
        "a:gone := rate(coredns_forward_responses_total[5m])",
        "a:unseen := rate(istio_requests_total[5m])",
        "a:broken := sum(",
        "b:gone := sum(a:gone)",
        "a:two := istio_requests_total",
        "a:two := node_network_up",
        "a:live > 1",
        "b:gone > 1",
        "a:unseen > 1",
        "a:broken > 1",
        "a:two > 1",
        "a:unknown > 1",
        "absent(a:gone)",
        r#"ALERTS{alertname="A7"} == 1"#,
        r#"ALERTS{alertname="A8"} == 1"#,
        r#"count(ALERTS_FOR_STATE{alertname="Other"}) > 1"#,
        "ALERTS > 1",
        "c:circle := c:circle + node_network_up",
        "c:circle > 1",
    ]));
}

#[test]
fn what_looks_back_far_is_undecided_and_what_does_not_parse_an_error() {
    insta::assert_snapshot!(settled(&[
        "predict_linear(node_network_up[6h], 3600) < 0",
        "avg_over_time(node_network_up[7h]) < 0",
        "node_network_up offset 3d > 1",
        "node_network_up @ 1600000000 > 1",
        "istio_requests_total offset 3d > 1",
        "sum by (x (node_network_up)",
        "holt_winters(node_network_up[5m], 0.5, 0.5) > 1",
    ]));
}

#[test]
fn nothing_is_claimed_of_what_was_not_recorded_at_all() {
    let (rules, nothing) =
        (rules(&["node_network_recieve_bytes_total > 1", "absent(up)", "vector(1)"]), Catalogue::default());
    let settled = settle(&rules, &nothing, &Labels::default());
    let covered = |index| matches!(settled.get(&RuleId(index)), Some(OfRule::NotCovered { .. }));
    assert!(covered(0) && covered(1));
    assert_eq!(settled.len(), 2);
}

#[test]
fn metrics_that_exporters_have_at_times_only_are_never_true_where_they_are_missing() {
    let expressions = ["rate(kubelet_evictions[15m]) > 0", "kube_pod_container_status_waiting_reason > 0"];
    assert!(expressions.iter().all(|expression| settled(&[expression]).ends_with("    -\n")));
    let (rules, nothing) = (rules(&expressions), Catalogue::default());
    let settled = settle(&rules, &nothing, &Labels::default());
    assert!(settled.values().all(|verdict| matches!(verdict, OfRule::NotCovered { .. })) && settled.len() == 2);
}

#[test]
fn values_that_no_recorded_series_has_are_named_with_the_nearest() {
    let rules = rules(&[
        r#"coredns_dns_responses_total{rcode="NOEROR"} > 1"#,
        r#"coredns_dns_responses_total{rcode="NOERROR"} > 1"#,
        r#"coredns_dns_responses_total{rcode!="NOEROR"} > 1"#,
    ]);
    let unknown = unknown_values(&rules, &catalogue(), &Labels::default());
    let (why, nearest) = &unknown[&RuleId(0)];
    assert_eq!(why, r#"no recorded series of `coredns_dns_responses_total` has `rcode="NOEROR"`"#);
    assert_eq!(nearest, r#"rcode="NOERROR""#);
    assert_eq!(unknown.len(), 1);
}
