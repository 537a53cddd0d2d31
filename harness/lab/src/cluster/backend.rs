//! Where the clusters of a run come from.
//!
//! A backend makes ready what outlasts a trial (nothing, for the lab; a real cluster, for kind) and
//! leases it to one trial after another. The trial's own process then builds on that [`Ground`].

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use relapse_detectors::signal::CollectorKind;
use relapse_kernel::process::LabProcess;
use relapse_model::{ClusterPlan, FlowPlan, OutsideId, Place};
use serde::{Deserialize, Serialize};

use super::Cluster;
use crate::host::MachineLock;
use crate::host::removers::{self, Remover};

/// The hidden argument by which this program becomes the process of a trial.
pub const LAB: &str = "__lab";

/// What a trial wants of the ground it is built on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub nodes: usize,
    pub scenario: String,
    /// Third parties' servers outside that some flow asks.
    pub servers: Vec<WantedServer>,
    /// Some pod is an ingress.
    pub ingress: bool,
    /// The scenario's own kind configuration, where it names one.
    pub kind_config: Option<PathBuf>,
}

/// A third party's server on a host outside, and what it is asked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct WantedServer {
    pub host: String,
    pub server: &'static str,
    pub ports: BTreeSet<u16>,
    /// Of responses, bytes.
    pub sizes: BTreeSet<u32>,
}

impl WantedServer {
    /// All of a scenario. A host that no flow asks needs no server.
    #[must_use]
    pub fn all_of(cluster: &ClusterPlan, workload: &[FlowPlan]) -> Vec<Self> {
        let hosts = cluster.outside.iter().enumerate().filter_map(|(number, host)| {
            let here = Place::Outside(OutsideId(number));
            let asked = workload.iter().flat_map(FlowPlan::asked);
            let asked = asked.filter(|(to, ..)| cluster.behind(*to).contains(&here));
            let (ports, sizes) = asked.map(|(_, port, response)| (port, response)).unzip();
            Some(Self { host: host.name.clone(), server: host.server?, ports, sizes })
        });
        hosts.filter(|wanted| !wanted.ports.is_empty()).collect()
    }
}

/// An order in which trials seldom want another cluster than the one before: those that name none, then those
/// that name the same one, `two-workers` before `two-workers-nftables`; small ones first; a scenario's together,
/// for its pods stay; and who has most to do begins, so that clusters side by side end together.
#[must_use]
pub fn order(kind_config: Option<&Path>, nodes: usize, work: Duration, scenario: &str) -> impl Ord + use<> {
    (kind_config.map(|file| file.with_extension("")), nodes, Reverse(work), scenario.to_owned())
}

/// What the trial's process is told of the ground its cluster stands on. What that is only the backend knows that laid
/// it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ground {
    /// See [`Backend::name`].
    pub backend: String,
    /// See [`Backend::is_real_cluster`].
    pub is_real_cluster: bool,
    /// Whether the trial's process lives in namespaces of its own: nothing there outlasts it.
    pub is_closed: bool,
    pub what: serde_json::Value,
}

impl Ground {
    /// Builds the cluster of a plan there.
    ///
    /// # Errors
    /// What could not be built, in words.
    pub async fn up(&self, plan: &ClusterPlan) -> Result<Arc<dyn Cluster>, String> {
        let backend = registered().into_iter().find(|backend| backend.name == self.backend);
        let backend = backend.ok_or_else(|| format!("this relapse was built without the backend {}", self.backend))?;
        (backend.up)(&self.what, plan).await
    }
}

/// A cluster that comes up.
pub type Rising<'a> = Pin<Box<dyn Future<Output = Result<Arc<dyn Cluster>, String>> + 'a>>;

/// A part of the machine that a backend needs: its name, and what was seen of it or, in a second line, what to do.
pub type Part = (&'static str, Result<String, String>);

/// A backend as a program has it that was built with it.
#[derive(Debug)]
pub struct Registered {
    /// As trials and `--backend` call it.
    pub name: &'static str,
    /// What it is, for who chooses.
    pub help: &'static str,
    /// Makes it for a run.
    pub make: fn(&For<'_>) -> Arc<dyn Backend>,
    /// Builds the cluster of a plan on ground that it laid.
    pub up: for<'a> fn(&'a serde_json::Value, &'a ClusterPlan) -> Rising<'a>,
    /// What it needs besides what labs need.
    pub parts: fn() -> Vec<Part>,
    /// How what it made is removed when its run has died, where that outlasts the run.
    pub remover: Option<Remover>,
}

/// The run that a backend is made for.
#[derive(Debug)]
pub struct For<'a> {
    pub run_id: &'a str,
    /// The image of nodes that was asked for.
    pub image: Option<&'a str>,
    /// Where files of the run go.
    pub folder: &'a Path,
    /// So many clusters at a time, at most.
    pub clusters: usize,
}

static REGISTERED: Mutex<Vec<&'static Registered>> = Mutex::new(Vec::new());

/// Makes a backend known to this program: to be called at the start of `main`, once for each it was built with.
pub fn register(backend: &'static Registered) {
    let mut all = REGISTERED.lock().unwrap_or_else(PoisonError::into_inner);
    if all.iter().all(|known| known.name != backend.name) {
        all.push(backend);
        backend.remover.into_iter().for_each(removers::register);
    }
}

/// The backends this program was built with, in the order in which they were made known.
#[must_use]
pub fn registered() -> Vec<&'static Registered> {
    REGISTERED.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// A place clusters come from, for the length of a run.
pub trait Backend: Send + Sync {
    /// As trials and `--backend` call it.
    fn name(&self) -> &'static str;

    /// Why nothing runs on it here, and what to do about that.
    fn unable(&self) -> Option<String>;

    /// Why none of these collectors can see anything here, where that is so.
    fn unseen(&self, one_of: &[CollectorKind]) -> Option<String> {
        let _ = one_of;
        None
    }

    /// Whether agents hear of pods and endpoints through a kubelet and an API server.
    fn is_real_cluster(&self) -> bool;

    /// Whether it went away since: an engine that was stopped.
    fn is_away(&self) -> bool {
        false
    }

    /// Where its trials have the machine for themselves; none where they go side by side with all others.
    fn places(&self) -> Option<&Places>;

    /// Makes ready what the trial stands on; `tell` hears what takes long, `stop` says when to give up.
    ///
    /// # Errors
    /// Why there is nothing to stand on, in words.
    fn lease<'a>(
        &'a self,
        wanted: &Wanted,
        tell: &dyn Fn(String),
        stop: &dyn Fn() -> bool,
    ) -> Result<Box<dyn Lease + 'a>, String>;

    /// Removes all that outlasted trials; says what could not be.
    fn close(&self) -> Vec<String>;
}

/// The machine, for trials of one backend only: so many of them, and nobody else beside them.
#[derive(Debug)]
pub struct Places {
    pub number: usize,
    /// Held from the first to the last of those side by side.
    held: Mutex<Weak<MachineLock>>,
}

impl Places {
    #[must_use]
    pub fn new(number: usize) -> Self {
        Self { number, held: Mutex::default() }
    }

    /// The lock that keeps all others away: one trial waits for it, for all of them.
    ///
    /// # Errors
    /// When it cannot be taken.
    pub fn enter<E>(&self, take: impl FnOnce() -> Result<MachineLock, E>) -> Result<Arc<MachineLock>, E> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody of another run who waits gets a turn.
        if let Some(lock) = held.upgrade().filter(|lock| !lock.is_awaited()) {
            return Ok(lock);
        }
        let lock = Arc::new(take()?);
        *held = Arc::downgrade(&lock);
        Ok(lock)
    }
}

/// The ground of one trial.
pub trait Lease {
    fn ground(&self) -> Ground;

    /// Looks for what is left of the trial, once its process has ended. One that was cut off, or never came up, is not
    /// `whole`.
    fn end(&mut self, lab: &LabProcess, whole: bool) -> Left;

    /// The trial left something: nobody builds on this ground again.
    fn spoil(&mut self);
}

/// What is left of a trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Left {
    /// As is proved.
    Nothing,
    /// Something, in words.
    Something(String),
    /// Its part of ground that nobody builds on again, and nothing beyond.
    OnItsGround,
    /// The ground went away under it: nothing is proved.
    NoGround(String),
}
