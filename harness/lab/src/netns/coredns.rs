//! The lab's stand-in for CoreDNS: one replica per pod, answering for the cluster's own zone and
//! forwarding everything else to the upstream resolvers, one after another.
//!
//! It caches only if the scenario says so, since a cache delays the effects of the incidents.

mod cache;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};
use relapse_kernel::{NetNs, Result};
use relapse_model::{ClusterPlan, ForwardPolicy, PodId, ServiceId, zone};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use self::cache::Cache;
use crate::cluster::{Pod, Record};
use crate::workload::servers::resolver::{answer, reply_code};
use crate::workload::sockets;
use crate::workload::stub::DNS_PORT;

/// Timeout of one upstream, as in CoreDNS's forward plugin.
const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(2);

/// The zone answered here.
const CLUSTER_ZONE: &str = "cluster.local";

/// Time to live of its records, seconds: the default of CoreDNS's kubernetes plugin.
const TTL: u32 = 5;

/// All replicas of a lab, running or not.
pub struct Replicas {
    zone: Arc<Zone>,
    pods: HashMap<PodId, NetNs>,
    running: Mutex<HashMap<PodId, JoinHandle<()>>>,
}

struct Zone {
    services: HashMap<String, Record>,
    upstreams: Vec<IpAddr>,
    policy: ForwardPolicy,
    /// See [`relapse_model::DnsPlan::cache`].
    cache: Option<u32>,
}

/// A running replica.
struct Replica {
    ns: NetNs,
    zone: Arc<Zone>,
    cache: Option<Cache>,
    /// Questions forwarded.
    forwarded: AtomicUsize,
}

impl Replicas {
    pub fn new(plan: &ClusterPlan, pods: &[Pod]) -> Self {
        let services = plan
            .services
            .iter()
            .enumerate()
            .map(|(number, service)| {
                let record = Record { addresses: vec![service.address], ttl: TTL };
                (plan.service_domain(ServiceId(number)), record)
            })
            .collect();
        let dns = plan.dns.as_ref();
        let upstreams = dns.map(|d| d.upstreams.iter().map(|id| plan.outside[id.0].address).collect());
        let replicas = dns.map(|d| d.replicas.iter().chain(&d.spares).map(|id| (*id, pods[id.0].ns.clone())).collect());
        Self {
            zone: Arc::new(Zone {
                services,
                upstreams: upstreams.unwrap_or_default(),
                policy: dns.map(|d| d.policy).unwrap_or_default(),
                cache: dns.and_then(|d| d.cache),
            }),
            pods: replicas.unwrap_or_default(),
            running: Mutex::default(),
        }
    }

    /// Starts the replica in a pod, unless it runs; its socket is bound when this returns.
    pub fn start(&self, id: PodId) -> Result<()> {
        let mut running = self.lock();
        if running.contains_key(&id) {
            return Ok(());
        }
        let ns = self.pods[&id].clone();
        let any = SocketAddr::new(IpAddr::from([0, 0, 0, 0]), DNS_PORT);
        let server = sockets::udp(&ns, any)?;
        let cache = self.zone.cache.map(Cache::new);
        let replica = Replica { ns, zone: Arc::clone(&self.zone), cache, forwarded: AtomicUsize::default() };
        let task = tokio::spawn(serve(Arc::new(replica), Arc::new(server)));
        running.insert(id, task);
        Ok(())
    }

    /// Stops the replica in a pod, as if its process were killed.
    pub async fn stop(&self, id: PodId) {
        let task = self.lock().remove(&id);
        if let Some(task) = task {
            task.abort();
            // The port is free once the task has ended.
            let _ = task.await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<PodId, JoinHandle<()>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Replicas {
    fn drop(&mut self) {
        self.lock().drain().for_each(|(_, task)| task.abort());
    }
}

async fn serve(replica: Arc<Replica>, server: Arc<UdpSocket>) {
    // Dropped with the replica, so that queries being forwarded end with it.
    let mut questions = tokio::task::JoinSet::new();
    let mut buffer = [0; 1500];
    loop {
        let Ok((length, client)) = server.recv_from(&mut buffer).await else { continue };
        let Ok(question) = Message::from_vec(&buffer[..length]) else { continue };
        let (replica, server, raw) = (Arc::clone(&replica), Arc::clone(&server), buffer[..length].to_vec());
        questions.spawn(async move {
            if let Some(reply) = replica.resolve(question, &raw).await {
                // The client may be gone.
                let _ = server.send_to(&reply, client).await;
            }
        });
        while questions.try_join_next().is_some() {}
    }
}

impl Replica {
    async fn resolve(&self, question: Message, raw: &[u8]) -> Option<Vec<u8>> {
        let name = zone::folded(&question.queries.first()?.name().to_utf8());
        if name.ends_with(CLUSTER_ZONE) {
            return answer(&question, self.zone.services.get(&name), TTL);
        }
        if let Some(kept) = self.cache.as_ref().and_then(|cache| cache.find(&question, Instant::now())) {
            return kept.to_vec().ok();
        }
        for upstream in self.order() {
            let Some(reply) = forward(&self.ns, SocketAddr::new(upstream, DNS_PORT), raw).await else { continue };
            let Some(cache) = &self.cache else { return Some(reply) };
            let Ok(mut reply) = Message::from_vec(&reply) else { continue };
            cache.keep(&mut reply, Instant::now());
            return reply.to_vec().ok();
        }
        reply_code(&question, ResponseCode::ServFail)
    }

    /// The upstreams in the order in which the next question tries them.
    fn order(&self) -> Vec<IpAddr> {
        let mut upstreams = self.zone.upstreams.clone();
        match self.zone.policy {
            ForwardPolicy::Sequential => {}
            ForwardPolicy::RoundRobin => {
                let turn = self.forwarded.fetch_add(1, Ordering::Relaxed) % upstreams.len().max(1);
                upstreams.rotate_left(turn);
            }
            ForwardPolicy::Random => {
                let any = RandomState::new();
                upstreams.sort_by_cached_key(|upstream| any.hash_one(upstream));
            }
        }
        upstreams
    }
}

async fn forward(ns: &NetNs, upstream: SocketAddr, raw: &[u8]) -> Option<Vec<u8>> {
    let socket = sockets::udp(ns, SocketAddr::new(IpAddr::from([0, 0, 0, 0]), 0)).ok()?;
    socket.connect(upstream).await.ok()?;
    socket.send(raw).await.ok()?;
    let mut buffer = vec![0; 1500];
    let length = tokio::time::timeout(UPSTREAM_TIMEOUT, socket.recv(&mut buffer)).await.ok()?.ok()?;
    buffer.truncate(length);
    Some(buffer)
}
