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

use relapse_model::{FlowPlan, PartPlan, Place, PodId, PodRole, ServiceId, Target, Work};
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
        Work::Connect | Work::Queries { .. } => echo::SERVE,
    }
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
    let mut want = |target: Target, port: u16, serve: Serve| {
        let answering = plan.behind(target).into_iter().map(|place| plan.answering(place, port));
        let places = answering.flat_map(|(target, port)| plan.behind(target).into_iter().map(move |to| (to, port)));
        for (place, port) in places {
            let is_ingress = matches!(place, Place::Pod(id) if matches!(plan.pods[id.0].role, PodRole::Ingress { .. }));
            if !is_ingress && !cluster.serves_itself(place) {
                wanted.insert((plan.place_name(place), port), (place, serve));
            }
        }
    };
    for (flow, client) in flows.iter().zip(clients) {
        if let (Some(port), Some(serve)) = (flow.port, client.server()) {
            want(flow.to, port, serve);
        }
        flow.parts.iter().for_each(|part| want(part.to, part.port, server_of(part)));
    }
    let ingresses: Vec<(PodId, ServiceId, u16)> = (plan.pods.iter().enumerate())
        .filter_map(|(number, pod)| match pod.role {
            PodRole::Ingress { backend, port } => Some((PodId(number), backend, port)),
            _ => None,
        })
        .collect();
    ingresses.iter().for_each(|(_, backend, port)| want(Target::Service(*backend), *port, app::SERVE));
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
