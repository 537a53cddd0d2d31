//! The stub resolver of a client: looks up the names that flows connect to, and those of `dns` flows.
//!
//! Follows `resolv.conf(5)` with `ndots:5`: a name with fewer dots is tried in every search domain first, and A and AAAA
//! are queried in parallel over one socket. Pods use cluster DNS with its search list, nodes use it without; hosts
//! outside and offices use a resolver outside.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use relapse_kernel::NetNs;
use relapse_model::{ClusterPlan, Failure, OutsideId, Place, Target};
use tokio::net::UdpSocket;

use super::sockets;
use crate::cluster::Cluster;

/// RFC 1035 section 4.2.
pub const DNS_PORT: u16 = 53;

/// `ndots` of a pod with `dnsPolicy: ClusterFirst`.
const NDOTS: usize = 5;

/// The address of a target for a client at `from`. Names are looked up.
///
/// # Errors
/// `NameError` if a name has no address.
pub async fn address(
    cluster: &dyn Cluster,
    ns: &NetNs,
    from: Place,
    to: Target,
    asked: Option<OutsideId>,
) -> Result<IpAddr, Failure> {
    let plan = cluster.plan();
    let Target::Name(id) = to else { return Ok(plan.target_address(to)) };
    let asked = asked.map(|host| plan.outside[host.0].address);
    let server = asked.or_else(|| plan.resolver_of(from)).ok_or(Failure::NameError)?;
    let addresses = lookup(ns, server, &plan.names[id.0].name, search_list(plan, from)).await?;
    // The order of getaddrinfo(3) on a host without an IPv6 address (RFC 6724 section 6, rule 1).
    let first = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first());
    first.copied().ok_or(Failure::NameError)
}

/// The search domains at `from`: only pods have any.
#[must_use]
pub fn search_list(plan: &ClusterPlan, from: Place) -> &[String] {
    plan.dns.as_ref().filter(|_| matches!(from, Place::Pod(_))).map_or(&[][..], |dns| &dns.search)
}

/// Looks a name up as a pod would, and returns its addresses in the order of the answers.
///
/// # Errors
/// `NameError` if no candidate has an address, or a server fails.
pub async fn lookup(ns: &NetNs, server: IpAddr, name: &str, search: &[String]) -> Result<Vec<IpAddr>, Failure> {
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
            Ok(addresses) if !addresses.is_empty() => return Ok(addresses),
            Ok(_) | Err(ResponseCode::NXDomain) => {}
            Err(_) => return Err(Failure::NameError),
        }
    }
    Err(Failure::NameError)
}

/// Queries A and AAAA in parallel and waits for both: the addresses, or the response code of a server without any.
async fn ask_both(socket: &UdpSocket, name: &str) -> Result<Result<Vec<IpAddr>, ResponseCode>, Failure> {
    let mut waiting = HashMap::new();
    for record in [RecordType::A, RecordType::AAAA] {
        let id = next_id();
        let question = question(id, name, record).ok_or(Failure::NameError)?;
        socket.send(&question).await.map_err(|_| Failure::NameError)?;
        waiting.insert(id, record);
    }
    let mut addresses = Vec::new();
    let mut code = ResponseCode::NoError;
    let mut buffer = [0; 1500];
    while !waiting.is_empty() {
        let length = socket.recv(&mut buffer).await.map_err(|_| Failure::NameError)?;
        let Ok(reply) = Message::from_vec(&buffer[..length]) else { continue };
        if waiting.remove(&reply.metadata.id).is_none() {
            continue;
        }
        addresses.extend(reply.answers.iter().filter_map(|record| match record.data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            RData::AAAA(address) => Some(IpAddr::V6(address.0)),
            _ => None,
        }));
        if reply.metadata.response_code != ResponseCode::NoError {
            code = reply.metadata.response_code;
        }
    }
    Ok(if addresses.is_empty() && code != ResponseCode::NoError { Err(code) } else { Ok(addresses) })
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
