//! `call`: a client sends HTTP requests to an application, which makes requests of its own before it responds.
//!
//! [`steps`] plans these requests, and [`super::servers::app`] makes them.

mod steps;

use std::sync::Arc;

use hyper::Method;
use hyper::body::Bytes;
use relapse_model::Failure;
use relapse_model::spanned::Spanned;
use tokio::net::TcpStream;

use super::client::{Client, Serve, Site};
use super::flow::{Draft, FlowSpec, flow_spec};
use super::servers::app::{self, SERVER_TIMING};
use super::servers::http;
use super::sockets;
use crate::job::Job;

/// Default size of a response, bytes.
const RESPONSE: u32 = 1000;

flow_spec! {
    /// Sends HTTP requests to an application repeatedly; for each, the application makes requests of its own before it
    /// responds.
    pub struct CallSpec {
        /// The application, such as `pod/app` or `service/app`, or its ingress.
        to;
        /// Size of the response body, bytes. Default 1000.
        #[schemars(range(min = 1, max = 16_777_216))]
        pub response: Option<Spanned<u32>>,
        /// What the application does before it responds, one step after another.
        #[serde(rename = "do")]
        #[schemars(length(min = 1, max = 100))]
        pub steps: Spanned<Vec<steps::Step>>,
    }
}

impl FlowSpec for CallSpec {
    fn plan(&self, flow: &mut Draft<'_, '_>) -> Arc<dyn Client> {
        flow.set_server(&self.to, self.via.as_ref(), self.resolver.as_ref(), self.port);
        flow.plan.response = self.response.map_or(RESPONSE, |n| n.value);
        steps::plan(&self.steps, flow);
        Arc::new(Call)
    }
}

#[derive(Debug)]
struct Call;

impl Client for Call {
    fn attempt<'a>(&'a self, site: Site<'a>, _: Option<TcpStream>) -> Job<'a, Result<Option<TcpStream>, Failure>> {
        Box::pin(async move {
            let mut connection = http::Connection::open(sockets::connect(&site.ns, site.peer()).await?).await?;
            let response = connection.send(Method::GET, &app::path(site.flow), Bytes::new()).await?;
            let timing = response.headers().get(SERVER_TIMING).and_then(|timing| timing.to_str().ok());
            site.details.parts = app::read_timing(site.flow, timing.unwrap_or_default());
            // The application reports the part that failed; any other status is the failure itself.
            http::whole(response.status(), response.body(), site.flow.response)
                .map_err(|how| site.details.parts.iter().find_map(|time| time.failure).unwrap_or(how))?;
            Ok(None)
        })
    }

    fn server(&self) -> Option<Serve> {
        Some(app::SERVE)
    }
}
