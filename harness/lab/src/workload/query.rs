//! `query`: a database query, over a new or a kept connection.

use std::sync::Arc;
use std::time::Duration;

use relapse_detectors::time::limit;
use relapse_model::spanned::Spanned;
use relapse_model::values;
use relapse_model::{Failure, Query};
use tokio::net::TcpStream;

use super::client::{Client, Serve, Site};
use super::flow::{Draft, FlowSpec, flow_spec};
use super::servers::database::Database;
use super::servers::echo;
use super::tcp::Connection;
use crate::job::Job;

flow_spec! {
    /// Sends a query to a database repeatedly.
    pub struct QuerySpec {
        /// The database, such as `outside/database`.
        to;
        /// Size of a query, bytes. Default 120.
        #[schemars(range(min = 1, max = 1_048_576))]
        pub request: Option<Spanned<u32>>,
        /// Size of a response, bytes. Default 900.
        #[schemars(range(min = 1, max = 16_777_216))]
        pub response: Option<Spanned<u32>>,
        /// Time the query takes the database without any fault. Default 0s.
        pub takes: Option<Spanned<values::Duration>>,
        #[serde(default)]
        pub connection: Connection,
    }
}

/// Default size of a query, bytes.
pub(super) const REQUEST: u32 = 120;
/// Default size of its response, bytes.
pub(super) const RESPONSE: u32 = 900;

impl FlowSpec for QuerySpec {
    fn plan(&self, flow: &mut Draft<'_, '_>) -> Arc<dyn Client> {
        flow.set_server(&self.to, self.via.as_ref(), self.resolver.as_ref(), self.port);
        flow.plan.response = self.response.map_or(RESPONSE, |n| n.value);
        flow.plan.keeps = u32::from(self.connection == Connection::Kept);
        if let Some(takes) = self.takes.as_ref().filter(|takes| takes.0 > flow.plan.timeout) {
            let message = format!("`takes` is longer than the flow's timeout, {}", limit(flow.plan.timeout));
            flow.resolver.error(takes.span, message, "write less, or a longer `timeout`");
        }
        Arc::new(Asks {
            request: self.request.map_or(REQUEST, |n| n.value),
            takes: self.takes.as_ref().map_or(Duration::ZERO, |takes| takes.0),
        })
    }
}

#[derive(Debug)]
struct Asks {
    request: u32,
    takes: Duration,
}

impl Client for Asks {
    fn attempt<'a>(&'a self, site: Site<'a>, kept: Option<TcpStream>) -> Job<'a, Result<Option<TcpStream>, Failure>> {
        Box::pin(async move {
            let database = Database::at(site.cluster, site.peer());
            let mut stream = match kept {
                Some(stream) => stream,
                None => database.open(&site.ns).await?,
            };
            let query = Query { request: self.request, response: site.flow.response, takes: self.takes };
            database.ask(&mut stream, &query).await?;
            Ok((site.flow.keeps > 0).then_some(stream))
        })
    }

    fn server(&self) -> Option<Serve> {
        Some(echo::SERVE)
    }
}
