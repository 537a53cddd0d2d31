//! Ingress controllers: the configuration of relapse's own, and the log of all.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use relapse_detectors::signal::IngressLog;
use relapse_model::{ClusterPlan, PodId, PodRole};
use tokio::sync::broadcast;

use crate::job::FaultError;

/// Requests that a slow reader of the log may be behind.
const BEHIND: usize = 4096;

/// The log of all ingress controllers of a cluster.
#[derive(Debug, Clone)]
pub struct IngressLogs(broadcast::Sender<IngressLog>);

impl Default for IngressLogs {
    fn default() -> Self {
        Self(broadcast::Sender::new(BEHIND))
    }
}

impl IngressLogs {
    /// Adds a request.
    pub fn add(&self, entry: IngressLog) {
        // Without a collector nothing reads it.
        let _ = self.0.send(entry);
    }

    /// All requests from now on.
    #[must_use]
    pub fn follow(&self) -> broadcast::Receiver<IngressLog> {
        self.0.subscribe()
    }
}

/// relapse's own ingress controllers.
#[derive(Debug)]
pub struct Ingresses {
    /// The port of its Service to which each one sends.
    ports: Mutex<BTreeMap<PodId, u16>>,
    pub log: IngressLogs,
}

impl Ingresses {
    /// As planned.
    #[must_use]
    pub fn new(plan: &ClusterPlan) -> Self {
        let ports = plan.pods.iter().enumerate().filter_map(|(number, pod)| match pod.role {
            PodRole::Ingress { port, .. } => Some((PodId(number), port)),
            PodRole::Plain | PodRole::Dns => None,
        });
        Self { ports: Mutex::new(ports.collect()), log: IngressLogs::default() }
    }

    /// The port of its Service to which it sends.
    ///
    /// # Errors
    /// When the pod is no ingress.
    pub fn port(&self, id: PodId) -> Result<u16, FaultError> {
        let ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        ports.get(&id).copied().ok_or_else(no_ingress)
    }

    /// Makes it send to this port, from the next request on.
    ///
    /// # Errors
    /// When the pod is no ingress.
    pub fn configure(&self, id: PodId, to: u16) -> Result<(), FaultError> {
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        ports.get_mut(&id).map(|port| *port = to).ok_or_else(no_ingress)
    }
}

fn no_ingress() -> FaultError {
    FaultError::Refused { what: "configure an ingress".to_owned(), why: "the pod is none".to_owned() }
}
