//! Estimates, from the plan, of the conntrack entries of a trial on a node and of its open files.
//!
//! The number of entries only decides which trials may run while another lowers the machine-wide limit.

use std::time::Duration;

use super::{Plan, TrialPlan};

/// Entries per second from the background churn: a connection and a lookup every 150 ms.
const CHURN: u64 = 20;
/// Up, healing, recovery and down, seconds.
const AROUND: u64 = 2;

/// Open files a lab needs besides its held connections.
const FILES: u64 = 4_096;

impl Plan {
    /// Maximum number of open files of a trial: both ends of each held connection are in one process.
    #[must_use]
    pub fn open_files(&self) -> u64 {
        let held = self.workload.iter().map(|flow| u64::from(flow.keeps));
        FILES + 2 * held.sum::<u64>()
    }

    /// Maximum time from the steady state until everything is decided.
    #[must_use]
    pub fn at_most(&self, trial: &TrialPlan) -> Duration {
        let deadlines = trial.detect.iter().map(|expectation| expectation.within);
        let effects = trial.steps.iter().map(|step| step.effect.within);
        let watched = deadlines.chain(effects).chain([trial.watch]).max().unwrap_or_default();
        // Of a chain each stage may take as long as the longest, and the findings of the step before must clear in it.
        let stages = u32::try_from(trial.steps.len()).unwrap_or(u32::MAX);
        self.steady_for + self.baseline + watched * stages + self.recover_within * (stages - 1)
    }

    /// Maximum number of entries on a node in this trial: one for each new connection, none of which expires (TIME_WAIT
    /// lasts 120 s), as if all went through one node.
    #[must_use]
    pub fn conntrack_entries(&self, trial: &TrialPlan) -> u64 {
        let seconds = self.at_most(trial).as_secs() + 1 + AROUND;
        let flows = self.workload.iter().map(|flow| {
            let attempts = seconds * 1_000 / u64::try_from(flow.every.as_millis()).unwrap_or(1).max(1);
            let most = if flow.keeps > 0 { flow.keeps.into() } else { u64::MAX };
            (attempts * u64::from(flow.entries)).clamp(1, most)
        });
        flows.sum::<u64>() + seconds * CHURN
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::plan::load;

    #[test]
    fn held_connections_are_many_entries_and_a_few_flows_are_not() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
        let entries = |name: &str| {
            let plan = load(&[folder.join(name)]).unwrap_or_else(|wrong| panic!("{wrong}")).remove(0);
            plan.conntrack_entries(&plan.incident_trial)
        };
        let (held, few) = (entries("conntrack-cap-reset.yaml"), entries("policy-route-lost.yaml"));
        assert!(held > 3_000, "{held}");
        assert!(few < 1_000, "{few}");
    }
}
