//! Estimates, from the plan, of the conntrack entries of a trial on a node and of its open files.
//!
//! The number of entries only decides which trials may run while another lowers the machine-wide limit.

use std::time::Duration;

use super::{Plan, TrialPlan};

/// Entries per second from the background churn: a connection every 150 ms, and a lookup of two queries.
const CHURN_TCP: u64 = 7;
const CHURN_UDP: u64 = 14;
/// Entries per second from the probes of a node's agent that what is counted below does not make up for: in `four-twists`
/// a node had 2,300 after 35 s, where flows and churn alone account for 1,500.
const PROBES: u64 = 12;
/// Lifetime of an entry of a query and its answer, seconds (`nf_conntrack_udp_timeout`).
const UDP_TIMEOUT: u64 = 30;
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
        let longest = deadlines.chain([trial.watch]).max().unwrap_or_default();
        // In a chain, the findings of the step before must be cleared during a stage.
        let cleared = if trial.is_chain() { self.recover_within } else { Duration::ZERO };
        let shortest = if trial.is_chain() { self.baseline } else { self.at_least.fault };
        let stages = trial.steps.iter().map(|step| step.effect.within.max(longest).max(cleared).max(shortest));
        self.steady_for + self.baseline + stages.sum::<Duration>() + self.at_least.healthy
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
        flows.sum::<u64>() + seconds * (CHURN_TCP + PROBES) + seconds.min(UDP_TIMEOUT) * CHURN_UDP
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
        let chain = entries("four-twists.yaml");
        assert!(chain > 1_600, "a chain does not run beside a trial that lowers the limit: {chain}");
    }
}
