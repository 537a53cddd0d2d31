//! `resolves`: a flow's name resolves to exactly these addresses.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use relapse_kernel::Result;
use relapse_lab::workload::Attempt;
use relapse_model::diagnostics::quoted;
use relapse_model::spanned::Spanned;
use relapse_model::values::Address;
use relapse_model::{ClusterPlan, FlowId, FlowPlan};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::effect::{ENOUGH, Effect, EffectPlanner, EffectSpec, Ground, Watch};

/// A flow's name resolves to exactly these addresses.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResolvesSpec {
    /// Name of a flow that looks up a name.
    pub flow: Spanned<String>,
    /// All its addresses; of all resolvers, if they differ.
    pub to: Spanned<Vec<Spanned<Address>>>,
}

impl EffectSpec for ResolvesSpec {
    fn plan(&self, planner: &mut EffectPlanner<'_, '_>) -> Option<Arc<dyn Effect>> {
        let flow = planner.flow(&self.flow)?;
        let resolver = &mut *planner.resolver;
        if resolver.workload[flow.0].kind != "dns" {
            let message = format!("flow {} does not look up a name", quoted(&self.flow));
            resolver.error(self.flow.span, message, "name a `dns` flow");
        }
        if self.to.is_empty() {
            let help = "list its addresses; that a name has none is `fails: { flow: NAME, as: name-error }`";
            resolver.error(self.to.span, "a name cannot resolve to nothing", help);
        }
        Some(Arc::new(Resolves { flow, to: self.to.iter().map(|address| address.0).collect() }))
    }
}

#[derive(Debug)]
struct Resolves {
    flow: FlowId,
    to: BTreeSet<IpAddr>,
}

impl Effect for Resolves {
    fn text(&self, flows: &[FlowPlan], _: &ClusterPlan) -> String {
        format!("{} resolves to {}", flows[self.flow.0].name, listed(&self.to))
    }

    fn flow(&self) -> Option<FlowId> {
        Some(self.flow)
    }

    fn watch(&self, _: &mut Ground<'_>) -> Result<Box<dyn Watch>> {
        Ok(Box::new(Resolving { to: self.to.clone(), ..Resolving::default() }))
    }
}

/// Counts the answers since the last one with another address, which a cache may have kept.
#[derive(Default)]
struct Resolving {
    to: BTreeSet<IpAddr>,
    seen: BTreeSet<IpAddr>,
    answers: u32,
    other: BTreeSet<IpAddr>,
}

impl Watch for Resolving {
    /// Ignores attempts without an answer.
    fn attempt(&mut self, attempt: &Attempt) {
        let addresses: BTreeSet<IpAddr> = attempt.details.addresses.iter().copied().collect();
        if addresses.is_empty() {
            return;
        }
        if addresses.is_subset(&self.to) {
            self.answers += 1;
            self.seen.extend(addresses);
        } else {
            *self = Self { to: std::mem::take(&mut self.to), other: addresses, ..Self::default() };
        }
    }

    fn judge(&self) -> (bool, String) {
        let holds = self.answers >= ENOUGH && self.seen == self.to;
        let evidence = match self.answers {
            0 if self.other.is_empty() => "no answer".to_owned(),
            0 => format!("the last answer was {}", listed(&self.other)),
            answers => format!("{answers} answers in a row: {}", listed(&self.seen)),
        };
        (holds, evidence)
    }

    fn wants_attempts(&self) -> bool {
        self.answers > 0 && self.answers < ENOUGH
    }
}

fn listed(addresses: &BTreeSet<IpAddr>) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use relapse_detectors::time::Time;

    use super::*;
    use relapse_lab::workload::Details;

    /// Whether a name is seen to resolve to `to` (numbers), after answers with these.
    fn holds(to: &[u8], answers: &[&[u8]]) -> bool {
        let address = |number: &u8| IpAddr::from([10, 0, 0, *number]);
        let mut watch = Resolving { to: to.iter().map(address).collect(), ..Resolving::default() };
        for answer in answers {
            let (flow, started, ended) = (FlowId(0), Time(1), Time(2));
            watch.attempt(&Attempt {
                flow,
                started,
                ended,
                failure: None,
                details: Details { addresses: answer.iter().map(address).collect(), ..Details::default() },
            });
        }
        watch.judge().0
    }

    #[test]
    fn three_answers_in_a_row_have_these_addresses_and_no_others() {
        assert!(holds(&[1], &[&[1], &[1], &[1]]));
        assert!(!holds(&[1], &[&[1], &[1]]), "too few to tell");
        assert!(holds(&[2], &[&[1], &[1], &[2], &[2], &[2]]), "a cache noticed late");
        assert!(!holds(&[2], &[&[2], &[2], &[2], &[1]]));
        assert!(!holds(&[1], &[&[1, 2], &[1, 2], &[1, 2]]), "one too many");
        assert!(holds(&[1, 2], &[&[1, 2], &[2, 1], &[1, 2]]));
        assert!(holds(&[1, 2], &[&[1], &[2], &[1], &[1]]), "two resolvers that differ");
        assert!(!holds(&[1, 2], &[&[1], &[1], &[1]]), "one too few");
        assert!(holds(&[1], &[&[1], &[], &[1], &[1]]), "one answer was lost");
    }
}
