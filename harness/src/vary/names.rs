//! Names of nodes, pods, Services, hosts outside, offices, flows and domains.
//!
//! A reference is a string such as `pod/NAME`, or a bare name under a key that tells its kind ([`kind_of`]). Names of
//! the scenario itself, its twins, steps and parts of calls stay: reports are read by them.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;

use super::tree::Tree;

/// Old names of one kind to new ones.
type Renamed = BTreeMap<String, String>;

/// The domain of the cluster, which stays.
const CLUSTER_DOMAIN: &str = "cluster.local";

pub fn draw(tree: &mut Tree, rng: &mut Rng) -> String {
    let mut drawn = Drawn { rng, taken: BTreeSet::new() };
    let mut kinds: BTreeMap<&str, Renamed> = BTreeMap::new();
    let mut add = |kind: &'static str, name: &str| {
        let new = drawn.name();
        kinds.entry(kind).or_default().insert(name.to_owned(), new);
    };
    if let Some(cluster) = tree.get("cluster") {
        for (kind, key) in [("pod", "pods"), ("service", "services"), ("outside", "outside"), ("office", "offices")] {
            let list = cluster.get(key).map(Tree::items).unwrap_or_default();
            list.iter().filter_map(|item| item.get("name")?.text()).for_each(|name| add(kind, name));
        }
        let nodes = cluster.get("nodes").map(Tree::items).unwrap_or_default();
        nodes.iter().filter_map(Tree::text).for_each(|name| add("node", name));
        let dns = cluster.get("dns").and_then(|dns| dns.get("service")?.text());
        dns.into_iter().for_each(|name| add("service", name));
    }
    for flow in tree.get("workload").map(Tree::items).unwrap_or_default() {
        let names = flow.entries().iter().filter_map(|(_, flow)| flow.get("name")?.text());
        names.for_each(|name| add("flow", name));
    }
    let labels = labels(tree, &mut drawn);
    let names = Names { kinds, labels };
    names.define(tree);
    names.refer(tree);
    tree.keys_mut(&mut |key| {
        if key.contains('.') {
            *key = names.domain(key);
        }
    });
    let pairs = |(kind, renamed): (&&str, &Renamed)| {
        let pairs = renamed.iter().map(|(from, to)| format!("{from} is {to}"));
        format!("{kind}s {}", pairs.collect::<Vec<_>>().join(", "))
    };
    let domains = names.labels.iter().map(|(from, to)| format!("{from} is {to}")).collect::<Vec<_>>().join(", ");
    let kinds = names.kinds.iter().map(pairs).chain((!domains.is_empty()).then(|| format!("in domains {domains}")));
    format!("Names:\n{}", kinds.map(|kind| format!("- {kind}\n")).collect::<String>())
}

struct Drawn<'a> {
    rng: &'a mut Rng,
    taken: BTreeSet<String>,
}

impl Drawn<'_> {
    /// A new name: a letter, then letters, digits and a dash now and then.
    fn name(&mut self) -> String {
        loop {
            let length = self.rng.usize(3..=10);
            let mut name: String = std::iter::repeat_with(|| self.rng.lowercase()).take(length).collect();
            if self.rng.bool() {
                name.push('-');
                name.push(self.rng.lowercase());
                name.push(self.rng.digit(10));
            }
            if self.taken.insert(name.clone()) {
                return name;
            }
        }
    }
}

/// New names for the labels of all domains, but the last one and those of the cluster's domain.
fn labels(tree: &Tree, drawn: &mut Drawn<'_>) -> Renamed {
    let mut domains: BTreeSet<&str> = BTreeSet::new();
    let cluster = tree.get("cluster");
    let hosts = cluster.and_then(|cluster| cluster.get("outside")).map(Tree::items).unwrap_or_default();
    let records = hosts.iter().filter_map(|host| host.get("records")).flat_map(Tree::entries);
    domains.extend(records.map(|(name, _)| name.as_str()));
    let declared = cluster.and_then(|cluster| cluster.get("declared"));
    for key in ["names", "entries"] {
        let of = declared.and_then(|declared| declared.get(key)).map(Tree::entries).unwrap_or_default();
        domains.extend(of.iter().map(|(name, _)| name.as_str()));
    }
    tree.scalars("", &mut |key, scalar| {
        // The name of a `dns-record`, or a search domain.
        if (key == "name" && scalar.text.contains('.')) || key == "search" {
            domains.insert(&scalar.text);
        }
    });
    let mut labels = Renamed::new();
    for domain in domains.into_iter().filter(|domain| !domain.ends_with(CLUSTER_DOMAIN)) {
        let Some((rest, _)) = domain.rsplit_once('.') else { continue };
        for label in rest.split('.').filter(|label| *label != "*") {
            labels.entry(label.to_owned()).or_insert_with(|| drawn.name());
        }
    }
    labels
}

struct Names<'a> {
    kinds: BTreeMap<&'a str, Renamed>,
    labels: Renamed,
}

impl Names<'_> {
    /// The new name of something of a kind; of `NAME-2` too, where several are made of one.
    fn of(&self, kind: &str, name: &str) -> Option<String> {
        let renamed = self.kinds.get(kind)?;
        renamed.get(name).cloned().or_else(|| {
            let (base, number) = name.rsplit_once('-').filter(|(_, number)| number.parse::<u16>().is_ok())?;
            Some(format!("{}-{number}", renamed.get(base)?))
        })
    }

    /// A domain with new labels. In the cluster's domain, also where a search domain adds it, the first one is a Service.
    fn domain(&self, name: &str) -> String {
        let (first, namespace) = name.split_once('.').unwrap_or((name, ""));
        let searched = ["default", "kube-system"].iter().any(|of| {
            let whole = format!("{of}.svc.");
            namespace.is_empty() || whole.strip_prefix(namespace).is_some_and(|rest| rest.starts_with('.'))
        });
        if let Some(new) = self.of("service", first).filter(|_| searched) {
            return if namespace.is_empty() { new } else { format!("{new}.{namespace}") };
        }
        if let Some((service, rest)) = name.split_once('.').filter(|_| name.ends_with(CLUSTER_DOMAIN)) {
            return format!("{}.{rest}", self.of("service", service).unwrap_or_else(|| service.to_owned()));
        }
        let new = |label: &str| self.labels.get(label).map_or_else(|| label.to_owned(), Clone::clone);
        match name.rsplit_once('.') {
            Some((rest, top)) => format!("{}.{top}", rest.split('.').map(new).collect::<Vec<_>>().join(".")),
            None => name.to_owned(),
        }
    }

    /// Renames where things are defined.
    fn define(&self, tree: &mut Tree) {
        let rename = |kind: &str, name: Option<&mut Tree>| {
            if let Some(Tree::Scalar(scalar)) = name
                && let Some(new) = self.of(kind, &scalar.text)
            {
                scalar.text = new;
            }
        };
        if let Some(cluster) = tree.get_mut("cluster") {
            for (kind, key) in [("pod", "pods"), ("service", "services"), ("outside", "outside"), ("office", "offices")]
            {
                let list = cluster.get_mut(key).map(Tree::items_mut).unwrap_or_default();
                list.iter_mut().for_each(|item| rename(kind, item.get_mut("name")));
            }
        }
        for flow in tree.get_mut("workload").map(Tree::items_mut).unwrap_or_default() {
            if let Tree::Map(entries) = flow {
                entries.iter_mut().for_each(|(_, flow)| rename("flow", flow.get_mut("name")));
            }
        }
    }

    /// Renames where they are referred to.
    fn refer(&self, tree: &mut Tree) {
        tree.scalars_mut("", &mut |key, scalar| {
            let text = &scalar.text;
            let new = match text.split_once('/') {
                Some(("name", domain)) => Some(format!("name/{}", self.domain(domain))),
                Some((kind, name)) => self.of(kind, name).map(|name| format!("{kind}/{name}")),
                None if key == "query" || key == "search" || (key == "name" && text.contains('.')) => {
                    Some(self.domain(text))
                }
                None => kind_of(key).and_then(|kind| self.of(kind, text)),
            };
            if let Some(new) = new {
                scalar.text = new;
            }
        });
    }
}

/// The kind of thing that a bare name under this key names.
fn kind_of(key: &str) -> Option<&'static str> {
    Some(match key {
        "node" | "nodes" => "node",
        "pod" | "pods" | "by" | "ingress" => "pod",
        "service" | "balances" => "service",
        "upstreams" | "resolver" => "outside",
        "office" => "office",
        "flow" => "flow",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_new_wherever_it_stands() {
        let map = |entries: Vec<(&str, Tree)>| Tree::Map(entries.into_iter().map(|(k, v)| (k.to_owned(), v)).collect());
        let pod = map(vec![("name", Tree::string("a")), ("node", Tree::string("n"))]);
        let host =
            map(vec![("name", Tree::string("r")), ("records", map(vec![("x.example.com", Tree::List(Vec::new()))]))]);
        let mut tree = map(vec![
            (
                "cluster",
                map(vec![
                    ("nodes", Tree::List(vec![Tree::string("n")])),
                    ("pods", Tree::List(vec![pod])),
                    ("outside", Tree::List(vec![host])),
                ]),
            ),
            ("from", Tree::string("pod/a-2")),
            ("to", Tree::string("name/x.example.com")),
            ("of", Tree::string("name/y.example.com")),
            ("why", Tree::string("a")),
        ]);
        draw(&mut tree, &mut Rng::with_seed(1));
        let cluster = tree.get("cluster").unwrap();
        let text = |tree: Option<&Tree>| tree.and_then(Tree::text).unwrap_or_default().to_owned();
        let (pod, node) = (&cluster.get("pods").unwrap().items()[0], &cluster.get("nodes").unwrap().items()[0]);
        assert_ne!(text(pod.get("name")), "a");
        assert_eq!(text(pod.get("node")), text(Some(node)));
        assert_eq!(text(tree.get("from")), format!("pod/{}-2", text(pod.get("name"))));
        let records = cluster.get("outside").unwrap().items()[0].get("records").unwrap();
        let domain = &records.entries()[0].0;
        assert_eq!(text(tree.get("to")), format!("name/{domain}"));
        let parent = domain.split_once('.').unwrap().1;
        assert_eq!(text(tree.get("of")), format!("name/y.{parent}"));
        assert_eq!(text(tree.get("why")), "a");
    }

    #[test]
    fn a_service_is_one_with_and_without_its_domain() {
        let service = Renamed::from([("shop".to_owned(), "new".to_owned())]);
        let names = Names { kinds: BTreeMap::from([("service", service)]), labels: Renamed::new() };
        for (name, new) in [
            ("shop", "new"),
            ("shop.default", "new.default"),
            ("shop.default.svc", "new.default.svc"),
            ("shop.default.svc.cluster.local", "new.default.svc.cluster.local"),
            ("shop.example.com", "shop.example.com"),
            ("other.default", "other.default"),
        ] {
            assert_eq!(names.domain(name), new);
        }
    }
}
