//! Services as kube-proxy programs them on every node: destination NAT at the client's node, spread at
//! random over ready endpoints, and packets in conntrack state INVALID dropped when forwarded.

use relapse_kernel::nft::{Chain, CtState, Hook, Policy, Rule, Table};
use relapse_model::{ClusterPlan, PodId};

use crate::cluster::node_network::host;

/// Name of the nft table.
const TABLE: &str = "relapse-kube-proxy";

/// ICMP port unreachable, as kube-proxy rejects what has no endpoint (RFC 792).
const PORT_UNREACHABLE: u8 = 3;

/// The rules of one node, for the endpoints that are ready now.
pub fn rules(plan: &ClusterPlan, ready: impl Fn(PodId) -> bool) -> Table {
    let mut table = Table::new(TABLE)
        // Pods of the node come through prerouting, the node's own processes through output.
        .chain(Chain::nat("prerouting", Hook::Prerouting, -100))
        .chain(Chain::nat("output", Hook::Output, -100))
        .chain(Chain::filter("forward", Hook::Forward, 0, Policy::Accept))
        .chain(Chain::filter("local", Hook::Output, 0, Policy::Accept))
        .rule("forward", Rule::new().ct_state(&[CtState::Invalid]).counter().drop().comment("conntrack state INVALID"));
    for service in &plan.services {
        let endpoints: Vec<_> = service.pods.iter().filter(|id| ready(**id)).map(|id| &plan.pods[id.0]).collect();
        let virtual_address = host(service.address);
        for port in &service.ports {
            let ways = [
                Rule::new().ip_daddr(virtual_address).tcp_dport(*port),
                Rule::new().ip_daddr(virtual_address).udp_dport(*port),
            ];
            for way in ways {
                let name = format!("{}:{port}", service.name);
                if endpoints.is_empty() {
                    for chain in ["forward", "local"] {
                        table = table.rule(
                            chain,
                            way.clone().reject_icmp(PORT_UNREACHABLE).comment(format!("{name} has no endpoints")),
                        );
                    }
                }
                for (position, endpoint) in endpoints.iter().enumerate() {
                    // Each rule takes its share of what the rules before it left.
                    let left = u32::try_from(endpoints.len() - position).unwrap_or(1);
                    let matched = if left > 1 { way.clone().numgen_random(left, 0) } else { way.clone() };
                    let rule =
                        matched.dnat(endpoint.address, Some(*port)).comment(format!("{name} -> {}", endpoint.name));
                    table = table.rule("prerouting", rule.clone()).rule("output", rule);
                }
            }
        }
    }
    table
}
