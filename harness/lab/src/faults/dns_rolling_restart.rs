//! Cluster DNS is restarted one replica at a time: benign (twin of I3).

use std::sync::Arc;
use std::time::Duration;

use relapse_model::diagnostics::Span;
use relapse_model::spanned::Spanned;
use relapse_model::values;
use relapse_model::{PodId, Resolver};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::fault::wait_for;
use crate::fault::{Fault, FaultError, FaultSpec, InForce, Job, Look, UndoStack, World, now};

/// Cluster DNS is restarted one replica at a time.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DnsRollingRestartSpec {
    /// How long each replica is down, and how long the next one waits after its return.
    pub pause: Spanned<values::Duration>,
}

/// The same, resolved.
#[derive(Debug)]
pub struct DnsRollingRestart {
    pub(crate) replicas: Vec<PodId>,
    pub(crate) pause: Duration,
}

impl FaultSpec for DnsRollingRestartSpec {
    const EXAMPLE: &'static str = "{ pause: 300ms }";
    const LOOK: &'static [Look] = super::dns_replica_loss::DnsReplicaLossSpec::LOOK;

    fn plan(&self, at: Span, resolver: &mut Resolver<'_>) -> Option<Box<dyn Fault>> {
        let pause = resolver.duration("pause", &self.pause);
        let replicas = resolver.needs_dns(at)?;
        Some(Box::new(DnsRollingRestart { replicas, pause: pause? }))
    }
}

// The mutation.

impl Fault for DnsRollingRestart {
    fn inject<'a>(&'a self, world: &'a World, undo: &'a mut UndoStack) -> Job<'a, Result<InForce, FaultError>> {
        Box::pin(async move {
            let cluster = &world.cluster;
            let t0 = now();
            let mut t1 = t0;
            for id in &self.replicas {
                let (home, id) = (Arc::clone(cluster), *id);
                undo.push(format!("restart replica {}", cluster.pod(id).name), move || {
                    wait_for(home.set_running(id, true))
                });
                cluster.set_running(id, false).await?;
                let down = cluster
                    .inventory()
                    .borrow()
                    .services
                    .iter()
                    .all(|service| service.ready.iter().all(|endpoint| endpoint.pod != cluster.pod(id).name));
                if !down {
                    return Err(FaultError::NotInForce {
                        what: "restart a replica".into(),
                        read_back: "still ready".into(),
                    });
                }
                if t1 == t0 {
                    t1 = now();
                }
                // Part of the twin: the time a replica takes to come back.
                tokio::time::sleep(self.pause).await;
                cluster.set_running(id, true).await?;
                tokio::time::sleep(self.pause).await;
            }
            Ok(InForce {
                t0,
                t1,
                what: format!("{} replicas restarted one after another", self.replicas.len()),
                read_back: "each was down in turn".into(),
                reduced: None,
            })
        })
    }
}
