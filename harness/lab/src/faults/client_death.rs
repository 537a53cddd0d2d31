//! A client dies in the middle of a download, small segments and all: benign (twin of I1).

use schemars::JsonSchema;
use serde::Deserialize;
use relapse_model::diagnostics::Span;
use relapse_model::spanned::Spanned;
use relapse_model::{FlowId, OfficeId, Place, Resolver};

use super::drop_all;
use crate::fault::{Fault, FaultError, FaultSpec, InForce, Job, UndoStack, World, now, Look};

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
            // It dies in the middle of a download.
            let flow = &world.flows[self.flow.0].1;
            let patience = tokio::time::Instant::now() + std::time::Duration::from_secs(2);
            while flow.under_way() == 0 && tokio::time::Instant::now() < patience {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            let home = client.clone();
            undo.push(format!("{} lives again", client.name()), move || drop_all::lift(&home));
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
