//! Resolved scenarios: addresses assigned, references as numbers.
//!
//! The data a run works from. Invariant: after planning nothing is looked up by string, and every plan is valid;
//! [`resolve`] reports all errors in a file before anything is brought up. Reading the named files is the only I/O.

mod entries;
mod resolve;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use relapse_lab::fault::Planned;
use relapse_lab::workload::client::Client;
use relapse_reports::event::{Also, Expectation, TriageExpected};

use crate::effect::Effect;
use crate::scenario::trial::Armed;

pub use relapse_model::{
    ClusterPlan, DnsPlan, Failure, FlowId, FlowPlan, NetworkPlan, NodeId, NodePlan, OfficeId, OfficePlan, OutsideId,
    OutsidePlan, PathId, PathPlan, Place, PodId, PodPlan, PodRole, PrefixPlan, ServiceId, ServicePlan, Target,
    TrafficPolicy,
};
pub use resolve::{load, plan};

/// The shortest deadline of a finding about what was there when its detector was armed: a route that is missing may be
/// about to be written.
const LATE: Duration = Duration::from_secs(5);

/// The quiet baseline, the fault and the time after healing where series are recorded: the rate over a minute has its
/// own minute before the fault, and over two minutes within it.
const RECORDED_BASELINE: Duration = Duration::from_secs(60);
const RECORDED: Lasting = Lasting { fault: Duration::from_secs(120), healthy: Duration::from_secs(60) };

/// The shortest timeout of a flow then.
const PATIENT: Duration = Duration::from_millis(1500);

/// A scenario, ready to run: the incident and its benign twins over one cluster and workload.
#[derive(Debug)]
pub struct Plan {
    pub name: String,
    pub incident: String,
    pub title: String,
    /// Replayed only on request.
    pub nightly: bool,
    pub file: PathBuf,
    /// The only repetition of it, if it was drawn for one (`--vary`).
    pub repetition: Option<u32>,
    pub cluster: ClusterPlan,
    pub workload: Vec<FlowPlan>,
    /// The clients of the flows, in the same order.
    pub clients: Vec<Arc<dyn Client>>,
    /// How long every flow must have worked before the baseline begins.
    pub steady_for: Duration,
    /// How long the quiet baseline lasts.
    pub baseline: Duration,
    /// How many connections each holding flow must have open before the baseline begins (at most those it holds).
    pub held: u32,
    /// When detectors are armed. Change it with [`Plan::arm`].
    pub armed: Armed,
    /// Standing weaknesses that must have been found when the baseline ends.
    pub risks: Vec<Expectation>,
    pub incident_trial: TrialPlan,
    /// The benign twins, in the order of the file; never empty.
    pub controls: Vec<TrialPlan>,
    /// Every flow must work again, and every finding be cleared, within this time after healing.
    pub recover_within: Duration,
    /// Time limit for the workload to become steady.
    pub settle_within: Duration,
    /// The fault stays in force at least so long, and the trial goes on so long after healing: 0, except where series are
    /// recorded ([`Plan::record_series`]).
    pub at_least: Lasting,
}

/// The shortest time of a fault, and of what follows healing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lasting {
    pub fault: Duration,
    pub healthy: Duration,
}

/// Faults that are healed together, and their effect until then. A trial that is not a chain has one step.
#[derive(Debug)]
pub struct StepPlan {
    /// Name in a chain.
    pub name: Option<String>,
    pub inject: Vec<Planned>,
    /// In force only from the healing of the previous step until the healing of this one.
    pub meanwhile: Vec<Planned>,
    /// Made before its faults are undone, and undone when every step is healed.
    pub heal: Vec<Planned>,
    pub effect: EffectPlan,
    /// Where triage must lead.
    pub triage: Option<TriageExpected>,
}

/// Expected effects.
#[derive(Debug, Default)]
pub struct EffectPlan {
    pub all: Vec<Arc<dyn Effect>>,
    /// Time from the injection, or from the healing of the previous step, within which all must be observed.
    pub within: Duration,
    /// The flows that fail or are slow, in a twin otherwise those that work: what their users see is triaged. If there
    /// are none, all flows.
    pub affected: Vec<FlowId>,
}

/// The faults of a trial, their effect on the workload, and the expected findings.
#[derive(Debug)]
pub struct TrialPlan {
    /// `None` for the incident, the twin's name for a control.
    pub control: Option<String>,
    /// Why the twin is innocent, in a sentence; empty for the incident.
    pub why: String,
    /// The cluster of a control: its DNS replicas, and the pods that its faults add.
    pub cluster: Option<ClusterPlan>,
    /// Injected in this order, then healed in this order; never empty.
    pub steps: Vec<StepPlan>,
    /// Expected when all is healed.
    pub healed: EffectPlan,
    /// Empty for a control: there, any finding at or above `warning` fails.
    pub detect: Vec<Expectation>,
    /// The same expectations with the deadlines for a real cluster.
    pub detect_in_real_cluster: Vec<Expectation>,
    /// Findings that may follow from the incident, in labs and on a real cluster.
    pub also: [Vec<Also>; 2],
    /// Of a control: the risks that must have been found when the baseline ends, and no others.
    pub risks: Option<Vec<Expectation>>,
    /// Users see nothing wrong: triage must find nothing.
    pub unseen: bool,
    /// How long a control is watched after t0: at least the incident's longest deadline.
    pub watch: Duration,
    /// For how long the original, or the benign change, went on, if that is known.
    pub lasted: Option<Duration>,
}

impl TrialPlan {
    /// The expected findings on a real cluster, where some signals pass the API server, or in a lab.
    #[must_use]
    pub fn expected(&self, real_cluster: bool) -> &[Expectation] {
        if real_cluster { &self.detect_in_real_cluster } else { &self.detect }
    }

    /// What may follow from the incident on a real cluster or in a lab.
    #[must_use]
    pub fn follows(&self, real_cluster: bool) -> &[Also] {
        &self.also[usize::from(real_cluster)]
    }

    /// Whether its steps are healed one after another.
    #[must_use]
    pub fn is_chain(&self) -> bool {
        self.steps.iter().any(|step| step.name.is_some())
    }

    /// All changes of the cluster.
    pub fn changes(&self) -> impl Iterator<Item = &Planned> {
        self.steps.iter().flat_map(|step| step.inject.iter().chain(&step.meanwhile).chain(&step.heal))
    }

    /// The effects of all stages.
    pub fn effects(&self) -> impl Iterator<Item = &Arc<dyn Effect>> {
        self.steps.iter().map(|step| &step.effect).chain([&self.healed]).flat_map(|effect| &effect.all)
    }
}

impl Plan {
    /// Multiplies every deadline by a factor, for slower machines. How long a twin is watched does not change.
    pub fn stretch_deadlines(&mut self, factor: f64) {
        let stretch = |within: &mut Duration| *within = within.mul_f64(factor);
        for trial in std::iter::once(&mut self.incident_trial).chain(&mut self.controls) {
            let steps = trial.steps.iter_mut().map(|step| &mut step.effect);
            steps.chain([&mut trial.healed]).for_each(|effect| stretch(&mut effect.within));
            let triage = trial.steps.iter_mut().filter_map(|step| step.triage.as_mut());
            triage.for_each(|expected| stretch(&mut expected.within));
            let expected = trial.detect.iter_mut().chain(&mut trial.detect_in_real_cluster);
            expected.for_each(|expectation| stretch(&mut expectation.within));
        }
        stretch(&mut self.recover_within);
        stretch(&mut self.settle_within);
    }

    /// Gives the trials the clock of recorded series: rules look back for minutes, and what repeats must be seen to. In a
    /// chain each stage lasts as long as the baseline.
    pub fn record_series(&mut self) {
        // Among thousands of attempts on a busy machine, some take longer than those of a second.
        self.workload.iter_mut().for_each(|flow| flow.timeout = flow.timeout.max(PATIENT));
        self.baseline = self.baseline.max(RECORDED_BASELINE);
        self.at_least = RECORDED;
        self.controls.iter_mut().for_each(|control| control.watch = control.watch.max(RECORDED.fault));
    }

    /// The longest time until a request of some flow has begun and ended.
    #[must_use]
    pub fn slowest(&self) -> Duration {
        self.workload.iter().map(|flow| flow.every + flow.timeout).max().unwrap_or_default()
    }

    /// Whether series are recorded ([`Plan::record_series`]).
    #[must_use]
    pub const fn is_recorded(&self) -> bool {
        !self.at_least.fault.is_zero()
    }

    /// Arms detectors at another time. A late start has no baseline in which a risk could stand, so that it may be
    /// reported afterwards; and triage compares with what was before.
    pub fn arm(&mut self, armed: Armed) {
        self.armed = armed;
        if armed == Armed::Before {
            return;
        }
        if armed == Armed::AfterInjection {
            for risk in std::mem::take(&mut self.risks) {
                let Some(subject) = risk.subject else { continue };
                let why = "It stood before the fault, when no detector was armed.".to_owned();
                let also = Also { detector: risk.detector, level: risk.level, subject, why, step: None };
                self.incident_trial.also.iter_mut().for_each(|all| all.push(also.clone()));
            }
            self.controls.iter_mut().for_each(|control| control.risks = None);
        }
        for trial in std::iter::once(&mut self.incident_trial).chain(&mut self.controls) {
            trial.unseen = false;
            trial.steps.iter_mut().for_each(|step| step.triage = None);
            let expected = trial.detect.iter_mut().chain(&mut trial.detect_in_real_cluster);
            expected.for_each(|expectation| expectation.within = expectation.within.max(LATE));
            trial.watch = trial.watch.max(LATE);
        }
    }

    /// The incident's trial and those of the benign twins.
    pub fn trials(&self) -> impl Iterator<Item = &TrialPlan> {
        std::iter::once(&self.incident_trial).chain(&self.controls)
    }

    /// The cluster a trial runs on.
    #[must_use]
    pub fn cluster_of<'a>(&'a self, trial: &'a TrialPlan) -> &'a ClusterPlan {
        trial.cluster.as_ref().unwrap_or(&self.cluster)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::load;

    #[test]
    fn stretched_deadlines_are_all_longer_and_twins_are_watched_as_long_as_before() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios/policy-route-lost.yaml");
        let mut plans = [1.0, 2.5].map(|factor| {
            let mut plan = load(std::slice::from_ref(&file)).unwrap_or_else(|wrong| panic!("{wrong}")).remove(0);
            plan.stretch_deadlines(factor);
            plan
        });
        let deadlines = plans.each_mut().map(|plan| {
            let trials: Vec<_> = plan.trials().collect();
            let detect = trials.iter().flat_map(|t| t.detect.iter().chain(&t.detect_in_real_cluster)).map(|e| e.within);
            let effects = trials.iter().flat_map(|trial| &trial.steps).map(|step| step.effect.within);
            detect.chain(effects).chain([plan.recover_within, plan.settle_within]).collect::<Vec<Duration>>()
        });
        let [stated, stretched] = deadlines;
        assert!(stated.len() > 8, "{stated:?}");
        assert_eq!(stretched, stated.iter().map(|deadline| deadline.mul_f64(2.5)).collect::<Vec<_>>());
        let [before, after] =
            plans.each_ref().map(|plan| plan.controls.iter().map(|twin| twin.watch).collect::<Vec<_>>());
        assert_eq!(before, after);
    }
}
