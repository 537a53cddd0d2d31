//! Probes of the workload's Services as clients on the node use them, and of the node's kube-proxy.
//!
//! Every second [`AT_ONCE`] Services, in turn: a TCP connect to each virtual address, and one to a ready endpoint behind
//! it, also in turn; and the [`FAILED`] Services that began to fail last, again. That is 6 packets for each connect,
//! closed without a request, and one for a connect that fails, so that a node sends and receives fewer than 50 a second
//! however many Services there are, if none fails. If a virtual address fails, up to [`ENDPOINTS`] ready endpoints are
//! asked at once: only if all answer is it the Service that fails. kube-proxy is asked on the node's own address; that
//! leaves the node by no NIC.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use relapse_detectors::signal::{Probe, ProbeKind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::MissedTickBehavior;

use super::{Agent, Answer, TIMEOUT, in_time, outcome};
use crate::workload::sockets;

const EVERY: Duration = Duration::from_secs(1);
/// `healthzBindAddress` of kube-proxy by default (`pkg/proxy/apis/config/v1alpha1/defaults.go`).
const HEALTHZ: u16 = 10256;

/// Endpoints of a Service that are asked in one second.
const ENDPOINTS: usize = 16;

/// Services probed in one second.
const AT_ONCE: usize = 3;
/// Services that fail and are probed every second, the newest first: one that is dead for good hides no other.
const FAILED: usize = 2;
/// Times that a Service that failed is probed every second once it works.
const AGAIN: usize = 3;

/// A TCP port of a Service with ready endpoints.
struct Entry {
    service: String,
    address: SocketAddr,
    ready: Vec<IpAddr>,
}

pub(super) async fn run(agent: Arc<Agent>) {
    let mut clock = tokio::time::interval(EVERY);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The Services that failed, the newest last, and how often each has worked since.
    let mut failed: Vec<(SocketAddr, usize)> = Vec::new();
    for turn in 0.. {
        clock.tick().await;
        let services = async {
            let entries = entries(&agent);
            let (all, first) = (entries.len(), turn * AT_ONCE);
            failed.retain(|(of, worked)| *worked < AGAIN && entries.iter().any(|entry| entry.address == *of));
            let again = failed.iter().rev().take(FAILED).map(|(of, _)| *of).collect::<Vec<_>>();
            // How many Services come before this one.
            let turns = (0..all).map(|number| (number + all - first % all) % all).zip(&entries);
            let due = turns.filter(|(before, entry)| *before < AT_ONCE || again.contains(&entry.address));
            let connects = due.map(async |(before, entry)| {
                let round = (first + before) / all.max(AT_ONCE);
                let works = connect_both(&agent, entry, round, turn).await;
                (entry.address, works)
            });
            for (address, works) in join_all(connects).await {
                match failed.iter_mut().find(|(of, _)| *of == address) {
                    Some((_, worked)) => *worked = if works { *worked + 1 } else { 0 },
                    None if !works => failed.push((address, 0)),
                    None => {}
                }
            }
        };
        tokio::join!(ask_kube_proxy(&agent), services);
    }
}

/// The Services except cluster DNS, which is probed by queries, as kube-proxy learns them from the API.
fn entries(agent: &Agent) -> Vec<Entry> {
    let inventory = agent.inventory.borrow();
    let plans = agent.cluster.plan().services.iter().filter(|plan| plan.name != agent.operator.dns_service);
    let with_endpoints = plans.filter_map(|plan| {
        let known = inventory.services.iter().find(|known| known.service == plan.name)?;
        let ready: Vec<_> = known.ready.iter().map(|endpoint| endpoint.address).collect();
        (!ready.is_empty()).then_some((plan, ready))
    });
    let entry = |port: &u16, service: &str, address, ready: &[IpAddr]| Entry {
        service: service.to_owned(),
        address: SocketAddr::new(address, *port),
        ready: ready.to_vec(),
    };
    with_endpoints
        .flat_map(|(plan, ready)| {
            plan.ports.iter().map(move |port| entry(port, &plan.name, plan.address, &ready)).collect::<Vec<_>>()
        })
        .collect()
}

/// Connects to the virtual address and to an endpoint at the same time, in each round to another one, and to more if the
/// former fails. Returns whether it works.
async fn connect_both(agent: &Agent, entry: &Entry, round: usize, turn: usize) -> bool {
    let port = entry.address.port();
    let to = |kind, target| async move {
        let started = Instant::now();
        let result = in_time(TIMEOUT, connect(agent, SocketAddr::new(target, port))).await;
        let about = Some(entry.service.clone());
        Probe { port: Some(port), about, ..outcome(agent, kind, target, started, result) }
    };
    let endpoint = |number: usize| to(ProbeKind::Endpoint, entry.ready[number % entry.ready.len()]);
    let (one, service) = tokio::join!(endpoint(round), to(ProbeKind::Service, entry.address.ip()));
    let works = service.ok;
    agent.emit(one);
    agent.emit(service);
    if !works {
        let others = entry.ready.len().min(ENDPOINTS);
        join_all((turn * ENDPOINTS..).take(others).map(endpoint)).await.into_iter().for_each(|probe| agent.emit(probe));
    }
    works
}

pub(super) async fn connect(agent: &Agent, to: SocketAddr) -> Answer {
    sockets::open(&agent.ns, to, None, None).await.map(drop).map_err(|e| text(&e))
}

async fn ask_kube_proxy(agent: &Agent) {
    let started = Instant::now();
    let result = in_time(TIMEOUT, healthz(agent)).await;
    let probe = outcome(agent, ProbeKind::KubeProxy, agent.address, started, result);
    agent.emit(Probe { port: Some(HEALTHZ), ..probe });
}

/// 200 while its rules are up to date (`pkg/proxy/healthcheck/proxy_health.go`).
async fn healthz(agent: &Agent) -> Answer {
    let to = SocketAddr::new(agent.address, HEALTHZ);
    let mut stream = sockets::open(&agent.ns, to, None, None).await.map_err(|e| text(&e))?;
    stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await.map_err(|e| text(&e))?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.map_err(|e| text(&e))?;
    let answer = String::from_utf8_lossy(&answer);
    match answer.split_whitespace().nth(1) {
        Some("200") => Ok(()),
        Some(status) => Err(status.to_owned()),
        None => Err("no HTTP status".to_owned()),
    }
}

fn text(e: &std::io::Error) -> String {
    if e.kind() == std::io::ErrorKind::ConnectionRefused { "refused".to_owned() } else { e.to_string() }
}
