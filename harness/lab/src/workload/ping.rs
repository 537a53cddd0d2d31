//! `ping`: ICMP echo (RFC 792).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use relapse_kernel::NetNs;
use relapse_kernel::socket::Icmp;
use relapse_model::spanned::Spanned;
use relapse_model::{Failure, Target};
use tokio::net::TcpStream;

use super::client::{Client, Site};
use super::flow::{Draft, FlowSpec, flow_spec};
use crate::job::Job;

flow_spec! {
    /// Sends ICMP echo requests repeatedly.
    pub struct PingSpec {
        /// Server, such as `outside/database` or `service/shop`.
        pub to: Spanned<String>,
        /// Resolver for a name in `to`: `outside/NAME`. Default: cluster DNS for pods and nodes, otherwise the first
        /// resolver outside.
        pub resolver: Option<Spanned<String>>,
    }
}

impl FlowSpec for PingSpec {
    fn plan(&self, flow: &mut Draft<'_, '_>) -> Arc<dyn Client> {
        flow.set_target(&self.to, self.resolver.as_ref());
        flow.plan.entries = 0;
        if matches!(flow.plan.to, Target::Service(_)) {
            flow.resolver.error(self.to.span, "a Service does not answer a ping", "ping one of its pods");
        }
        Arc::new(Ping)
    }
}

#[derive(Debug)]
struct Ping;

impl Client for Ping {
    fn attempt<'a>(&'a self, site: Site<'a>, _: Option<TcpStream>) -> Job<'a, Result<Option<TcpStream>, Failure>> {
        Box::pin(async move { echo(&site.ns, site.address, site.flow.timeout).await.map(|()| None) })
    }
}

/// One echo request and its reply.
///
/// # Errors
/// `Timeout` if no reply arrives in time.
pub async fn echo(ns: &NetNs, to: IpAddr, timeout: Duration) -> Result<(), Failure> {
    let icmp = Icmp::open(ns, None).map_err(|_| Failure::Any)?;
    match icmp.echo(to, timeout).await {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(Failure::Timeout),
        Err(e) => Err(super::failure_of(&e)),
    }
}
