//! Nodes, pods, Services, hosts and offices, with their addresses.

use std::net::IpAddr;

use relapse_detectors::prefix::Prefix;
use relapse_lab::workload::servers::Server;
use relapse_model::diagnostics::{listed, quoted};
use relapse_model::replicas::FIRST_POD;
use relapse_model::resolver::is_numbered;
use relapse_model::spanned::Spanned;
use relapse_model::zone::folded;

use super::Planner;
use super::addresses::Addresses;
use super::network::share;
use crate::plan::{
    NodeId, NodePlan, OfficePlan, OutsidePlan, PathPlan, PodId, PodPlan, PodRole, PrefixPlan, ServicePlan,
};
use crate::scenario::cluster::{Cluster, Icmp, Nodes, Office, Outside, Pod, Service, SharedPath};

/// Maximum number of pods on a node; the kubelet's default limit is also about a hundred.
const PODS_PER_NODE: usize = 64;
const MOST_HOSTS: usize = 32;
const FIRST_SERVICE: u128 = 20;

/// Default time to live of records, seconds.
const TTL: u32 = 5;

/// Placeholder for an address not assigned yet; never in a finished plan.
const UNKNOWN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

impl Planner<'_> {
    pub(super) fn plan_cluster(&mut self, cluster: &Cluster) {
        let mut addresses = Addresses::default();
        self.plan_network(&cluster.network, &mut addresses);
        self.plan_nodes(&cluster.nodes, &mut addresses);
        self.plan_offices(&cluster.offices, &mut addresses);
        self.plan_outside(&cluster.outside, &mut addresses);
        self.plan_resolvers(cluster);
        self.plan_prefixes(&cluster.prefixes);
        // Chosen addresses are claimed before others are assigned.
        self.plan_pods(&cluster.pods, &mut addresses);
        self.plan_services(&cluster.services, &mut addresses);
        if let Some(dns) = &cluster.dns {
            self.plan_dns(dns, &mut addresses);
        }
        self.give_addresses(&mut addresses);
        if let Some(dns) = &cluster.dns {
            self.place_replicas(dns.replicas, dns.nodes.as_ref(), &dns.upstreams);
        }
        self.plan_ingresses(&cluster.pods);
        self.plan_node_ports(&cluster.services);
        self.plan_balancers(&cluster.outside);
        self.crowded(&cluster.nodes);
        self.cluster.kind_config = cluster.kind_config.as_ref().and_then(|file| self.kind_config(file));
    }

    fn plan_nodes(&mut self, nodes: &Spanned<Nodes>, addresses: &mut Addresses) {
        let names: Vec<String> = match &nodes.value {
            Nodes::Count(count) => (1..=(*count).clamp(1, 64)).map(|i| format!("worker-{i}")).collect(),
            Nodes::Names(names) => {
                self.unique("nodes", names.iter().map(|n| (&*n.0, n.span)));
                names.iter().map(|n| n.0.clone()).collect()
            }
        };
        let (subnet, pods) = (self.cluster.network.node_prefix, self.cluster.network.pod_prefix);
        let count = names.len();
        for (i, name) in names.into_iter().enumerate() {
            let address = subnet.nth(FIRST_POD + i as u128);
            let pod_prefix = share(pods, count, i);
            let pod_nic_address = pod_prefix.and_then(|p| p.nth(4));
            for (missing, prefix, what) in
                [(address.is_none(), subnet, "nodePrefix"), (pod_nic_address.is_none(), pods, "podPrefix")]
            {
                if missing {
                    let message = format!("{what} {prefix} has no room for {count} nodes");
                    self.error(nodes.span, message, "use fewer nodes, or a shorter prefix");
                }
            }
            for (owner, ip) in
                [(format!("node `{name}`"), address), (format!("the pod NIC of `{name}`"), pod_nic_address)]
            {
                if ip.is_some_and(|ip| !addresses.give(ip, &owner)) {
                    let message = format!("{owner} would get the address of a gateway");
                    self.error(
                        nodes.span,
                        message,
                        "leave `nodeGateway` and `podGateway` at the first address of their prefixes",
                    );
                }
            }
            self.cluster.nodes.push(NodePlan {
                name,
                address: address.unwrap_or(UNKNOWN),
                pod_prefix: pod_prefix.unwrap_or(pods),
                pod_nic_address: pod_nic_address.unwrap_or(UNKNOWN),
            });
        }
    }

    fn plan_pods(&mut self, pods: &[Pod], addresses: &mut Addresses) {
        let mut names: Vec<(String, relapse_model::diagnostics::Span)> = Vec::new();
        for pod in pods {
            let node = pod.node.as_ref().map(|name| self.node(name));
            let count = pod.count.map_or(1, |count| usize::from(count.value).clamp(1, PODS_PER_NODE));
            if pod.ingress.as_ref().is_some_and(|ingress| ingress.host_network) {
                let own = pod.address.as_ref().map(|a| ("address", a.span)).into_iter();
                for (key, at) in own.chain(pod.mtu.map(|mtu| ("mtu", mtu.span))) {
                    let message = format!("`{key}` is its node's for a pod on the host network");
                    self.error(at, message, format!("leave `{key}` or `hostNetwork` out"));
                }
            }
            if let (Some(address), Some(_)) = (&pod.address, pod.count) {
                self.error(address.span, "several pods cannot share one address", "leave `address` or `count` out");
            }
            let mtu = pod.mtu.map_or(1500, |mtu| mtu.value);
            for i in 1..=count {
                let name = if pod.count.is_some() { format!("{}-{i}", pod.name.0) } else { pod.name.0.clone() };
                let in_turn = NodeId(self.cluster.pods.len() % self.cluster.nodes.len());
                let by_address = pod
                    .address
                    .as_ref()
                    .and_then(|a| self.cluster.nodes.iter().position(|n| n.pod_prefix.contains(a.0)).map(NodeId));
                let at = match node {
                    Some(known) => known.unwrap_or(in_turn),
                    None => by_address.unwrap_or(in_turn),
                };
                if let Some(address) = &pod.address
                    && node != Some(None)
                {
                    let (prefix, owner) = (self.cluster.nodes[at.0].pod_prefix, &self.cluster.nodes[at.0].name);
                    let share = format!("the share of `{owner}`,");
                    self.inside(address, prefix, &share);
                    self.claim(addresses, address, &format!("pod `{name}`"));
                }
                names.push((name.clone(), pod.name.span));
                let host_network = pod.ingress.as_ref().is_some_and(|ingress| ingress.host_network);
                let address = match &pod.address {
                    _ if host_network => self.cluster.nodes[at.0].address,
                    Some(address) => address.0,
                    None => UNKNOWN,
                };
                self.cluster.pods.push(PodPlan { name, node: at, address, mtu, role: PodRole::Plain, host_network });
            }
        }
        self.unique("pods", names.iter().map(|(name, span)| (name.as_str(), *span)));
    }

    fn plan_services(&mut self, services: &[Service], addresses: &mut Addresses) {
        self.unique("Services", services.iter().map(|s| (&*s.name.0, s.name.span)));
        for service in services {
            let ports: Vec<Spanned<u16>> = match (&service.port, &service.ports) {
                (Some(port), None) => vec![*port],
                (None, Some(ports)) => ports.value.clone(),
                (Some(port), Some(ports)) => {
                    self.error(port.span, "`port` and `ports` are both given", "leave one of them out");
                    ports.value.clone()
                }
                (None, None) => Vec::new(),
            };
            if ports.is_empty() {
                let span = service.ports.as_ref().map_or(service.name.span, |p| p.span);
                self.error(span, format!("Service `{}` has no port", service.name.0), "add `port: 80`");
            }
            for port in ports.iter().filter(|port| port.value == 0) {
                self.error(port.span, "there is no port 0", "write 1 to 65535");
            }
            if service.pods.is_empty() {
                self.error(
                    service.name.span,
                    format!("Service `{}` has no pods", service.name.0),
                    "add `pods: [NAME]`",
                );
            }
            let pods = service.pods.iter().flat_map(|name| self.pods_named(name)).collect();
            if let Some(address) = &service.address {
                let prefix = self.cluster.network.service_prefix;
                self.inside(address, prefix, "servicePrefix");
                self.claim(addresses, address, &format!("Service `{}`", service.name.0));
            }
            self.cluster.services.push(ServicePlan {
                name: service.name.0.clone(),
                address: service.address.as_ref().map_or(UNKNOWN, |a| a.0),
                ports: ports.iter().map(|p| p.value).collect(),
                pods,
                node_port: service.node_port.map(|p| p.value),
                policy: service.external_traffic_policy.map(|p| p.value).unwrap_or_default(),
            });
        }
    }

    /// A single pod, or all pods of a counted name.
    fn pods_named(&mut self, name: &Spanned<String>) -> Vec<PodId> {
        let group = self.counted(name);
        if group.is_empty() { self.pod(name).into_iter().collect() } else { group }
    }

    fn plan_outside(&mut self, hosts: &[Outside], addresses: &mut Addresses) {
        self.unique("outside hosts", hosts.iter().map(|h| (&*h.name.0, h.name.span)));
        if let Some(host) = hosts.get(MOST_HOSTS) {
            self.error(
                host.name.span,
                format!("there are {} hosts outside", hosts.len()),
                format!("at most {MOST_HOSTS} fit"),
            );
        }
        for host in hosts {
            let owner = format!("outside host `{}`", host.name.0);
            self.claim(addresses, &host.address, &owner);
            self.apart(addresses, &host.address, &owner);
            for address in &host.also_at {
                self.claim(addresses, address, &owner);
                self.apart(addresses, address, &owner);
            }
            let path = self.path(PathPlan::default(), host.path());
            let records = host.records.iter().flatten();
            for (name, addresses) in records.clone() {
                if addresses.is_empty() {
                    self.error(name.span, format!("{} has no address", quoted(&name.value)), "write `[ADDRESS]`");
                }
                self.owner(name);
            }
            if let (Some(ttl), None) = (&host.ttl, &host.records) {
                self.error(
                    ttl.span,
                    "`ttl` is that of records, and there are none",
                    "add `records`, or leave `ttl` out",
                );
            }
            let ttl = host.ttl.as_ref().and_then(|ttl| self.seconds("ttl", ttl));
            self.cluster.outside.push(OutsidePlan {
                name: host.name.0.clone(),
                address: Some(host.address.0).filter(IpAddr::is_ipv4).unwrap_or(UNKNOWN),
                also_at: host.also_at.iter().map(|address| address.0).filter(IpAddr::is_ipv4).collect(),
                path,
                icmp_by_fabric: host.icmp == Icmp::Fabric,
                load_balancer: host.load_balancer,
                balances: None,
                records: records.map(|(n, a)| (folded(n), a.iter().map(|a| a.0).collect())).collect(),
                ttl: ttl.unwrap_or(TTL),
                server: host.server.map(Server::name),
                resolver: None,
            });
        }
    }

    /// The resolvers of clients outside, once all hosts are known.
    fn plan_resolvers(&mut self, cluster: &Cluster) {
        for (number, host) in cluster.outside.iter().enumerate() {
            self.cluster.outside[number].resolver = host.resolver.as_ref().and_then(|name| self.resolver_named(name));
        }
        for (number, office) in cluster.offices.iter().enumerate() {
            self.cluster.offices[number].resolver = office.resolver.as_ref().and_then(|name| self.resolver_named(name));
        }
    }

    fn plan_offices(&mut self, offices: &[Office], addresses: &mut Addresses) {
        self.unique("offices", offices.iter().map(|o| (&*o.name.0, o.name.span)));
        if let Some(office) = offices.get(MOST_HOSTS) {
            self.error(
                office.name.span,
                format!("there are {} offices", offices.len()),
                format!("at most {MOST_HOSTS} fit"),
            );
        }
        for (k, office) in offices.iter().enumerate() {
            let name = &office.name.0;
            let prefix: Prefix = office.prefix.0;
            self.take_prefix(addresses, prefix, &format!("office `{name}`,"), Some(office.prefix.span));
            let (gateway, client) = (prefix.nth(1), prefix.nth(10));
            if client.is_none() {
                self.error(
                    office.prefix.span,
                    format!("{prefix} has no room for a gateway and a client"),
                    "write at most 28 bits",
                );
            }
            for (ip, who) in [(gateway, "gateway"), (client, "client")] {
                if let Some(ip) = ip {
                    addresses.give(ip, &format!("the {who} of office `{name}`"));
                }
            }
            let path = self.path(PathPlan::default(), office.path());
            let tunnel = |end| [169, 254, u8::try_from(k + 1).unwrap_or(u8::MAX), end].into();
            self.cluster.offices.push(OfficePlan {
                name: name.clone(),
                prefix,
                gateway: gateway.unwrap_or(UNKNOWN),
                client: client.unwrap_or(UNKNOWN),
                tunnel: (tunnel(1), tunnel(2)),
                tunnel_mtu: office.tunnel_mtu.map_or(1500, |mtu| mtu.value),
                clamp: office.clamp.map(|clamp| clamp.value),
                swallow_fragmentation_needed: office.swallow_fragmentation_needed.unwrap_or(true),
                declared_mtu: None,
                path,
                resolver: None,
            });
        }
    }

    fn plan_prefixes(&mut self, prefixes: &[SharedPath]) {
        let texts: Vec<_> = prefixes.iter().map(|shared| (shared.prefix.0.to_string(), shared.prefix.span)).collect();
        self.unique("prefixes", texts.iter().map(|(text, span)| (text.as_str(), *span)));
        for shared in prefixes {
            let prefix = shared.prefix.0;
            let network = &self.cluster.network;
            let own = [
                ("nodePrefix", network.node_prefix),
                ("podPrefix", network.pod_prefix),
                ("servicePrefix", network.service_prefix),
            ];
            if let Some((name, own)) = own.into_iter().find(|(_, own)| own.overlaps(&prefix)) {
                let message = format!("prefix {prefix} and {name} {own} overlap");
                self.error(shared.prefix.span, message, "write a prefix outside the cluster");
            }
            let hosts = self.cluster.outside.iter().flat_map(|host| host.also_at.iter().chain([&host.address]));
            let clients = self.cluster.offices.iter().map(|office| &office.client);
            if !hosts.chain(clients).any(|address| prefix.contains(*address)) {
                let help = "write a prefix with an address of a host in `outside`, or add one as `alsoAt`";
                self.error(shared.prefix.span, format!("no host has an address in {prefix}"), help);
            }
            let path = self.path(PathPlan::default(), shared.path());
            self.cluster.prefixes.push(PrefixPlan { prefix, path });
        }
    }

    /// Assigns an address to each pod and Service without one.
    fn give_addresses(&mut self, addresses: &mut Addresses) {
        let cluster = &mut self.cluster;
        for pod in cluster.pods.iter_mut().filter(|p| p.address == UNKNOWN) {
            let prefix = cluster.nodes[pod.node.0].pod_prefix;
            if let Some(address) = addresses.next(prefix, FIRST_POD, &format!("pod `{}`", pod.name)) {
                pod.address = address;
            }
        }
        let prefix = self.cluster.network.service_prefix;
        for service in self.cluster.services.iter_mut().filter(|s| s.address == UNKNOWN) {
            if let Some(address) = addresses.next(prefix, FIRST_SERVICE, &format!("Service `{}`", service.name)) {
                service.address = address;
            }
        }
    }

    fn plan_ingresses(&mut self, pods: &[Pod]) {
        for pod in pods {
            let Some(ingress) = &pod.ingress else { continue };
            let Some(backend) = self.service(&ingress.service) else { continue };
            let ports = self.cluster.services[backend.0].ports.clone();
            let port = match (ingress.port, ports.as_slice()) {
                (Some(port), ports) if ports.contains(&port.value) || ports.is_empty() => port.value,
                (Some(port), ports) => {
                    let message = format!("Service `{}` has no port {}", ingress.service.value, port.value);
                    self.error(port.span, message, format!("its ports: {}", numbers(ports)));
                    continue;
                }
                (None, [only]) => *only,
                (None, _) => {
                    let message = format!("Service `{}` has several ports", ingress.service.value);
                    self.error(ingress.service.span, message, format!("add `port`, one of: {}", numbers(&ports)));
                    continue;
                }
            };
            let itself =
                |name: &str| if pod.count.is_some() { is_numbered(name, &pod.name.0) } else { name == pod.name.0 };
            if self.cluster.services[backend.0].pods.iter().any(|id| itself(&self.cluster.pods[id.0].name)) {
                self.error(
                    ingress.service.span,
                    "an ingress cannot stand in front of itself",
                    "name a Service of other pods",
                );
            }
            for number in 0..self.cluster.pods.len() {
                if !itself(&self.cluster.pods[number].name) {
                    continue;
                }
                let PodPlan { node, host_network, .. } = self.cluster.pods[number];
                let behind = self.cluster.services.iter().find(|service| service.pods.contains(&PodId(number)));
                if let Some(service) = behind.filter(|_| host_network) {
                    let message = format!("an ingress on the host network is behind Service `{}`", service.name);
                    self.error(
                        ingress.service.span,
                        message,
                        "leave `hostNetwork` out, or reach it by its node's address",
                    );
                }
                if let Some(other) = self.cluster.host_ingress(node, port).filter(|_| host_network) {
                    let (other, node) = (&self.cluster.pods[other.0].name, &self.cluster.nodes[node.0].name);
                    let message = format!("port {port} of `{node}` is that of the ingress `{other}`");
                    self.error(ingress.service.span, message, "use another node or port, or leave `hostNetwork` out");
                }
                self.cluster.pods[number].role = PodRole::Ingress { backend, port };
            }
        }
    }

    /// Reports a node or a prefix without room for its pods.
    fn crowded(&mut self, nodes: &Spanned<Nodes>) {
        for node in 0..self.cluster.nodes.len() {
            let here = self.cluster.pods.iter().filter(|p| p.node == NodeId(node));
            let (count, without) = (here.clone().count(), here.filter(|p| p.address == UNKNOWN).count());
            let (name, prefix) = (self.cluster.nodes[node].name.clone(), self.cluster.nodes[node].pod_prefix);
            if count > PODS_PER_NODE {
                self.error(
                    nodes.span,
                    format!("`{name}` would run {count} pods"),
                    format!("at most {PODS_PER_NODE} fit on a node"),
                );
            } else if without > 0 {
                let message = format!("{count} pods do not fit into {prefix}, the share of `{name}`");
                self.error(nodes.span, message, "use fewer pods or nodes, or a shorter `podPrefix`");
            }
        }
        let homeless: Vec<&str> =
            self.cluster.services.iter().filter(|s| s.address == UNKNOWN).map(|s| s.name.as_str()).collect();
        if !homeless.is_empty() {
            let message = format!("servicePrefix has no address left for {}", listed(homeless));
            self.error(nodes.span, message, "use a shorter `servicePrefix`");
        }
    }
}

/// Joins ports with commas.
fn numbers(ports: &[u16]) -> String {
    ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
