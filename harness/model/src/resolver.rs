//! Looks up names and reports errors at their place.
//!
//! Invariant: a name that cannot be resolved is reported once and is then `None`, so that one mistake causes no others.

mod path;

use std::time::Duration;

use crate::diagnostics::{Diagnostic, Diagnostics, Source, Span, did_you_mean, listed, nearest, quoted};
use crate::plan::{
    ClusterPlan, FlowId, FlowPlan, NetworkPlan, NodeId, OfficeId, OutsideId, Place, PodId, ServiceId, Target,
};
use crate::spanned::Spanned;
use crate::values;

pub use path::WrittenPath;

/// What has been resolved so far, and the errors so far. Faults look up their names here.
pub struct Resolver<'a> {
    pub source: &'a Source,
    /// The cluster; for a control, the control's.
    pub cluster: ClusterPlan,
    pub workload: Vec<FlowPlan>,
    /// All errors so far.
    pub wrong: Diagnostics,
}

impl<'a> Resolver<'a> {
    /// A resolver that knows no names yet.
    #[must_use]
    pub fn new(source: &'a Source) -> Self {
        let cluster = ClusterPlan {
            network: NetworkPlan::default(),
            nodes: Vec::new(),
            pods: Vec::new(),
            spares: Vec::new(),
            services: Vec::new(),
            dns: None,
            outside: Vec::new(),
            offices: Vec::new(),
            prefixes: Vec::new(),
            declared_names: Vec::new(),
            names: Vec::new(),
            declared_servers: Vec::new(),
            declared_entries: Vec::new(),
            declared_conntrack_limit: None,
            kind_config: None,
        };
        Self { source, cluster, workload: Vec::new(), wrong: Diagnostics::default() }
    }

    /// Reports an error and how to fix it.
    pub fn error(&mut self, span: Span, message: impl Into<String>, help: impl Into<String>) {
        self.wrong.push(Diagnostic::at(self.source, span, message).help(help));
    }

    /// The node with this name.
    pub fn node(&mut self, name: &Spanned<String>) -> Option<NodeId> {
        self.named("node", name).map(NodeId)
    }

    /// The pod with this name.
    pub fn pod(&mut self, name: &Spanned<String>) -> Option<PodId> {
        self.named("pod", name).map(PodId)
    }

    /// The Service with this name.
    pub fn service(&mut self, name: &Spanned<String>) -> Option<ServiceId> {
        self.named("service", name).map(ServiceId)
    }

    /// The outside host with this name.
    pub fn outside_host(&mut self, name: &Spanned<String>) -> Option<OutsideId> {
        self.named("outside", name).map(OutsideId)
    }

    /// The office with this name.
    pub fn office(&mut self, name: &Spanned<String>) -> Option<OfficeId> {
        self.named("office", name).map(OfficeId)
    }

    /// The pods of a counted name; empty if it is the name of a single pod.
    #[must_use]
    pub fn counted(&self, name: &str) -> Vec<PodId> {
        let pods = &self.cluster.pods;
        if pods.iter().any(|pod| pod.name == name) {
            return Vec::new();
        }
        (0..pods.len()).filter(|i| is_numbered(&pods[*i].name, name)).map(PodId).collect()
    }

    /// The flow with this name.
    pub fn flow(&mut self, name: &Spanned<String>) -> Option<FlowId> {
        self.named("flow", name).map(FlowId)
    }

    fn named(&mut self, kind: &str, name: &Spanned<String>) -> Option<usize> {
        let found = self.names(kind).iter().position(|known| *known == name.value);
        found.or_else(|| self.unknown(kind, name, name))
    }

    /// The replica of cluster DNS with this name.
    pub fn dns_replica(&mut self, name: &Spanned<String>) -> Option<PodId> {
        let replicas = self.cluster.dns.as_ref().map(|dns| dns.replicas.clone()).unwrap_or_default();
        let found = replicas.iter().find(|id| self.cluster.pods[id.0].name == name.value);
        if found.is_none() {
            let names: Vec<&str> = replicas.iter().map(|id| self.cluster.pods[id.0].name.as_str()).collect();
            let help = did_you_mean(&name.value, "replicas", names);
            self.error(name.span, format!("there is no replica {} of cluster DNS", quoted(&name.value)), help);
        }
        found.copied()
    }

    /// The host written `outside/NAME`.
    pub fn outside(&mut self, text: &Spanned<String>) -> Option<OutsideId> {
        match self.target_of(text, &["outside"])? {
            Target::Place(Place::Outside(id)) => Some(id),
            _ => None,
        }
    }

    /// The resolver with this name: a host outside that has records.
    pub fn resolver_named(&mut self, name: &Spanned<String>) -> Option<OutsideId> {
        let id = self.outside_host(name)?;
        self.has_records(id, name);
        Some(id)
    }

    /// Reports a host outside, written there, that is not a resolver.
    pub fn has_records(&mut self, id: OutsideId, at: &Spanned<String>) {
        if self.cluster.outside[id.0].records.is_empty() {
            let help = "give it `records: { NAME: [ADDRESS] }`";
            self.error(at.span, format!("{} is not a resolver", quoted(at)), help);
        }
    }

    /// The entry to a Service, written `node/NAME` or `outside/NAME`.
    pub fn entry(&mut self, text: &Spanned<String>) -> Option<Place> {
        match self.target_of(text, &["node", "outside"])? {
            Target::Place(place) => Some(place),
            Target::Service(_) | Target::Name(_) => None,
        }
    }

    /// The place written `pod/NAME`, `node/NAME`, `outside/NAME` or `office/NAME`.
    pub fn place(&mut self, text: &Spanned<String>) -> Option<Place> {
        match self.target_of(text, &["pod", "node", "outside", "office"])? {
            Target::Place(place) => Some(place),
            Target::Service(_) | Target::Name(_) => None,
        }
    }

    /// A place, or a Service written `service/NAME`.
    pub fn target(&mut self, text: &Spanned<String>) -> Option<Target> {
        self.target_of(text, &["pod", "node", "service", "outside", "office"])
    }

    fn target_of(&mut self, text: &Spanned<String>, kinds: &[&str]) -> Option<Target> {
        let forms = || kinds.iter().map(|kind| format!("{kind}/NAME")).collect::<Vec<_>>().join(", ");
        let Some((kind, name)) = text.value.split_once('/') else {
            let meant = kinds.iter().find(|kind| self.names(kind).contains(&text.value.as_str()));
            let help = match meant {
                Some(kind) => format!("write `{kind}/{}`", text.value),
                None => format!("write {}", forms()),
            };
            self.error(text.span, format!("{} has no kind", quoted(&text.value)), help);
            return None;
        };
        if !kinds.contains(&kind) {
            let help = match nearest(kind, kinds.iter().copied()) {
                Some(meant) => format!("did you mean `{meant}/{name}`?"),
                None => format!("write {}", forms()),
            };
            self.error(text.span, format!("{} is not allowed here", quoted(&text.value)), help);
            return None;
        }
        if let Some(index) = self.names(kind).iter().position(|n| *n == name) {
            return Some(match kind {
                "pod" => Target::Place(Place::Pod(PodId(index))),
                "node" => Target::Place(Place::Node(NodeId(index))),
                "outside" => Target::Place(Place::Outside(OutsideId(index))),
                "office" => Target::Place(Place::Office(OfficeId(index))),
                _ => Target::Service(ServiceId(index)),
            });
        }
        let elsewhere = kinds.iter().find(|other| self.names(other).contains(&name)).copied();
        let name = name.to_owned();
        match elsewhere {
            Some(other) => {
                let message = format!("there is no {} {}", noun(kind), quoted(&name));
                self.error(text.span, message, format!("did you mean `{other}/{name}`?"));
                None
            }
            None => self.unknown(kind, text, &name),
        }
    }

    /// All names of one kind, in the order of their ids.
    #[must_use]
    pub fn names(&self, kind: &str) -> Vec<&str> {
        let c = &self.cluster;
        match kind {
            "pod" => c.pods.iter().map(|p| p.name.as_str()).collect(),
            "node" => c.nodes.iter().map(|n| n.name.as_str()).collect(),
            "outside" => c.outside.iter().map(|o| o.name.as_str()).collect(),
            "office" => c.offices.iter().map(|o| o.name.as_str()).collect(),
            "service" => c.services.iter().map(|s| s.name.as_str()).collect(),
            "flow" => self.workload.iter().map(|f| f.name.as_str()).collect(),
            _ => Vec::new(),
        }
    }

    fn unknown<T>(&mut self, kind: &str, at: &Spanned<String>, name: &str) -> Option<T> {
        let names = self.names(kind);
        let help = match name.strip_prefix(kind).and_then(|rest| rest.strip_prefix('/')) {
            Some(bare) if names.contains(&bare) => format!("write `{bare}`: only the name goes here"),
            _ => did_you_mean(name, plural(kind), names),
        };
        self.error(at.span, format!("there is no {} {}", noun(kind), quoted(name)), help);
        None
    }

    /// A duration above 0 and at most an hour.
    pub fn duration(&mut self, key: &str, duration: &Spanned<values::Duration>) -> Option<Duration> {
        const LONGEST: Duration = Duration::from_secs(3600);
        if duration.0.is_zero() {
            self.error(duration.span, format!("`{key}` cannot be 0"), "write a time above 0, such as `500ms`");
            return None;
        }
        if duration.0 > LONGEST {
            self.error(duration.span, format!("`{key}` is longer than an hour"), "write at most `1h`");
            return None;
        }
        Some(duration.0)
    }

    /// A time to live in seconds (RFC 1035, 3.2.1); reports a fraction of a second.
    pub fn seconds(&mut self, key: &str, duration: &Spanned<values::Duration>) -> Option<u32> {
        let time = self.duration(key, duration)?;
        if time.subsec_nanos() > 0 {
            self.error(
                duration.span,
                format!("`{key}` has a fraction of a second"),
                "write whole seconds, such as `5s`",
            );
            return None;
        }
        u32::try_from(time.as_secs()).ok()
    }

    /// Reports a pod that does not run on a node.
    pub fn pod_on_node(&mut self, at: &Spanned<String>, pod: PodId, node: NodeId) {
        let actual = self.cluster.pods[pod.0].node;
        if actual != node {
            let (pod, actual, node) =
                (&self.cluster.pods[pod.0].name, &self.cluster.nodes[actual.0].name, &self.cluster.nodes[node.0].name);
            let message = format!("pod `{pod}` runs on `{actual}`, not on `{node}`");
            let here = self.cluster.pods.iter().filter(|p| self.cluster.nodes[p.node.0].name == *node);
            let help = format!("pods of `{node}`: {}", listed(here.map(|p| p.name.as_str())));
            self.error(at.span, message, help);
        }
    }

    /// Reports a pod on the host network, which has neither a link nor rules of its own.
    pub fn has_link(&mut self, at: &Spanned<String>, pod: PodId) {
        let pod = &self.cluster.pods[pod.0];
        if pod.host_network {
            let message = format!("pod `{}` is on the host network: it has neither link nor rules", pod.name);
            self.error(at.span, message, "name a pod with an address of its own");
        }
    }

    /// The replicas of cluster DNS; reports an error if there are none.
    pub fn needs_dns(&mut self, at: Span) -> Option<Vec<PodId>> {
        let replicas = self.cluster.dns.as_ref().map(|dns| dns.replicas.clone());
        if replicas.is_none() {
            self.error(at, "this cluster has no DNS", "give the cluster `dns: { replicas: 2, upstreams: [...] }`");
        }
        replicas
    }

    /// Reports a string that is not a domain name.
    pub fn domain(&mut self, name: &Spanned<String>) {
        let label = |l: &str| {
            let good = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
            (1..=63).contains(&l.len()) && l.bytes().all(good)
        };
        if name.len() > 253 || !name.strip_suffix('.').unwrap_or(name).split('.').all(label) {
            self.error(
                name.span,
                format!("{} is not a domain name", quoted(name)),
                "write a name such as `example-api.com`",
            );
        }
    }

    /// Reports an invalid owner of a record: a domain name, or a wildcard (RFC 4592).
    pub fn owner(&mut self, name: &Spanned<String>) {
        let below = name.strip_prefix("*.").unwrap_or(name).to_owned();
        self.domain(&Spanned { value: below, span: name.span });
    }

    /// Reports an invalid name of a network interface.
    pub fn interface_name(&mut self, name: &Spanned<String>) -> Option<()> {
        let good = |c: char| c.is_ascii_graphic() && c != '/' && c != ':';
        if (1..=15).contains(&name.len()) && name.chars().all(good) && name.value != "." && name.value != ".." {
            return Some(());
        }
        self.error(
            name.span,
            format!("{} is not a valid interface name", quoted(&name.value)),
            "write at most 15 letters and digits, such as `eth1`",
        );
        None
    }
}

/// Whether a pod is one of a counted name, such as `NAME-1`.
#[must_use]
pub fn is_numbered(pod: &str, base: &str) -> bool {
    let number = pod.strip_prefix(base).and_then(|rest| rest.strip_prefix('-'));
    number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

fn noun(kind: &str) -> &str {
    match kind {
        "outside" => "outside host",
        "service" => "Service",
        kind => kind,
    }
}

fn plural(kind: &str) -> &'static str {
    match kind {
        "pod" => "pods",
        "node" => "nodes",
        "service" => "Services",
        "outside" => "outside hosts",
        "office" => "offices",
        "flow" => "flows",
        _ => "names",
    }
}
