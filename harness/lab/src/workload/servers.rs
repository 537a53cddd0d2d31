//! The servers that flows need, each started once: which port, where, speaking what.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use relapse_kernel::NetNs;
use relapse_model::{FlowKind, FlowPlan, OutsideId, Place, PodId, PodRole, Target};
use tokio::task::JoinSet;

use super::{dns, http, namespace, sockets, tcp};
use crate::cluster::Cluster;
use crate::job::FaultError;

pub(super) const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speaks {
    Tcp,
    Http,
}

/// Binds and starts all of them; every port listens when this returns.
///
/// # Errors
/// When a port cannot be bound.
pub fn start(cluster: &Arc<dyn Cluster>, flows: &[FlowPlan], tasks: &mut JoinSet<()>) -> Result<(), FaultError> {
    let plan = cluster.plan();
    let mut wanted: BTreeMap<(String, u16), (NetNs, Speaks)> = BTreeMap::new();
    let mut want = |place: Place, port: u16, speaks: Speaks| {
        let is_ingress = matches!(place, Place::Pod(id) if matches!(plan.pods[id.0].role, PodRole::Ingress { .. }));
        if !is_ingress && !cluster.serves_itself(place) {
            wanted.insert((plan.place_name(place), port), (namespace(cluster.as_ref(), place), speaks));
        }
    };
    let places = |target: Target| match target {
        Target::Place(place) => vec![place],
        Target::Service(id) => plan.services[id.0].pods.iter().map(|pod| Place::Pod(*pod)).collect(),
    };
    for flow in flows {
        match flow.kind {
            FlowKind::Tcp { to, port, .. } | FlowKind::Hold { to, port, .. } => {
                places(to).into_iter().for_each(|place| want(place, port, Speaks::Tcp));
            }
            FlowKind::Http { to, port, .. } => {
                places(to).into_iter().for_each(|place| want(place, port, Speaks::Http));
            }
            FlowKind::Dns { .. } | FlowKind::Ping { .. } => {}
        }
    }
    for pod in &plan.pods {
        if let PodRole::Ingress { backend, port } = pod.role {
            plan.services[backend.0].pods.iter().for_each(|id| want(Place::Pod(*id), port, Speaks::Http));
        }
    }
    for ((_, port), (ns, speaks)) in wanted {
        let listener = sockets::tcp_listener(&ns, SocketAddr::new(ANY, port))?;
        match speaks {
            Speaks::Tcp => tasks.spawn(tcp::serve(listener)),
            Speaks::Http => tasks.spawn(http::serve(listener)),
        };
    }
    for (number, pod) in plan.pods.iter().enumerate() {
        if let PodRole::Ingress { backend, port } = pod.role
            && !cluster.serves_itself(Place::Pod(PodId(number)))
        {
            let ns = cluster.pod(PodId(number)).ns;
            let listener = sockets::tcp_listener(&ns, SocketAddr::new(ANY, port))?;
            let to = SocketAddr::new(plan.services[backend.0].address, port);
            tasks.spawn(http::proxy(listener, ns, to));
        }
    }
    for (number, host) in plan.outside.iter().enumerate().filter(|(_, host)| !host.records.is_empty()) {
        let outside = cluster.outside(OutsideId(number));
        let server = sockets::udp(&outside.ns, SocketAddr::new(ANY, dns::DNS_PORT))?;
        let records: HashMap<_, _> =
            host.records.iter().map(|(name, addresses)| (name.to_ascii_lowercase(), addresses.clone())).collect();
        tasks.spawn(dns::serve_records(server, records, outside.delay.clone()));
    }
    Ok(())
}
