use super::*;
use crate::catalogue::Catalogue;
use crate::testing::{catalogue, rules};

fn infer(expressions: &[&str]) -> (Labels, Catalogue) {
    let catalogue = catalogue();
    (Labels::infer(&rules(expressions), &catalogue), catalogue)
}

fn labels(labels: &Labels, catalogue: &Catalogue, exporter: Exporter) -> Vec<String> {
    let place = catalogue.places(exporter).next().unwrap();
    labels.at(exporter, place).iter().map(|(label, value)| format!("{label}={value}")).collect()
}

#[test]
fn without_rules_labels_are_those_of_usual_installations() {
    let (of, recorded) = infer(&[]);
    assert_eq!(labels(&of, &recorded, Exporter::Node), ["instance=worker-1:9100", "job=node-exporter"]);
    let dns = ["instance=10.0.0.3:9153", "job=coredns", "namespace=kube-system", "pod=coredns-1"];
    assert_eq!(labels(&of, &recorded, Exporter::Dns), dns);
    assert_eq!(of.inferred(), [""; 0]);
}

#[test]
fn jobs_are_what_most_rules_ask_for() {
    let (of, recorded) = infer(&[
        r#"node_network_up{job="node"} == 0"#,
        r#"rate(node_network_carrier_changes_total{job=~"node|other"}[5m]) > 0"#,
        r#"node_network_up{job="node-exporter"} == 0"#,
        r#"absent(up{job="kube-dns"} == 1)"#,
        r#"up{job="apiserver"} == 0"#,
        r#"rate(apiserver_requests_total{job="apiserver"}[5m]) > 1"#,
        r#"coredns_panics_total{job!="x"} > 0"#,
    ]);
    assert_eq!(of.inferred(), ["job=node (node_exporter)", "job=kube-dns (cluster DNS)"]);
    assert_eq!(of.origin(Exporter::Node, "job"), Some(Origin::Inferred { agreed: true }));
    assert_eq!(labels(&of, &recorded, Exporter::Node)[1], "job=node");
}

#[test]
fn labels_that_installations_add_are_inferred_and_misspelt_ones_are_not() {
    let (of, recorded) = infer(&[
        r#"node_network_up{cluster="prod",devise="eth0",pod="app-1"} == 0"#,
        r#"node_network_up{cluster=~"prod|test",device="eth1"} == 0"#,
        r#"node_network_up{cluster=~"test"} == 0"#,
        r#"node_network_up{tier="gold"} == 0"#,
        r#"coredns_panics_total{tier="gold"} > 0"#,
        r#"up{job="coredns",region=~"eu-.+"} == 0"#,
    ]);
    let node = ["cluster=prod", "instance=worker-1:9100", "job=node-exporter", "tier=gold"];
    assert_eq!(labels(&of, &recorded, Exporter::Node), node);
    assert_eq!(of.inferred(), ["job=coredns (cluster DNS)", "cluster=prod", "tier=gold", "region=eu-1"]);
}

#[test]
fn probes_of_one_target_are_told_apart() {
    let of = |place: &[(&str, &str)]| {
        let place = place.iter().map(|(part, value)| ((*part).to_owned(), (*value).to_owned())).collect();
        let labels = Labels::default().at(Exporter::Blackbox, &place);
        labels.iter().map(|(label, value)| format!("{label}={value}")).collect::<Vec<_>>().join(" ")
    };
    let common = [("target", "10.0.0.4:3306"), ("module", "tcp"), ("node", "worker-1"), ("address", "10.0.0.1:9115")];
    let on_node = of(&common);
    let in_pod = of(&[&common[..], &[("namespace", "shop"), ("pod", "app")]].concat());
    assert_eq!(on_node, "from=worker-1 instance=10.0.0.4:3306 job=blackbox module=tcp");
    assert_eq!(in_pod, "from=shop/app instance=10.0.0.4:3306 job=blackbox module=tcp");
}

#[test]
fn the_reader_sets_templates() {
    let (mut of, recorded) = infer(&[r#"node_network_up{job="node"} == 0"#]);
    let set = [("job", "mine"), ("instance", "{node}"), ("rack", "{rack}"), ("where", "at {node}!")];
    of.set(Exporter::Node, set.map(|(label, value)| (label.to_owned(), value.to_owned())));
    assert_eq!(labels(&of, &recorded, Exporter::Node), ["instance=worker-1", "job=mine", "where=at worker-1!"]);
    assert_eq!(of.inferred(), [""; 0]);
}

#[test]
fn labels_of_the_target_win_except_where_the_exporter_describes_others() {
    let own = BTreeMap::from([("pod".to_owned(), "app".to_owned()), ("le".to_owned(), "1".to_owned())]);
    let stored = |exporter| {
        let place = [("pod", "own"), ("address", "10.0.0.3:1")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let mut of = Labels::default();
        of.set(exporter, [("pod".to_owned(), "{pod}".to_owned())]);
        of.stored(&Target { exporter, place }, &own)
    };
    let dns = stored(Exporter::Dns);
    assert_eq!((dns["pod"].as_str(), dns["exported_pod"].as_str(), dns["le"].as_str()), ("own", "app", "1"));
    assert_eq!(stored(Exporter::KubeState)["pod"], "app");
}
