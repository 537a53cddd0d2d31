//! The lab's stand-in for kube-proxy, one on each node: watches endpoints, writes the node's rules for Services, and
//! answers for its health.
//!
//! As a real one, it writes only what has changed: rules that something else removed stay away until the endpoints of
//! that Service change or it starts again. Its table is replaced as a whole all the same, which no packet can notice.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use relapse_detectors::signal::Endpoints;
use relapse_kernel::conntrack::Conntrack;
use relapse_kernel::{NetNs, Result, nft};
use relapse_model::{ClusterPlan, NodeId, PodId, ServiceId};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::services;
use crate::cluster::{Inventory, ServiceRules};
use crate::workload::sockets;

/// The default of its `healthzBindAddress`.
const HEALTHZ: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 10256);
/// IANA protocol number.
const IPPROTO_UDP: u8 = 17;

/// The stand-in of one node.
pub struct KubeProxy {
    node: NodeId,
    ns: NetNs,
    plan: Arc<ClusterPlan>,
    inventory: watch::Receiver<Inventory>,
    rules: Mutex<Rules>,
    /// What its rules are made from, or why they could not be written; `None` while it does not run.
    written: watch::Sender<Option<std::result::Result<Vec<Endpoints>, String>>>,
    tasks: tokio::sync::Mutex<JoinSet<()>>,
}

/// The rules in force.
#[derive(Default)]
struct Rules {
    services: Vec<Endpoints>,
    /// Services whose rules something else changed.
    changed: BTreeMap<ServiceId, ServiceRules>,
}

impl KubeProxy {
    pub fn new(node: NodeId, ns: &NetNs, plan: &Arc<ClusterPlan>, inventory: watch::Receiver<Inventory>) -> Arc<Self> {
        let (ns, plan, rules) = (ns.clone(), Arc::clone(plan), Mutex::default());
        let (written, tasks) = (watch::Sender::default(), tokio::sync::Mutex::default());
        Arc::new(Self { node, ns, plan, inventory, rules, written, tasks })
    }

    /// Starts it, unless it runs; all rules are written when this returns.
    pub async fn start(self: &Arc<Self>) -> Result<()> {
        let mut tasks = self.tasks.lock().await;
        if !tasks.is_empty() {
            return Ok(());
        }
        let listener = sockets::tcp_listener(&self.ns, HEALTHZ)?;
        let mut inventory = self.inventory.clone();
        let services = inventory.borrow_and_update().services.clone();
        self.write(|rules| *rules = Rules { services: services.clone(), ..Rules::default() })?;
        self.written.send_replace(Some(Ok(services)));
        tasks.spawn(answer(listener));
        // Not an `Arc`: its tasks end with it.
        let weak = Arc::downgrade(self);
        tasks.spawn(async move {
            while inventory.changed().await.is_ok() {
                let Some(this) = weak.upgrade() else { return };
                let services = inventory.borrow_and_update().services.clone();
                this.follow(services);
            }
        });
        Ok(())
    }

    /// Stops it, as if its process were killed. Its rules stay.
    pub async fn stop(&self) {
        self.tasks.lock().await.shutdown().await;
        self.written.send_replace(None);
    }

    /// Waits until the rules are those of the current endpoints, if it runs.
    ///
    /// # Errors
    /// That they could not be written.
    pub async fn until_written(&self) -> std::result::Result<(), String> {
        let mut written = self.written.subscribe();
        let is_current = |services: &Vec<Endpoints>| *services == self.inventory.borrow().services;
        let current = written.wait_for(|written| match written {
            Some(Ok(services)) => is_current(services),
            Some(Err(_)) | None => true,
        });
        match current.await.as_deref() {
            Ok(Some(Err(why))) => Err(why.clone()),
            _ => Ok(()),
        }
    }

    /// Changes the rules of one Service, as something else than kube-proxy would.
    pub fn change(&self, service: ServiceId, to: ServiceRules) -> Result<()> {
        self.write(|rules| match to {
            ServiceRules::Whole => drop(rules.changed.remove(&service)),
            _ => drop(rules.changed.insert(service, to)),
        })
    }

    /// The comments of the rules of a Service that lead to an endpoint.
    pub fn read(&self, service: ServiceId) -> Result<Vec<String>> {
        let name = format!("{}:", self.plan.services[service.0].name);
        let rules = nft::read(&self.ns, services::TABLE)?;
        let comments = rules.into_iter().filter(|rule| rule.chain == "output").filter_map(|rule| rule.comment);
        Ok(comments.filter(|comment| comment.starts_with(&name)).collect())
    }

    fn follow(&self, now: Vec<Endpoints>) {
        // Pods come and go without being endpoints.
        if self.written.borrow().as_ref().is_some_and(|written| written.as_ref() == Ok(&now)) {
            return;
        }
        let mut gone = Vec::new();
        let result = self.write(|rules| {
            for (number, (before, now)) in rules.services.iter().zip(&now).enumerate() {
                if before != now {
                    rules.changed.remove(&ServiceId(number));
                    let left = before.ready.iter().filter(|endpoint| !now.ready.contains(endpoint));
                    gone.extend(left.map(|endpoint| endpoint.address));
                }
            }
            rules.services.clone_from(&now);
        });
        // UDP flows to a removed endpoint would otherwise persist.
        let result = result.and_then(|()| match &gone[..] {
            [] => Ok(()),
            gone => Conntrack::open(&self.ns)?
                .delete_where(|entry| entry.protocol == IPPROTO_UDP && gone.contains(&entry.reply.0.ip()))
                .map(drop),
        });
        self.written.send_replace(Some(result.map(|()| now).map_err(|e| e.to_string())));
    }

    fn write(&self, change: impl FnOnce(&mut Rules)) -> Result<()> {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut rules);
        let Rules { services, changed } = &*rules;
        let is_ready = |id: PodId| {
            let name = &self.plan.pods[id.0].name;
            services.iter().any(|service| service.ready.iter().any(|endpoint| endpoint.pod == *name))
        };
        services::rules(&self.plan, self.node, is_ready, changed).replace(&self.ns)
    }
}

/// Answers each request: its rules are up to date.
async fn answer(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        // A probe sends its request at once.
        if stream.read(&mut [0; 1024]).await.is_ok() {
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        }
    }
}
