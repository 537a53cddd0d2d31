//! What the API server tells about a node and its pods, besides its pods and endpoints: told to the agent
//! of that node. In a lab there is none, and no detector waits for it.

use std::sync::Arc;

use relapse_detectors::signal::CollectorKind;
use tokio::task::JoinSet;

use super::{Agent, Armed, CollectorInfo, Opened, Start};

/// Both come from one place.
pub const COLLECTORS: &[CollectorInfo] =
    &[CollectorInfo { kinds: &[CollectorKind::Api, CollectorKind::PodLogs], start: Start::Once(start), trial: None }];

/// Hands on what is told, to each its own.
fn start(agents: &[Arc<Agent>], _: &Opened, tasks: &mut JoinSet<()>) -> Option<Armed> {
    let mut news = agents.first()?.cluster.news()?;
    let agents = agents.to_vec();
    tasks.spawn(async move {
        while let Some((node, observed)) = news.recv().await {
            if let Some(agent) = agents.iter().find(|agent| *agent.node == *node) {
                agent.tell(observed);
            }
        }
    });
    Some(Ok(()))
}
