//! What can be observed: one fact, on one node, at one instant.
//!
//! Job: the vocabulary between collectors (which need a kernel) and detectors (which need nothing).
//! Invariant: a signal says only what an agent on a node of the cluster could have seen; it never
//! carries a scenario, a fault or an intention. Every type here survives a round trip through JSON,
//! so that a recorded incident can be replayed on any machine.
//! Left out on purpose: how a fact was obtained, and what it means.
//!
//! One file for what collectors of one file tell, and one line below; `harness/lab/src/collect` has the same names.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::time::Time;

macro_rules! signals {
    ($($module:ident: $($kind:ident => [$($name:ident),+]),+;)+) => {
        $(
            mod $module;
            pub use $module::*;
        )+

        /// The kinds of facts.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Observed {
            $($($($name($name),)+)+)+
            /// A collector became able, or unable, to see.
            Collector(Collector),
        }

        /// The collectors, each feeding some kinds of signals.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum CollectorKind {
            $($($kind,)+)+
        }

        impl Observed {
            /// The collector that tells it; none for what collectors say of themselves.
            #[must_use]
            pub const fn collector(&self) -> Option<CollectorKind> {
                match self {
                    $($($(Self::$name(_) => Some(CollectorKind::$kind),)+)+)+
                    Self::Collector(_) => None,
                }
            }
        }

        $($($(
            impl From<$name> for Observed {
                fn from(fact: $name) -> Self {
                    Self::$name(fact)
                }
            }
        )+)+)+
    };
}

signals! {
    routing: Rtnetlink => [Link, Rule, Route], RouteLookup => [RouteLookup];
    conntrack: ConntrackTable => [ConntrackTable], ConntrackStats => [ConntrackStats], ConntrackEvents => [Flow];
    packets: Packets => [Segment], DnsPackets => [Dns];
    exchanges: Exchanges => [Exchange];
    sockets: Sockets => [Socket];
    kernel_log: KernelLog => [KernelLog];
    probes: Probes => [Probe];
    inventory: Inventory => [Pod, Endpoints];
    api: Api => [Container, NodeCondition, Event, KubeProxy], PodLogs => [PodLog];
}

/// One observed fact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Signal {
    /// When it was observed: `CLOCK_MONOTONIC`, nanoseconds.
    pub at: Time,
    /// The node whose agent observed it.
    pub node: Arc<str>,
    /// The fact.
    pub observed: Observed,
}

impl Signal {
    /// Whether it holds for all nodes, whoever tells it: their agents hear the same, some of them late.
    pub(crate) const fn is_of_the_cluster(&self) -> bool {
        matches!(self.observed, Observed::KernelLog(_) | Observed::Endpoints(_))
    }
}

/// Whether a kernel or API object came, changed or went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// Present when the collector was armed (state at the start, not news).
    Present,
    Added,
    Changed,
    Removed,
}

/// Whether a collector on this node can see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collector {
    pub collector: CollectorKind,
    pub sight: Sight,
}

/// A blind collector is said, and never counted as silence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sight {
    /// Armed and confirmed.
    Ready,
    /// Cannot see, or lost some of what it should have seen: why.
    Blind(String),
}
