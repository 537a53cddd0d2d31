//! A pod behind a Service is replaced by another, which has another address: benign as long as every node learns of it.

use std::sync::Arc;

use relapse_model::diagnostics::Span;
use relapse_model::spanned::Spanned;
use relapse_model::{ClusterPlan, PodId, Resolver, ServiceId};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::cluster::Cluster;
use crate::fault::wait_for;
use crate::fault::{Fault, FaultError, FaultSpec, InForce, Job, Look, UndoStack, World, now};

/// A pod behind a Service is replaced by another, which is no endpoint before.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EndpointReplacedSpec {
    /// The pod that is deleted.
    pub pod: Spanned<String>,
    /// Another pod behind the same Service, which becomes its endpoint.
    pub by: Spanned<String>,
}

/// The same, resolved.
#[derive(Debug, Clone, Copy)]
pub struct EndpointReplaced {
    pub(crate) service: ServiceId,
    pub(crate) pod: PodId,
    pub(crate) by: PodId,
}

impl EndpointReplacedSpec {
    pub(super) fn resolve(&self, resolver: &mut Resolver<'_>) -> Option<EndpointReplaced> {
        let (pod, by) = (resolver.pod(&self.pod), resolver.pod(&self.by));
        let (pod, by) = (pod?, by?);
        if pod == by {
            resolver.error(self.by.span, "a pod cannot replace itself", "name another pod behind the same Service");
            return None;
        }
        let of_both = |pods: &[PodId]| pods.contains(&pod) && pods.contains(&by);
        let Some(service) = resolver.cluster.services.iter().position(|service| of_both(&service.pods)) else {
            let message = format!("`{}` and `{}` are not behind one Service", self.pod.value, self.by.value);
            resolver.error(self.by.span, message, "list both in the `pods` of a Service");
            return None;
        };
        Some(EndpointReplaced { service: ServiceId(service), pod, by })
    }
}

impl FaultSpec for EndpointReplacedSpec {
    const EXAMPLE: &'static str = "{ pod: a, by: b }";
    const LOOK: &'static [Look] = super::service_rules_loss::LOOK;

    fn plan(&self, _at: Span, resolver: &mut Resolver<'_>) -> Option<Box<dyn Fault>> {
        Some(Box::new(self.resolve(resolver)?))
    }
}

// The mutation.

impl EndpointReplaced {
    /// Puts the old pod back as it was, and the new one out of the Service.
    pub(super) fn undo(self, cluster: &Arc<dyn Cluster>, undo: &mut UndoStack) {
        let home = Arc::clone(cluster);
        undo.push(format!("put pod {} back", cluster.plan().pods[self.pod.0].name), move || {
            wait_for(home.restore_pod(self.pod))?;
            wait_for(home.set_endpoint(self.pod, true))?;
            wait_for(home.set_endpoint(self.by, false))
        });
    }

    /// Replaces it as a Deployment does: the new pod becomes an endpoint, the old one is no endpoint any more, and is
    /// deleted. Returns what the API then lists.
    pub(super) async fn replace(self, cluster: &dyn Cluster) -> Result<String, FaultError> {
        cluster.set_endpoint(self.by, true).await?;
        cluster.set_endpoint(self.pod, false).await?;
        cluster.delete_pod(self.pod).await?;
        let service = cluster.inventory().borrow().services[self.service.0].clone();
        let ready: Vec<_> = service.ready.iter().map(|e| format!("{} ({})", e.pod, e.address)).collect();
        let names = [self.pod, self.by].map(|id| &cluster.plan().pods[id.0].name);
        let is = |name: &String| service.ready.iter().any(|endpoint| endpoint.pod == *name);
        if is(names[0]) || !is(names[1]) {
            let what = format!("replace {} by {}", names[0], names[1]);
            return Err(FaultError::NotInForce { what, read_back: ready.join(", ") });
        }
        Ok(format!("endpoints of {}: {}", service.service, ready.join(", ")))
    }
}

impl Fault for EndpointReplaced {
    fn changes(&self, cluster: &ClusterPlan) -> Vec<String> {
        vec![format!("the endpoints of service/{}", cluster.services[self.service.0].name)]
    }

    fn prepare<'a>(&'a self, cluster: &'a dyn Cluster) -> Job<'a, Result<(), FaultError>> {
        cluster.set_endpoint(self.by, false)
    }

    fn inject<'a>(&'a self, world: &'a World, undo: &'a mut UndoStack) -> Job<'a, Result<InForce, FaultError>> {
        Box::pin(async move {
            let names = [self.pod, self.by].map(|id| &world.cluster.plan().pods[id.0].name);
            self.undo(&world.cluster, undo);
            let t0 = now();
            let read_back = self.replace(world.cluster.as_ref()).await?;
            let what = format!("{} replaced by {}", names[0], names[1]);
            Ok(InForce { t0, t1: now(), what, read_back, reduced: None })
        })
    }
}
