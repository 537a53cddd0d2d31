//! The detector trait, and what a detector gets as input.
//!
//! Invariant: detectors are synchronous and deterministic, and time is passed in.
//! Left out: the list of detectors and what feeds them; see [`crate::registry`] and `armed`.

use crate::claims::{Claims, Holder};
use crate::finding::{Level, SubjectKind};
use crate::operator::Operator;
use crate::signal::{CollectorKind, Signal};
use crate::time::Time;

/// Whether a detector's visibility is judged per node or for the whole cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Node,
    Cluster,
}

/// Static description of a detector.
#[derive(Debug)]
pub struct DetectorInfo {
    /// The name used in scenarios.
    pub name: &'static str,
    /// The class of incident it was made for.
    pub incident: &'static str,
    pub level: Level,
    /// The kinds of subjects that its findings are about.
    pub subjects: &'static [SubjectKind],
    /// What it detects, in one sentence.
    pub what: &'static str,
    /// What it can do without the operator's facts, and with stale ones ([`crate::operator::Knowledge`]), in one
    /// sentence.
    pub facts: &'static str,
    /// Collectors that feed it. It gets no other signals.
    pub wants: &'static [CollectorKind],
    /// At least one collector of each group must work, otherwise the detector is blind.
    pub needs: &'static [&'static [CollectorKind]],
    pub scope: Scope,
    pub(crate) state: State,
}

/// How a detector's initial state is created, and what it covers.
#[derive(Debug, Clone, Copy)]
pub(crate) enum State {
    /// One state per node. Claims are about the node.
    EachNode(fn() -> Box<dyn Detector>),
    /// One state for the cluster. Claims are about the DNS Service.
    Cluster(fn() -> Box<dyn Detector>),
}

/// A detector in its initial state.
pub(crate) fn new<D: Detector + Default + 'static>() -> Box<dyn Detector> {
    Box::<D>::default()
}

/// What a detector gets with each signal and each tick.
pub(crate) struct Context<'a> {
    /// Never runs backwards. `Signal::at` may be earlier: by milliseconds across collectors, by hundreds of
    /// milliseconds on busy processors.
    pub now: Time,
    pub operator: &'a Operator,
    /// The node of this state; empty for the cluster.
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

    /// Called every 50 ms.
    fn tick(&mut self, _: &mut Context<'_>) {}

    /// Drops old state; called once a second.
    fn forget(&mut self, _: &Context<'_>) {}
}
