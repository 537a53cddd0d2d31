//! `tcp`: a request and its response, over a new connection or a kept one.

use std::sync::Arc;
use std::time::Duration;

use relapse_model::spanned::Spanned;
use relapse_model::{Failure, FlowPlan};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::net::TcpStream;

use super::client::{Client, Serve, Site};
use super::flow::{Draft, FlowSpec, flow_spec};
use super::servers::echo::{self, Exchange};
use super::sockets;
use crate::job::Job;

flow_spec! {
    /// Sends a TCP request and waits for the response, repeatedly.
    pub struct TcpSpec {
        /// Server, such as `outside/database` or `service/shop`.
        to;
        /// Size of a request, bytes. Default 100.
        #[schemars(range(min = 1, max = 1_048_576))]
        pub request: Option<Spanned<u32>>,
        /// Size of a response, bytes. Default 1000.
        #[schemars(range(min = 1, max = 16_777_216))]
        pub response: Option<Spanned<u32>>,
        #[serde(default)]
        pub connection: Connection,
        #[serde(default)]
        pub closes: Closes,
        /// Whether a blackbox exporter probes the server as well where series are recorded. Default true.
        pub probed: Option<bool>,
    }
}

/// Whether attempts share a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Connection {
    /// Each attempt opens its own.
    #[default]
    New,
    /// All attempts share one.
    Kept,
}

/// Which side closes a connection first, and so keeps it in TIME_WAIT.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Closes {
    #[default]
    Client,
    Server,
}

impl FlowSpec for TcpSpec {
    fn plan(&self, flow: &mut Draft<'_, '_>) -> Arc<dyn Client> {
        flow.set_server(&self.to, self.via.as_ref(), self.resolver.as_ref(), self.port);
        flow.plan.response = self.response.map_or(1000, |n| n.value);
        flow.plan.keeps = u32::from(self.connection == Connection::Kept);
        flow.plan.probed = self.probed.unwrap_or(true);
        let request = self.request.map_or(100, |n| n.value);
        Arc::new(Tcp { request, server_closes: self.closes == Closes::Server, rest: None })
    }
}

/// Sends requests over TCP.
#[derive(Debug)]
pub(super) struct Tcp {
    pub request: u32,
    pub server_closes: bool,
    /// Time between two requests once the flow has all its connections, if different from before.
    pub rest: Option<Duration>,
}

impl Client for Tcp {
    fn attempt<'a>(&'a self, site: Site<'a>, kept: Option<TcpStream>) -> Job<'a, Result<Option<TcpStream>, Failure>> {
        Box::pin(async move {
            let mut stream = match kept {
                Some(stream) => stream,
                None => sockets::connect(&site.ns, site.peer()).await?,
            };
            let keeps = site.flow.keeps > 0;
            let exchange = Exchange::new(self.request, site.flow.response);
            let server_closes = self.server_closes && !keeps;
            echo::exchange(&mut stream, &Exchange { server_closes, ..exchange }).await?;
            Ok(keeps.then_some(stream))
        })
    }

    fn pace(&self, flow: &FlowPlan) -> Duration {
        self.rest.unwrap_or(flow.every)
    }

    fn server(&self) -> Option<Serve> {
        Some(echo::SERVE)
    }
}
