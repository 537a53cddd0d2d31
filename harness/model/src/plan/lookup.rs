//! What stands where in a cluster, and what answers at an address.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use relapse_detectors::operator::{DeclaredPath, Operator};

use super::{
    ClusterPlan, FlowPlan, NodeId, OfficeId, OutsideId, OutsidePlan, Place, PodId, PodPlan, PodRole, ServiceId,
    ServicePlan, Target,
};
use crate::zone;

impl ClusterPlan {
    /// The operator's configuration for the detectors: only facts about the cluster.
    #[must_use]
    pub fn operator(&self) -> Operator {
        let dns = self.dns.as_ref().map(|d| &self.services[d.service.0]);
        Operator {
            pod_prefixes: vec![self.network.pod_prefix],
            pod_nic: self.network.pod_nic.clone(),
            pod_table: self.network.pod_table,
            node_nic: self.network.node_nic.clone(),
            dns_service: dns.map_or_else(|| "kube-dns".to_owned(), |s| s.name.clone()),
            dns_address: dns.map_or(self.network.pod_gateway, |s| s.address),
            paths: self
                .offices
                .iter()
                .filter_map(|o| o.declared_mtu.map(|mtu| DeclaredPath { prefix: o.prefix, mtu }))
                .collect(),
            time_wait: Duration::from_secs(60),
            peers: self.offices.iter().map(|office| office.prefix).collect(),
            peer_prefix_length: 24,
            names: self.declared_names.clone(),
            servers: self.declared_servers.clone(),
            entries: self.declared_entries.clone(),
            conntrack_limit: self.declared_conntrack_limit,
            seen_pods: BTreeSet::new(),
        }
    }

    /// Whether the name is declared, or a resolver outside has a record for it.
    #[must_use]
    pub fn knows(&self, name: &str) -> bool {
        let declared = self.declared_names.iter().any(|declared| declared.name == name);
        let owners =
            |host: &OutsidePlan| zone::owner(host.records.iter().map(|(owner, _)| owner.as_str()), name).is_some();
        declared || self.outside.iter().any(owners)
    }

    /// DNS name of a Service. Cluster DNS itself is in `kube-system`.
    #[must_use]
    pub fn service_domain(&self, id: ServiceId) -> String {
        let is_dns = self.dns.as_ref().is_some_and(|dns| dns.service == id);
        let namespace = if is_dns { "kube-system" } else { "default" };
        format!("{}.{namespace}.svc.cluster.local", self.services[id.0].name)
    }

    /// The pods of a node that have addresses of their own.
    pub fn pods_with_links(&self, node: NodeId) -> impl Iterator<Item = PodId> {
        let here = move |number: &usize| self.pods[*number].node == node && !self.pods[*number].host_network;
        (0..self.pods.len()).filter(here).map(PodId)
    }

    /// The pods' routing table of a node, in messages.
    #[must_use]
    pub fn pod_table_of(&self, node: NodeId) -> String {
        format!("table {} of node/{}", self.network.pod_table, self.nodes[node.0].name)
    }

    /// Whether a pod does not run from the start.
    #[must_use]
    pub fn is_spare(&self, id: PodId) -> bool {
        self.spares.contains(&id) || self.dns.as_ref().is_some_and(|dns| dns.spares.contains(&id))
    }

    /// Whether a fault replaces the pods of its Service, so that each is ready only when its server listens.
    #[must_use]
    pub fn is_replaced(&self, id: PodId) -> bool {
        let has_spares = |service: &ServicePlan| service.pods.iter().any(|pod| self.spares.contains(pod));
        self.services.iter().any(|service| service.pods.contains(&id) && has_spares(service))
    }

    /// All places: nodes, pods, offices, hosts outside.
    pub fn places(&self) -> impl Iterator<Item = Place> {
        let nodes = (0..self.nodes.len()).map(|number| Place::Node(NodeId(number)));
        let pods = (0..self.pods.len()).map(|number| Place::Pod(PodId(number)));
        let offices = (0..self.offices.len()).map(|number| Place::Office(OfficeId(number)));
        let outside = (0..self.outside.len()).map(|number| Place::Outside(OutsideId(number)));
        nodes.chain(pods).chain(offices).chain(outside)
    }

    /// Name of a place in messages.
    #[must_use]
    pub fn place_name(&self, place: Place) -> String {
        match place {
            Place::Pod(id) => format!("pod/{}", self.pods[id.0].name),
            Place::Node(id) => format!("node/{}", self.nodes[id.0].name),
            Place::Outside(id) => format!("outside/{}", self.outside[id.0].name),
            Place::Office(id) => format!("office/{}", self.offices[id.0].name),
        }
    }

    /// Address of a place as seen by its peers.
    #[must_use]
    pub fn address(&self, place: Place) -> IpAddr {
        match place {
            Place::Pod(id) => self.pods[id.0].address,
            Place::Node(id) => self.nodes[id.0].address,
            Place::Outside(id) => self.outside[id.0].address,
            Place::Office(id) => self.offices[id.0].client,
        }
    }

    /// The places that answer for this target; for a Service, its pods.
    #[must_use]
    pub fn behind(&self, target: Target) -> Vec<Place> {
        match target {
            Target::Place(place) => vec![place],
            Target::Service(id) => self.services[id.0].pods.iter().map(|pod| Place::Pod(*pod)).collect(),
            Target::Name(id) => self.names[id.0].places.clone(),
        }
    }

    /// What answers at this port of a place, and at which port: behind a node's address may be an ingress on the host
    /// network or a Service with this node port, behind a load balancer its Service.
    #[must_use]
    pub fn answering(&self, place: Place, port: u16) -> (Target, u16) {
        let service = |id: usize| (Target::Service(ServiceId(id)), self.services[id].ports.first().copied());
        let found = match place {
            Place::Node(node) => match self.host_ingress(node, port) {
                Some(pod) => Some((Target::Place(Place::Pod(pod)), None)),
                None => self.services.iter().position(|service| service.node_port == Some(port)).map(service),
            },
            Place::Outside(id) => self.outside[id.0].balances.map(|id| (Target::Service(id), None)),
            Place::Pod(_) | Place::Office(_) => None,
        };
        found.map_or((Target::Place(place), port), |(target, own)| (target, own.unwrap_or(port)))
    }

    /// The place with this address.
    #[must_use]
    pub fn place_at(&self, address: IpAddr) -> Option<Place> {
        let also = |host: &OutsideId| self.outside[host.0].also_at.contains(&address);
        let outside = || (0..self.outside.len()).map(OutsideId).find(also).map(Place::Outside);
        self.places().find(|place| self.address(*place) == address).or_else(outside)
    }

    /// The resolver used at this place: cluster DNS for pods and nodes, otherwise its own, or the first one outside.
    #[must_use]
    pub fn resolver_at(&self, place: Place) -> Option<Target> {
        let own = match place {
            Place::Pod(_) | Place::Node(_) => return self.dns.as_ref().map(|dns| Target::Service(dns.service)),
            Place::Outside(id) => self.outside[id.0].resolver,
            Place::Office(id) => self.offices[id.0].resolver,
        };
        let first = || self.outside.iter().position(|host| !host.records.is_empty()).map(OutsideId);
        own.or_else(first).map(|host| Target::Place(Place::Outside(host)))
    }

    /// Address of the resolver used at this place.
    #[must_use]
    pub fn resolver_of(&self, place: Place) -> Option<IpAddr> {
        self.resolver_at(place).map(|resolver| self.target_address(resolver))
    }

    /// The ingress on the host network of this node that serves this port.
    #[must_use]
    pub fn host_ingress(&self, node: NodeId, at: u16) -> Option<PodId> {
        let serves = |pod: &PodPlan| {
            pod.host_network && pod.node == node && matches!(pod.role, PodRole::Ingress { port, .. } if port == at)
        };
        self.pods.iter().position(serves).map(PodId)
    }

    /// Address that a flow to this target connects to; of a name, its first address in the scenario.
    #[must_use]
    pub fn target_address(&self, target: Target) -> IpAddr {
        match target {
            Target::Place(place) => self.address(place),
            Target::Service(id) => self.services[id.0].address,
            Target::Name(id) => match self.names[id.0].service {
                Some(service) => self.services[service.0].address,
                None => self.address(self.names[id.0].places[0]),
            },
        }
    }

    /// Whether nodes forward traffic from outside to Services.
    #[must_use]
    pub fn has_node_ports(&self) -> bool {
        self.services.iter().any(|service| service.node_port.is_some())
    }

    /// Address and TCP port that the client of a flow connects to; of a name, its first address in the scenario. A
    /// node is asked at its node port, a load balancer at the Service's own port.
    #[must_use]
    pub fn entry(&self, flow: &FlowPlan) -> SocketAddr {
        let port = flow.port.unwrap_or_default();
        match (flow.via, flow.to) {
            (Some(via @ Place::Node(_)), Target::Service(id)) => {
                SocketAddr::new(self.address(via), self.services[id.0].node_port.unwrap_or(port))
            }
            (Some(via), _) => SocketAddr::new(self.address(via), port),
            (None, to) => SocketAddr::new(self.target_address(to), port),
        }
    }
}
