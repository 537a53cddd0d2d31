//! Step 1, nodes and pods: connection tables, pod NICs, conditions and containers; their load as evidence.
//!
//! It explains only by nodes and pods that the access crosses once its names are resolved. Cluster DNS's own nodes
//! contribute.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::access::Outcome;
use super::{Ask, Look, Step, fresh};
use crate::finding::Subject;
use crate::operator::Operator;
use crate::signal::{
    Change, ConntrackStats, ConntrackTable, Container, ContainerState, Endpoint, Link, NodeCondition, NodeLoad,
    Observed, Signal,
};
use crate::time::Time;

/// Per mille of the limit from which a growing `drop` means a full table, and from which the table itself is full.
const NEAR: u128 = 800;
const FULL: u128 = 980;
/// Per mille of the memory below which a node has none left.
const NO_MEMORY: u64 = 10;

#[derive(Debug, Default)]
pub(super) struct Nodes {
    nodes: BTreeMap<Arc<str>, Node>,
    /// Containers by pod.
    containers: BTreeMap<String, BTreeMap<String, Kept>>,
    /// Nodes of cluster DNS, those of the last endpoints that there were.
    dns_nodes: BTreeSet<String>,
}

#[derive(Debug)]
struct Kept {
    at: Time,
    node: Arc<str>,
    container: Container,
    /// When it was last seen not running.
    down: Option<Time>,
}

#[derive(Debug, Default)]
struct Node {
    table: Option<ConntrackTable>,
    stats: Option<ConntrackStats>,
    /// When the table was last seen full or dropping flows.
    full: Option<Time>,
    dropped: u64,
    nic: Option<Link>,
    /// Conditions that are not as they should be.
    conditions: BTreeMap<String, NodeCondition>,
    load: Option<NodeLoad>,
    seen: Time,
}

impl Node {
    fn table(&mut self, at: Time, table: ConntrackTable) {
        self.table = Some(table);
        if table.share_of(1000) >= FULL {
            self.full = Some(at);
        }
    }

    fn stats(&mut self, at: Time, stats: ConntrackStats) {
        let Some(before) = self.stats.replace(stats) else { return };
        let drops = stats.since(&before).drop;
        if drops > 0 && self.table.is_none_or(|table| table.share_of(1000) >= NEAR) {
            self.dropped += drops;
            self.full = Some(at);
        }
    }

    /// What is wrong with it.
    fn trouble(&self, name: &str, operator: &Operator, now: Time) -> Option<String> {
        if fresh(self.full, now) {
            let table = self.table.map_or_else(String::new, |table| format!(", limit {}", table.effective_limit()));
            return Some(format!("{name}: connection table full{table}, new flows are dropped"));
        }
        if self.nic.as_ref().is_some_and(|nic| !nic.is_usable()) {
            return Some(format!("{name}: {} is gone or down", operator.pod_nic));
        }
        if let Some(condition) = self.conditions.values().next() {
            return Some(format!("{name}: {} is {} ({})", condition.condition, condition.status, condition.reason));
        }
        let load = self.load.as_ref().filter(|load| load.memory_available * 1000 < load.memory_total * NO_MEMORY);
        load.map(|load| format!("{name}: {} MiB of memory left", load.memory_available >> 20))
    }

    /// Evidence that it is in order.
    fn proof(&self, name: &str, now: Time) -> Option<String> {
        let table = self.table.filter(|_| fresh(Some(self.seen), now));
        table.map(|table| format!("{name}: {} of {} connections", table.count, table.effective_limit()))
    }
}

impl Nodes {
    /// The pod's container that does not run, and why.
    fn crashed(&self, pod: &str, now: Time) -> Option<String> {
        self.containers.get(pod)?.values().find_map(|kept| {
            let Container { container, state, restarts, .. } = &kept.container;
            let state = match state {
                ContainerState::Waiting { reason } if reason != "ContainerCreating" => reason.clone(),
                ContainerState::Terminated { reason, exit_code } if *exit_code != 0 => {
                    format!("{reason}, exit code {exit_code}")
                }
                ContainerState::Running if *restarts > 0 && fresh(kept.down, now) => "restarted".to_owned(),
                _ => return None,
            };
            Some(format!("{pod} on {}: container {container} {state}, {restarts} restarts", kept.node))
        })
    }
}

impl Step for Nodes {
    fn observe(&mut self, operator: &Operator, signal: &Signal) {
        let at = signal.at;
        let mut on = |change: &mut dyn FnMut(&mut Node)| {
            let node = self.nodes.entry(Arc::clone(&signal.node)).or_default();
            node.seen = node.seen.max(at);
            change(node);
        };
        match &signal.observed {
            Observed::ConntrackTable(table) => on(&mut |node| node.table(at, *table)),
            Observed::ConntrackStats(stats) => on(&mut |node| node.stats(at, *stats)),
            Observed::Link(link) if link.name == operator.pod_nic => on(&mut |node| node.nic = Some(link.clone())),
            Observed::NodeLoad(load) => on(&mut |node| node.load = Some(load.clone())),
            Observed::NodeCondition(condition) => on(&mut |node| {
                let good = if condition.condition == "Ready" { "True" } else { "False" };
                if condition.status == good {
                    node.conditions.remove(&condition.condition);
                } else {
                    node.conditions.insert(condition.condition.clone(), condition.clone());
                }
            }),
            Observed::Container(container) => {
                let (pod, name) = (container.pod.clone(), container.container.clone());
                let of_pod = self.containers.entry(pod).or_default();
                let before = of_pod.get(&name).filter(|before| before.at <= at).and_then(|before| before.down);
                let down = if container.state == ContainerState::Running { before } else { Some(at) };
                of_pod.insert(name, Kept { at, node: Arc::clone(&signal.node), container: container.clone(), down });
            }
            Observed::Pod(pod) if pod.change == Change::Removed => {
                self.containers.remove(&pod.name);
            }
            Observed::Endpoints(list) if list.service == operator.dns_service && !list.ready.is_empty() => {
                self.dns_nodes = list.ready.iter().map(|Endpoint { node, .. }| node.clone()).collect();
            }
            _ => {}
        }
    }

    fn look(&self, ask: &Ask<'_>) -> Look {
        let (mut proofs, mut unseen) = (BTreeSet::new(), false);
        let outcome = ask.outcome;
        for leg in &ask.access.legs {
            for end in leg.to.iter().chain(&leg.from) {
                let Some(pod) = end.place.strip_prefix("pod/") else { continue };
                if let Some(what) = self.crashed(pod, ask.now) {
                    let explains = !matches!(outcome, Outcome::Slow(_) | Outcome::NameError);
                    return Look::faulty(Subject::pod(pod), what).explains_if(explains);
                }
            }
            for name in leg.nodes() {
                let Some(node) = self.nodes.get(name) else {
                    unseen = true;
                    continue;
                };
                if let Some(what) = node.trouble(name, ask.operator, ask.now) {
                    let explains = match outcome {
                        Outcome::Status(_) => outcome.is_gateway(),
                        Outcome::Refused => false,
                        _ => true,
                    };
                    // A missing NIC matters to what leaves the node by it.
                    let stays = leg.nodes().all(|other| other == name) && leg.to.iter().all(|end| end.node.is_some());
                    let is_full = fresh(node.full, ask.now);
                    let local_dns = leg.to.is_empty() && self.dns_nodes.contains(name);
                    let explains = explains && (is_full || !stays && !local_dns);
                    if explains {
                        return Look::faulty(Subject::node(name), what).explains_if(true);
                    }
                }
                match node.proof(name, ask.now) {
                    Some(proof) => drop(proofs.insert(proof)),
                    None => unseen = true,
                }
            }
        }
        let dns = ask.access.legs.iter().filter_map(|leg| leg.lookup.as_ref());
        let uses_dns = dns.clone().any(|lookup| lookup.resolver == ask.operator.dns_address);
        let crossed: BTreeSet<&str> = ask.access.legs.iter().flat_map(|leg| leg.nodes()).collect();
        let of_dns = self.dns_nodes.iter().map(String::as_str).filter(|_| uses_dns);
        for name in crossed.into_iter().chain(of_dns) {
            let Some(node) = self.nodes.get(name) else { continue };
            if let Some(what) = node.trouble(name, ask.operator, ask.now) {
                return Look::faulty(Subject::node(name), what);
            }
        }
        match proofs.is_empty() || unseen {
            true => Look::not_seen("no agent reports from every node of the way"),
            false => Look::in_order(proofs.into_iter().collect::<Vec<_>>().join("; ")),
        }
    }
}
