//! Cluster DNS is scaled up by one replica, on a given node: how I3 was healed before its NIC came back.

use std::sync::Arc;
use std::time::Duration;

use relapse_detectors::time::limit;
use relapse_model::diagnostics::Span;
use relapse_model::spanned::Spanned;
use relapse_model::{PodId, Resolver};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::cluster::Inventory;
use crate::fault::{Fault, FaultError, FaultSpec, InForce, Job, Look, UndoStack, Where, World, now, wait_for};

/// Cluster DNS gets one more replica.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DnsReplicaAddedSpec {
    /// Node that runs it.
    pub node: Spanned<String>,
}

/// The same, resolved.
#[derive(Debug)]
pub struct DnsReplicaAdded {
    pub(crate) replica: PodId,
}

impl FaultSpec for DnsReplicaAddedSpec {
    const EXAMPLE: &'static str = "{ node: worker-1 }";
    const LOOK: &'static [Look] =
        &[(Where::Pod, "cat /etc/resolv.conf; getent hosts example-api.com"), (Where::Node, "nft list ruleset")];

    fn plan(&self, at: Span, resolver: &mut Resolver<'_>) -> Option<Box<dyn Fault>> {
        let node = resolver.node(&self.node)?;
        Some(Box::new(DnsReplicaAdded { replica: resolver.spare_replica(at, node)? }))
    }
}

// The mutation.

/// Time within which a running replica must become a ready endpoint.
const READY_WITHIN: Duration = Duration::from_secs(10);

impl Fault for DnsReplicaAdded {
    fn inject<'a>(&'a self, world: &'a World, undo: &'a mut UndoStack) -> Job<'a, Result<InForce, FaultError>> {
        Box::pin(async move {
            let cluster = &world.cluster;
            let spec = &cluster.plan().pods[self.replica.0];
            let (home, id) = (Arc::clone(cluster), self.replica);
            undo.push(format!("remove replica {}", spec.name), move || wait_for(home.delete_pod(id)));
            let t0 = now();
            cluster.restore_pod(self.replica).await?;
            let is_ready = |inventory: &Inventory| {
                inventory.services.iter().flat_map(|service| &service.ready).any(|endpoint| endpoint.pod == spec.name)
            };
            let mut inventory = cluster.inventory();
            let ready = tokio::time::timeout(READY_WITHIN, inventory.wait_for(is_ready)).await;
            if !matches!(ready, Ok(Ok(_))) {
                let read_back = format!("no ready endpoint after {}", limit(READY_WITHIN));
                return Err(FaultError::NotInForce { what: format!("add replica {}", spec.name), read_back });
            }
            let node = &cluster.plan().nodes[spec.node.0].name;
            let what = format!("{} added on {node}", spec.name);
            Ok(InForce { t0, t1: now(), what, read_back: "a ready endpoint".into(), reduced: None })
        })
    }
}
