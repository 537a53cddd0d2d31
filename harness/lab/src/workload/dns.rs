//! `dns`: looks a name up as a pod's stub resolver does.
//!
//! It follows `resolv.conf(5)` with `ndots:5`: a name with fewer dots is tried in every search domain first, and A
//! and AAAA are queried in parallel over one socket.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use relapse_kernel::NetNs;
use relapse_model::diagnostics::{listed, nearest, quoted};
use relapse_model::spanned::Spanned;
use relapse_model::{ClusterPlan, Failure, OutsideId, Place, Resolver, Target};
use tokio::net::{TcpStream, UdpSocket};

use super::client::{Client, Site};
use super::flow::{Draft, FlowSpec, flow_spec};
use super::servers::resolver::DNS_PORT;
use super::sockets;
use crate::job::Job;

/// `ndots` of a pod with `dnsPolicy: ClusterFirst`.
const NDOTS: usize = 5;

flow_spec! {
    /// Looks up a name repeatedly, as a pod's stub resolver does.
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
            self.known_name(flow.resolver, server);
        }
        Arc::new(Dns { query: self.query.value.clone() })
    }
}

impl DnsSpec {
    /// Where errors about the server are reported.
    fn at(&self) -> &Spanned<String> {
        self.server.as_ref().unwrap_or(&self.from)
    }

    /// Reports a server that is not a resolver, and a name that no resolver of the flow has.
    fn known_name(&self, resolver: &mut Resolver<'_>, server: Target) {
        let dns = resolver.cluster.dns.as_ref();
        let cluster_dns = dns.is_some_and(|dns| match server {
            Target::Service(id) => id == dns.service,
            Target::Place(Place::Pod(id)) => dns.replicas.contains(&id),
            Target::Place(_) => false,
        });
        let resolvers: Vec<OutsideId> = match server {
            Target::Place(Place::Outside(id)) if !resolver.cluster.outside[id.0].records.is_empty() => vec![id],
            _ if cluster_dns => dns.map(|dns| dns.upstreams.clone()).unwrap_or_default(),
            _ => {
                let at = self.at();
                let help = "name cluster DNS, one of its replicas, or a host in `outside` that has `records`";
                resolver.error(at.span, format!("{} is not a resolver", quoted(at)), help);
                return;
            }
        };
        let folded = |name: &str| name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let query = folded(&self.query);
        if cluster_dns
            && is_service_name(&resolver.cluster, &query, dns.map(|d| d.search.as_slice()).unwrap_or_default())
        {
            return;
        }
        let known: Vec<&str> = resolvers
            .iter()
            .flat_map(|id| &resolver.cluster.outside[id.0].records)
            .map(|(name, _)| name.as_str())
            .collect();
        if !known.is_empty() && !known.iter().any(|name| folded(name) == query) {
            let meant =
                nearest(&query, known.iter().copied()).map(|m| format!("did you mean `{m}`? ")).unwrap_or_default();
            let mut names = known;
            names.dedup();
            let help = format!("{meant}names they know: {}", listed(names));
            resolver.error(self.query.span, format!("no resolver of this flow knows {}", quoted(&self.query)), help);
        }
    }
}

/// Whether this is the name of a Service, bare or with all or part of a search domain.
fn is_service_name(cluster: &ClusterPlan, query: &str, search: &[String]) -> bool {
    cluster.services.iter().any(|service| {
        query.strip_prefix(service.name.as_str()).is_some_and(|rest| {
            let domain = "default.svc.cluster.local";
            let rest = rest.strip_prefix('.').unwrap_or(rest);
            rest.is_empty() || domain.starts_with(rest) || search.iter().any(|s| s == rest)
        })
    })
}

#[derive(Debug)]
struct Dns {
    query: String,
}

impl Client for Dns {
    fn attempt<'a>(&'a self, site: Site<'a>, _: Option<TcpStream>) -> Job<'a, Result<Option<TcpStream>, Failure>> {
        Box::pin(async move {
            let search = site.cluster.plan().dns.as_ref().map_or(&[][..], |dns| &dns.search);
            lookup(&site.ns, site.address, &self.query, search).await.map(|()| None)
        })
    }
}

/// Looks a name up as a pod would.
///
/// # Errors
/// `NameError` if no candidate has an address, or a server fails.
pub async fn lookup(ns: &NetNs, server: IpAddr, name: &str, search: &[String]) -> Result<(), Failure> {
    let socket = sockets::udp(ns, SocketAddr::new(unspecified(server), 0)).map_err(|_| Failure::NameError)?;
    socket.connect((server, DNS_PORT)).await.map_err(|_| Failure::NameError)?;
    let searched = search.iter().map(|domain| format!("{name}.{domain}."));
    let absolute = format!("{name}.");
    let candidates: Vec<String> = if name.matches('.').count() >= NDOTS {
        std::iter::once(absolute).chain(searched).collect()
    } else {
        searched.chain(std::iter::once(absolute)).collect()
    };
    for candidate in candidates {
        match ask_both(&socket, &candidate).await? {
            ResponseCode::NoError => return Ok(()),
            ResponseCode::NXDomain => {}
            _ => return Err(Failure::NameError),
        }
    }
    Err(Failure::NameError)
}

/// Queries A and AAAA in parallel and waits for both; `NoError` only if an address is received.
async fn ask_both(socket: &UdpSocket, name: &str) -> Result<ResponseCode, Failure> {
    let mut waiting = HashMap::new();
    for record in [RecordType::A, RecordType::AAAA] {
        let id = next_id();
        let question = question(id, name, record).ok_or(Failure::NameError)?;
        socket.send(&question).await.map_err(|_| Failure::NameError)?;
        waiting.insert(id, record);
    }
    let mut addresses = 0;
    let mut code = ResponseCode::NoError;
    let mut buffer = [0; 1500];
    while !waiting.is_empty() {
        let length = socket.recv(&mut buffer).await.map_err(|_| Failure::NameError)?;
        let Ok(reply) = Message::from_vec(&buffer[..length]) else { continue };
        if waiting.remove(&reply.metadata.id).is_none() {
            continue;
        }
        addresses += reply.answers.len();
        if reply.metadata.response_code != ResponseCode::NoError {
            code = reply.metadata.response_code;
        }
    }
    Ok(if addresses > 0 {
        ResponseCode::NoError
    } else if code == ResponseCode::NoError {
        ResponseCode::NXDomain
    } else {
        code
    })
}

fn next_id() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

const fn unspecified(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V4(_) => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    }
}

/// A query in wire format; `None` for an invalid name.
#[must_use]
pub fn question(id: u16, name: &str, record: RecordType) -> Option<Vec<u8>> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_utf8(name).ok()?, record));
    message.to_vec().ok()
}
