//! What can be observed: one fact, on one node, at one instant.
//!
//! Job: the vocabulary between collectors (which need a kernel) and detectors (which need nothing).
//! Invariant: a signal holds only what an agent on a node of the cluster could have seen, never a scenario, a fault or
//! an intention. Every type here survives a round trip through JSON, so that a recorded incident can be replayed on any
//! machine.
//! Left out on purpose: how a fact was obtained, and what it means.
//!
//! One file and one line below for each file of collectors; `harness/lab/src/collect` has the same names.

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
            /// The collector that reports it; `None` for the state of a collector itself.
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
    ingress_log: IngressLog => [IngressLog];
    databases: Databases => [SlowQuery, DatabaseMemory];
    inventory: Inventory => [Pod, Endpoints];
    load: Load => [NodeLoad];
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
    /// Whether it applies to all nodes. All agents receive such a fact, some of them late.
    pub(crate) const fn is_of_the_cluster(&self) -> bool {
        matches!(self.observed, Observed::Endpoints(_))
    }
}

/// Whether a kernel or API object was added, changed or removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// Present when the collector was armed (initial state, not a change).
    Present,
    Added,
    Changed,
    Removed,
}

/// The state of a collector on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collector {
    pub collector: CollectorKind,
    pub sight: Sight,
}

/// Whether a collector works. A blind collector is reported and never counted as silence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sight {
    /// Armed and confirmed.
    Ready,
    /// Cannot observe, or lost some observations, and why.
    Blind(String),
}
