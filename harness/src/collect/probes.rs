//! Active probes of a node's agent: cluster DNS by its Service, each endpoint behind it, the upstream
//! resolvers, and ICMP echo to addresses whose TCP connections go unanswered.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use relapse_detectors::signal::{Observed, Probe, ProbeKind};
use relapse_kernel::Result;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::Agent;
use crate::workload::{dns, ping, sockets};

const EVERY: Duration = Duration::from_millis(200);
const TIMEOUT: Duration = Duration::from_millis(400);

pub fn start(agent: &Arc<Agent>, tasks: &mut JoinSet<()>) -> Result<()> {
    let agent = Arc::clone(agent);
    tasks.spawn(async move {
        let mut clock = tokio::time::interval(EVERY);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut under_way = JoinSet::new();
        loop {
            clock.tick().await;
            while under_way.try_join_next().is_some() {}
            for (kind, target) in targets(&agent) {
                under_way.spawn(probe(Arc::clone(&agent), kind, target));
            }
        }
    });
    Ok(())
}

fn targets(agent: &Agent) -> Vec<(ProbeKind, IpAddr)> {
    let inventory = agent.inventory.borrow();
    let service = inventory.services.iter().find(|service| service.name == agent.operator.dns_service);
    let mut targets = Vec::new();
    if let Some(service) = service {
        targets.push((ProbeKind::DnsService, service.address));
        targets.extend(service.ready.iter().map(|(_, address, _)| (ProbeKind::DnsEndpoint, *address)));
        targets.extend(agent.upstreams.iter().map(|address| (ProbeKind::DnsUpstream, *address)));
    }
    let talked_to = agent.talked_to.lock().unwrap_or_else(PoisonError::into_inner);
    targets.extend(talked_to.iter().map(|address| (ProbeKind::Echo, *address)));
    targets
}

async fn probe(agent: Arc<Agent>, kind: ProbeKind, target: IpAddr) {
    let started = Instant::now();
    let result = match kind {
        ProbeKind::Echo => ping::echo(&agent.ns, target, TIMEOUT).await.map_err(|_| "timeout".to_owned()),
        _ => tokio::time::timeout(TIMEOUT, ask(&agent, kind, target)).await.unwrap_or_else(|_| Err("timeout".into())),
    };
    agent.tell(Observed::Probe(Probe {
        kind,
        source: agent.address,
        target,
        ok: result.is_ok(),
        took_us: u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
        error: result.err(),
    }));
}

/// Asks for a name that pods of this node ask for, since only that needs the upstream too; before any
/// did, for the DNS Service's own. An upstream is asked for the root's name servers.
async fn ask(agent: &Agent, kind: ProbeKind, target: IpAddr) -> std::result::Result<(), String> {
    let external = agent.external_name.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let name = external.unwrap_or_else(|| format!("{}.default.svc.cluster.local.", agent.operator.dns_service));
    let (name, record) =
        if kind == ProbeKind::DnsUpstream { (".", RecordType::NS) } else { (name.as_str(), RecordType::A) };
    let question = dns::question(1, name, record).ok_or("no such name")?;
    let any = SocketAddr::new(IpAddr::from([0, 0, 0, 0]), 0);
    let socket = sockets::udp(&agent.ns, any).map_err(|e| e.to_string())?;
    let text = |e: std::io::Error| e.to_string();
    socket.connect((target, dns::DNS_PORT)).await.map_err(text)?;
    socket.send(&question).await.map_err(text)?;
    let mut buffer = [0; 1500];
    let length = socket.recv(&mut buffer).await.map_err(text)?;
    let reply = Message::from_vec(&buffer[..length]).map_err(|e| e.to_string())?;
    match reply.metadata.response_code {
        // An upstream that answers at all is reachable.
        ResponseCode::ServFail => Err("SERVFAIL".into()),
        _ => Ok(()),
    }
}
