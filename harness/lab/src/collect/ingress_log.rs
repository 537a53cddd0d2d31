//! The logs of ingress controllers, each for the agent of its node.

use std::sync::Arc;

use relapse_detectors::signal::CollectorKind;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;

use super::{Agent, Armed, CollectorInfo, Opened, Start};

pub const COLLECTORS: &[CollectorInfo] =
    &[CollectorInfo { kinds: &[CollectorKind::IngressLog], start: Start::Once(start), trial: None }];

fn start(agents: &[Arc<Agent>], _: &Opened, tasks: &mut JoinSet<()>) -> Option<Armed> {
    let cluster = &agents.first()?.cluster;
    let mut log = cluster.ingress_log().follow();
    let agents = agents.to_vec();
    tasks.spawn(async move {
        loop {
            match log.recv().await {
                Ok(entry) => {
                    let plan = agents[0].cluster.plan();
                    let pod = plan.pods.iter().find(|pod| pod.name == entry.pod);
                    if let Some(agent) = pod.and_then(|pod| agents.get(pod.node.0)) {
                        agent.emit(entry);
                    }
                }
                Err(RecvError::Lagged(lost)) => {
                    let why = format!("{lost} requests lost: the log was read too slowly");
                    agents.iter().for_each(|agent| agent.lost(CollectorKind::IngressLog, &why));
                }
                Err(RecvError::Closed) => return,
            }
        }
    });
    Some(Ok(()))
}
