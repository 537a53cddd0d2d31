//! The pods of a Service are replaced one after the other, each new one ready before the old one ends: benign (twin of
//! W5).

use std::sync::Arc;
use std::time::Duration;

use relapse_detectors::time::limit;
use relapse_model::diagnostics::Span;
use relapse_model::spanned::Spanned;
use relapse_model::{Place, PodId, Resolver, values};
use schemars::JsonSchema;
use serde::Deserialize;

use super::served::port_of;
use crate::cluster::{Cluster, Inventory};
use crate::fault::{Fault, FaultError, FaultSpec, InForce, Job, Look, UndoStack, Where, World, now, wait_for};
use crate::workload::servers::running::Servers;

/// The pods of a Service are replaced one after the other, each new one ready before the old one ends.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RollingUpdateSpec {
    pub service: Spanned<String>,
    /// How long an old pod still answers when it is no endpoint any more, as with a `preStop` hook. Default 2s.
    pub drain: Option<Spanned<values::Duration>>,
}

/// The same, resolved.
#[derive(Debug)]
pub struct RollingUpdate {
    /// Old and new pods.
    pub(crate) pods: Vec<(PodId, PodId)>,
    pub(crate) drain: Duration,
}

/// Longer than kube-proxy takes to remove an endpoint.
const DRAIN: Duration = Duration::from_secs(2);

impl FaultSpec for RollingUpdateSpec {
    const EXAMPLE: &'static str = "{ service: shop, drain: 300ms }";
    const LOOK: &'static [Look] = &[(Where::Node, "nft list ruleset; ip -br link")];

    fn plan(&self, at: Span, resolver: &mut Resolver<'_>) -> Option<Box<dyn Fault>> {
        let drain = match &self.drain {
            Some(drain) => resolver.duration("drain", drain),
            None => Some(DRAIN),
        };
        let service = resolver.service(&self.service)?;
        let cluster = &resolver.cluster;
        let old = cluster.services[service.0].pods.iter().copied().filter(|pod| !cluster.is_spare(*pod));
        let mut pods = Vec::new();
        for pod in old.collect::<Vec<_>>() {
            port_of(resolver, self.service.span, pod, false)?;
            pods.push((pod, resolver.spare_pod(at, pod)?));
        }
        Some(Box::new(RollingUpdate { pods, drain: drain? }))
    }
}

// The mutation.

/// Time within which the endpoints follow a pod.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(10);

impl Fault for RollingUpdate {
    fn inject<'a>(&'a self, world: &'a World, undo: &'a mut UndoStack) -> Job<'a, Result<InForce, FaultError>> {
        Box::pin(async move {
            let t0 = now();
            for (old, new) in self.pods.iter().copied() {
                let (home, servers, drain) = (Arc::clone(&world.cluster), Arc::clone(&world.servers), self.drain);
                let name = home.pod(old).name;
                undo.push(format!("roll back to pod {name}"), move || {
                    wait_for(Box::pin(async move { replace(home.as_ref(), &servers, new, old, drain).await }))
                });
                replace(world.cluster.as_ref(), &world.servers, old, new, self.drain).await?;
            }
            let what = format!("{} pods replaced one after the other", self.pods.len());
            Ok(InForce { t0, t1: now(), what, read_back: "each new one was ready first".into(), reduced: None })
        })
    }
}

/// Puts one pod in the place of another.
async fn replace(
    cluster: &dyn Cluster,
    servers: &Servers,
    old: PodId,
    new: PodId,
    drain: Duration,
) -> Result<(), FaultError> {
    cluster.add_pod(new).await?;
    servers.start(Place::Pod(new))?;
    cluster.set_running(new, true).await?;
    until_ready(cluster, new, true).await?;
    cluster.set_running(old, false).await?;
    until_ready(cluster, old, false).await?;
    // Part of the twin: the pod's `preStop` hook.
    tokio::time::sleep(drain).await;
    servers.stop(Place::Pod(old)).await;
    cluster.delete_pod(old).await
}

/// Waits until a pod is a ready endpoint, or none.
async fn until_ready(cluster: &dyn Cluster, id: PodId, wanted: bool) -> Result<(), FaultError> {
    let name = &cluster.plan().pods[id.0].name;
    let is_it = |inventory: &Inventory| {
        let mut ready = inventory.services.iter().flat_map(|service| &service.ready);
        ready.any(|endpoint| endpoint.pod == *name) == wanted
    };
    let mut inventory = cluster.inventory();
    let followed = tokio::time::timeout(FOLLOWED_WITHIN, inventory.wait_for(is_it)).await;
    if matches!(followed, Ok(Ok(_))) {
        return Ok(());
    }
    let state = if wanted { "no endpoint yet" } else { "still an endpoint" };
    let read_back = format!("{state} after {}", limit(FOLLOWED_WITHIN));
    Err(FaultError::NotInForce { what: format!("replace pods: {name}"), read_back })
}
