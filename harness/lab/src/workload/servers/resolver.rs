//! The upstream resolvers: hosts outside that have records.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::{RData, Record, RecordType};
use relapse_model::OutsideId;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use super::ANY;
use crate::cluster::{Cluster, ServerDelay};
use crate::job::FaultError;
use crate::workload::sockets;

/// RFC 1035 section 4.2.
pub const DNS_PORT: u16 = 53;

/// Time to live of the records served here, seconds.
const TTL: u32 = 5;

/// Starts a resolver on each host that has records.
pub(super) fn start(cluster: &dyn Cluster, tasks: &mut JoinSet<()>) -> Result<(), FaultError> {
    for (number, host) in cluster.plan().outside.iter().enumerate().filter(|(_, host)| !host.records.is_empty()) {
        let outside = cluster.outside(OutsideId(number));
        let server = sockets::udp(&outside.ns, SocketAddr::new(ANY, DNS_PORT))?;
        let records: HashMap<_, _> =
            host.records.iter().map(|(name, addresses)| (name.to_ascii_lowercase(), addresses.clone())).collect();
        tasks.spawn(serve(server, records, outside.delay.clone()));
    }
    Ok(())
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

/// Answers queries from its records, after the delay.
async fn serve(server: UdpSocket, records: HashMap<String, Vec<IpAddr>>, delay: ServerDelay) {
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
