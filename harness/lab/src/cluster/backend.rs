//! Backends, which provide the clusters of a run.
//!
//! A backend prepares what outlasts a trial (nothing, for the lab; a real cluster, for kind) and
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
use relapse_model::kind_config::WORKERS;
use relapse_model::{ClusterPlan, FlowPlan, OutsideId, Place};
use serde::{Deserialize, Serialize};

use super::Cluster;
use crate::host::MachineLock;
use crate::host::removers::{self, Remover};

/// The hidden argument that runs this program as the process of a trial.
pub const LAB: &str = "__lab";

/// What a trial requires of the ground it is built on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub nodes: usize,
    pub scenario: String,
    /// Third-party servers outside that are used by some flow.
    pub servers: Vec<WantedServer>,
    /// Whether some pod is an ingress.
    pub ingress: bool,
    /// The scenario's own kind configuration, if it differs from the usual one.
    pub kind_config: Option<PathBuf>,
}

/// A third-party server on a host outside, and the requests it must serve.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct WantedServer {
    pub host: String,
    pub server: &'static str,
    pub ports: BTreeSet<u16>,
    /// Response sizes, bytes.
    pub sizes: BTreeSet<u32>,
}

impl WantedServer {
    /// All servers of a scenario. A host used by no flow needs no server.
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

impl Wanted {
    /// A sort key that groups trials with the same cluster: trials without a configuration of their own first, then
    /// those with the same one; small clusters first; trials with similar pods together, because equal pods stay: those
    /// of an incident, then of a scenario; and the longest first, so that clusters running in parallel finish together.
    /// `work` is the duration of all trials of the incident and of the scenario.
    #[must_use]
    pub fn order(&self, incident: &str, work: [Duration; 2]) -> impl Ord + use<> {
        let [of_incident, of_scenario] = work.map(Reverse);
        let names = (incident.to_owned(), self.scenario.clone());
        (self.kind_config.clone(), self.nodes.max(WORKERS + 1), (of_incident, names.0), (of_scenario, names.1))
    }
}

/// Describes to the trial's process the ground its cluster is built on. `what` is understood only by the backend that
/// prepared it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ground {
    /// See [`Backend::name`].
    pub backend: String,
    /// See [`Backend::is_real_cluster`].
    pub is_real_cluster: bool,
    /// Whether the trial's process has its own namespaces, so that nothing in them outlasts it.
    pub is_closed: bool,
    pub what: serde_json::Value,
}

impl Ground {
    /// Builds the cluster of a plan on this ground.
    ///
    /// # Errors
    /// A description of what could not be built.
    pub async fn up(&self, plan: &ClusterPlan) -> Result<Arc<dyn Cluster>, String> {
        let backend = registered().into_iter().find(|backend| backend.name == self.backend);
        let backend = backend.ok_or_else(|| format!("this relapse was built without the backend {}", self.backend))?;
        (backend.up)(&self.what, plan).await
    }
}

/// A cluster being built.
pub type Rising<'a> = Pin<Box<dyn Future<Output = Result<Arc<dyn Cluster>, String>> + 'a>>;

/// A part of the machine that a backend needs: its name, and what was found or, with a second line, what to do about
/// it.
pub type Part = (&'static str, Result<String, String>);

/// A backend built into the program.
#[derive(Debug)]
pub struct Registered {
    /// The name used by trials and `--backend`.
    pub name: &'static str,
    /// A description for the help text.
    pub help: &'static str,
    /// Creates the backend for a run.
    pub make: fn(&For<'_>) -> Arc<dyn Backend>,
    /// Builds the cluster of a plan on ground prepared by this backend.
    pub up: for<'a> fn(&'a serde_json::Value, &'a ClusterPlan) -> Rising<'a>,
    /// Its requirements beyond those of labs.
    pub parts: fn() -> Vec<Part>,
    /// Removes what it created after its run has died, if that outlasts a run.
    pub remover: Option<Remover>,
}

/// The run for which a backend is created.
#[derive(Debug)]
pub struct For<'a> {
    pub run_id: &'a str,
    /// The requested node image.
    pub image: Option<&'a str>,
    /// The folder for files of the run.
    pub folder: &'a Path,
    /// The maximum number of clusters at a time.
    pub clusters: usize,
}

static REGISTERED: Mutex<Vec<&'static Registered>> = Mutex::new(Vec::new());

/// Registers a backend. Called at the start of `main`, once for each backend built into the program.
pub fn register(backend: &'static Registered) {
    let mut all = REGISTERED.lock().unwrap_or_else(PoisonError::into_inner);
    if all.iter().all(|known| known.name != backend.name) {
        all.push(backend);
        backend.remover.into_iter().for_each(removers::register);
    }
}

/// The registered backends, in order of registration.
#[must_use]
pub fn registered() -> Vec<&'static Registered> {
    REGISTERED.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Provides clusters for the duration of a run.
pub trait Backend: Send + Sync {
    /// The name used by trials and `--backend`.
    fn name(&self) -> &'static str;

    /// Why it cannot be used here, and what to do about it.
    fn unable(&self) -> Option<String>;

    /// Why none of these collectors works here, if so.
    fn unseen(&self, one_of: &[CollectorKind]) -> Option<String> {
        let _ = one_of;
        None
    }

    /// Why paths cannot be slow or lossy here, if so.
    fn no_slow_paths(&self) -> Option<String> {
        None
    }

    /// Whether agents learn of pods and endpoints from a kubelet and an API server.
    fn is_real_cluster(&self) -> bool;

    /// Whether it has become unavailable, such as a stopped container engine.
    fn is_away(&self) -> bool {
        false
    }

    /// Set if its trials need the machine for themselves; `None` if they run in parallel with all others.
    fn places(&self) -> Option<&Places>;

    /// Prepares the ground of a trial; long waits are reported to `report`, and `stop` cancels.
    ///
    /// # Errors
    /// Why there is no ground.
    fn lease<'a>(
        &'a self,
        wanted: &Wanted,
        report: &dyn Fn(String),
        stop: &dyn Fn() -> bool,
    ) -> Result<Box<dyn Lease + 'a>, String>;

    /// Removes everything that outlasted trials; returns what could not be removed.
    fn close(&self) -> Vec<String>;
}

/// Exclusive use of the machine by up to `number` trials of one backend.
#[derive(Debug)]
pub struct Places {
    pub number: usize,
    /// Held from the first to the last of concurrent trials.
    held: Mutex<Weak<MachineLock>>,
}

impl Places {
    #[must_use]
    pub fn new(number: usize) -> Self {
        Self { number, held: Mutex::default() }
    }

    /// The lock that keeps others away, taken by one trial for all of them.
    ///
    /// # Errors
    /// When it cannot be taken.
    pub fn enter<E>(&self, take: impl FnOnce() -> Result<MachineLock, E>) -> Result<Arc<MachineLock>, E> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        // A waiting process of another run gets its turn.
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

    /// Checks what is left of the trial once its process has ended. `whole` is false if the trial was cut off or never
    /// came up.
    fn end(&mut self, lab: &LabProcess, whole: bool) -> Left;

    /// Marks the ground as spoiled by leftovers of the trial: it is not used again.
    fn spoil(&mut self);
}

/// What is left of a trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Left {
    /// Nothing is left, as verified.
    Nothing,
    /// A description of what is left.
    Something(String),
    /// Only leftovers on ground that is not used again.
    OnItsGround,
    /// The ground became unavailable during the trial: nothing can be verified.
    NoGround(String),
}
