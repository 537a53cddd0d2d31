//! Ordinary churn, under every scenario: a pod comes and goes with its rules and route, nonexistent
//! names are queried, short connections are made. None of it warrants a finding.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use relapse_model::{Place, PodId};
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::client::Home;
use super::errors::Errors;
use super::servers::echo::{self, Exchange};
use super::{servers, sockets, stub};
use crate::cluster::Cluster;
use crate::job::FaultError;

const TALK_EVERY: Duration = Duration::from_millis(150);

/// The first of these that no server of the workload uses.
const PORTS: Range<u16> = 18_080..18_096;

/// Whether the connections and queries of ordinary churn are suspended.
#[derive(Debug, Clone, Default)]
pub struct ChurnPause(Arc<AtomicBool>);

impl ChurnPause {
    pub fn set(&self, quiet: bool) {
        self.0.store(quiet, Ordering::SeqCst);
    }

    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Keeps the churn pod present while it exists.
pub type PassingPodHold = tokio::sync::OwnedMutexGuard<()>;

/// Running churn. Dropping it stops it, whether the churn pod is present or not.
pub struct Churn {
    tasks: JoinSet<()>,
    /// Held while the churn pod is absent.
    away: Arc<Mutex<()>>,
}

impl Churn {
    /// Starts the churn, with or without the pod that comes and goes, which otherwise stays.
    ///
    /// # Errors
    /// When its server's port cannot be bound.
    pub fn start(cluster: &Arc<dyn Cluster>, quiet: &ChurnPause, passing: bool) -> Result<Self, FaultError> {
        let mut tasks = JoinSet::new();
        let away = Arc::new(Mutex::new(()));
        if passing {
            tasks.spawn(pods(Arc::clone(cluster), Arc::clone(&away)));
        }
        let plan = cluster.plan();
        let there = |id: &PodId| !plan.pods[id.0].host_network && !plan.is_spare(*id);
        let mut own = (0..plan.pods.len()).map(PodId).filter(there);
        if let (Some(client), Some(to)) = (own.next(), own.next()) {
            let (flows, errors) = (Arc::new([]), Errors::default());
            let home = Home { cluster: Arc::clone(cluster), place: Place::Pod(to), flows, errors };
            let server = cluster.pod(to).ns;
            let bind = |port| sockets::tcp_listener(&server, SocketAddr::new(servers::ANY, port)).map(|it| (it, port));
            let (listener, port) =
                PORTS.into_iter().find_map(|port| bind(port).ok()).map_or_else(|| bind(PORTS.start), Ok)?;
            tasks.spawn((echo::SERVE.run)(listener, home));
            tasks.spawn(talk(Arc::clone(cluster), client, (to, port), quiet.clone()));
        }
        Ok(Self { tasks, away })
    }

    /// Waits until the churn pod is present and keeps it present while the guard exists, so that the
    /// cluster can be compared with its earlier state.
    pub async fn hold_passing_pod(&self) -> PassingPodHold {
        Arc::clone(&self.away).lock_owned().await
    }

    /// Stops the churn, with the churn pod present.
    pub async fn stop(mut self) {
        let _present = self.hold_passing_pod().await;
        self.tasks.shutdown().await;
    }
}

async fn pods(cluster: Arc<dyn Cluster>, away: Arc<Mutex<()>>) {
    let (stays, is_away) = cluster.churn_pace();
    loop {
        tokio::time::sleep(stays).await;
        let _away = away.lock().await;
        churn(&cluster, false).await;
        tokio::time::sleep(is_away).await;
        churn(&cluster, true).await;
    }
}

/// Runs on its own thread: changes of links wait for one lock of the kernel, shared with everything else on this
/// machine, and a blocked worker may be the one that polls for I/O on behalf of all others.
async fn churn(cluster: &Arc<dyn Cluster>, present: bool) {
    let (cluster, runtime) = (Arc::clone(cluster), Handle::current());
    // A failure here shows in the comparison after recovery.
    let _ = tokio::task::spawn_blocking(move || runtime.block_on(cluster.churn(present))).await;
}

async fn talk(cluster: Arc<dyn Cluster>, client: PodId, (to, port): (PodId, u16), quiet: ChurnPause) {
    let plan = cluster.plan();
    let ns = cluster.pod(client).ns;
    let peer = SocketAddr::new(plan.pods[to.0].address, port);
    let resolver = plan.dns.as_ref().map(|dns| plan.services[dns.service.0].address);
    let mut clock = tokio::time::interval(TALK_EVERY);
    loop {
        clock.tick().await;
        if quiet.is_set() {
            continue;
        }
        let small = async {
            if let Ok(mut stream) = sockets::connect(&ns, peer).await {
                let _ = echo::exchange(&mut stream, &Exchange::new(64, 256)).await;
            }
            if let Some(resolver) = resolver {
                let _ = stub::lookup(&ns, resolver, "no-such-name.cluster.local", &[]).await;
            }
        };
        let _ = tokio::time::timeout(TALK_EVERY, small).await;
    }
}
