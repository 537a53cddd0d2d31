//! Entries to Services from outside: node ports, and load balancers outside that forward to them.

use std::collections::HashMap;

use relapse_lab::cluster::node_network::NODE_PORT_PRIORITY;

use super::Planner;
use crate::scenario::cluster::{Outside, Service};

impl Planner<'_> {
    /// Checks the node ports of Services.
    pub(super) fn plan_node_ports(&mut self, services: &[Service]) {
        let mut taken: HashMap<u16, &str> = HashMap::new();
        for service in services {
            let name = &*service.name.0;
            let Some(port) = service.node_port else {
                if let Some(policy) = service.external_traffic_policy {
                    let message = "`externalTrafficPolicy` is that of a node port, and there is none";
                    self.error(policy.span, message, "add `nodePort: 30080`, or leave `externalTrafficPolicy` out");
                }
                continue;
            };
            let rules = self.cluster.network.from_rule_priority;
            if rules <= NODE_PORT_PRIORITY {
                let message = format!(
                    "node ports need rules before those of pods, at {NODE_PORT_PRIORITY}, and `fromRulePriority` is {rules}"
                );
                self.error(port.span, message, format!("write a `fromRulePriority` above {NODE_PORT_PRIORITY}"));
            }
            if service.ports.as_ref().is_some_and(|ports| ports.len() > 1) {
                let message = format!("Service `{name}` has several ports, and one node port");
                self.error(port.span, message, "give a Service of its own to the port that nodes forward to");
            }
            match taken.get(&port.value) {
                Some(other) => {
                    let message = format!("node port {} belongs to Service `{other}`", port.value);
                    self.error(port.span, message, "choose another for one of them");
                }
                None => {
                    taken.insert(port.value, name);
                }
            }
        }
    }

    /// Resolves the Services of load balancers outside.
    pub(super) fn plan_balancers(&mut self, hosts: &[Outside]) {
        for (number, host) in hosts.iter().enumerate() {
            let Some(balances) = &host.balances else { continue };
            let other = [("server", host.server.is_some()), ("loadBalancer", host.load_balancer)];
            if let Some((key, _)) = other.iter().find(|(_, given)| *given) {
                let message = format!("`{}` balances a Service, and has a `{key}`", host.name.0);
                self.error(balances.span, message, format!("leave `balances` or `{key}` out"));
            }
            let Some(service) = self.service(balances) else { continue };
            if self.cluster.services[service.0].node_port.is_none() {
                let message = format!("Service `{}` has no node port to forward to", balances.value);
                self.error(balances.span, message, "add `nodePort: 30080` to the Service");
            }
            self.cluster.outside[number].balances = Some(service);
        }
    }
}
