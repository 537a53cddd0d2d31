//! Findings that have been reported and not cleared.
//!
//! Invariant: a finding keeps the highest severity it reached until it is cleared. What that means for an expectation
//! is decided elsewhere.

use std::collections::BTreeMap;

use relapse_detectors::finding::{Finding, Level, Severity, Subject};
use relapse_detectors::time::Time;

/// The identity of a finding.
type Identity = (String, Level, Subject);

#[derive(Debug)]
struct Stands {
    finding: Finding,
    /// When it reached `warning`, and whether that was after t0.
    warned: Option<(Time, bool)>,
}

#[derive(Debug, Default)]
pub(super) struct Standing {
    findings: BTreeMap<Identity, Stands>,
}

impl Standing {
    /// Takes a finding. Returns true if it newly reached `warning`.
    pub(super) fn take(&mut self, now: Time, finding: &Finding, after_t0: bool) -> bool {
        let identity = (finding.detector.clone(), finding.level, finding.subject.clone());
        if finding.cleared {
            self.findings.remove(&identity);
            return false;
        }
        let stands = self.findings.entry(identity).or_insert_with(|| Stands { finding: finding.clone(), warned: None });
        if finding.severity > stands.finding.severity {
            stands.finding = finding.clone();
        }
        let reached = finding.severity >= Severity::Warning && stands.warned.is_none();
        if reached {
            stands.warned = Some((now, after_t0));
        }
        reached
    }

    /// Standing findings of `warning` or above, in the order they reached it.
    pub(super) fn warned(&self) -> impl Iterator<Item = &Finding> {
        self.warned_at().map(|(_, finding)| finding)
    }

    /// The same with the instants.
    pub(super) fn warned_at(&self) -> impl Iterator<Item = (Time, &Finding)> {
        self.in_order(|_, _| true)
    }

    /// Findings that must be cleared after healing: they reached `warning` since t0 and are no risks.
    pub(super) fn uncleared(&self) -> impl Iterator<Item = &Finding> {
        self.in_order(|finding, after_t0| after_t0 && finding.level != Level::Risk).map(|(_, finding)| finding)
    }

    fn in_order(&self, wanted: impl Fn(&Finding, bool) -> bool) -> impl Iterator<Item = (Time, &Finding)> {
        let mut found: Vec<(Time, &Finding)> = (self.findings.values())
            .filter_map(|stands| Some((&stands.finding, stands.warned?)))
            .filter(|(finding, (_, after_t0))| wanted(finding, *after_t0))
            .map(|(finding, (at, _))| (at, finding))
            .collect();
        found.sort_by_key(|(at, _)| *at);
        found.into_iter()
    }
}
