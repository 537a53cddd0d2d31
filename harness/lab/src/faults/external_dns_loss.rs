//! W6: the resolver of clients outside no longer answers.

use relapse_model::diagnostics::Span;
use relapse_model::spanned::Spanned;
use relapse_model::{ClusterPlan, OutsideId, Resolver};
use schemars::JsonSchema;
use serde::Deserialize;

use super::drop_all;
use crate::fault::{Fault, FaultError, FaultSpec, InForce, Job, Look, UndoStack, Where, World, now};
use crate::workload::stub::DNS_PORT;

/// A resolver outside no longer answers; its host keeps running.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExternalDnsLossSpec {
    /// Name of a host in `outside` that has `records`.
    pub resolver: Spanned<String>,
}

/// The same, resolved.
#[derive(Debug)]
pub struct ExternalDnsLoss {
    pub(crate) resolver: OutsideId,
}

impl FaultSpec for ExternalDnsLossSpec {
    const EXAMPLE: &'static str = "{ resolver: host }";
    const LOOK: &'static [Look] = &[(Where::Office, "tcpdump -lni any udp port 53")];

    fn plan(&self, _at: Span, resolver: &mut Resolver<'_>) -> Option<Box<dyn Fault>> {
        Some(Box::new(ExternalDnsLoss { resolver: resolver.resolver_named(&self.resolver)? }))
    }
}

// The mutation.

impl Fault for ExternalDnsLoss {
    fn changes(&self, cluster: &ClusterPlan) -> Vec<String> {
        vec![drop_all::what(cluster, self.resolver, DNS_PORT)]
    }

    fn inject<'a>(&'a self, world: &'a World, undo: &'a mut UndoStack) -> Job<'a, Result<InForce, FaultError>> {
        Box::pin(async move {
            let host = world.cluster.outside(self.resolver).ns.clone();
            let home = host.clone();
            undo.push(format!("stop dropping queries of {}", host.name()), move || {
                drop_all::lift(&home, Some(DNS_PORT))
            });
            let t0 = now();
            let read_back = drop_all::impose_on_port(&host, DNS_PORT)?;
            let what = format!("{} no longer answers queries", host.name());
            Ok(InForce { t0, t1: now(), what, read_back, reduced: None })
        })
    }
}
