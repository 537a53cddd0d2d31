//! `works`: a flow keeps working.

use std::sync::Arc;

use relapse_kernel::Result;
use relapse_lab::workload::Attempt;
use relapse_model::spanned::Spanned;
use relapse_model::{ClusterPlan, FlowId, FlowPlan};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::effect::{ENOUGH, Effect, EffectSpec, Ground, Stating, Watch};

/// A flow keeps working.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WorksSpec {
    /// Name of a flow.
    pub flow: Spanned<String>,
}

impl EffectSpec for WorksSpec {
    fn plan(&self, stating: &mut Stating<'_, '_>) -> Option<Arc<dyn Effect>> {
        Some(Arc::new(Works(stating.flow(&self.flow)?)))
    }
}

#[derive(Debug)]
struct Works(FlowId);

impl Effect for Works {
    fn text(&self, flows: &[FlowPlan], _: &ClusterPlan) -> String {
        format!("{} works", flows[self.0.0].name)
    }

    fn flow(&self) -> Option<FlowId> {
        Some(self.0)
    }

    fn watch(&self, _: &mut Ground<'_>) -> Result<Box<dyn Watch>> {
        Ok(Box::new(Working::default()))
    }
}

#[derive(Default)]
struct Working {
    attempts: u32,
    worked: u32,
    failures_in_a_row: u32,
    most_in_a_row: u32,
}

impl Watch for Working {
    fn attempt(&mut self, attempt: &Attempt) {
        self.attempts += 1;
        if attempt.failure.is_some() {
            self.failures_in_a_row += 1;
            self.most_in_a_row = self.most_in_a_row.max(self.failures_in_a_row);
        } else {
            self.worked += 1;
            self.failures_in_a_row = 0;
        }
    }

    /// A single lost attempt on a busy machine is noise; two in a row are an effect.
    fn judge(&self) -> (bool, String) {
        let holds = self.worked >= ENOUGH && self.most_in_a_row < 2;
        (holds, format!("{} of {} attempts worked", self.worked, self.attempts))
    }

    fn wants_attempts(&self) -> bool {
        self.worked < ENOUGH && self.most_in_a_row < 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effect::tests::played;

    #[test]
    fn a_flow_works_though_one_attempt_was_lost_but_not_two_in_a_row() {
        let works = |attempts| played(Working::default(), attempts).judge().0;
        assert!(works("..."));
        assert!(works("...t.."));
        assert!(!works("...tt.."));
        assert!(!works(".."), "too few to decide");
    }

    #[test]
    fn more_attempts_are_wanted_only_where_nothing_else_is_wrong() {
        let wanted = |attempts| played(Working::default(), attempts).wants_attempts();
        assert!(wanted("..") && !wanted("...") && !wanted(".tt"));
    }
}
