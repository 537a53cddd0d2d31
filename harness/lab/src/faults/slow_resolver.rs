//! One resolver outside answers late: benign (twin of I3).

use std::time::Duration;

use relapse_detectors::time::{limit, span};
use relapse_model::diagnostics::Span;
use relapse_model::spanned::Spanned;
use relapse_model::values;
use relapse_model::{ClusterPlan, OutsideId, Resolver};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::fault::{Fault, FaultError, FaultSpec, InForce, Job, Look, UndoStack, World, now};
use crate::workload::stub;

/// A resolver outside answers late.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SlowResolverSpec {
    /// `outside/NAME`, a host that has `records`.
    pub resolver: Spanned<String>,
    /// Delay of its answers.
    pub delay: Spanned<values::Duration>,
}

/// The same, resolved.
#[derive(Debug)]
pub struct SlowResolver {
    pub(crate) resolver: OutsideId,
    pub(crate) delay: Duration,
}

impl FaultSpec for SlowResolverSpec {
    const EXAMPLE: &'static str = "{ resolver: outside/host, delay: 200ms }";
    const LOOK: &'static [Look] = super::dns_replica_loss::DnsReplicaLossSpec::LOOK;

    fn plan(&self, _at: Span, resolver: &mut Resolver<'_>) -> Option<Box<dyn Fault>> {
        let (host, delay) = (resolver.outside(&self.resolver), resolver.duration("delay", &self.delay));
        let host = host?;
        if resolver.cluster.outside[host.0].records.is_empty() {
            resolver.error(
                self.resolver.span,
                format!("`{}` is not a resolver: it has no `records`", self.resolver.value),
                "name a host that has `records`",
            );
        }
        Some(Box::new(SlowResolver { resolver: host, delay: delay? }))
    }
}

// The mutation.

impl Fault for SlowResolver {
    fn changes(&self, cluster: &ClusterPlan) -> Vec<String> {
        vec![format!("the delay of outside/{}", cluster.outside[self.resolver.0].name)]
    }

    fn inject<'a>(&'a self, world: &'a World, undo: &'a mut UndoStack) -> Job<'a, Result<InForce, FaultError>> {
        Box::pin(async move {
            let resolver = world.cluster.outside(self.resolver);
            let delay = resolver.delay.clone();
            undo.push(format!("remove the delay of {}", resolver.name), move || {
                delay.set(Duration::ZERO);
                Ok(())
            });
            let t0 = now();
            resolver.delay.set(self.delay);
            // Read back by querying it as a client would.
            let sent = tokio::time::Instant::now();
            let query = stub::lookup(
                &resolver.ns,
                world.cluster.plan().outside[self.resolver.0].address,
                "read-back.invalid",
                &[],
            );
            let _ = tokio::time::timeout(self.delay * 2 + Duration::from_millis(500), query).await;
            let took = sent.elapsed();
            let t1 = now();
            if took < self.delay {
                return Err(FaultError::NotInForce {
                    what: format!("delay the answers of {}", resolver.name),
                    read_back: format!("answered after {}", span(took)),
                });
            }
            Ok(InForce {
                t0,
                t1,
                what: format!("{} answers after {}", resolver.name, limit(self.delay)),
                read_back: format!("answered after {}", span(took)),
                reduced: None,
            })
        })
    }
}
