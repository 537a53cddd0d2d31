//! Who an alert is about, as its labels say.

use std::collections::BTreeMap;

use crate::verdict::Subject;

/// Jobs whose `pod` is the exporter's own: they export what their node does.
const ON_NODES: [&str; 5] = ["node-exporter", "node_exporter", "kubelet", "cadvisor", "kube-proxy"];

/// The first that fits: `namespace` with `pod`; `node`, `nodename`, `instance` without its port; `service`, or what a
/// blackbox exporter probed. Where `job` is an exporter on a node, the node wins over the exporter's own pod. `is_node`
/// tells names of nodes from those of other hosts, which `instance` may have as well.
#[must_use]
pub fn subject(labels: &BTreeMap<String, String>, is_node: &dyn Fn(&str) -> bool) -> Subject {
    let label = |name: &str| labels.get(name).map(String::as_str).filter(|value| !value.is_empty());
    let is = |kind: &str, of: &str, labels: &[&str]| Subject::Is {
        subject: format!("{kind}/{of}"),
        labels: labels.iter().map(|&label| label.to_owned()).collect(),
    };
    let node = || {
        ["node", "nodename", "kubernetes_node"]
            .into_iter()
            .find_map(|name| Some(is("node", label(name)?, &[name])))
            .or_else(|| {
                let host = without_port(label("instance")?);
                let named = is_node(host) && label("target").is_none();
                named.then(|| is("node", host, &["instance"]))
            })
    };
    let on_node = label("job").is_some_and(|job| ON_NODES.iter().any(|exporter| job.contains(exporter)));
    let pod = || label("namespace").and(label("pod")).map(|pod| is("pod", pod, &["namespace", "pod"]));
    let other = || {
        let service = label("service").map(|service| is("service", service, &["service"]));
        let probed = || label("target").map(|target| is("target", target, &["target"]));
        let instance = || label("instance").map(|instance| is("target", instance, &["instance"]));
        service.or_else(probed).or_else(instance)
    };
    let found = if on_node { node().or_else(pod) } else { pod().or_else(node) };
    found.or_else(other).unwrap_or(Subject::NotSaid)
}

fn without_port(instance: &str) -> &str {
    match instance.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => host.trim_matches(['[', ']']),
        _ => instance,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_label_that_fits_decides() {
        let of = |labels: &[(&str, &str)]| {
            let labels = labels.iter().map(|&(label, value)| (label.to_owned(), value.to_owned())).collect();
            match subject(&labels, &|name| ["w1", "w2"].contains(&name)) {
                Subject::Is { subject, labels } => format!("{subject} ({})", labels.join(", ")),
                Subject::NotSaid => "not said".to_owned(),
            }
        };
        assert_eq!(of(&[("namespace", "shop"), ("pod", "web-1"), ("node", "w1")]), "pod/web-1 (namespace, pod)");
        assert_eq!(of(&[("node", "w1"), ("instance", "w2:9100")]), "node/w1 (node)");
        assert_eq!(of(&[("nodename", "w1")]), "node/w1 (nodename)");
        assert_eq!(of(&[("instance", "w2:9100"), ("job", "node-exporter")]), "node/w2 (instance)");
        assert_eq!(
            of(&[
                ("job", "node-exporter"),
                ("namespace", "monitoring"),
                ("pod", "exporter-x"),
                ("instance", "w2:9100")
            ]),
            "node/w2 (instance)"
        );
        assert_eq!(of(&[("pod", "web-1"), ("service", "web")]), "service/web (service)");
        assert_eq!(
            of(&[("instance", "https://office.example/"), ("job", "blackbox")]),
            "target/https://office.example/ (instance)"
        );
        assert_eq!(of(&[("instance", "10.0.0.7:9153"), ("service", "kube-dns")]), "service/kube-dns (service)");
        assert_eq!(of(&[("instance", "10.0.0.7:9153")]), "target/10.0.0.7:9153 (instance)");
        assert_eq!(of(&[("instance", "db.example.com:3306")]), "target/db.example.com:3306 (instance)");
        assert_eq!(of(&[("instance", "[fd00::1]:9100")]), "target/[fd00::1]:9100 (instance)");
        assert_eq!(of(&[("severity", "warning"), ("namespace", "shop")]), "not said");
        assert_eq!(of(&[("service", "")]), "not said");
    }
}
