//! Active probes of a node's agent: cluster DNS through its Service, each endpoint behind it, the upstream
//! resolvers, and ICMP echo to addresses whose TCP connections go unanswered.
//!
//! Cluster DNS is queried for its own name and an external one in parallel, and both outcomes are reported. If it
//! answers the former but is slow with the latter, it is waiting for an upstream: not a failure until [`PATIENCE`] has
//! passed. The upstream resolvers are queried for the same external name.
//!
//! Services of the workload and kube-proxy are probed by [`services`], the cluster's external names by [`entries`].

mod entries;
mod services;

use std::net::IpAddr;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use relapse_detectors::signal::{CollectorKind, Probe, ProbeKind};
use relapse_kernel::Result;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::{Agent, CollectorInfo};
use crate::workload::{ping, stub};

const EVERY: Duration = Duration::from_millis(200);
const TIMEOUT: Duration = Duration::from_millis(400);
/// Timeout for an external name while cluster DNS itself answers.
const PATIENCE: Duration = Duration::from_millis(1500);

pub const COLLECTORS: &[CollectorInfo] = &[CollectorInfo::on_each_node(&[CollectorKind::Probes], start)];

fn start(agent: &Arc<Agent>, tasks: &mut JoinSet<()>) -> Result<()> {
    tasks.spawn(services::run(Arc::clone(agent)));
    tasks.spawn(entries::run(Arc::clone(agent)));
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
    let service = inventory.services.iter().find(|service| service.service == agent.operator.dns_service);
    let mut targets = Vec::new();
    if let Some(service) = service {
        targets.push((ProbeKind::DnsService, service.address));
        targets.extend(service.ready.iter().map(|endpoint| (ProbeKind::DnsEndpoint, endpoint.address)));
        targets.extend(agent.upstreams.iter().map(|address| (ProbeKind::DnsUpstream, *address)));
    }
    let peers = agent.external_peers.lock().unwrap_or_else(PoisonError::into_inner);
    targets.extend(peers.iter().map(|address| (ProbeKind::Echo, *address)));
    targets
}

async fn probe(agent: Arc<Agent>, kind: ProbeKind, target: IpAddr) {
    let started = Instant::now();
    let result = match kind {
        ProbeKind::Echo => ping::echo(&agent.ns, target, TIMEOUT).await.map_err(|_| "timeout".to_owned()),
        ProbeKind::DnsUpstream => {
            let external = external_name(&agent);
            let (name, record) = external.as_deref().map_or((".", RecordType::NS), |name| (name, RecordType::A));
            let result = in_time(TIMEOUT, ask(&agent, target, name, record)).await;
            return agent.emit(Probe { about: external, ..outcome(&agent, kind, target, started, result) });
        }
        _ => return ask_cluster(&agent, kind, target).await,
    };
    agent.emit(outcome(&agent, kind, target, started, result));
}

fn outcome(agent: &Agent, kind: ProbeKind, target: IpAddr, started: Instant, result: Answer) -> Probe {
    Probe {
        kind,
        source: agent.address,
        target,
        port: None,
        about: None,
        ok: result.is_ok(),
        took_us: u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
        error: result.err(),
    }
}

type Answer = std::result::Result<(), String>;

async fn in_time(limit: Duration, query: impl Future<Output = Answer>) -> Answer {
    tokio::time::timeout(limit, query).await.unwrap_or_else(|_| Err("timeout".into()))
}

/// The external name that pods of this node looked up last.
fn external_name(agent: &Agent) -> Option<String> {
    agent.external_name.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Queries an external name that pods of this node look up, since only that needs the upstream too, and in parallel
/// the DNS Service's own name; only the latter if no external name is known yet.
async fn ask_cluster(agent: &Agent, kind: ProbeKind, target: IpAddr) {
    let started = Instant::now();
    let own = format!("{}.kube-system.svc.cluster.local.", agent.operator.dns_service);
    let report = |about, result| agent.emit(Probe { about, ..outcome(agent, kind, target, started, result) });
    let itself = in_time(TIMEOUT, ask(agent, target, &own, RecordType::A));
    let Some(external) = external_name(agent) else { return report(None, itself.await) };
    let mut itself = std::pin::pin!(itself);
    let mut outside = std::pin::pin!(in_time(PATIENCE, ask(agent, target, &external, RecordType::A)));
    tokio::select! {
        biased;
        answer = &mut outside => {
            report(Some(external.clone()), answer);
            report(Some(own.clone()), itself.await);
        }
        answer = &mut itself => {
            report(Some(own.clone()), answer.clone());
            let answer = if answer.is_ok() { outside.await } else { answer };
            report(Some(external.clone()), answer);
        }
    }
}

async fn ask(agent: &Agent, target: IpAddr, name: &str, record: RecordType) -> Answer {
    match stub::response(&agent.ns, target, name, record).await.map_err(|e| e.to_string())? {
        // Any other answer shows that the server is reachable.
        ResponseCode::ServFail => Err("SERVFAIL".into()),
        _ => Ok(()),
    }
}
