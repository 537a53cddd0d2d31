//! Servers, one file each: relapse's own, named by the kinds of flows that need them ([`Serve`]), and third-party
//! servers that hosts outside may run, one line each in the registry below.
//!
//! If a backend runs a third-party server itself, nothing is started here; otherwise relapse's own answers in its
//! place. How to run one is up to the backend, in a file of the same name there.

pub mod app;
mod balancer;
pub mod database;
pub mod echo;
pub mod http;
mod ingress;
pub mod resolver;
pub mod running;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use relapse_model::{ClusterPlan, FlowPlan, PartPlan, Place, PodId, PodRole, ServiceId, Target, Work};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::task::JoinSet;

use self::running::Servers;

use super::client::{Client, Home, Serve};
use super::errors::Errors;
use super::sockets;
use crate::cluster::Cluster;
use crate::job::FaultError;

pub(super) const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// A third-party server.
#[derive(Debug)]
pub struct ThirdParty {
    /// The name used in scenarios.
    pub name: &'static str,
    /// Kinds of flows it can answer.
    pub understands: &'static [&'static str],
    /// Help for flows of another kind.
    pub help: &'static str,
}

macro_rules! third_parties {
    ($($(#[$about:meta])* $name:literal => $module:ident::$variant:ident,)*) => {
        $(pub mod $module;)*

        /// A third-party server.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
        pub enum Server {
            $($(#[$about])* #[serde(rename = $name)] $variant,)*
        }

        impl Server {
            /// The name used in scenarios.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $module::SERVER.name,)* }
            }
        }

        const THIRD_PARTIES: &[&ThirdParty] = &[$(&$module::SERVER),*];
    };
}

third_parties! {
    /// Answers only HTTP GETs.
    "nginx" => nginx::Nginx,
    /// Answers only queries.
    "mariadb" => mariadb::MariaDb,
}

/// The server of this name.
#[must_use]
pub fn third_party(name: &str) -> Option<&'static ThirdParty> {
    THIRD_PARTIES.iter().copied().find(|server| server.name == name)
}

/// The server that a part needs.
fn server_of(part: &PartPlan) -> Serve {
    match part.work {
        Work::Get { .. } | Work::Transfer { .. } => app::SERVE,
        Work::Queries { .. } => echo::SERVE,
        Work::Connect => Serve { protocol: None, ..echo::SERVE },
    }
}

/// The servers that a flow and its parts need, with their places and ports.
fn needed(plan: &ClusterPlan, flow: &FlowPlan, client: &dyn Client) -> Vec<(Place, u16, Serve)> {
    let own = flow.port.zip(client.server()).map(|(port, serve)| (flow.to, port, serve));
    let all = own.into_iter().chain(flow.parts.iter().map(|part| (part.to, part.port, server_of(part))));
    all.flat_map(|(to, port, serve)| at(plan, to, port).into_iter().map(move |(place, port)| (place, port, serve)))
        .collect()
}

/// The places and ports that answer for a port of this target.
fn at(plan: &ClusterPlan, target: Target, port: u16) -> Vec<(Place, u16)> {
    let answering = plan.behind(target).into_iter().map(|place| plan.answering(place, port));
    answering.flat_map(|(target, port)| plan.behind(target).into_iter().map(move |place| (place, port))).collect()
}

/// The servers that ingresses are and need.
fn of_ingresses(plan: &ClusterPlan) -> impl Iterator<Item = (PodId, ServiceId, u16)> {
    plan.pods.iter().enumerate().filter_map(|(number, pod)| match pod.role {
        PodRole::Ingress { backend, port } => Some((PodId(number), backend, port)),
        _ => None,
    })
}

/// The first server of another protocol on a port that the last of these flows needs: place, port, what answers there,
/// and for whom.
#[must_use]
pub fn other_protocol(
    plan: &ClusterPlan,
    flows: &[(&FlowPlan, &dyn Client)],
) -> Option<(Place, u16, &'static str, String)> {
    let (last, earlier) = flows.split_last()?;
    let wanted = needed(plan, last.0, last.1);
    let of_flows = earlier.iter().flat_map(|(flow, client)| {
        let whose = move |(place, port, serve)| (place, port, serve, format!("flow `{}`", flow.name));
        needed(plan, flow, *client).into_iter().map(whose)
    });
    let of_ingresses = of_ingresses(plan).flat_map(|(pod, backend, port)| {
        let ingress = format!("pod/{}", plan.pods[pod.0].name);
        let places = std::iter::once((Place::Pod(pod), port)).chain(at(plan, Target::Service(backend), port));
        places.map(move |(place, port)| (place, port, app::SERVE, ingress.clone()))
    });
    of_flows.chain(of_ingresses).find_map(|(place, port, serve, whose)| {
        let there = serve.protocol?;
        let clash = |(at, on, other): &(Place, u16, Serve)| {
            (*at, *on) == (place, port) && other.protocol.is_some_and(|protocol| protocol != there)
        };
        wanted.iter().any(clash).then_some((place, port, there, whose))
    })
}

/// Binds and starts all servers needed by flows and the cluster, except those of pods that do not run yet; every port is
/// listening when this returns.
///
/// # Errors
/// When a port cannot be bound.
pub fn start(
    cluster: &Arc<dyn Cluster>,
    flows: &[FlowPlan],
    clients: &[Arc<dyn Client>],
    tasks: &mut JoinSet<()>,
) -> Result<Servers, FaultError> {
    let plan = cluster.plan();
    let mut wanted: BTreeMap<(String, u16), (Place, Serve)> = BTreeMap::new();
    let of_flows = flows.iter().zip(clients).flat_map(|(flow, client)| needed(plan, flow, client.as_ref()));
    let ingresses: Vec<(PodId, ServiceId, u16)> = of_ingresses(plan).collect();
    let behind = ingresses.iter().flat_map(|(_, backend, port)| at(plan, Target::Service(*backend), *port));
    for (place, port, serve) in of_flows.chain(behind.map(|(place, port)| (place, port, app::SERVE))) {
        let is_ingress = matches!(place, Place::Pod(id) if matches!(plan.pods[id.0].role, PodRole::Ingress { .. }));
        if !is_ingress && !cluster.serves_itself(place) {
            let there = wanted.entry((plan.place_name(place), port)).or_insert((place, serve));
            if there.1.protocol.is_none() {
                *there = (place, serve);
            }
        }
    }
    let flows: Arc<[FlowPlan]> = flows.into();
    let servers = Servers::new(wanted.into_iter().map(|((_, port), (place, serve))| {
        (
            port,
            serve,
            Home { cluster: Arc::clone(cluster), place, flows: Arc::clone(&flows), errors: Errors::default() },
        )
    }));
    let is_there = |place: &Place| !matches!(place, Place::Pod(id) if plan.is_spare(*id));
    plan.places().filter(is_there).try_for_each(|place| servers.start(place))?;
    for (pod, backend, port) in ingresses.into_iter().filter(|(pod, ..)| !cluster.serves_itself(Place::Pod(*pod))) {
        let listener = sockets::tcp_listener(&cluster.pod(pod).ns, SocketAddr::new(ANY, port))?;
        tasks.spawn(ingress::serve(listener, Arc::clone(cluster), pod, backend));
    }
    balancer::start(cluster.as_ref(), tasks)?;
    resolver::start(cluster.as_ref(), tasks)?;
    Ok(servers)
}
