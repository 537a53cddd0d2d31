//! `dns`: looks a name up as the stub resolver of its client does ([`super::stub`]).

use std::sync::Arc;

use relapse_model::spanned::Spanned;
use relapse_model::{Failure, Target};
use tokio::net::TcpStream;

use super::client::{Client, Site};
use super::flow::{Draft, FlowSpec, flow_spec};
use super::names::known_name;
use super::stub::{lookup, search_list};
use crate::job::Job;

flow_spec! {
    /// Looks up a name repeatedly, as a stub resolver does. Only pods have search domains.
    pub struct DnsSpec {
        /// Name to look up.
        pub query: Spanned<String>,
        /// Resolver to ask. Default: cluster DNS.
        pub server: Option<Spanned<String>>,
    }
}

impl FlowSpec for DnsSpec {
    fn plan(&self, flow: &mut Draft<'_, '_>) -> Arc<dyn Client> {
        // One socket for each search domain and one for the bare name, on the client's node or on the replica's.
        flow.plan.entries = 5;
        flow.plan.late = Failure::NameError;
        flow.plan.looks_up = true;
        flow.plan.query = Some(self.query.value.clone());
        flow.resolver.domain(&self.query);
        let target = match &self.server {
            Some(server) => flow.resolver.target(server),
            None => flow.resolver.cluster.dns.as_ref().map(|dns| Target::Service(dns.service)),
        };
        if target.is_none() && self.server.is_none() {
            let message = format!("flow `{}` uses cluster DNS, but there is none", self.name.0);
            let help = "give the cluster `dns`, or the flow `server: outside/NAME`";
            flow.resolver.error(self.name.span, message, help);
        }
        flow.check_reachable(target, self.at());
        if let Some(server) = target {
            known_name(flow.resolver, server, self.at(), &self.query);
        }
        Arc::new(Dns { query: self.query.value.clone() })
    }
}

impl DnsSpec {
    /// Where errors about the server are reported.
    fn at(&self) -> &Spanned<String> {
        self.server.as_ref().unwrap_or(&self.from)
    }
}

#[derive(Debug)]
struct Dns {
    query: String,
}

impl Client for Dns {
    fn attempt<'a>(&'a self, site: Site<'a>, _: Option<TcpStream>) -> Job<'a, Result<Option<TcpStream>, Failure>> {
        Box::pin(async move {
            let search = search_list(site.cluster.plan(), site.flow.from);
            site.details.addresses = lookup(&site.ns, site.address, &self.query, search).await?;
            Ok(None)
        })
    }
}
