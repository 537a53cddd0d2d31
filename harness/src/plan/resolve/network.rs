//! The cluster's networks, and the division of the pod prefix among the nodes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use relapse_detectors::prefix::Prefix;
use relapse_model::diagnostics::{Span, did_you_mean, quoted};
use relapse_model::spanned::Spanned;
use relapse_model::values;

use super::Planner;
use super::addresses::Addresses;
use crate::plan::NetworkPlan;
use crate::scenario::cluster::Network;

/// Conntrack timeouts of a network namespace, without the prefix `nf_conntrack_`.
const TIMEOUTS: [&str; 21] = [
    "generic_timeout",
    "tcp_timeout_syn_sent",
    "tcp_timeout_syn_recv",
    "tcp_timeout_established",
    "tcp_timeout_fin_wait",
    "tcp_timeout_close_wait",
    "tcp_timeout_last_ack",
    "tcp_timeout_time_wait",
    "tcp_timeout_close",
    "tcp_timeout_max_retrans",
    "tcp_timeout_unacknowledged",
    "udp_timeout",
    "udp_timeout_stream",
    "icmp_timeout",
    "icmpv6_timeout",
    "frag6_timeout",
    "gre_timeout",
    "gre_timeout_stream",
    "sctp_timeout_established",
    "sctp_timeout_closed",
    "expect_timeout",
];

impl Planner<'_> {
    pub(super) fn plan_network(&mut self, network: &Network, addresses: &mut Addresses) {
        let defaults = NetworkPlan::default();
        let node_prefix = network.node_prefix.as_ref().map_or(defaults.node_prefix, |p| p.0);
        let pod_prefix = network.pod_prefix.as_ref().map_or(defaults.pod_prefix, |p| p.0);
        let service_prefix = network.service_prefix.as_ref().map_or(defaults.service_prefix, |p| p.0);
        let written = |prefix: &Option<Spanned<values::Prefix>>| prefix.as_ref().map(|p| p.span);
        for (prefix, name, span) in [
            (node_prefix, "nodePrefix", written(&network.node_prefix)),
            (pod_prefix, "podPrefix", written(&network.pod_prefix)),
            (service_prefix, "servicePrefix", written(&network.service_prefix)),
        ] {
            self.take_prefix(addresses, prefix, name, span);
        }
        let node_gateway = self.gateway(addresses, network.node_gateway.as_ref(), node_prefix, "nodePrefix");
        let pod_gateway = self.gateway(addresses, network.pod_gateway.as_ref(), pod_prefix, "podPrefix");
        let vpc = network.vpc.as_ref().map(|all| all.iter().map(|p| p.0).collect());

        self.cluster.network = NetworkPlan {
            node_prefix,
            node_gateway,
            pod_prefix,
            pod_gateway,
            service_prefix,
            vpc: vpc.unwrap_or(defaults.vpc),
            pod_table: self.pod_table(network.pod_table.as_ref()).unwrap_or(defaults.pod_table),
            to_rule_priority: network.to_rule_priority.map_or(defaults.to_rule_priority, |p| p.value),
            from_rule_priority: network.from_rule_priority.map_or(defaults.from_rule_priority, |p| p.value),
            node_nic: self.nic(network.node_nic.as_ref(), defaults.node_nic),
            pod_nic: self.nic(network.pod_nic.as_ref(), defaults.pod_nic),
            conntrack_timeouts: self.timeouts(&network.conntrack_timeouts),
        };
        self.must_differ(network);
    }

    fn gateway(
        &mut self,
        addresses: &mut Addresses,
        gateway: Option<&Spanned<values::Address>>,
        prefix: Prefix,
        name: &str,
    ) -> IpAddr {
        let owner = format!("the gateway of {name}");
        match gateway {
            Some(gateway) => {
                self.inside(gateway, prefix, name);
                self.claim(addresses, gateway, &owner);
                gateway.0
            }
            None => {
                let first = prefix.nth(1).unwrap_or_else(|| prefix.address());
                addresses.give(first, &owner);
                first
            }
        }
    }

    fn pod_table(&mut self, table: Option<&Spanned<u32>>) -> Option<u32> {
        let table = table?;
        if matches!(table.value, 0 | 253..=255) {
            let message = format!("table {} is reserved by the kernel", table.value);
            self.error(table.span, message, "write another number, such as 2");
        }
        Some(table.value)
    }

    fn nic(&mut self, name: Option<&Spanned<String>>, default: String) -> String {
        match name {
            Some(name) => {
                self.interface_name(name);
                name.value.clone()
            }
            None => default,
        }
    }

    /// Reports interfaces or priorities that must differ.
    fn must_differ(&mut self, network: &Network) {
        let plan = &self.cluster.network;
        let nics = plan.node_nic == plan.pod_nic || plan.node_nic == "lo" || plan.pod_nic == "lo";
        let rules = plan.to_rule_priority == plan.from_rule_priority;
        let span = |a: Option<Span>, b: Option<Span>| a.or(b);
        let nic = span(network.pod_nic.as_ref().map(|n| n.span), network.node_nic.as_ref().map(|n| n.span));
        let rule = span(network.from_rule_priority.map(|p| p.span), network.to_rule_priority.map(|p| p.span));
        if let Some(at) = nic.filter(|_| nics) {
            self.error(
                at,
                "`nodeNic` and `podNic` must be two interfaces other than `lo`",
                "write `nodeNic: eth0, podNic: eth1`",
            );
        }
        if let Some(at) = rule.filter(|_| rules) {
            self.error(
                at,
                "both kinds of rules have the same priority",
                "write `toRulePriority: 512, fromRulePriority: 1536`",
            );
        }
    }

    fn timeouts(&mut self, timeouts: &BTreeMap<Spanned<String>, Spanned<u32>>) -> Vec<(String, u32)> {
        let mut plan = Vec::new();
        for (name, seconds) in timeouts {
            if !TIMEOUTS.contains(&name.value.as_str()) {
                let help = match name.value.strip_prefix("nf_conntrack_") {
                    Some(rest) if TIMEOUTS.contains(&rest) => format!("write `{rest}`"),
                    _ => did_you_mean(&name.value, "timeouts", TIMEOUTS),
                };
                self.error(name.span, format!("there is no conntrack timeout {}", quoted(&name.value)), help);
            }
            if seconds.value == 0 || seconds.value > 31_536_000 {
                self.error(seconds.span, format!("{} is not a time in seconds", seconds.value), "write 1 to 31536000");
            }
            plan.push((name.value.clone(), seconds.value));
        }
        plan
    }
}

/// The pod prefix of node `index`: equal parts, skipping the first one, which contains the gateway.
pub(super) fn share(pods: Prefix, nodes: usize, index: usize) -> Option<Prefix> {
    let bits = u8::try_from((nodes + 1).next_power_of_two().trailing_zeros()).ok()?;
    let length = (pods.length() + bits).max(24);
    let size = 1_u128 << 32_u8.checked_sub(length)?;
    let start = pods.nth(size * (index as u128 + 1))?;
    Prefix::new(start, length).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_gets_24_bits_where_they_fit_and_the_incidents_addresses_come_out() {
        let pods: Prefix = "10.176.96.0/20".parse().unwrap();
        assert_eq!(share(pods, 2, 0).unwrap().to_string(), "10.176.97.0/24");
        assert_eq!(share(pods, 2, 1).unwrap().to_string(), "10.176.98.0/24");
        assert_eq!(share(pods, 15, 14).unwrap().to_string(), "10.176.111.0/24");
        assert_eq!(share(pods, 16, 0).unwrap().to_string(), "10.176.96.128/25");
        assert_eq!(share(pods, 64, 63).unwrap().to_string(), "10.176.104.0/27");
        let small: Prefix = "10.0.0.0/31".parse().unwrap();
        assert_eq!(share(small, 64, 0), None);
    }
}
