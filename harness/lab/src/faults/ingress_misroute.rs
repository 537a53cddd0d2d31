//! W3: the configuration of an ingress controller sends to a port of the back end's Service at which nothing listens.

use std::sync::Arc;

use relapse_model::diagnostics::{Span, quoted};
use relapse_model::spanned::Spanned;
use relapse_model::{PodId, PodRole, Resolver};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::fault::{Fault, FaultError, FaultSpec, InForce, Job, Look, UndoStack, Where, World, now, wait_for};

/// An ingress sends to another port of its Service.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IngressMisrouteSpec {
    /// Name of the ingress pod.
    pub ingress: Spanned<String>,
    /// Port that nothing serves.
    #[schemars(range(min = 1))]
    pub port: Spanned<u16>,
}

/// The same, resolved.
#[derive(Debug)]
pub struct IngressMisroute {
    pub(crate) ingress: PodId,
    pub(crate) port: u16,
}

impl FaultSpec for IngressMisrouteSpec {
    const EXAMPLE: &'static str = "{ ingress: ingress, port: 8081 }";
    const LOOK: &'static [Look] = &[(Where::Node, "ss -tn state syn-sent; tcpdump -lni any 'tcp[13] & 6 != 0'")];

    fn plan(&self, _at: Span, resolver: &mut Resolver<'_>) -> Option<Box<dyn Fault>> {
        let (ingress, right) = ingress(resolver, &self.ingress)?;
        if self.port.value == right {
            let message = format!("{} sends to port {right} already", quoted(&self.ingress));
            resolver.error(self.port.span, message, "write a port that nothing serves");
        }
        Some(Box::new(IngressMisroute { ingress, port: self.port.value }))
    }
}

/// The ingress with this name, and the port to which it sends.
pub(super) fn ingress(resolver: &mut Resolver<'_>, name: &Spanned<String>) -> Option<(PodId, u16)> {
    let id = resolver.pod(name)?;
    let PodRole::Ingress { port, .. } = resolver.cluster.pods[id.0].role else {
        let help = "name a pod that has `ingress: { service: NAME }`";
        resolver.error(name.span, format!("{} is not an ingress", quoted(name)), help);
        return None;
    };
    Some((id, port))
}

// The mutation.

impl Fault for IngressMisroute {
    fn inject<'a>(&'a self, world: &'a World, undo: &'a mut UndoStack) -> Job<'a, Result<InForce, FaultError>> {
        Box::pin(async move { configure(world, undo, self.ingress, self.port).await })
    }
}

/// Makes an ingress send to this port of its Service, and reads its configuration back.
pub(super) async fn configure(
    world: &World,
    undo: &mut UndoStack,
    id: PodId,
    port: u16,
) -> Result<InForce, FaultError> {
    let cluster = Arc::clone(&world.cluster);
    let name = &cluster.plan().pods[id.0].name;
    let (before, home) = (cluster.ingress_port(id)?, Arc::clone(&cluster));
    if before != port {
        undo.push(format!("restore the configuration of {name}"), move || wait_for(home.configure_ingress(id, before)));
    }
    let t0 = now();
    cluster.configure_ingress(id, port).await?;
    let found = cluster.ingress_port(id)?;
    let t1 = now();
    let what = format!("{name} sends to port {port} of its Service");
    let read_back = format!("port {found}");
    if found != port {
        return Err(FaultError::NotInForce { what, read_back });
    }
    Ok(InForce { t0, t1, what, read_back, reduced: None })
}
