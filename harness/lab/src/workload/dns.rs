//! `dns`: looks a name up as a pod's stub resolver does ([`super::stub`]).

use std::sync::Arc;

use relapse_model::diagnostics::{listed, nearest, quoted};
use relapse_model::spanned::Spanned;
use relapse_model::zone::{self, folded};
use relapse_model::{ClusterPlan, Failure, OutsideId, Place, Resolver, ServiceId, ServicePlan, Target};
use tokio::net::TcpStream;

use super::client::{Client, Site};
use super::flow::{Draft, FlowSpec, flow_spec};
use super::stub::lookup;
use crate::job::Job;

flow_spec! {
    /// Looks up a name repeatedly, as a pod's stub resolver does.
    pub struct DnsSpec {
        /// Name to look up.
        pub query: Spanned<String>,
        /// Resolver to ask. Default: cluster DNS.
        pub server: Option<Spanned<String>>,
    }
}

impl FlowSpec for DnsSpec {
    fn plan(&self, flow: &mut Draft<'_, '_>) -> Arc<dyn Client> {
        // One socket for each search domain and one for the bare name, on the client's node or on the replica's.
        flow.plan.entries = 5;
        flow.plan.late = Failure::NameError;
        flow.plan.looks_up = true;
        flow.resolver.domain(&self.query);
        let target = match &self.server {
            Some(server) => flow.resolver.target(server),
            None => flow.resolver.cluster.dns.as_ref().map(|dns| Target::Service(dns.service)),
        };
        if target.is_none() && self.server.is_none() {
            let message = format!("flow `{}` uses cluster DNS, but there is none", self.name.0);
            let help = "give the cluster `dns`, or the flow `server: outside/NAME`";
            flow.resolver.error(self.name.span, message, help);
        }
        flow.check_reachable(target, self.at());
        if let Some(server) = target {
            known_name(flow.resolver, server, self.at(), &self.query);
        }
        Arc::new(Dns { query: self.query.value.clone() })
    }
}

impl DnsSpec {
    /// Where errors about the server are reported.
    fn at(&self) -> &Spanned<String> {
        self.server.as_ref().unwrap_or(&self.from)
    }
}

/// Whether the resolvers behind `server` know a name. Reports a server that is not a resolver, at `at`, and an unknown
/// name.
pub(super) fn known_name(
    resolver: &mut Resolver<'_>,
    server: Target,
    at: &Spanned<String>,
    name: &Spanned<String>,
) -> bool {
    let dns = resolver.cluster.dns.as_ref();
    let cluster_dns = dns.is_some_and(|dns| match server {
        Target::Service(id) => id == dns.service,
        Target::Place(Place::Pod(id)) => dns.replicas.contains(&id),
        Target::Place(_) | Target::Name(_) => false,
    });
    let resolvers: Vec<OutsideId> = match server {
        Target::Place(Place::Outside(id)) if !resolver.cluster.outside[id.0].records.is_empty() => vec![id],
        _ if cluster_dns => dns.map(|dns| dns.upstreams.clone()).unwrap_or_default(),
        _ => {
            let help = "name cluster DNS, one of its replicas, or a host in `outside` that has `records`";
            resolver.error(at.span, format!("{} is not a resolver", quoted(at)), help);
            return false;
        }
    };
    let query = folded(name);
    let search = dns.map(|dns| dns.search.as_slice()).unwrap_or_default();
    if cluster_dns && service_named(&resolver.cluster, &query, search).is_some() {
        return true;
    }
    let known: Vec<&str> = resolvers
        .iter()
        .flat_map(|id| &resolver.cluster.outside[id.0].records)
        .map(|(name, _)| name.as_str())
        .collect();
    // By itself, or below a search domain in which a wildcard answers.
    let mut candidates = std::iter::once(query.clone()).chain(search.iter().map(|s| format!("{query}.{}", folded(s))));
    let is_known = candidates.any(|name| zone::owner(known.iter().copied(), &name).is_some());
    if !known.is_empty() && !is_known {
        let meant = nearest(&query, known.iter().copied()).map(|m| format!("did you mean `{m}`? ")).unwrap_or_default();
        let mut names = known;
        names.dedup();
        let help = format!("{meant}names they know: {}", listed(names));
        resolver.error(name.span, format!("no resolver of this flow knows {}", quoted(name)), help);
    }
    is_known
}

/// The Service with this name, bare or with all or part of a search domain.
pub(super) fn service_named(cluster: &ClusterPlan, query: &str, search: &[String]) -> Option<ServiceId> {
    let is_it = |service: &ServicePlan| {
        query.strip_prefix(service.name.as_str()).is_some_and(|rest| {
            let domain = "default.svc.cluster.local";
            let rest = rest.strip_prefix('.').unwrap_or(rest);
            rest.is_empty() || domain.starts_with(rest) || search.iter().any(|s| s == rest)
        })
    };
    cluster.services.iter().position(is_it).map(ServiceId)
}

#[derive(Debug)]
struct Dns {
    query: String,
}

impl Client for Dns {
    fn attempt<'a>(&'a self, site: Site<'a>, _: Option<TcpStream>) -> Job<'a, Result<Option<TcpStream>, Failure>> {
        Box::pin(async move {
            let search = site.cluster.plan().dns.as_ref().map_or(&[][..], |dns| &dns.search);
            site.details.addresses = lookup(&site.ns, site.address, &self.query, search).await?;
            Ok(None)
        })
    }
}
