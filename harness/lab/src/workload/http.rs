//! `http`: an HTTP/1.1 GET of a number of bytes, directly or through an ingress.

use std::net::SocketAddr;
use std::sync::Arc;

use relapse_kernel::NetNs;
use relapse_model::Failure;
use relapse_model::spanned::Spanned;
use tokio::net::TcpStream;

use super::client::{Client, Serve, Site};
use super::flow::{Draft, FlowSpec, flow_spec};
use super::servers::app;
use super::servers::http::{bytes_path, fetch, whole};
use super::sockets;
use crate::job::Job;

flow_spec! {
    /// Sends HTTP GETs repeatedly.
    pub struct HttpSpec {
        /// A server or an ingress, such as `pod/ingress` or `service/shop`.
        to;
        /// Size of the response body, bytes. Default 1000.
        #[schemars(range(min = 1, max = 16_777_216))]
        pub response: Option<Spanned<u32>>,
    }
}

impl FlowSpec for HttpSpec {
    fn plan(&self, flow: &mut Draft<'_, '_>) -> Arc<dyn Client> {
        flow.set_server(&self.to, self.via.as_ref(), self.resolver.as_ref(), self.port);
        flow.plan.response = self.response.map_or(1000, |n| n.value);
        Arc::new(Http)
    }
}

#[derive(Debug)]
struct Http;

impl Client for Http {
    fn attempt<'a>(&'a self, site: Site<'a>, _: Option<TcpStream>) -> Job<'a, Result<Option<TcpStream>, Failure>> {
        Box::pin(async move { get(&site.ns, site.peer(), site.flow.response).await.map(|()| None) })
    }

    fn server(&self) -> Option<Serve> {
        Some(app::SERVE)
    }
}

/// Gets `/bytes/N` over a new connection.
///
/// # Errors
/// The failure as seen by the client; a response with another status than 200 or of another size is a failure too.
async fn get(ns: &NetNs, peer: SocketAddr, bytes: u32) -> Result<(), Failure> {
    let (status, body) = fetch(sockets::connect(ns, peer).await?, &bytes_path(bytes)).await?;
    whole(status, &body, bytes)
}

/// The same from a given address and with a given MSS.
///
/// # Errors
/// As [`get`].
pub async fn get_as(ns: &NetNs, peer: SocketAddr, bytes: u32, from: SocketAddr, mss: u16) -> Result<(), Failure> {
    let stream = sockets::open(ns, peer, Some(from), Some(mss)).await.map_err(|e| super::failure_of(&e))?;
    let (status, body) = fetch(stream, &bytes_path(bytes)).await?;
    whole(status, &body, bytes)
}
