//! Cluster DNS: its Service and its replica pods.
//!
//! Invariant: replicas are the last pods, so that a control with other replicas keeps the ids of all other pods.

use std::net::IpAddr;

use relapse_model::diagnostics::Span;
use relapse_model::spanned::Spanned;

use super::Planner;
use super::addresses::Addresses;
use crate::plan::{
    ClusterPlan, DnsPlan, FlowPlan, NodeId, Place, PodRole, ServiceId, ServicePlan, Target, TrafficPolicy,
};
use crate::scenario::cluster::Dns;
use crate::scenario::trial::DnsOverride;

const PORT: u16 = 53;
const SEARCH: [&str; 3] = ["default.svc.cluster.local", "svc.cluster.local", "cluster.local"];

impl Planner<'_> {
    pub(super) fn plan_dns(&mut self, dns: &Dns, addresses: &mut Addresses) {
        let name = dns.service.as_ref().map_or("kube-dns", |name| &name.0).to_owned();
        let owner = format!("Service `{name}`");
        if self.cluster.services.iter().any(|s| s.name == name) {
            let at = dns.service.as_ref().map_or(dns.replicas.span, |s| s.span);
            self.error(
                at,
                format!("cluster DNS is a Service named `{name}`, and another Service has that name"),
                "rename one, this one with `dns: { service: NAME }`",
            );
        }
        let prefix = self.cluster.network.service_prefix;
        let address = match &dns.address {
            Some(address) => {
                self.inside(address, prefix, "servicePrefix");
                self.claim(addresses, address, &owner);
                address.0
            }
            None => {
                let usual = IpAddr::from([192, 168, 0, 10]);
                let address =
                    if prefix.contains(usual) { usual } else { prefix.nth(10).unwrap_or_else(|| prefix.address()) };
                if !addresses.give(address, &owner) {
                    let other = addresses.owner(address);
                    self.error(
                        dns.replicas.span,
                        format!("cluster DNS and {other} have the same address, {address}"),
                        "give DNS another: `dns: { address: ... }`",
                    );
                }
                address
            }
        };
        let search = dns.search.as_ref().map(|all| {
            for domain in all {
                self.domain(domain);
            }
            all.iter().map(|s| s.value.clone()).collect()
        });
        let cache = dns.cache.as_ref().and_then(|cache| self.seconds("cache", cache));
        self.cluster.services.push(ServicePlan {
            name,
            address,
            ports: vec![PORT],
            pods: Vec::new(),
            node_port: None,
            policy: TrafficPolicy::default(),
        });
        self.cluster.dns = Some(DnsPlan {
            service: ServiceId(self.cluster.services.len() - 1),
            replicas: Vec::new(),
            spares: Vec::new(),
            upstreams: Vec::new(),
            search: search.unwrap_or_else(|| SEARCH.map(str::to_owned).to_vec()),
            cache,
            policy: dns.policy,
        });
    }

    /// Adds the replicas after all other pods, and resolves their upstreams.
    pub(super) fn place_replicas(
        &mut self,
        count: Spanned<u16>,
        nodes: Option<&Spanned<Vec<Spanned<String>>>>,
        upstreams: &[Spanned<String>],
    ) {
        let nodes: Vec<NodeId> = match nodes {
            Some(names) => {
                if names.is_empty() {
                    self.error(names.span, "DNS replicas have no node to run on", "name one, or leave `nodes` out");
                }
                names.iter().filter_map(|name| self.node(name)).collect()
            }
            None => (0..self.cluster.nodes.len()).map(NodeId).collect(),
        };
        let mut replicas = Vec::new();
        for i in 0..usize::from(count.value) {
            let node = nodes.get(i % nodes.len().max(1)).copied().unwrap_or(NodeId(0));
            replicas.extend(self.replica_pod(count.span, node));
        }
        if upstreams.is_empty() {
            self.error(
                count.span,
                "cluster DNS has no upstream resolvers",
                "add `upstreams: [NAME]`, hosts in `outside` that have `records`",
            );
        }
        let upstreams = upstreams.iter().filter_map(|name| self.resolver_named(name)).collect();
        let cluster = &mut self.cluster;
        if let Some(dns) = &mut cluster.dns {
            cluster.services[dns.service.0].pods.clone_from(&replicas);
            dns.replicas = replicas;
            dns.spares.clear();
            dns.upstreams = upstreams;
        }
    }

    /// The cluster with other replicas; all other ids stay the same.
    pub(super) fn with_other_dns(
        &mut self,
        wanted: &Spanned<DnsOverride>,
        original: Option<&Dns>,
    ) -> Option<ClusterPlan> {
        let Some(original) = original.filter(|_| self.cluster.dns.is_some()) else {
            self.error(wanted.span, "this cluster has no DNS to change", "give the cluster `dns`");
            return None;
        };
        if wanted.replicas.is_none() && wanted.nodes.is_none() {
            self.error(wanted.span, "`dns` changes nothing here", "add `replicas` or `nodes`, or leave `dns` out");
            return None;
        }
        let kept = self.cluster.clone();
        self.cluster.pods.retain(|pod| pod.role != PodRole::Dns);
        let nodes = wanted.nodes.as_ref().or(original.nodes.as_ref());
        self.place_replicas(wanted.replicas.unwrap_or(original.replicas), nodes, &original.upstreams);
        let changed = std::mem::replace(&mut self.cluster, kept);
        self.all_pods_remain(&changed, wanted.span);
        Some(changed)
    }

    /// Reports a flow that uses a replica missing from a control.
    fn all_pods_remain(&mut self, changed: &ClusterPlan, at: Span) {
        let gone = |place: Place| match place {
            Place::Pod(id) if id.0 >= changed.pods.len() => Some(self.cluster.pods[id.0].name.clone()),
            _ => None,
        };
        let target = |flow: &FlowPlan| match flow.to {
            Target::Place(place) => Some(place),
            Target::Service(_) | Target::Name(_) => None,
        };
        let lost = self.workload.iter().find_map(|flow| {
            let places = [flow.from].into_iter().chain(flow.in_turn.iter().copied()).chain(target(flow));
            places.into_iter().find_map(gone).map(|pod| (flow.name.clone(), pod))
        });
        if let Some((flow, pod)) = lost {
            let message = format!("flow `{flow}` uses `{pod}`, which this control does not have");
            self.error(at, message, "keep every replica that the workload uses");
        }
    }
}
