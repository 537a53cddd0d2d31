//! Services as programmed by kube-proxy on every node: destination NAT on the client's node, or on the node whose node
//! port is asked, distributed at random over ready endpoints; forwarded packets in conntrack state INVALID are dropped.
//!
//! Ports that a Service does not have are rejected, as kube-proxy does in its nftables mode. In its iptables mode the
//! packets leave by the default route, and a router without a route to them answers once a second at most (`ip_error` of
//! net/ipv4/route.c; the limit is the machine's): all others time out.

use std::collections::BTreeMap;

use relapse_kernel::nft::{Chain, CtState, Hook, Policy, Rule, Table};
use relapse_model::{ClusterPlan, NodeId, PodId, PodPlan, ServiceId, ServicePlan, TrafficPolicy};

use crate::cluster::ServiceRules;
use crate::cluster::node_network::host;

/// Name of the nft table.
pub const TABLE: &str = "relapse-kube-proxy";

/// ICMP port unreachable, with which kube-proxy rejects connections to a Service without endpoints, or to a port that a
/// Service does not have (RFC 792).
const PORT_UNREACHABLE: u8 = 3;

/// kube-proxy's mark of packets that get the node's own address as the source (`masqueradeBit` 14).
const MASQUERADE: u32 = 0x4000;

/// The rules of one node for the currently ready endpoints; those of Services in `changed` are as given there.
pub fn rules(
    plan: &ClusterPlan,
    node: NodeId,
    ready: impl Fn(PodId) -> bool,
    changed: &BTreeMap<ServiceId, ServiceRules>,
) -> Table {
    let mut table = Table::new(TABLE)
        // Traffic from pods and from outside passes prerouting, traffic from the node's own processes passes output.
        .chain(Chain::nat("prerouting", Hook::Prerouting, -100))
        .chain(Chain::nat("output", Hook::Output, -100))
        .chain(Chain::nat("postrouting", Hook::Postrouting, 100))
        .chain(Chain::filter("forward", Hook::Forward, 0, Policy::Accept))
        .chain(Chain::filter("input", Hook::Input, 0, Policy::Accept))
        .chain(Chain::filter("local", Hook::Output, 0, Policy::Accept))
        .rule("forward", Rule::new().ct_state(&[CtState::Invalid]).counter().drop().comment("conntrack state INVALID"))
        .rule("postrouting", Rule::new().mark(MASQUERADE).masquerade(None).comment("marked for masquerade"));
    for (number, service) in plan.services.iter().enumerate() {
        let mut endpoints: Vec<_> = service.pods.iter().filter(|id| ready(**id)).map(|id| &plan.pods[id.0]).collect();
        let stale;
        match changed.get(&ServiceId(number)) {
            Some(ServiceRules::Gone) => continue,
            Some(ServiceRules::Stale(address)) => {
                let Some(pod) = service.pods.first().map(|id| &plan.pods[id.0]) else { continue };
                stale = PodPlan { name: address.to_string(), address: *address, ..pod.clone() };
                endpoints = vec![&stale];
            }
            Some(ServiceRules::Whole) | None => {}
        }
        let virtual_address = host(service.address);
        for port in &service.ports {
            let matches = [
                Rule::new().ip_daddr(virtual_address).tcp_dport(*port),
                Rule::new().ip_daddr(virtual_address).udp_dport(*port),
            ];
            for traffic in matches {
                let name = format!("{}:{port}", service.name);
                if endpoints.is_empty() {
                    for chain in ["forward", "local"] {
                        table = table.rule(
                            chain,
                            traffic.clone().reject_icmp(PORT_UNREACHABLE).comment(format!("{name} has no endpoints")),
                        );
                    }
                }
                for rule in distributed(&traffic, &endpoints, *port, &name) {
                    table = table.rule("prerouting", rule.clone()).rule("output", rule);
                }
            }
        }
        // What was translated has another destination by now.
        for chain in ["forward", "local"] {
            let others = Rule::new().ip_daddr(virtual_address).reject_icmp(PORT_UNREACHABLE);
            table = table.rule(chain, others.comment(format!("{} has no such port", service.name)));
        }
        if let Some(port) = service.node_port {
            table = node_port(table, plan, node, service, port, &endpoints);
        }
    }
    table
}

/// Adds the rules of a node port.
fn node_port(
    mut table: Table,
    plan: &ClusterPlan,
    node: NodeId,
    service: &ServicePlan,
    port: u16,
    endpoints: &[&PodPlan],
) -> Table {
    let Some(target) = service.ports.first() else { return table };
    let local = service.policy == TrafficPolicy::Local;
    let usable: Vec<&PodPlan> = endpoints.iter().copied().filter(|pod| !local || pod.node == node).collect();
    let asked = host(plan.nodes[node.0].address);
    let name = format!("{} at node port {port}", service.name);
    for traffic in [Rule::new().ip_daddr(asked).tcp_dport(port), Rule::new().ip_daddr(asked).udp_dport(port)] {
        if usable.is_empty() {
            let rule = if endpoints.is_empty() {
                traffic.reject_icmp(PORT_UNREACHABLE).comment(format!("{name} has no endpoints"))
            } else {
                traffic.counter().drop().comment(format!("{name} has no endpoints on this node"))
            };
            table = table.rule("input", rule);
            continue;
        }
        let traffic = if local { traffic } else { traffic.mark_set(MASQUERADE) };
        for rule in distributed(&traffic, &usable, *target, &name) {
            table = table.rule("prerouting", rule);
        }
    }
    table
}

/// Destination NAT of this traffic to one of several endpoints at random.
fn distributed(traffic: &Rule, endpoints: &[&PodPlan], port: u16, name: &str) -> Vec<Rule> {
    let rule = |(position, endpoint): (usize, &&PodPlan)| {
        // Each rule takes its share of the traffic left by the rules before it.
        let left = u32::try_from(endpoints.len() - position).unwrap_or(1);
        let matched = if left > 1 { traffic.clone().numgen_random(left, 0) } else { traffic.clone() };
        matched.dnat(endpoint.address, Some(port)).comment(format!("{name} -> {}", endpoint.name))
    };
    endpoints.iter().enumerate().map(rule).collect()
}
