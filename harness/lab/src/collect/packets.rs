//! TCP segments and DNS messages on the node's interfaces, captured with AF_PACKET.
//!
//! SYNs, FINs and resets are reported for every interface; data and bare acknowledgements only for the
//! uplinks, where paths begin. Only payloads of DNS are inspected. Exchanges are derived from the same frames.

use std::sync::{Arc, Mutex, PoisonError};

use hickory_proto::op::{Message, MessageType};
use hickory_proto::rr::RData;
use relapse_detectors::signal::{CollectorKind, Direction, Dns, Segment, TcpFlags};
use relapse_detectors::time::Time;
use relapse_kernel::packet::{Capture, Filter, Frame, Packet, Tcp, Udp};
use relapse_kernel::{Result, clock};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::exchanges::{self, Exchanges};
use super::{Agent, CollectorInfo};

/// Names below it are the cluster's own.
const CLUSTER_ZONE: &str = "cluster.local.";

pub const COLLECTORS: &[CollectorInfo] = &[CollectorInfo::on_each_node(
    &[CollectorKind::Packets, CollectorKind::DnsPackets, CollectorKind::Exchanges],
    start,
)
.tried("packet capture", "an AF_PACKET socket with a filter was opened", |ns| {
    Capture::open(ns, &Filter::any_of([Filter::tcp(), Filter::dns()])).map(drop)
})];

fn start(agent: &Arc<Agent>, tasks: &mut JoinSet<()>) -> Result<()> {
    // Two rings: slots large enough for a DNS message would leave a quarter as many for a burst of segments.
    let both: [(&[_], _); 2] = [
        (&[CollectorKind::Packets, CollectorKind::Exchanges], Filter::tcp()),
        (&[CollectorKind::DnsPackets], Filter::dns()),
    ];
    let exchanges = Arc::new(Mutex::new(Exchanges::of(agent)));
    for (kinds, filter) in both {
        let capture = Capture::open(&agent.ns, &filter)?;
        tasks.spawn(read(Arc::clone(agent), kinds, capture, Arc::clone(&exchanges)));
    }
    tasks.spawn(outstanding(Arc::clone(agent), exchanges));
    Ok(())
}

async fn read(
    agent: Arc<Agent>,
    kinds: &'static [CollectorKind],
    mut capture: Capture,
    exchanges: Arc<Mutex<Exchanges>>,
) {
    let mut frames = Vec::new();
    let mut lost = 0;
    loop {
        frames.clear();
        if let Err(e) = capture.next_batch(&mut frames).await {
            kinds.iter().for_each(|kind| agent.lost(*kind, &e));
            return;
        }
        {
            let mut exchanges = exchanges.lock().unwrap_or_else(PoisonError::into_inner);
            frames.iter().for_each(|frame| emit(&agent, &mut exchanges, frame));
        }
        let now = capture.lost();
        if now > lost {
            let why = format!("{} packets lost: the ring was full", now - lost);
            kinds.iter().for_each(|kind| agent.lost(*kind, &why));
            lost = now;
        }
    }
}

/// Reports requests that stay without an answer.
async fn outstanding(agent: Arc<Agent>, exchanges: Arc<Mutex<Exchanges>>) {
    let mut clock = tokio::time::interval(exchanges::EVERY);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        clock.tick().await;
        let now = Time(clock::now());
        let outstanding = exchanges.lock().unwrap_or_else(PoisonError::into_inner).outstanding(now);
        outstanding.into_iter().for_each(|exchange| agent.emit_at(now, exchange));
    }
}

fn emit(agent: &Agent, exchanges: &mut Exchanges, frame: &Frame) {
    let Some(link) = agent.link_name(frame.ifindex) else { return };
    let direction = if frame.outgoing { Direction::Out } else { Direction::In };
    match &frame.packet {
        Packet::Tcp(tcp) => {
            let uplink = agent.operator.is_uplink(&link);
            if uplink && direction == Direction::Out && tcp.flags.syn && !tcp.flags.ack {
                agent.record_connection(tcp.source.ip(), tcp.destination.ip());
            }
            if uplink || tcp.flags.syn || tcp.flags.fin || tcp.flags.rst {
                agent.emit_at(Time(frame.at), segment(link, direction, tcp));
            }
            if let Some(exchange) = exchanges.segment(agent, frame, tcp) {
                agent.emit_at(Time(frame.at), exchange);
            }
        }
        Packet::Udp(udp) => {
            if let Some(dns) = dns(udp) {
                exchanges.dns(agent, frame, &dns);
                if !dns.answers.is_empty() && !dns.name.ends_with(CLUSTER_ZONE) {
                    *agent.external_name.lock().unwrap_or_else(PoisonError::into_inner) = Some(dns.name.clone());
                }
                agent.emit_at(Time(frame.at), dns);
            }
        }
    }
}

fn segment(link: String, direction: Direction, tcp: &Tcp) -> Segment {
    Segment {
        link,
        direction,
        source: tcp.source,
        destination: tcp.destination,
        flags: TcpFlags { syn: tcp.flags.syn, ack: tcp.flags.ack, fin: tcp.flags.fin, rst: tcp.flags.rst },
        sequence: tcp.sequence,
        acknowledgment: tcp.acknowledgment,
        payload: tcp.segment_len(),
        mss: tcp.mss,
        timestamp: tcp.tsval,
    }
}

fn dns(udp: &Udp) -> Option<Dns> {
    let message = Message::from_vec(&udp.payload).ok()?;
    let query = message.queries.first()?;
    let is_answer = message.metadata.message_type == MessageType::Response;
    let (client, server) = if is_answer { (udp.destination, udp.source) } else { (udp.source, udp.destination) };
    let addresses = message.answers.iter().filter_map(|record| match &record.data {
        RData::A(a) => Some(a.0.into()),
        RData::AAAA(a) => Some(a.0.into()),
        _ => None,
    });
    let ttl = message.answers.iter().map(|record| record.ttl).min();
    Some(Dns {
        client,
        server,
        id: message.metadata.id,
        name: query.name().to_utf8(),
        record: query.query_type().to_string(),
        response: is_answer.then(|| format!("{:?}", message.metadata.response_code).to_ascii_uppercase()),
        answers: addresses.collect(),
        ttl,
    })
}
