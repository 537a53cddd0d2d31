//! Observations of the API server about a node and its pods, other than pods and endpoints, for the agent
//! of that node. In a lab they are the states of containers only.

use std::sync::Arc;

use relapse_detectors::signal::CollectorKind;
use tokio::task::JoinSet;

use super::{Agent, Armed, CollectorInfo, Opened, Start};

pub const COLLECTORS: &[CollectorInfo] =
    &[CollectorInfo { kinds: &[CollectorKind::Api], start: Start::Once(start), trial: None }];

/// Passes each observation on to the agent of its node.
fn start(agents: &[Arc<Agent>], _: &Opened, tasks: &mut JoinSet<()>) -> Option<Armed> {
    let mut observations = agents.first()?.cluster.news()?;
    let agents = agents.to_vec();
    tasks.spawn(async move {
        while let Some((node, observed)) = observations.recv().await {
            if let Some(agent) = agents.iter().find(|agent| *agent.node == *node) {
                agent.emit(observed);
            }
        }
    });
    Some(Ok(()))
}
