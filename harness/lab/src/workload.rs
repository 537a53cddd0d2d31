//! The workload of pods, nodes, outside hosts and offices: real servers and clients on the cluster's network.
//!
//! Starts every server that some flow needs, then every flow, and reports each attempt's outcome. Sockets are created
//! in the namespace of the place; one runtime drives them all.
//! - A kind of flow is one file and one line in the registry below: its YAML and planning ([`flow::FlowSpec`]),
//!   and its client ([`client::Client`]), which [`client`] runs on schedule.
//! - A server is one file in [`servers`]. [`churn`] is background activity under every scenario.

pub mod churn;
pub mod client;
pub mod errors;
pub mod flow;
pub mod names;
pub mod servers;
pub mod sockets;
pub mod stub;

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
use self::servers::running::Servers;
use crate::cluster::Cluster;
use crate::job::FaultError;

pub use self::client::{Attempt, Details, FlowSwitch, PartTime};

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
            /// The name by which effects refer to it.
            #[must_use]
            pub fn name(&self) -> &Spanned<Name> {
                match self { $(Self::$spec(spec) => spec.common().name,)* }
            }

            /// Plans the flow: its public plan, and its client.
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

/// The running workload. Dropping it stops every client and server.
pub struct Workload {
    tasks: JoinSet<()>,
    /// Every flow with its switch, in plan order.
    pub flows: Vec<(FlowPlan, Arc<FlowSwitch>)>,
    /// Its own servers.
    pub servers: Arc<Servers>,
}

impl Workload {
    /// Starts servers, then flows, each with its client. A flow that keeps connections opens up to `at_once` of them
    /// as fast as possible, then continues at its own pace.
    ///
    /// # Errors
    /// When a socket cannot be created or bound.
    pub fn start(
        cluster: &Arc<dyn Cluster>,
        flows: &[FlowPlan],
        clients: &[Arc<dyn Client>],
        at_once: u32,
        attempts: &mpsc::UnboundedSender<Attempt>,
    ) -> Result<Self, FaultError> {
        let mut tasks = JoinSet::new();
        let servers = Arc::new(servers::start(cluster, flows, clients, &mut tasks)?);
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
        Ok(Self { tasks, flows: switched, servers })
    }

    /// Stops every client and server.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
        self.servers.stop_all().await;
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

/// The failure seen by a client for a socket error.
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
