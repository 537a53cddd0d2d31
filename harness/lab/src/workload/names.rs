//! Planning of domain names as targets of flows. [`super::stub`] looks them up.

use relapse_model::diagnostics::{listed, nearest, quoted};
use relapse_model::spanned::Spanned;
use relapse_model::zone::{self, folded};
use relapse_model::{ClusterPlan, NameId, NamePlan, OutsideId, Place, Resolver, ServiceId, ServicePlan, Target};

/// Prefix of a name in place of a target such as `pod/NAME`.
pub const PREFIX: &str = "name/";

/// The target written there. A name is looked up at `from`, by the resolver `asked` if given. Reports a name without
/// resolver, record or host.
pub(super) fn target(
    resolver: &mut Resolver<'_>,
    text: &Spanned<String>,
    from: Option<Place>,
    asked: Option<OutsideId>,
) -> Option<Target> {
    let Some(name) = text.value.strip_prefix(PREFIX) else { return resolver.target(text) };
    let name = Spanned { value: folded(name), span: text.span };
    resolver.domain(&name);
    let from = from?;
    let server = match asked {
        Some(host) => Some(Target::Place(Place::Outside(host))),
        None => resolver.cluster.resolver_at(from),
    };
    let Some(server) = server else {
        let message = format!("{} has no resolver to ask for {}", resolver.cluster.place_name(from), quoted(&name));
        let help = "give the cluster `dns`, or a host in `outside` some `records`";
        resolver.error(text.span, message, help);
        return None;
    };
    if !known_name(resolver, server, text, &name) {
        return None;
    }
    let places = places(&resolver.cluster, &name);
    if places.is_empty() {
        let message = format!("no host has an address of {}", quoted(&name));
        resolver.error(text.span, message, "give a host in `outside` the address that `records` have for it");
        return None;
    }
    let search = resolver.cluster.dns.as_ref().map_or(&[][..], |dns| &dns.search);
    let service = service_named(&resolver.cluster, &name, search);
    let names = &mut resolver.cluster.names;
    let number = names.iter().position(|known| known.name == name.value).unwrap_or_else(|| {
        names.push(NamePlan { name: name.value, service, places });
        names.len() - 1
    });
    Some(Target::Name(NameId(number)))
}

/// The places with the addresses of a name, from the records of all resolvers.
fn places(cluster: &ClusterPlan, name: &str) -> Vec<Place> {
    let search = cluster.dns.as_ref().map_or(&[][..], |dns| &dns.search);
    if let Some(service) = service_named(cluster, name, search) {
        return cluster.behind(Target::Service(service));
    }
    let candidates: Vec<String> =
        std::iter::once(name.to_owned()).chain(search.iter().map(|s| format!("{name}.{}", folded(s)))).collect();
    let addresses = cluster.outside.iter().flat_map(|host| {
        let owners = host.records.iter().map(|(owner, _)| owner.as_str());
        let owner = candidates.iter().find_map(|name| zone::owner(owners.clone(), name));
        host.records.iter().filter(move |(name, _)| owner == Some(name)).flat_map(|(_, addresses)| addresses)
    });
    let mut places = Vec::new();
    for place in addresses.filter_map(|address| cluster.place_at(*address)) {
        if !places.contains(&place) {
            places.push(place);
        }
    }
    places
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
fn service_named(cluster: &ClusterPlan, query: &str, search: &[String]) -> Option<ServiceId> {
    let is_it = |service: &ServicePlan| {
        query.strip_prefix(service.name.as_str()).is_some_and(|rest| {
            let domain = "default.svc.cluster.local";
            let rest = rest.strip_prefix('.').unwrap_or(rest);
            rest.is_empty() || domain.starts_with(rest) || search.iter().any(|s| s == rest)
        })
    };
    cluster.services.iter().position(is_it).map(ServiceId)
}
