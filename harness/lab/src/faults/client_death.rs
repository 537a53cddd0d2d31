//! A client dies in the middle of a download, small segments and all: benign (twin of I1).

use relapse_model::diagnostics::Span;
use relapse_model::spanned::Spanned;
use relapse_model::{FlowId, OfficeId, Place, Resolver};
use schemars::JsonSchema;
use serde::Deserialize;

use super::drop_all;
use crate::fault::{Fault, FaultError, FaultSpec, InForce, Job, Look, UnderWay, UndoStack, World, now};

/// An office's client dies in the middle of one flow's download.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientDeathSpec {
    pub office: Spanned<String>,
    /// A flow from that office.
    pub flow: Spanned<String>,
}

/// The same, resolved.
#[derive(Debug)]
pub struct ClientDeath {
    pub(crate) office: OfficeId,
    pub(crate) flow: FlowId,
}

impl FaultSpec for ClientDeathSpec {
    const EXAMPLE: &'static str = "{ office: beijing, flow: web }";
    const LOOK: &'static [Look] = super::mss_clamp::MssClampSpec::LOOK;

    fn plan(&self, _at: Span, resolver: &mut Resolver<'_>) -> Option<Box<dyn Fault>> {
        let (office, flow) = (resolver.office(&self.office), resolver.flow(&self.flow));
        let (office, flow) = (office?, flow?);
        if resolver.workload[flow.0].from != Place::Office(office) {
            let message = format!("flow `{}` does not come from office `{}`", self.flow.value, self.office.value);
            resolver.error(self.flow.span, message, "name a flow of that office");
        }
        Some(Box::new(ClientDeath { office, flow }))
    }
}

// The mutation.

impl Fault for ClientDeath {
    fn inject<'a>(&'a self, world: &'a World, undo: &'a mut UndoStack) -> Job<'a, Result<InForce, FaultError>> {
        Box::pin(async move {
            let client = world.cluster.office(self.office).client.clone();
            world.until(self.flow, UnderWay::Some, "stop a client in the middle of a download").await?;
            let home = client.clone();
            undo.push(format!("stop dropping packets of {}", client.name()), move || drop_all::lift(&home, None));
            let t0 = now();
            let read_back = drop_all::impose(&client)?;
            Ok(InForce {
                t0,
                t1: now(),
                what: format!("{} neither sends nor receives", client.name()),
                read_back,
                reduced: None,
            })
        })
    }
}
