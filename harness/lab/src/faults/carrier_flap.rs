//! A node's pod NIC loses its carrier for a moment, again and again: benign (twin of I3).

use std::time::Duration;

use relapse_detectors::time::limit;
use relapse_kernel::link;
use relapse_model::diagnostics::Span;
use relapse_model::spanned::Spanned;
use relapse_model::{ClusterPlan, NodeId, Resolver, values};
use schemars::JsonSchema;
use serde::Deserialize;

use super::link_loss::pod_nic;
use crate::fault::{Fault, FaultError, FaultSpec, InForce, Job, Look, UndoStack, World, now, wait_for};

/// The carrier of a node's pod NIC goes away and returns, as with a loose cable or a switch that restarts a port.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CarrierFlapSpec {
    pub node: Spanned<String>,
    /// How long the carrier is away each time, at most 1s.
    pub away: Spanned<values::Duration>,
    /// How often.
    #[schemars(range(min = 1, max = 20))]
    pub times: Spanned<u32>,
}

/// The same, resolved.
#[derive(Debug)]
pub struct CarrierFlap {
    pub(crate) node: NodeId,
    pub(crate) away: Duration,
    pub(crate) times: u32,
}

impl FaultSpec for CarrierFlapSpec {
    const EXAMPLE: &'static str = "{ node: worker-1, away: 150ms, times: 3 }";
    const LOOK: &'static [Look] = super::link_loss::LinkLossSpec::LOOK;

    fn plan(&self, _at: Span, resolver: &mut Resolver<'_>) -> Option<Box<dyn Fault>> {
        let (node, away) = (resolver.node(&self.node), resolver.duration("away", &self.away));
        if away.is_some_and(|away| away > LONGEST) {
            resolver.error(
                self.away.span,
                "`away` is longer than 1 s",
                "`link-loss` is the fault for a NIC that stays away",
            );
        }
        Some(Box::new(CarrierFlap { node: node?, away: away?, times: self.times.value }))
    }
}

// The mutation.

const LONGEST: Duration = Duration::from_secs(1);

impl Fault for CarrierFlap {
    fn changes(&self, cluster: &ClusterPlan) -> Vec<String> {
        vec![format!("{} of node/{}", cluster.network.pod_nic, cluster.nodes[self.node.0].name)]
    }

    fn inject<'a>(&'a self, world: &'a World, undo: &'a mut UndoStack) -> Job<'a, Result<InForce, FaultError>> {
        Box::pin(async move {
            let (nic, far) = pod_nic(world.cluster.as_ref(), self.node)?;
            let (ns, name) = (world.cluster.node(self.node).ns.clone(), &nic.name);
            let (home, other) = (ns.clone(), far.clone());
            undo.push(format!("restore the carrier of {name} of {}", ns.name()), move || {
                wait_for(Box::pin(async move { other.set_up_again(&home, nic.index).await }))
            });
            let t0 = now();
            let mut t1 = t0;
            for time in 0..self.times {
                far.set_down()?;
                let found = link::get(&ns, nic.index)?;
                if time == 0 {
                    t1 = now();
                }
                if found.as_ref().is_none_or(|link| link.carrier || !link.up) {
                    let what = format!("take the carrier of {name} away");
                    return Err(FaultError::NotInForce { what, read_back: format!("{found:?}") });
                }
                tokio::time::sleep(self.away).await;
                far.set_up_again(&ns, nic.index).await?;
                // As long as it was away.
                tokio::time::sleep(self.away).await;
            }
            let (away, times) = (limit(self.away), self.times);
            let what = format!("carrier of {name} of {} away for {away}, {times} times", ns.name());
            Ok(InForce { t0, t1, what, read_back: "up without carrier, then with it".to_owned(), reduced: None })
        })
    }
}
