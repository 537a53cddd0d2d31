//! Planning of domain names as targets of flows. [`super::stub`] looks them up.

use relapse_model::diagnostics::quoted;
use relapse_model::spanned::Spanned;
use relapse_model::zone::{self, folded};
use relapse_model::{ClusterPlan, NameId, NamePlan, OutsideId, Place, Resolver, Target};

use super::dns;

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
    let server = match (asked, from) {
        (Some(host), _) => Some(Target::Place(Place::Outside(host))),
        (None, Place::Pod(_) | Place::Node(_)) => resolver.cluster.dns.as_ref().map(|dns| Target::Service(dns.service)),
        (None, Place::Outside(_) | Place::Office(_)) => {
            let first = resolver.cluster.outside.iter().position(|host| !host.records.is_empty());
            first.map(|number| Target::Place(Place::Outside(OutsideId(number))))
        }
    };
    let Some(server) = server else {
        let message = format!("{} has no resolver to ask for {}", resolver.cluster.place_name(from), quoted(&name));
        let help = "give the cluster `dns`, or a host in `outside` some `records`";
        resolver.error(text.span, message, help);
        return None;
    };
    if !dns::known_name(resolver, server, text, &name) {
        return None;
    }
    let places = places(&resolver.cluster, &name);
    if places.is_empty() {
        let message = format!("no host has an address of {}", quoted(&name));
        resolver.error(text.span, message, "give a host in `outside` the address that `records` have for it");
        return None;
    }
    let names = &mut resolver.cluster.names;
    let number = names.iter().position(|known| known.name == name.value).unwrap_or_else(|| {
        names.push(NamePlan { name: name.value, places });
        names.len() - 1
    });
    Some(Target::Name(NameId(number)))
}

/// The places with the addresses of a name, from the records of all resolvers.
fn places(cluster: &ClusterPlan, name: &str) -> Vec<Place> {
    let search = cluster.dns.as_ref().map_or(&[][..], |dns| &dns.search);
    if let Some(service) = dns::service_named(cluster, name, search) {
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
