//! A node's kube-proxy stops, and the node never learns of new endpoints (W2).
//!
//! With `restartAfter` it runs again after a while and writes what it has missed, as when its pod is updated.

use std::sync::Arc;
use std::time::Duration;

use relapse_model::diagnostics::Span;
use relapse_model::spanned::Spanned;
use relapse_model::values;
use relapse_model::{ClusterPlan, NodeId, Resolver};
use schemars::JsonSchema;
use serde::Deserialize;

use super::endpoint_replaced::{EndpointReplaced, EndpointReplacedSpec};
use crate::cluster::Cluster;
use crate::fault::wait_for;
use crate::fault::{Fault, FaultError, FaultSpec, InForce, Job, Look, UndoStack, World, now};

/// A node's kube-proxy stops. Its rules stay as they are.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KubeProxyStoppedSpec {
    pub node: Spanned<String>,
    /// Time after which it runs again. Default: never.
    pub restart_after: Option<Spanned<values::Duration>>,
    /// A pod behind a Service that is then replaced by another.
    pub replaced: Option<EndpointReplacedSpec>,
}

/// The same, resolved.
#[derive(Debug)]
pub struct KubeProxyStopped {
    pub(crate) node: NodeId,
    pub(crate) restart_after: Option<Duration>,
    pub(crate) replaced: Option<EndpointReplaced>,
}

impl FaultSpec for KubeProxyStoppedSpec {
    const EXAMPLE: &'static str = "{ node: worker-1, restartAfter: 1s, replaced: { pod: a, by: b } }";
    const LOOK: &'static [Look] = super::service_rules_loss::LOOK;

    fn plan(&self, _at: Span, resolver: &mut Resolver<'_>) -> Option<Box<dyn Fault>> {
        let node = resolver.node(&self.node);
        let restart_after = self.restart_after.as_ref().map(|d| resolver.duration("restartAfter", d));
        let replaced = self.replaced.as_ref().map(|replaced| replaced.resolve(resolver));
        Some(Box::new(KubeProxyStopped {
            node: node?,
            restart_after: match restart_after {
                Some(duration) => Some(duration?),
                None => None,
            },
            replaced: match replaced {
                Some(replaced) => Some(replaced?),
                None => None,
            },
        }))
    }
}

// The mutation.

impl Fault for KubeProxyStopped {
    fn changes(&self, cluster: &ClusterPlan) -> Vec<String> {
        let own = format!("kube-proxy of node/{}", cluster.nodes[self.node.0].name);
        std::iter::once(own).chain(self.replaced.iter().flat_map(|replaced| replaced.changes(cluster))).collect()
    }

    fn prepare<'a>(&'a self, cluster: &'a dyn Cluster) -> Job<'a, Result<(), FaultError>> {
        match &self.replaced {
            Some(replaced) => replaced.prepare(cluster),
            None => Box::pin(async { Ok(()) }),
        }
    }

    fn inject<'a>(&'a self, world: &'a World, undo: &'a mut UndoStack) -> Job<'a, Result<InForce, FaultError>> {
        Box::pin(async move {
            let (cluster, node) = (&world.cluster, self.node);
            let at = &cluster.plan().nodes[node.0].name;
            let mut what = format!("kube-proxy of {at} stopped");
            // Undone last: first kube-proxy runs again and writes what it has missed.
            if let Some(replaced) = self.replaced {
                replaced.undo(cluster, undo);
            }
            let home = Arc::clone(cluster);
            undo.push(format!("run kube-proxy of {at}"), move || wait_for(home.run_kube_proxy(node, true)));
            let t0 = now();
            cluster.run_kube_proxy(node, false).await?;
            let mut t1 = now();
            let mut read_back = "it does not run".to_owned();
            if let Some(span) = self.restart_after {
                // Part of the twin: the time until it runs again.
                tokio::time::sleep(span).await;
                cluster.run_kube_proxy(node, true).await?;
                what = format!("{what} and started again");
            }
            if let Some(replaced) = self.replaced {
                let before = cluster.service_rules(node, replaced.service).await?;
                let endpoints = replaced.replace(cluster.as_ref()).await?;
                let after = cluster.service_rules(node, replaced.service).await?;
                let names = [replaced.pod, replaced.by].map(|id| &cluster.plan().pods[id.0].name);
                read_back = format!("{endpoints}; rules of {at}: {}", after.join(", "));
                what = format!("{what}; then {} replaced by {}", names[0], names[1]);
                if (before == after) != self.restart_after.is_none() {
                    return Err(FaultError::NotInForce { what, read_back });
                }
                if self.restart_after.is_none() {
                    t1 = now();
                }
            }
            Ok(InForce { t0, t1, what, read_back, reduced: None })
        })
    }
}
