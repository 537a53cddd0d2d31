//! Rules and recorded series for tests.

use std::collections::BTreeMap;

use crate::catalogue::Catalogue;
use crate::expr::Expression;
use crate::recording::{Exporter, Header, Phases, Target};
use crate::rule::{Group, Rule, RuleSet, Severity, What};

/// An alert for each expression, called A0, A1 and so on; a recording rule for each `name := expression`.
pub fn rules(expressions: &[&str]) -> RuleSet {
    let group = Group { name: "g".into(), file: "r.yaml".into(), interval: None, query_offset: Default::default() };
    let mut set = RuleSet { groups: vec![group], files: 1, ..RuleSet::default() };
    for (index, text) in expressions.iter().enumerate() {
        let alert = || What::Alert {
            name: format!("A{index}"),
            wait: Default::default(),
            keep_firing: Default::default(),
            severity: Severity::Warning,
        };
        let (what, expr) = match text.split_once(" := ") {
            Some((name, expr)) => (What::Record { name: name.to_owned() }, expr),
            None => (alert(), *text),
        };
        let read = Expression::of(expr);
        set.rules.push(Rule {
            group: 0,
            file: "r.yaml".into(),
            line: index + 1,
            what,
            expr: expr.to_owned(),
            labels: BTreeMap::new(),
            reach: read.reach,
            read,
        });
    }
    set
}

/// A node, a CoreDNS, a kubelet with cAdvisor, and kube-state-metrics.
pub fn catalogue() -> Catalogue {
    let target = |exporter, place: &[(&str, &str)]| Target {
        exporter,
        place: place.iter().map(|(part, value)| ((*part).to_owned(), (*value).to_owned())).collect(),
    };
    let header = Header {
        scenario: "s".into(),
        phases: Phases { fault: 60, heal: 180, end: 240 },
        targets: vec![
            target(Exporter::Node, &[("node", "worker-1")]),
            target(
                Exporter::Dns,
                &[
                    ("namespace", "kube-system"),
                    ("pod", "coredns-1"),
                    ("node", "worker-1"),
                    ("address", "10.0.0.3:9153"),
                ],
            ),
            target(Exporter::Kubelet, &[("node", "worker-1"), ("address", "10.0.0.1:10250")]),
            target(Exporter::Cadvisor, &[("node", "worker-1"), ("address", "10.0.0.1:10250")]),
            target(Exporter::KubeState, &[]),
        ],
        ..Header::default()
    };
    type OfTarget<'a> = (usize, &'a str, &'a [(&'a str, &'a str)]);
    let series: [OfTarget<'_>; 19] = [
        (0, "up", &[]),
        (0, "node_network_up", &[("device", "eth0")]),
        (0, "node_network_carrier_changes_total", &[("device", "eth0")]),
        (0, "node_network_receive_bytes_total", &[("device", "eth0")]),
        (0, "node_network_receive_packets_total", &[("device", "eth1")]),
        (0, "node_nf_conntrack_entries", &[]),
        (0, "node_nf_conntrack_entries_limit", &[]),
        (0, "node_netstat_Udp_InErrors", &[]),
        (1, "up", &[]),
        (1, "coredns_panics_total", &[]),
        (1, "coredns_dns_responses_total", &[("rcode", "NOERROR"), ("server", "dns://:53")]),
        (1, "coredns_proxy_request_duration_seconds_count", &[("to", "10.0.0.9:53"), ("rcode", "NOERROR")]),
        (1, "coredns_proxy_healthcheck_failures_total", &[("to", "10.0.0.9:53"), ("proxy_name", "forward")]),
        (2, "up", &[]),
        (2, "kubelet_running_pods", &[]),
        (3, "up", &[]),
        (3, "container_network_receive_bytes_total", &[("pod", "app"), ("namespace", "shop"), ("interface", "eth0")]),
        (4, "up", &[]),
        (4, "kube_deployment_status_replicas_unavailable", &[("namespace", "shop"), ("deployment", "app")]),
    ];
    let mut catalogue = Catalogue::default();
    for (target, name, labels) in series {
        let labels = labels.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect();
        catalogue.add(&header, [(target, name, &labels)]);
    }
    catalogue
}
