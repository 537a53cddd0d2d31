//! The upstream resolvers: hosts outside that have records.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::SOA;
use hickory_proto::rr::{self, Name, RData, RecordType};
use relapse_model::{OutsideId, zone};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use super::ANY;
use crate::cluster::{Cluster, Outside, Record};
use crate::job::FaultError;
use crate::workload::sockets;
use crate::workload::stub::DNS_PORT;

/// Starts a resolver on each host that has records.
pub(super) fn start(cluster: &dyn Cluster, tasks: &mut JoinSet<()>) -> Result<(), FaultError> {
    for (number, host) in cluster.plan().outside.iter().enumerate().filter(|(_, host)| !host.records.is_empty()) {
        let outside = cluster.outside(OutsideId(number)).clone();
        let server = sockets::udp(&outside.ns, SocketAddr::new(ANY, DNS_PORT))?;
        tasks.spawn(serve(server, outside, host.ttl));
    }
    Ok(())
}

/// An answer to `question`: the addresses, or NXDOMAIN for `None`. That there is none may be kept for `ttl` seconds
/// (RFC 2308, 3 and 5).
#[must_use]
pub fn answer(question: &Message, record: Option<&Record>, ttl: u32) -> Option<Vec<u8>> {
    let code = if record.is_some() { ResponseCode::NoError } else { ResponseCode::NXDomain };
    let mut reply = reply_to(question, code);
    let query = question.queries.first()?;
    for (address, ttl) in record.iter().flat_map(|r| r.addresses.iter().map(|a| (a, r.ttl))) {
        let data = match (query.query_type(), address) {
            (RecordType::A, IpAddr::V4(a)) => RData::A((*a).into()),
            (RecordType::AAAA, IpAddr::V6(a)) => RData::AAAA((*a).into()),
            _ => continue,
        };
        reply.add_answer(rr::Record::from_rdata(query.name().clone(), ttl, data));
    }
    if reply.answers.is_empty() {
        let soa = SOA::new(Name::root(), Name::root(), 1, 3600, 600, 86_400, ttl);
        reply.add_authority(rr::Record::from_rdata(Name::root(), ttl, RData::SOA(soa)));
    }
    reply.to_vec().ok()
}

/// An answer with only a response code.
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

/// Answers queries from its records, after the delay. `ttl` is that of negative answers, seconds.
async fn serve(server: UdpSocket, host: Outside, ttl: u32) {
    let server = Arc::new(server);
    let mut buffer = [0; 1500];
    let mut turn = 0;
    loop {
        let Ok((length, client)) = server.recv_from(&mut buffer).await else { continue };
        let Ok(question) = Message::from_vec(&buffer[..length]) else { continue };
        let Some(name) = question.queries.first().map(|q| zone::folded(&q.name().to_utf8())) else { continue };
        let mut record = host.records.answering(&name);
        // Rotate the addresses, as resolvers do.
        if let Some(Record { addresses, .. }) = record.as_mut().filter(|record| record.addresses.len() > 1) {
            let kind = question.queries.first().map(Query::query_type);
            addresses.retain(|address| kind == Some(if address.is_ipv4() { RecordType::A } else { RecordType::AAAA }));
            let first = turn % addresses.len().max(1);
            addresses.rotate_left(first);
            turn += usize::from(!addresses.is_empty());
        }
        let reply = if host.records.is_failing(&name) {
            reply_code(&question, ResponseCode::ServFail)
        } else {
            answer(&question, record.as_ref(), ttl)
        };
        let Some(reply) = reply else { continue };
        let wait = host.delay.get();
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
