//! The ways in of a workload's flows, for triage: what an operator knows of them, made from the plan alone.

use std::net::IpAddr;

use relapse_detectors::triage::{Access, AskedService, End, Leg, Lookup};

use crate::plan::{ClusterPlan, FlowPlan, Place, PodRole, ServiceId, Target};

/// The way in of each flow.
#[must_use]
pub fn accesses(cluster: &ClusterPlan, flows: &[FlowPlan]) -> Vec<Access> {
    flows.iter().map(|flow| Access { flow: flow.name.clone(), legs: legs(cluster, flow) }).collect()
}

fn legs(cluster: &ClusterPlan, flow: &FlowPlan) -> Vec<Leg> {
    let from: Vec<Place> = std::iter::once(flow.from).chain(flow.in_turn.iter().copied()).collect();
    let resolver = flow.resolver.map(|id| cluster.outside[id.0].address);
    let resolver = resolver.or_else(|| cluster.resolver_of(flow.from));
    if let Some(name) = &flow.query {
        let resolver = cluster.target_address(flow.to);
        let lookup = Some(Lookup { name: name.clone(), resolver });
        return vec![Leg { from: ends(cluster, &from), lookup, ..Leg::default() }];
    }
    let (own, mut behind) = leg(cluster, &from, (flow.to, flow.via), resolver, flow.port);
    let mut legs = vec![own];
    if let Some((service, port)) = ingress(cluster, &behind) {
        legs[0].ingress = true;
        let to = Target::Service(service);
        let (back, answering) = leg(cluster, &behind, (to, None), None, Some(port));
        // An ingress looks its back end up, where there is cluster DNS.
        let resolver = cluster.resolver_of(behind[0]);
        let lookup = resolver.map(|resolver| Lookup { name: cluster.service_domain(service), resolver });
        legs.push(Leg { lookup, ..back });
        behind = answering;
    }
    for part in &flow.parts {
        let Some(first) = behind.first() else { continue };
        let (own, _) = leg(cluster, &behind, (part.to, None), cluster.resolver_of(*first), Some(part.port));
        legs.push(Leg { part: Some(part.name.clone()), ..own });
    }
    legs
}

/// A leg, and the places that answer: behind a node's address may be an ingress on the host network or a Service, behind
/// a load balancer its Service.
fn leg(
    cluster: &ClusterPlan,
    from: &[Place],
    (to, via): (Target, Option<Place>),
    resolver: Option<IpAddr>,
    port: Option<u16>,
) -> (Leg, Vec<Place>) {
    let named = match to {
        Target::Name(id) => Some(&cluster.names[id.0]),
        Target::Place(_) | Target::Service(_) => None,
    };
    let mut service = match to {
        Target::Service(id) => Some(id),
        Target::Name(_) => named.and_then(|name| name.service),
        Target::Place(_) => None,
    };
    let mut port = port;
    let (mut entered, mut answering) = (via.into_iter().collect::<Vec<_>>(), Vec::new());
    for place in cluster.behind(to) {
        match cluster.answering(place, port.unwrap_or_default()) {
            (Target::Service(id), own) => {
                service = service.or(Some(id));
                port = Some(own);
                entered.push(place);
                answering.extend(cluster.behind(Target::Service(id)));
            }
            (other, _) => answering.extend(cluster.behind(other)),
        }
    }
    let balancers = entered.iter().filter(|place| matches!(place, Place::Outside(_)));
    // Nodes see a load balancer's address.
    let clients: Vec<Place> = from.iter().chain(balancers).copied().collect();
    let leg = Leg {
        part: None,
        from: ends(cluster, &clients),
        lookup: named.zip(resolver).map(|(name, resolver)| Lookup { name: name.name.clone(), resolver }),
        service: service.map(|id| asked(cluster, id)),
        via: ends(cluster, &entered),
        to: ends(cluster, &answering),
        port,
        ingress: false,
    };
    (leg, answering)
}

fn asked(cluster: &ClusterPlan, id: ServiceId) -> AskedService {
    let service = &cluster.services[id.0];
    AskedService { name: service.name.clone(), address: service.address }
}

/// The back end of the ingress pods at these places.
fn ingress(cluster: &ClusterPlan, places: &[Place]) -> Option<(ServiceId, u16)> {
    places.iter().find_map(|place| match place {
        Place::Pod(id) => match cluster.pods[id.0].role {
            PodRole::Ingress { backend, port } => {
                Some((backend, cluster.services[backend.0].ports.first().copied().unwrap_or(port)))
            }
            PodRole::Plain | PodRole::Dns => None,
        },
        _ => None,
    })
}

fn ends(cluster: &ClusterPlan, places: &[Place]) -> Vec<End> {
    places.iter().map(|place| end(cluster, *place)).collect()
}

fn end(cluster: &ClusterPlan, place: Place) -> End {
    let node = match place {
        Place::Pod(id) => Some(cluster.pods[id.0].node),
        Place::Node(id) => Some(id),
        Place::Outside(_) | Place::Office(_) => None,
    };
    End {
        place: cluster.place_name(place),
        addresses: vec![cluster.address(place)],
        node: node.map(|node| cluster.nodes[node.0].name.clone()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::plan::load;

    fn of(scenario: &str, flow: &str) -> Vec<String> {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios").join(scenario);
        let plan = load(&[file]).unwrap_or_else(|wrong| panic!("{wrong}")).remove(0);
        let access = accesses(&plan.cluster, &plan.workload).into_iter().find(|access| access.flow == flow).unwrap();
        let place = |ends: &[End]| ends.first().map_or_else(String::new, |end| end.place.clone());
        let leg = |leg: &Leg| {
            let name = leg.lookup.as_ref().map(|lookup| format!("{} by {}", lookup.name, lookup.resolver));
            let service = leg.service.as_ref().map(|service| service.name.clone());
            let ingress = if leg.ingress { "ingress" } else { "" };
            let asked = name.or(service).unwrap_or_default();
            format!("{} > {} {:?} {asked}{ingress}", place(&leg.from), place(&leg.to), leg.port.unwrap_or_default())
        };
        access.legs.iter().map(leg).collect()
    }

    #[test]
    fn a_way_in_is_the_clients_leg_and_what_it_depends_on() {
        assert_eq!(
            of("mss-clamp-raised.yaml", "beijing-large"),
            ["office/beijing > pod/ingress 80 ingress", "pod/ingress > pod/tickets 80 tickets"]
        );
        assert_eq!(of("coredns-single-replica-loss.yaml", "lookup"), ["pod/app >  0 example-api.com by 192.168.0.10"]);
        assert_eq!(
            of("four-twists.yaml", "order"),
            [
                "office/beijing > pod/app 8080 ",
                "pod/app > outside/example-api 80 example-api.com by 192.168.0.10",
                "pod/app > outside/database 3306 database.example.com by 192.168.0.10",
                "pod/app > outside/database 3306 database.example.com by 192.168.0.10",
                "pod/app > outside/store 80 oss.example.com by 192.168.0.10",
            ]
        );
    }
}
