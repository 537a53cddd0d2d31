//! Pods of the node and endpoints of Services, as reported by the kubelet and the API.

use std::sync::Arc;

use relapse_detectors::signal::{Change, CollectorKind, Pod};
use tokio::task::JoinSet;

use super::{Agent, CollectorInfo};
use crate::cluster::{Inventory, PodEntry};

pub const COLLECTORS: &[CollectorInfo] = &[CollectorInfo::on_each_node(&[CollectorKind::Inventory], start)];

fn start(agent: &Arc<Agent>, tasks: &mut JoinSet<()>) -> relapse_kernel::Result<()> {
    let mut inventory = agent.inventory.clone();
    let mut known = inventory.borrow_and_update().clone();
    let nothing = Inventory::default();
    emit_difference(agent, &nothing, &known, Change::Present);
    let agent = Arc::clone(agent);
    tasks.spawn(async move {
        while inventory.changed().await.is_ok() {
            let now = inventory.borrow_and_update().clone();
            emit_difference(&agent, &known, &now, Change::Added);
            known = now;
        }
    });
    Ok(())
}

fn emit_difference(agent: &Agent, before: &Inventory, after: &Inventory, appeared: Change) {
    let mine = |pod: &&PodEntry| *pod.node == *agent.node;
    let pod = |entry: &PodEntry, change| Pod {
        change,
        name: entry.name.clone(),
        address: entry.address,
        link: entry.link.clone(),
    };
    for gone in before.pods.iter().filter(mine).filter(|pod| !after.pods.contains(pod)) {
        agent.emit(pod(gone, Change::Removed));
    }
    for new in after.pods.iter().filter(mine).filter(|pod| !before.pods.contains(pod)) {
        agent.emit(pod(new, appeared));
    }
    for service in after.services.iter().filter(|service| !before.services.contains(service)) {
        agent.emit(service.clone());
    }
}
