//! The stub resolver of a client: looks up the names that flows connect to, and those of `dns` flows.
//!
//! Follows `resolv.conf(5)` with `ndots:5`: a name with fewer dots is tried in every search domain first, and A and AAAA
//! are queried in parallel over one socket. Pods use cluster DNS with its search list, nodes use it without; hosts
//! outside and offices use a resolver outside. A query that is not answered within `timeout` is sent once more
//! (`attempts`), at the defaults of `resolv.conf(5)`; an answer to either is accepted, as by glibc.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use relapse_kernel::NetNs;
use relapse_model::{ClusterPlan, Failure, OutsideId, Place, Target};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::sockets;
use crate::cluster::Cluster;

/// RFC 1035 section 4.2.
pub const DNS_PORT: u16 = 53;

/// `ndots` of a pod with `dnsPolicy: ClusterFirst`.
const NDOTS: usize = 5;

/// Default `timeout` of `resolv.conf(5)`.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Default `attempts`.
const ATTEMPTS: usize = 2;

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

/// The `resolv.conf` of a place: for a pod as the kubelet writes it with the default DNS policy. `None` where nothing can
/// be looked up.
#[must_use]
pub fn resolv_conf(plan: &ClusterPlan, from: Place) -> Option<String> {
    let mut text = format!("nameserver {}\n", plan.resolver_of(from)?);
    let search = search_list(plan, from);
    if !search.is_empty() {
        let _ = writeln!(text, "search {}", search.join(" "));
    }
    Some(if matches!(from, Place::Pod(_)) { text + "options ndots:5\n" } else { text })
}

/// The search domains at `from`: only pods have any.
#[must_use]
pub fn search_list(plan: &ClusterPlan, from: Place) -> &[String] {
    plan.dns.as_ref().filter(|_| matches!(from, Place::Pod(_))).map_or(&[][..], |dns| &dns.search)
}

/// Looks a name up as a pod would, and returns its addresses in the order of the answers.
///
/// # Errors
/// `NameError` if no candidate has an address, or a server fails or does not answer.
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
        match ask_both(&socket, &candidate, TIMEOUT).await? {
            Ok(addresses) if !addresses.is_empty() => return Ok(addresses),
            Ok(_) | Err(ResponseCode::NXDomain) => {}
            Err(_) => return Err(Failure::NameError),
        }
    }
    Err(Failure::NameError)
}

/// Queries A and AAAA in parallel and waits for both: the addresses, or the response code of a server without any. What
/// is not answered within `patience` is asked once more.
async fn ask_both(
    socket: &UdpSocket,
    name: &str,
    patience: Duration,
) -> Result<Result<Vec<IpAddr>, ResponseCode>, Failure> {
    let mut waiting = HashMap::new();
    for record in [RecordType::A, RecordType::AAAA] {
        let id = next_id();
        waiting.insert(id, question(id, name, record).ok_or(Failure::NameError)?);
    }
    let (mut addresses, mut code) = (Vec::new(), ResponseCode::NoError);
    for _ in 0..ATTEMPTS {
        for question in waiting.values() {
            socket.send(question).await.map_err(|_| Failure::NameError)?;
        }
        let answered = timeout(patience, async {
            while !waiting.is_empty() {
                let reply = receive(socket).await?;
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
            Ok(())
        });
        if let Ok(answered) = answered.await {
            answered?;
            let failed = addresses.is_empty() && code != ResponseCode::NoError;
            return Ok(if failed { Err(code) } else { Ok(addresses) });
        }
    }
    Err(Failure::NameError)
}

async fn receive(socket: &UdpSocket) -> Result<Message, Failure> {
    let mut buffer = [0; 1500];
    loop {
        let length = socket.recv(&mut buffer).await.map_err(|_| Failure::NameError)?;
        if let Ok(reply) = Message::from_vec(&buffer[..length]) {
            return Ok(reply);
        }
    }
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

/// The response code of a server for one query, without a time limit.
///
/// # Errors
/// What the socket reports, or that the answer cannot be read.
pub async fn response(ns: &NetNs, server: IpAddr, name: &str, record: RecordType) -> io::Result<ResponseCode> {
    let question = question(1, name, record).ok_or(io::ErrorKind::InvalidInput)?;
    let socket = sockets::udp(ns, SocketAddr::new(unspecified(server), 0)).map_err(io::Error::other)?;
    socket.connect((server, DNS_PORT)).await?;
    socket.send(&question).await?;
    let mut buffer = [0; 1500];
    let length = socket.recv(&mut buffer).await?;
    let reply = Message::from_vec(&buffer[..length]).map_err(io::Error::other)?;
    Ok(reply.metadata.response_code)
}

/// A query in wire format; `None` for an invalid name.
#[must_use]
pub fn question(id: u16, name: &str, record: RecordType) -> Option<Vec<u8>> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_utf8(name).ok()?, record));
    message.to_vec().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lost_query_is_sent_once_more_and_then_given_up() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.connect(server.local_addr().unwrap()).await.unwrap();
        let (begin, patience) = (std::time::Instant::now(), Duration::from_millis(20));
        assert_eq!(ask_both(&client, "a.example.", patience).await, Err(Failure::NameError));
        assert!(begin.elapsed() >= patience * 2, "{:?}", begin.elapsed());
        let mut sent = Vec::new();
        let mut buffer = [0; 1500];
        while let Ok(length) = server.try_recv(&mut buffer) {
            sent.push(Message::from_vec(&buffer[..length]).unwrap().metadata.id);
        }
        assert_eq!(sent.len(), 4, "{sent:?}");
        let mut ids = sent.clone();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 2, "each is sent twice with the same ID: {sent:?}");
    }
}
