//! Services as programmed by kube-proxy on every node: destination NAT on the client's node, distributed at
//! random over ready endpoints; forwarded packets in conntrack state INVALID are dropped.

use std::collections::BTreeMap;

use relapse_kernel::nft::{Chain, CtState, Hook, Policy, Rule, Table};
use relapse_model::{ClusterPlan, PodId, PodPlan, ServiceId};

use crate::cluster::ServiceRules;
use crate::cluster::node_network::host;

/// Name of the nft table.
pub const TABLE: &str = "relapse-kube-proxy";

/// ICMP port unreachable, with which kube-proxy rejects connections to a Service without endpoints (RFC 792).
const PORT_UNREACHABLE: u8 = 3;

/// The rules of one node for the currently ready endpoints; those of Services in `changed` are as given there.
pub fn rules(plan: &ClusterPlan, ready: impl Fn(PodId) -> bool, changed: &BTreeMap<ServiceId, ServiceRules>) -> Table {
    let mut table = Table::new(TABLE)
        // Traffic from pods passes prerouting, traffic from the node's own processes passes output.
        .chain(Chain::nat("prerouting", Hook::Prerouting, -100))
        .chain(Chain::nat("output", Hook::Output, -100))
        .chain(Chain::filter("forward", Hook::Forward, 0, Policy::Accept))
        .chain(Chain::filter("local", Hook::Output, 0, Policy::Accept))
        .rule("forward", Rule::new().ct_state(&[CtState::Invalid]).counter().drop().comment("conntrack state INVALID"));
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
                for (position, endpoint) in endpoints.iter().enumerate() {
                    // Each rule takes its share of the traffic left by the rules before it.
                    let left = u32::try_from(endpoints.len() - position).unwrap_or(1);
                    let matched = if left > 1 { traffic.clone().numgen_random(left, 0) } else { traffic.clone() };
                    let rule =
                        matched.dnat(endpoint.address, Some(*port)).comment(format!("{name} -> {}", endpoint.name));
                    table = table.rule("prerouting", rule.clone()).rule("output", rule);
                }
            }
        }
    }
    table
}
