//! What several steps need.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::journeys::{Journey, Journeys, Sighting};
use crate::operator::Operator;
use crate::paths::Paths;
use crate::signal::{Change, Observed, Signal};

#[derive(Debug, Default)]
pub(super) struct Shared {
    pub journeys: Journeys,
    pub paths: Paths,
    /// Nodes with a pod NIC.
    pub pod_nics: BTreeSet<Arc<str>>,
}

impl Shared {
    pub fn observe(&mut self, operator: &Operator, signal: &Signal) {
        self.paths.observe(operator, signal);
        match &signal.observed {
            Observed::Segment(segment) => {
                if segment.link == operator.pod_nic && !self.pod_nics.contains(&signal.node) {
                    self.pod_nics.insert(Arc::clone(&signal.node));
                }
                if segment.flags.syn || segment.flags.rst {
                    self.journeys.observe(signal.at, &signal.node, operator, segment);
                }
            }
            Observed::Link(link) if link.name == operator.pod_nic && link.change != Change::Removed => {
                self.pod_nics.insert(Arc::clone(&signal.node));
            }
            _ => {}
        }
    }

    pub fn has_pod_nic(&self, node: &str) -> bool {
        self.pod_nics.contains(node)
    }

    /// Whether a pod's SYN leaves by the node's NIC although its answered ones left by the pod NIC, or although it has the
    /// pod's own address.
    pub fn is_wrong_nic(&self, operator: &Operator, left: &Sighting, journey: &Journey) -> bool {
        let Some(client) = journey.origin().map(|origin| origin.source.ip()) else { return false };
        let may_be = left.link == operator.node_nic && operator.is_pod(client) && self.has_pod_nic(&left.node);
        may_be
            && match self.journeys.leaves_by(client, left.destination.ip()) {
                Some(usual) => usual == operator.pod_nic,
                None => left.source.ip() == client,
            }
    }
}
