//! What pods, nodes, outside hosts and offices do: real servers and clients over the cluster's network.
//!
//! Job: start every server that some flow needs, then every flow, and report each attempt's outcome. Sockets are made
//! in the namespace of the place; one runtime drives them all.
//! - A kind of flow is one file and one line in the registry below: how a scenario writes it and what planning makes of
//!   it ([`flow::FlowSpec`]), and what its client does ([`client::Client`]), which [`client`] runs by the clock.
//! - A server is one file in [`servers`]. [`churn`] is what goes on under every scenario.

pub mod churn;
pub mod client;
pub mod database;
pub mod flow;
pub mod names;
pub mod servers;
pub mod sockets;

use std::sync::Arc;

use relapse_kernel::NetNs;
use relapse_model::spanned::Spanned;
use relapse_model::values::Name;
use relapse_model::{Failure, FlowId, FlowPlan, Place, Resolver};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use self::client::{Client, Running};
use crate::cluster::Cluster;
use crate::job::FaultError;

pub use self::client::{Attempt, FlowSwitch, PartTime};

macro_rules! flows {
    ($($name:literal => $module:ident::$spec:ident,)*) => {
        $(pub mod $module;)*

        /// A client. Places are written `pod/NAME`, `node/NAME`, `outside/NAME` or `office/NAME`; a server may also
        /// be `service/NAME`, or `name/NAME`, a domain name that is looked up at each attempt. With the name of a pod
        /// with `count`, all of its pods take turns.
        #[derive(Debug, Clone, Deserialize, JsonSchema)]
        #[schemars(title = "kind of flow")]
        pub enum Flow {
            $(#[serde(rename = $name)] $spec($module::$spec),)*
        }

        impl Flow {
            /// The name by which effects speak of it.
            #[must_use]
            pub fn name(&self) -> &Spanned<Name> {
                match self { $(Self::$spec(spec) => spec.common().name,)* }
            }

            /// What planning makes of it: what others may know, and the client.
            pub fn plan(&self, resolver: &mut Resolver<'_>) -> (FlowPlan, Arc<dyn Client>) {
                match self { $(Self::$spec(spec) => flow::plan($name, spec.common(), spec, resolver),)* }
            }
        }
    };
}

flows! {
    "tcp" => tcp::TcpSpec,
    "http" => http::HttpSpec,
    "dns" => dns::DnsSpec,
    "ping" => ping::PingSpec,
    "hold" => hold::HoldSpec,
    "query" => query::QuerySpec,
    "call" => call::CallSpec,
}

/// The running workload. Dropping it ends every client and server.
pub struct Workload {
    tasks: JoinSet<()>,
    /// Every flow with its switch, in the order of the plan.
    pub flows: Vec<(FlowPlan, Arc<FlowSwitch>)>,
}

impl Workload {
    /// Starts servers, then flows, each with its client. A flow that keeps connections opens so many of them `at_once`,
    /// before it goes on at its own pace.
    ///
    /// # Errors
    /// When a socket cannot be made or bound.
    pub fn start(
        cluster: &Arc<dyn Cluster>,
        flows: &[FlowPlan],
        clients: &[Arc<dyn Client>],
        at_once: u32,
        attempts: &mpsc::UnboundedSender<Attempt>,
    ) -> Result<Self, FaultError> {
        let mut tasks = JoinSet::new();
        servers::start(cluster, flows, clients, &mut tasks)?;
        let mut switched = Vec::with_capacity(flows.len());
        for (number, (plan, client)) in flows.iter().zip(clients).enumerate() {
            let switch = Arc::new(FlowSwitch::default());
            switched.push((plan.clone(), Arc::clone(&switch)));
            let running = Running {
                id: FlowId(number),
                plan: plan.clone(),
                client: Arc::clone(client),
                cluster: Arc::clone(cluster),
                switch,
                attempts: attempts.clone(),
            };
            tasks.spawn(running.run(at_once));
        }
        Ok(Self { tasks, flows: switched })
    }

    /// Ends every client and server now.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

/// The namespace of a place.
#[must_use]
pub fn namespace(cluster: &dyn Cluster, place: Place) -> NetNs {
    match place {
        Place::Pod(id) => cluster.pod(id).ns,
        Place::Node(id) => cluster.node(id).ns.clone(),
        Place::Outside(id) => cluster.outside(id).ns.clone(),
        Place::Office(id) => cluster.office(id).client.clone(),
    }
}

/// What an error of a socket means to the one who tried.
#[must_use]
pub fn failure_of(error: &std::io::Error) -> Failure {
    match error.kind() {
        std::io::ErrorKind::TimedOut => Failure::Timeout,
        std::io::ErrorKind::ConnectionRefused
        | std::io::ErrorKind::ConnectionReset
        | std::io::ErrorKind::HostUnreachable
        | std::io::ErrorKind::NetworkUnreachable => Failure::Refused,
        _ => Failure::Any,
    }
}
