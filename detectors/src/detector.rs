//! What a detector is.
//!
//! Invariant: detectors are synchronous and deterministic, and time is passed in.
//! Left out: which detectors there are; see [`crate::registry`].

use crate::finding::{Finding, Level};
use crate::operator::Operator;
use crate::signal::{CollectorKind, Signal};
use crate::time::Time;

/// Whether a detector judges each node by itself or the cluster as one.
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
    /// Collectors that feed it.
    pub wants: &'static [CollectorKind],
    /// Of each group at least one collector must see, else the detector is blind.
    pub needs: &'static [&'static [CollectorKind]],
    pub scope: Scope,
    pub(crate) arm: fn(&Operator) -> Box<dyn Detector>,
}

/// Turns signals into findings.
pub trait Detector: Send {
    fn info(&self) -> &'static DetectorInfo;

    /// As scenarios name it.
    fn name(&self) -> &'static str {
        self.info().name
    }

    /// Collectors that feed it; signals of no other kind are shown to it.
    fn wants(&self) -> &'static [CollectorKind] {
        self.info().wants
    }

    /// Takes one signal. `now` never runs backwards; `signal.at` may lie before it, by milliseconds when
    /// collectors differ, by hundreds of them when processors are busy.
    fn observe(&mut self, now: Time, signal: &Signal, out: &mut Vec<Finding>);

    /// Time has passed; called every 50 ms.
    fn tick(&mut self, now: Time, out: &mut Vec<Finding>);
}
