//! A node's rules for a Service are written again as a whole, in one transaction: benign (twin of W1).

use relapse_model::diagnostics::Span;
use relapse_model::spanned::Spanned;
use relapse_model::{NodeId, Resolver, ServiceId};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::cluster::ServiceRules;
use crate::fault::{Fault, FaultError, FaultSpec, InForce, Job, Look, UndoStack, World, now};

/// A node's rules for a Service are written again as a whole.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceRulesRewriteSpec {
    pub node: Spanned<String>,
    pub service: Spanned<String>,
}

/// The same, resolved.
#[derive(Debug)]
pub struct ServiceRulesRewrite {
    pub(crate) node: NodeId,
    pub(crate) service: ServiceId,
}

impl FaultSpec for ServiceRulesRewriteSpec {
    const EXAMPLE: &'static str = "{ node: worker-1, service: shop }";
    const LOOK: &'static [Look] = super::service_rules_loss::LOOK;

    fn plan(&self, _at: Span, resolver: &mut Resolver<'_>) -> Option<Box<dyn Fault>> {
        let (node, service) = (resolver.node(&self.node), resolver.service(&self.service));
        Some(Box::new(ServiceRulesRewrite { node: node?, service: service? }))
    }
}

// The mutation.

impl Fault for ServiceRulesRewrite {
    fn inject<'a>(&'a self, world: &'a World, _: &'a mut UndoStack) -> Job<'a, Result<InForce, FaultError>> {
        Box::pin(async move {
            let (cluster, node, service) = (&world.cluster, self.node, self.service);
            let plan = cluster.plan();
            let what = format!("rules of {} for {} rewritten", plan.nodes[node.0].name, plan.services[service.0].name);
            let before = cluster.service_rules(node, service).await?;
            let t0 = now();
            cluster.write_service_rules(node, service, ServiceRules::Whole).await?;
            let after = cluster.service_rules(node, service).await?;
            let t1 = now();
            let read_back = after.join(", ");
            if before != after {
                return Err(FaultError::NotInForce { what, read_back });
            }
            Ok(InForce { t0, t1, what, read_back: format!("the same as before: {read_back}"), reduced: None })
        })
    }
}
