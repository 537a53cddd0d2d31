//! Pods of a plan that a scenario does not list: replicas of cluster DNS, and pods that take the place of others.

use std::collections::HashSet;
use std::net::IpAddr;

use crate::diagnostics::Span;
use crate::plan::{NodeId, Place, PodId, PodPlan, PodRole};
use crate::resolver::Resolver;

/// Index in a node's share of its first pod. Earlier addresses are used by the infrastructure.
pub const FIRST_POD: u128 = 10;

impl Resolver<'_> {
    /// Adds the pod of another replica on this node, after all other pods. Reports an error if its name is taken or the
    /// node has no free address.
    pub fn replica_pod(&mut self, at: Span, node: NodeId) -> Option<PodId> {
        let pods = &self.cluster.pods;
        let name = format!("coredns-{}", pods.iter().filter(|pod| pod.role == PodRole::Dns).count() + 1);
        if pods.iter().any(|pod| pod.name == name) {
            let message = format!("a replica of cluster DNS and a pod are both named `{name}`");
            self.error(at, message, "rename the pod");
        }
        let Some(address) = self.free_address(node) else {
            let (share, node) = (self.cluster.nodes[node.0].pod_prefix, &self.cluster.nodes[node.0].name);
            let message = format!("`{name}` does not fit into {share}, the share of `{node}`");
            self.error(at, message, "use fewer pods, or other `nodes`");
            return None;
        };
        self.cluster.pods.push(PodPlan { name, node, address, mtu: 1500, role: PodRole::Dns, host_network: false });
        Some(PodId(self.cluster.pods.len() - 1))
    }

    /// Adds a replica that does not run from the start: a fault adds it. Reports an error if the cluster has no DNS.
    pub fn spare_replica(&mut self, at: Span, node: NodeId) -> Option<PodId> {
        self.needs_dns(at)?;
        let id = self.replica_pod(at, node)?;
        let dns = self.cluster.dns.as_mut()?;
        dns.spares.push(id);
        self.cluster.services[dns.service.0].pods.push(id);
        Some(id)
    }

    /// Adds a pod that does not run from the start and may take the place of another of the same node and Services.
    /// Reports an error if its name is taken or the node has no free address.
    pub fn spare_pod(&mut self, at: Span, of: PodId) -> Option<PodId> {
        let like = self.cluster.pods[of.0].clone();
        let name = format!("{}-new", like.name);
        if self.cluster.pods.iter().any(|pod| pod.name == name) {
            let message =
                format!("the pod that takes the place of `{}` and another are both named `{name}`", like.name);
            self.error(at, message, "rename the pod, or replace the pods of a Service once");
            return None;
        }
        let Some(address) = self.free_address(like.node) else {
            let (share, node) = (self.cluster.nodes[like.node.0].pod_prefix, &self.cluster.nodes[like.node.0].name);
            let message = format!("`{name}` does not fit into {share}, the share of `{node}`");
            self.error(at, message, "use fewer pods");
            return None;
        };
        let id = PodId(self.cluster.pods.len());
        self.cluster.pods.push(PodPlan { name, address, ..like });
        self.cluster.spares.push(id);
        let services = self.cluster.services.iter_mut().filter(|service| service.pods.contains(&of));
        services.for_each(|service| service.pods.push(id));
        let names = self.cluster.names.iter_mut().filter(|name| name.places.contains(&Place::Pod(of)));
        names.for_each(|name| name.places.push(Place::Pod(id)));
        Some(id)
    }

    fn free_address(&self, node: NodeId) -> Option<IpAddr> {
        let plan = &self.cluster;
        let node = &plan.nodes[node.0];
        let mut taken: HashSet<IpAddr> = plan.pods.iter().map(|p| p.address).collect();
        taken.extend([node.pod_nic_address, plan.network.pod_gateway]);
        // The last address of an IPv4 prefix is the broadcast address.
        (FIRST_POD..8192)
            .take_while(|i| node.pod_prefix.nth(i + 1).is_some())
            .filter_map(|i| node.pod_prefix.nth(i))
            .find(|address| !taken.contains(address))
    }
}
