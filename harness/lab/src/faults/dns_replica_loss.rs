//! Replicas of cluster DNS are lost, with every link intact (variant of I3).

use std::sync::Arc;

use relapse_detectors::signal::Endpoints;
use relapse_model::diagnostics::Span;
use relapse_model::spanned::Spanned;
use relapse_model::{PodId, Resolver};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::fault::wait_for;
use crate::fault::{Fault, FaultError, FaultSpec, InForce, Job, Look, UndoStack, Where, World, now};

/// Cluster DNS loses replicas, with every link intact.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DnsReplicaLossSpec {
    /// Replica to kill. Default: the first.
    pub replica: Option<Spanned<String>>,
    pub how: How,
}

/// How replicas are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// One replica's process dies.
    Killed,
    /// All replicas are scaled to zero.
    ScaledToZero,
}

/// The same, resolved.
#[derive(Debug)]
pub struct DnsReplicaLoss {
    /// The replicas that are lost.
    pub(crate) replicas: Vec<PodId>,
    pub(crate) how: How,
}

impl FaultSpec for DnsReplicaLossSpec {
    const EXAMPLE: &'static str = "{ how: killed }";
    const LOOK: &'static [Look] = &[
        (Where::Pod, "cat /etc/resolv.conf; getent hosts example-api.com"),
        (Where::Pod, "tcpdump -lni any port 53"),
        (Where::Node, "nft list ruleset"),
    ];

    fn plan(&self, at: Span, resolver: &mut Resolver<'_>) -> Option<Box<dyn Fault>> {
        let all = resolver.needs_dns(at)?;
        let replicas = match (&self.replica, self.how) {
            (None, How::Killed) => all.first().copied().into_iter().collect(),
            (Some(name), How::Killed) => vec![resolver.dns_replica(name)?],
            (None, How::ScaledToZero) => all,
            (Some(name), How::ScaledToZero) => {
                resolver.error(name.span, "scaling to zero loses every replica", "leave `replica` out");
                return None;
            }
        };
        Some(Box::new(DnsReplicaLoss { replicas, how: self.how }))
    }
}

// The mutation.

impl Fault for DnsReplicaLoss {
    fn inject<'a>(&'a self, world: &'a World, undo: &'a mut UndoStack) -> Job<'a, Result<InForce, FaultError>> {
        Box::pin(async move {
            let cluster = &world.cluster;
            let t0 = now();
            for id in &self.replicas {
                let (home, id, how) = (Arc::clone(cluster), *id, self.how);
                undo.push(format!("restart replica {}", cluster.pod(id).name), move || match how {
                    How::Killed => wait_for(home.set_running(id, true)),
                    How::ScaledToZero => wait_for(home.restore_pod(id)),
                });
                match self.how {
                    How::Killed => cluster.set_running(id, false).await?,
                    How::ScaledToZero => cluster.delete_pod(id).await?,
                }
            }
            let inventory = cluster.inventory().borrow().clone();
            let t1 = now();
            let lost: Vec<_> = self.replicas.iter().map(|id| cluster.pod(*id).name.clone()).collect();
            let ready = |service: &Endpoints| service.ready.iter().any(|endpoint| lost.contains(&endpoint.pod));
            if inventory.services.iter().any(ready) {
                return Err(FaultError::NotInForce {
                    what: format!("lose {}", lost.join(", ")),
                    read_back: "still ready".into(),
                });
            }
            Ok(InForce {
                t0,
                t1,
                what: format!(
                    "{} {}",
                    lost.join(", "),
                    if self.how == How::Killed { "killed" } else { "scaled to zero" }
                ),
                read_back: "no longer an endpoint".into(),
                reduced: None,
            })
        })
    }
}
