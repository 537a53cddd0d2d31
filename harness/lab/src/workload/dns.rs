//! DNS as a pod's stub resolver does it, and the upstream resolvers outside.
//!
//! The client follows `resolv.conf(5)` with `ndots:5`: a name with fewer dots is tried below every
//! search domain first, and A and AAAA are asked in parallel over one socket.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use relapse_kernel::NetNs;
use relapse_model::Failure;
use tokio::net::UdpSocket;

use super::sockets;

/// RFC 1035 section 4.2.
pub const DNS_PORT: u16 = 53;

/// `ndots` of a pod with `dnsPolicy: ClusterFirst`.
const NDOTS: usize = 5;

/// Time to live of the records that are answered here, seconds.
const TTL: u32 = 5;

/// Looks a name up as a pod would.
///
/// # Errors
/// `NameError` when no candidate has an address, or a server failed.
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

/// Asks A and AAAA at once and waits for both; `NoError` only when an address came.
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

/// A question in wire format; `None` for a name that cannot be one.
#[must_use]
pub fn question(id: u16, name: &str, record: RecordType) -> Option<Vec<u8>> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_utf8(name).ok()?, record));
    message.to_vec().ok()
}

/// An answer to `question`: the addresses, or NXDOMAIN for `None`.
#[must_use]
pub fn answer(question: &Message, addresses: Option<&[IpAddr]>) -> Option<Vec<u8>> {
    let Some(addresses) = addresses else { return reply_code(question, ResponseCode::NXDomain) };
    let mut reply = reply_to(question, ResponseCode::NoError);
    let query = question.queries.first()?;
    for address in addresses {
        let data = match (query.query_type(), address) {
            (RecordType::A, IpAddr::V4(a)) => RData::A((*a).into()),
            (RecordType::AAAA, IpAddr::V6(a)) => RData::AAAA((*a).into()),
            _ => continue,
        };
        reply.add_answer(Record::from_rdata(query.name().clone(), TTL, data));
    }
    reply.to_vec().ok()
}

/// An answer that carries only a response code.
#[must_use]
pub fn reply_code(question: &Message, code: ResponseCode) -> Option<Vec<u8>> {
    reply_to(question, code).to_vec().ok()
}

fn reply_to(question: &Message, code: ResponseCode) -> Message {
    let mut reply = Message::new(question.metadata.id, MessageType::Response, OpCode::Query);
    reply.metadata.recursion_desired = true;
    reply.metadata.recursion_available = true;
    reply.metadata.response_code = code;
    reply.add_queries(question.queries.iter().cloned());
    reply
}

/// An upstream resolver: answers from its records, after its delay.
pub async fn serve_records(
    server: UdpSocket,
    records: HashMap<String, Vec<IpAddr>>,
    delay: crate::cluster::ServerDelay,
) {
    let server = Arc::new(server);
    let mut buffer = [0; 1500];
    loop {
        let Ok((length, client)) = server.recv_from(&mut buffer).await else { continue };
        let Ok(question) = Message::from_vec(&buffer[..length]) else { continue };
        let Some(name) = question.queries.first().map(|q| q.name().to_utf8()) else { continue };
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let Some(reply) = answer(&question, records.get(&name).map(Vec::as_slice)) else { continue };
        let wait = delay.get();
        if wait == Duration::ZERO {
            let _ = server.send_to(&reply, client).await;
        } else {
            let server = Arc::clone(&server);
            tokio::spawn(async move {
                tokio::time::sleep(wait).await;
                let _ = server.send_to(&reply, client).await;
            });
        }
    }
}
