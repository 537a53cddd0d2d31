//! How a client reaches what it uses.

use super::{ClusterPlan, FlowPlan, Place, PodRole, Target};

/// How a client reaches what it uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// By the virtual address of a Service, from inside the cluster.
    ClusterIp,
    /// By a node's address and node port, directly or through a load balancer outside.
    NodePort,
    /// By an ingress, whichever way the ingress is reached.
    Ingress,
    /// Out of the cluster.
    Out,
    /// By the address of a pod or node.
    Direct,
}

impl ClusterPlan {
    /// The way of a flow.
    #[must_use]
    pub fn way(&self, flow: &FlowPlan) -> Way {
        let is_ingress =
            |place: &Place| matches!(place, Place::Pod(id) if matches!(self.pods[id.0].role, PodRole::Ingress { .. }));
        let answering = self.behind(flow.to).into_iter();
        let answering: Vec<Target> =
            answering.map(|place| self.answering(place, flow.port.unwrap_or_default()).0).collect();
        let behind: Vec<Place> = answering.iter().flat_map(|target| self.behind(*target)).collect();
        let by_node = answering.iter().any(|target| matches!(target, Target::Service(_)));
        let by_service = match flow.to {
            Target::Service(_) => true,
            Target::Name(id) => self.names[id.0].service.is_some(),
            Target::Place(_) => false,
        };
        if behind.iter().any(is_ingress) {
            Way::Ingress
        } else if flow.via.is_some() || by_node {
            Way::NodePort
        } else if by_service {
            Way::ClusterIp
        } else if behind.iter().any(|place| matches!(place, Place::Outside(_) | Place::Office(_))) {
            Way::Out
        } else {
            Way::Direct
        }
    }
}
