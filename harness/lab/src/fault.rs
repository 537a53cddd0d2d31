//! A fault: one mutation by the mechanism of the incident, read back, then undone.
//!
//! Invariant: every mutation pushes its own undo *before* it is made; there is no separate recovery.
//! A benign twin is an ordinary fault. To add one: one file under `faults/` and one registry line.

mod spread;

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use relapse_detectors::time::Time;
use relapse_model::diagnostics::Span;
use relapse_model::{ClusterPlan, FlowId, FlowPlan, Resolver};

use crate::cluster::Cluster;
use crate::host_limit::HostLimit;
pub use crate::job::{FaultError, Job, now, wait_for};
use crate::workload::FlowSwitch;
use crate::workload::churn::ChurnPause;
use crate::workload::servers::running::Servers;
pub use spread::Spread;

/// What a fault needs beyond its own namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Requirement {
    /// Writes `nf_conntrack_max`, one value for the whole machine (consent, journal, lock), to this value.
    ConntrackLimit(u64),
    /// Needs that value to stay unchanged while it runs (lock only).
    ConntrackLimitSteady,
    /// Packet queues of the kernel, for slow and lossy paths.
    SlowPaths,
}

impl Requirement {
    #[must_use]
    pub const fn writes_limit(self) -> bool {
        matches!(self, Self::ConntrackLimit(_))
    }
}

/// A mutation in force, with its evidence.
#[derive(Debug, Clone)]
pub struct InForce {
    /// Immediately before the mutating call.
    pub t0: Time,
    /// When it was read back as in force.
    pub t1: Time,
    /// What was done, in terms of the mechanism.
    pub what: String,
    /// What was read back.
    pub read_back: String,
    /// A part left out because this machine does not support it: (what, why).
    pub reduced: Option<(String, String)>,
}

/// Polling interval for attempts under way.
const LOOK: Duration = Duration::from_millis(1);
/// Time added to an attempt by a busy machine.
const SLACK: Duration = Duration::from_secs(1);

/// Everything a fault works on.
pub struct World {
    pub cluster: Arc<dyn Cluster>,
    /// Every flow of the workload with its switch, in plan order.
    pub flows: Vec<(FlowPlan, Arc<FlowSwitch>)>,
    /// The workload's own servers.
    pub servers: Arc<Servers>,
    /// While set, only the flows send traffic.
    pub quiet: ChurnPause,
    /// The machine-wide conntrack limit, written by the guardian.
    pub host_limit: HostLimit,
    /// Faults are made at the size of their originals, where they are scaled down otherwise ([`Fault::enlarge`]).
    pub full_size: bool,
}

/// Whether a fault waits for attempts of a flow to be under way, or for none to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnderWay {
    Some,
    None,
}

impl World {
    /// Waits until attempts of a flow are under way, or until none is.
    ///
    /// # Errors
    /// On timeout, chosen so that an attempt should have begun and ended meanwhile.
    pub async fn until(&self, flow: FlowId, wanted: UnderWay, what: &str) -> Result<(), FaultError> {
        let (plan, switch) = &self.flows[flow.0];
        let limit = plan.every + plan.timeout + SLACK;
        let waited = async {
            while (switch.under_way() > 0) != (wanted == UnderWay::Some) {
                tokio::time::sleep(LOOK).await;
            }
        };
        let name = &plan.name;
        let late = |_| FaultError::Refused {
            what: what.to_owned(),
            why: match wanted {
                UnderWay::Some => format!("no attempt of flow {name} was under way within {limit:?}"),
                UnderWay::None => format!("attempts of flow {name} were still under way after {limit:?}"),
            },
        };
        tokio::time::timeout(limit, waited).await.map_err(late)
    }
}

/// One planned mutation of the cluster.
pub trait Fault: fmt::Debug + Send + Sync {
    /// Its requirements beyond those met by every machine and user.
    fn requires(&self) -> Vec<Requirement> {
        Vec::new()
    }

    /// Prepares what the mutation works on, such as the size of a table, before the workload starts.
    fn prepare<'a>(&'a self, cluster: &'a dyn Cluster) -> Job<'a, Result<(), FaultError>> {
        let _ = cluster;
        Box::pin(async { Ok(()) })
    }

    /// The factor by which it is smaller than its original, as in 1/128.
    fn scale(&self) -> Option<(u32, u32)> {
        None
    }

    /// Whether what operators declare about the cluster is outdated from then on.
    fn outdates_facts(&self) -> bool {
        false
    }

    /// Prepares the cluster for a mutation at full size, once the workload is steady. What it pushes is undone when the
    /// trial ends, not when the mutation is healed.
    fn enlarge<'a>(&'a self, world: &'a World, undo: &'a mut UndoStack) -> Job<'a, Result<(), FaultError>> {
        let _ = (world, undo);
        Box::pin(async { Ok(()) })
    }

    /// What it changes, as in "the path of outside/store". Two steps of a chain that change the same thing cannot be
    /// healed one after the other: planning rejects them.
    fn changes(&self, cluster: &ClusterPlan) -> Vec<String> {
        let _ = cluster;
        Vec::new()
    }

    /// How the mutation reaches clients, if a cache or kept connections delay that. Called before it is made.
    fn spread(&self, world: &World) -> Option<Spread> {
        let _ = world;
        None
    }

    /// Makes the mutation, pushing each undo before the mutation it reverts, and reads it back.
    fn inject<'a>(&'a self, world: &'a World, undo: &'a mut UndoStack) -> Job<'a, Result<InForce, FaultError>>;
}

/// Runs undos in reverse order of their registration. Synchronous: an undo that needs asynchronous work blocks on it
/// ([`wait_for`]).
#[derive(Default)]
#[must_use = "dropping an undo stack leaves its mutations in force"]
pub struct UndoStack {
    undos: Vec<Undo>,
}

type UndoJob = Box<dyn FnOnce() -> Result<(), FaultError> + Send>;

struct Undo {
    what: String,
    job: UndoJob,
}

impl UndoStack {
    /// Registers the undo of a mutation that is about to be made. The undo reads back its effect,
    /// and does nothing if the mutation was never made.
    pub fn push(&mut self, what: impl Into<String>, job: impl FnOnce() -> Result<(), FaultError> + Send + 'static) {
        self.undos.push(Undo { what: what.into(), job: Box::new(job) });
    }

    /// Puts another stack on top of this one.
    pub fn append(&mut self, mut newer: Self) {
        self.undos.append(&mut newer.undos);
    }

    /// Undoes everything, newest first; continues after errors and returns each step with its result.
    pub fn undo_all(&mut self) -> Vec<(String, Result<(), FaultError>)> {
        let mut results = Vec::new();
        while let Some(undo) = self.undos.pop() {
            results.push((undo.what, (undo.job)()));
        }
        results
    }

    /// Drops the newest undo without running it (for a self-test of the harness).
    pub fn forget_newest(&mut self) {
        self.undos.pop();
    }

    /// Whether nothing is left to undo.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.undos.is_empty()
    }
}

/// A fault as written in a scenario.
pub trait FaultSpec {
    /// Example settings, valid in a cluster that has everything; for tests.
    const EXAMPLE: &'static str;

    /// Commands that show the fault while it is in force.
    const LOOK: &'static [Look] = &[(Where::Node, "ip rule; ip route; ip -br link"), (Where::Node, SYNS)];

    /// Resolves its names and validates its numbers. Errors are reported to the resolver, at `at` unless they belong
    /// to a single value; then `None` is returned.
    fn plan(&self, at: Span, resolver: &mut Resolver<'_>) -> Option<Box<dyn Fault>>;
}

/// A shell command that shows traces of a fault, and where to run it. `{table}` is the pods' routing table, `{address}`
/// the target of the failing flow, `{pod}` and `{link}` the address and the link of the pod it comes from.
pub type Look = (Where, &'static str);

/// Where to run a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Where {
    /// The node the detectors should name, otherwise the node of the pod below.
    Node,
    /// The pod whose flow fails, as client or server.
    Pod,
    Office,
    Gateway,
    /// The host whose flow fails.
    Outside,
    LoadBalancer,
}

/// Shows connections being opened, and through which NIC.
pub const SYNS: &str = "tcpdump -lni any 'tcp[13] & 2 != 0'";

/// A fault that a trial injects.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The name used in scenarios.
    pub name: &'static str,
    pub look: &'static [Look],
    pub(crate) fault: Arc<dyn Fault>,
}

impl Deref for Planned {
    type Target = dyn Fault;

    fn deref(&self) -> &Self::Target {
        self.fault.as_ref()
    }
}
