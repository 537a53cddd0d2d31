//! A pod is deleted, and with it its rules, its route and its veth: benign (twin of I3 and I4).

use std::sync::Arc;

use relapse_kernel::link;
use relapse_model::diagnostics::Span;
use relapse_model::spanned::Spanned;
use relapse_model::{PodId, Resolver};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::fault::wait_for;
use crate::fault::{Fault, FaultError, FaultSpec, InForce, Job, Look, UndoStack, Where, World, now};

/// A pod is deleted, as the kubelet and the CNI do it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodDeletionSpec {
    pub pod: Spanned<String>,
}

/// The same, resolved.
#[derive(Debug)]
pub struct PodDeletion {
    pub(crate) pod: PodId,
}

impl FaultSpec for PodDeletionSpec {
    const EXAMPLE: &'static str = "{ pod: b }";
    const LOOK: &'static [Look] = &[(Where::Node, "ip rule; ip -br link")];

    fn plan(&self, _at: Span, resolver: &mut Resolver<'_>) -> Option<Box<dyn Fault>> {
        let pod = resolver.pod(&self.pod)?;
        resolver.has_link(&self.pod, pod);
        Some(Box::new(PodDeletion { pod }))
    }
}

// The mutation.

impl Fault for PodDeletion {
    fn inject<'a>(&'a self, world: &'a World, undo: &'a mut UndoStack) -> Job<'a, Result<InForce, FaultError>> {
        Box::pin(async move {
            let cluster = Arc::clone(&world.cluster);
            let pod = cluster.pod(self.pod);
            let ns = cluster.node(cluster.plan().pods[self.pod.0].node).ns.clone();
            let (home, id) = (Arc::clone(&cluster), self.pod);
            undo.push(format!("restore pod {}", pod.name), move || wait_for(home.restore_pod(id)));
            let t0 = now();
            cluster.delete_pod(self.pod).await?;
            let left = link::find(&ns, &pod.link)?;
            let t1 = now();
            if let Some(link) = left {
                return Err(FaultError::NotInForce {
                    what: format!("delete pod {}", pod.name),
                    read_back: format!("{link:?}"),
                });
            }
            Ok(InForce {
                t0,
                t1,
                what: format!("pod {} deleted with its rules and its veth {}", pod.name, pod.link),
                read_back: format!("{} is gone", pod.link),
                reduced: None,
            })
        })
    }
}
