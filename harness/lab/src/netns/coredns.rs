//! The lab's stand-in for CoreDNS: one replica per pod, answering for the cluster's own zone and
//! forwarding everything else to the upstream resolvers, one after another.
//!
//! It does not cache, since a cache would only delay the effects of the incidents.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use relapse_kernel::{NetNs, Result};
use relapse_model::{ClusterPlan, PodId, ServiceId};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use crate::cluster::Pod;
use crate::workload::servers::resolver::{DNS_PORT, answer, reply_code};
use crate::workload::sockets;

/// Timeout of one upstream, as in CoreDNS's forward plugin.
const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(2);

/// The zone answered here.
const CLUSTER_ZONE: &str = "cluster.local";

/// All replicas of a lab, running or not.
pub struct Replicas {
    zone: Arc<Zone>,
    pods: HashMap<PodId, NetNs>,
    running: Mutex<HashMap<PodId, JoinHandle<()>>>,
}

struct Zone {
    services: HashMap<String, IpAddr>,
    upstreams: Vec<IpAddr>,
}

impl Replicas {
    pub fn new(plan: &ClusterPlan, pods: &[Pod]) -> Self {
        let services = plan
            .services
            .iter()
            .enumerate()
            .map(|(number, service)| (plan.service_domain(ServiceId(number)), service.address))
            .collect();
        let dns = plan.dns.as_ref();
        let upstreams = dns.map(|d| d.upstreams.iter().map(|id| plan.outside[id.0].address).collect());
        let replicas = dns.map(|d| d.replicas.iter().chain(&d.spares).map(|id| (*id, pods[id.0].ns.clone())).collect());
        Self {
            zone: Arc::new(Zone { services, upstreams: upstreams.unwrap_or_default() }),
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
        let zone = Arc::clone(&self.zone);
        let task = tokio::spawn(serve(ns, Arc::new(server), zone));
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

async fn serve(ns: NetNs, server: Arc<UdpSocket>, zone: Arc<Zone>) {
    // Dropped with the replica, so that queries being forwarded end with it.
    let mut questions = tokio::task::JoinSet::new();
    let mut buffer = [0; 1500];
    loop {
        let Ok((length, client)) = server.recv_from(&mut buffer).await else { continue };
        let Ok(question) = Message::from_vec(&buffer[..length]) else { continue };
        let (ns, server, zone, raw) = (ns.clone(), Arc::clone(&server), Arc::clone(&zone), buffer[..length].to_vec());
        questions.spawn(async move {
            if let Some(reply) = resolve(&ns, &zone, question, &raw).await {
                // The client may be gone.
                let _ = server.send_to(&reply, client).await;
            }
        });
        while questions.try_join_next().is_some() {}
    }
}

async fn resolve(ns: &NetNs, zone: &Zone, question: Message, raw: &[u8]) -> Option<Vec<u8>> {
    let name = question.queries.first()?.name().to_utf8().trim_end_matches('.').to_ascii_lowercase();
    if name.ends_with(CLUSTER_ZONE) {
        let addresses = zone.services.get(&name).map(std::slice::from_ref);
        return answer(&question, addresses);
    }
    for upstream in &zone.upstreams {
        if let Some(reply) = forward(ns, SocketAddr::new(*upstream, DNS_PORT), raw).await {
            return Some(reply);
        }
    }
    reply_code(&question, ResponseCode::ServFail)
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
