//! An ingress controller reloads the same configuration: benign (twin of W3).

use relapse_model::diagnostics::Span;
use relapse_model::spanned::Spanned;
use relapse_model::{PodId, Resolver};
use schemars::JsonSchema;
use serde::Deserialize;

use super::ingress_misroute::{IngressMisrouteSpec, configure, ingress};
use crate::fault::{Fault, FaultError, FaultSpec, InForce, Job, Look, UndoStack, World};

/// An ingress reloads its configuration.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IngressReloadSpec {
    /// Name of the ingress pod.
    pub ingress: Spanned<String>,
}

/// The same, resolved.
#[derive(Debug)]
pub struct IngressReload {
    pub(crate) ingress: PodId,
}

impl FaultSpec for IngressReloadSpec {
    const EXAMPLE: &'static str = "{ ingress: ingress }";
    const LOOK: &'static [Look] = IngressMisrouteSpec::LOOK;

    fn plan(&self, _at: Span, resolver: &mut Resolver<'_>) -> Option<Box<dyn Fault>> {
        let (ingress, _) = ingress(resolver, &self.ingress)?;
        Some(Box::new(IngressReload { ingress }))
    }
}

// The mutation.

impl Fault for IngressReload {
    fn inject<'a>(&'a self, world: &'a World, undo: &'a mut UndoStack) -> Job<'a, Result<InForce, FaultError>> {
        Box::pin(async move {
            let port = world.cluster.ingress_port(self.ingress)?;
            configure(world, undo, self.ingress, port).await
        })
    }
}
