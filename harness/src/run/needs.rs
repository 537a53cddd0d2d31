//! Requirements of a trial that not every machine or user meets, and why they are unmet.
//!
//! Checked before anything of a trial is built: a trial that cannot prove anything is skipped, with the line that
//! `doctor` prints about it. Partial requirements are left to the fault ([`Requirement`]).

use std::sync::Arc;

use relapse_detectors::registry::DetectorSet;
use relapse_detectors::signal::CollectorKind;
use relapse_kernel::host;
use relapse_lab::cluster::backend::Backend;
use relapse_lab::fault::Requirement;
use relapse_lab::host::{Consent, limit_is_closed};

use crate::plan::{PathPlan, Plan, TrialPlan};

/// The requirements of one trial.
#[derive(Debug, Clone, Default)]
pub struct Needs {
    is_control: bool,
    /// Requirements of faults and of the cluster, without duplicates.
    pub requires: Vec<Requirement>,
    /// Groups of collectors of which one must work: those of the expected detectors, or in a control of all detectors,
    /// which must be silent and not blind.
    sight: Vec<&'static [CollectorKind]>,
    files: u64,
    /// The smallest `nf_conntrack_max` of a node, as operators declared it.
    conntrack_limit: Option<u32>,
}

impl Needs {
    #[must_use]
    pub fn of(plan: &Plan, trial: &TrialPlan) -> Self {
        let mut requires: Vec<_> = trial.changes().flat_map(|fault| fault.requires()).collect();
        if plan.cluster_of(trial).paths().any(|(_, path)| path != PathPlan::default()) {
            requires.push(Requirement::SlowPaths);
        }
        // Another trial that lowers the limit would contradict what operators declared.
        if plan.cluster.declared_conntrack_limit.is_some() && !requires.iter().copied().any(Requirement::writes_limit) {
            requires.push(Requirement::ConntrackLimitSteady);
        }
        requires.sort();
        requires.dedup();
        let is_control = trial.control.is_some();
        let is_judged = |name: &str| is_control || trial.detect.iter().chain(&plan.risks).any(|e| e.detector == name);
        let detectors = DetectorSet::info().iter().filter(|info| is_judged(info.name));
        let mut sight: Vec<&[CollectorKind]> = detectors.flat_map(|info| info.needs.iter().copied()).collect();
        sight.extend(trial.effects().filter_map(|effect| effect.needs()));
        Self {
            is_control,
            requires,
            sight,
            files: plan.open_files(),
            conntrack_limit: plan.cluster.declared_conntrack_limit,
        }
    }

    /// Whether a fault of the trial writes the machine's conntrack limit.
    #[must_use]
    pub fn writes_limit(&self) -> bool {
        self.requires.iter().copied().any(Requirement::writes_limit)
    }

    /// Why what operators declared is not so on this machine. Asked while no other trial may write the limit.
    #[must_use]
    pub fn contradicted(&self) -> Option<String> {
        let (declared, here) = (u64::from(self.conntrack_limit?), host::conntrack_max().ok()?);
        (here < declared)
            .then(|| format!("nf_conntrack_max is {here} here, and operators declared at least {declared}"))
    }

    /// Why the trial cannot run on this backend here; `None` if it can.
    #[must_use]
    pub fn unmet(&self, backend: &Arc<dyn Backend>, consent: Consent) -> Option<String> {
        if let Some(why) = backend.unable() {
            return Some(why);
        }
        if let Some(why) = self.sight.iter().find_map(|one_of| backend.unseen(one_of)) {
            return Some(why);
        }
        if let Some(why) = too_many_files(self.files) {
            return Some(why);
        }
        if self.requires.contains(&Requirement::SlowPaths)
            && let Some(why) = backend.no_slow_paths()
        {
            return Some(why);
        }
        if !self.writes_limit() {
            return None;
        }
        match limit_is_closed() {
            // The incident has a symptom without a write; a twin of the limit does nothing but write it.
            Some(why) => self.is_control.then(|| format!("writes nf_conntrack_max: {why}")),
            None => (!consent.is_granted()).then(|| Consent::skip_reason().to_owned()),
        }
    }
}

/// Why a trial cannot have this many open files here, and how to fix it; `None` if it can.
#[must_use]
pub fn too_many_files(files: u64) -> Option<String> {
    let e = host::raise_nofile(files).err()?;
    let fix = format!("hold fewer connections, or raise the limit as root with ulimit -Hn {files}");
    Some(format!("open files: failed to {e}: each held connection needs two; {fix}"))
}
