//! What the API server tells about a node and its pods, besides its pods and endpoints: told to the agent
//! of that node. In a lab there is none, and no detector waits for it.

use std::sync::Arc;

use relapse_detectors::signal::{CollectorKind, Observed, Sight};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;

use super::{Agent, TAKEN_AWAY};

/// Both come from one place.
const KINDS: [CollectorKind; 2] = [CollectorKind::Api, CollectorKind::PodLogs];

/// Hands on what is told, to each its own.
pub fn start(
    agents: &[Arc<Agent>],
    news: Option<UnboundedReceiver<(String, Observed)>>,
    without: Option<CollectorKind>,
    tasks: &mut JoinSet<()>,
) {
    let Some(mut news) = news else { return };
    let taken = KINDS.iter().any(|kind| Some(*kind) == without);
    let sight = if taken { Sight::Blind(TAKEN_AWAY.into()) } else { Sight::Ready };
    for agent in agents {
        KINDS.iter().for_each(|kind| agent.sight(*kind, sight.clone()));
    }
    if taken {
        return;
    }
    let agents = agents.to_vec();
    tasks.spawn(async move {
        while let Some((node, observed)) = news.recv().await {
            if let Some(agent) = agents.iter().find(|agent| *agent.node == *node) {
                agent.tell(observed);
            }
        }
    });
}
