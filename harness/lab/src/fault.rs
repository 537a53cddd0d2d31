//! A fault: one mutation by the mechanism of the incident, read back, undone.
//!
//! Invariant: every mutation pushes its own undo *before* it is made; there is no separate recover.
//! A benign twin is a fault like any other. New ones: one file under `faults/` and one registry line.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use relapse_detectors::time::Time;
use relapse_model::diagnostics::Span;
use relapse_model::{FlowId, FlowPlan, Resolver};

use crate::cluster::Cluster;
use crate::host_limit::HostLimit;
pub use crate::job::{FaultError, Job, now, wait_for};
use crate::workload::FlowSwitch;
use crate::workload::churn::ChurnPause;

/// What a fault needs beyond namespaces of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Requirement {
    /// Writes `nf_conntrack_max`, one number for the whole machine (consent, journal, lock), to this value.
    ConntrackLimit(u64),
    /// Depends on that number staying as it is while it runs (lock only).
    ConntrackLimitSteady,
}

impl Requirement {
    #[must_use]
    pub const fn writes_limit(self) -> bool {
        matches!(self, Self::ConntrackLimit(_))
    }
}

/// A mutation that was made, with its proof.
#[derive(Debug, Clone)]
pub struct InForce {
    /// Immediately before the mutating call.
    pub t0: Time,
    /// When it was read back as in force.
    pub t1: Time,
    /// What was done, in the words of the mechanism.
    pub what: String,
    /// What was read back.
    pub read_back: String,
    /// A part that this machine could not do and that was left out: (what, why).
    pub reduced: Option<(String, String)>,
}

/// How often attempts under way are looked for.
const LOOK: Duration = Duration::from_millis(1);
/// What a busy machine adds to an attempt.
const SLACK: Duration = Duration::from_secs(1);

/// What a fault works on.
pub struct World {
    pub cluster: Arc<dyn Cluster>,
    /// Every flow of the workload with its switch, in the order of the plan.
    pub flows: Vec<(FlowPlan, Arc<FlowSwitch>)>,
    /// Nobody but the flows talks while this is set.
    pub quiet: ChurnPause,
    /// The machine-wide conntrack limit, through whoever may write it.
    pub host_limit: HostLimit,
}

/// Attempts of a flow that a fault waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnderWay {
    Some,
    None,
}

impl World {
    /// Waits until attempts of a flow are under way, or none is any more.
    ///
    /// # Errors
    /// That it did not come to that, though one should have begun and ended meanwhile.
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
    /// What it needs that not every machine or user has.
    fn requires(&self) -> Vec<Requirement> {
        Vec::new()
    }

    /// Makes the mutation, pushing each undo before the mutation it undoes, and reads back.
    fn inject<'a>(&'a self, world: &'a World, undo: &'a mut UndoStack) -> Job<'a, Result<InForce, FaultError>>;
}

/// Undoes in reverse order of what was pushed. Synchronous: an undo that builds something again waits for it
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
    /// Registers how to undo a mutation that is about to be made. The undo reads back what it did,
    /// and finds nothing to do where the mutation was never made.
    pub fn push(&mut self, what: impl Into<String>, job: impl FnOnce() -> Result<(), FaultError> + Send + 'static) {
        self.undos.push(Undo { what: what.into(), job: Box::new(job) });
    }

    /// Puts another stack on top: all of it is newer.
    pub fn append(&mut self, mut newer: Self) {
        self.undos.append(&mut newer.undos);
    }

    /// Undoes everything, newest first; goes on past errors and returns each step with its result.
    pub fn undo_all(&mut self) -> Vec<(String, Result<(), FaultError>)> {
        let mut results = Vec::new();
        while let Some(undo) = self.undos.pop() {
            results.push((undo.what, (undo.job)()));
        }
        results
    }

    /// Drops the newest undo without carrying it out (a self-test of the harness).
    pub fn forget_newest(&mut self) {
        self.undos.pop();
    }

    /// Nothing is left to undo.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.undos.is_empty()
    }
}

/// A fault as a scenario writes it.
pub trait FaultSpec {
    /// Settings with which it can be planned, in a cluster that has everything; for tests.
    const EXAMPLE: &'static str;

    /// What is worth a look while it is in force.
    const LOOK: &'static [Look] = &[(Where::Node, "ip rule; ip route; ip -br link"), (Where::Node, SYNS)];

    /// Resolves its names and judges its numbers. What is wrong is told to the resolver, at `at` where it
    /// is not one value's fault; then there is no fault.
    fn plan(&self, at: Span, resolver: &mut Resolver<'_>) -> Option<Box<dyn Fault>>;
}

/// A line of shell that shows traces of a fault, and where. `{table}` stands for the pods' routing table, `{address}`
/// for what the failing flow talks to, `{pod}` and `{link}` for the address and the link of the pod it comes from.
pub type Look = (Where, &'static str);

/// Where there is something to be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Where {
    /// The node the detectors are to name, else that of the pod below.
    Node,
    /// The pod whose flow fails, as client or server.
    Pod,
    Office,
    Gateway,
    /// The host whose flow fails.
    Outside,
    LoadBalancer,
}

/// Shows who opens connections, and by which NIC.
pub const SYNS: &str = "tcpdump -lni any 'tcp[13] & 2 != 0'";

/// A fault that a trial injects.
#[derive(Debug, Clone)]
pub struct Planned {
    /// As scenarios write it.
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
