//! The agents of all nodes: armed before the baseline, after the faults, or twice.
//!
//! An agent that starts reports what stands, as any agent does, and nothing of what was before.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use relapse_detectors::operator::Operator;
use relapse_detectors::signal::{CollectorKind, Signal};
use relapse_detectors::time::Time;
use relapse_lab::cluster::Cluster;
use relapse_lab::collect::Collectors;
use relapse_lab::fault::now;
use tokio::sync::{mpsc, oneshot};

use super::observer::ToObserver;

/// The agents, and what they need to start.
pub struct Agents {
    pub cluster: Arc<dyn Cluster>,
    pub operator: Arc<Operator>,
    pub signals: mpsc::UnboundedSender<Signal>,
    pub observer: mpsc::UnboundedSender<ToObserver>,
    /// A collector that a self-test disables.
    pub without: Option<CollectorKind>,
    /// The kernel log, or why it cannot be read.
    pub kernel_log: Result<File, String>,
    /// Set while every collector is armed.
    pub armed: Arc<AtomicBool>,
    /// None while they do not run.
    pub collectors: Option<Collectors>,
}

impl Agents {
    /// Starts all collectors; returns when every one is armed, and since when they could see anything.
    pub fn arm(&mut self) -> Time {
        let since = now();
        let collectors = Collectors::arm(&self.cluster, &self.operator, &self.signals, self.without, &self.kernel_log);
        self.collectors = Some(collectors);
        self.armed.store(true, Ordering::SeqCst);
        since
    }

    /// Ends them, and whatever detectors know with them.
    pub async fn end(&mut self) {
        self.armed.store(false, Ordering::SeqCst);
        self.stop().await;
        let (done, is_done) = oneshot::channel();
        if self.observer.send(ToObserver::Restarted(done)).is_ok() {
            let _ = is_done.await;
        }
    }

    /// Stops all collectors.
    pub async fn stop(&mut self) {
        if let Some(collectors) = self.collectors.take() {
            collectors.stop().await;
        }
    }
}
