//! What a detector is, and what it is given.
//!
//! Invariant: detectors are synchronous and deterministic, and time is passed in.
//! Left out: which detectors there are, and what feeds them; see [`crate::registry`] and `armed`.

use crate::claims::{Claims, Holder};
use crate::finding::Level;
use crate::operator::Operator;
use crate::signal::{CollectorKind, Signal};
use crate::time::Time;

/// Whether the sight of a detector is judged of each node by itself or of the cluster as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Node,
    Cluster,
}

/// What is known of a detector before it sees anything.
#[derive(Debug)]
pub struct DetectorInfo {
    /// As scenarios name it.
    pub name: &'static str,
    /// The class of incident it was made for.
    pub incident: &'static str,
    pub level: Level,
    /// What it looks for, in one sentence.
    pub what: &'static str,
    /// Collectors that feed it; signals of no other kind are shown to it.
    pub wants: &'static [CollectorKind],
    /// Of each group at least one collector must see, else the detector is blind.
    pub needs: &'static [&'static [CollectorKind]],
    pub scope: Scope,
    pub(crate) state: State,
}

/// How a detector that has seen nothing is made, and of what one remembers.
#[derive(Debug, Clone, Copy)]
pub(crate) enum State {
    /// One for each node. It claims things of its node.
    EachNode(fn() -> Box<dyn Detector>),
    /// One for the cluster. It claims things of the DNS Service.
    Cluster(fn() -> Box<dyn Detector>),
}

/// A detector that has seen nothing.
pub(crate) fn new<D: Detector + Default + 'static>() -> Box<dyn Detector> {
    Box::<D>::default()
}

/// What a detector is given with each signal and each tick.
pub(crate) struct Context<'a> {
    /// It never runs backwards. `Signal::at` may lie before it, by milliseconds when collectors differ, by hundreds
    /// of them when processors are busy.
    pub now: Time,
    pub operator: &'a Operator,
    /// The node that the detector remembers; empty where that is the cluster.
    pub node: &'a str,
    pub claims: &'a mut Claims,
}

impl<'a> Context<'a> {
    pub fn of(now: Time, operator: &'a Operator, holder: &'a Holder, claims: &'a mut Claims) -> Self {
        claims.holder.clone_from(holder);
        Self { now, operator, node: holder.as_deref().unwrap_or_default(), claims }
    }
}

/// Turns signals into claims.
pub(crate) trait Detector: Send {
    fn observe(&mut self, cx: &mut Context<'_>, signal: &Signal);

    /// Time has passed; called every 50 ms.
    fn tick(&mut self, _: &mut Context<'_>) {}

    /// Drops what is too old to matter; called once a second.
    fn forget(&mut self, _: &Context<'_>) {}
}
