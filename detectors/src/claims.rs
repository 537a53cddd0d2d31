//! What one detector has claimed and not yet withdrawn.
//!
//! Job: let a detector state what holds now, as often as it likes; only news becomes a finding.
//! Invariant: a withdrawal is said only of a standing claim, and carries that claim's severity.
//! Left out: deduplication between detectors; `DetectorSet` does that for all, outside ones too.

use std::collections::BTreeMap;

use crate::detector::DetectorInfo;
use crate::finding::{Finding, Severity, Subject};
use crate::time::Time;

/// What a detector holds to be true of a subject.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    pub severity: Severity,
    pub since: Time,
    pub evidence: String,
}

/// The standing claims of one detector.
#[derive(Debug)]
pub(crate) struct Claims {
    info: &'static DetectorInfo,
    standing: BTreeMap<Subject, (Severity, Time)>,
}

impl Claims {
    pub fn new(info: &'static DetectorInfo) -> Self {
        Self { info, standing: BTreeMap::new() }
    }

    /// The severity at which a claim about `subject` stands.
    pub fn standing(&self, subject: &Subject) -> Option<Severity> {
        self.standing.get(subject).map(|(severity, _)| *severity)
    }

    /// Claims it, if that is new or more severe than what stands. The evidence is only then put in words.
    pub fn make(
        &mut self,
        out: &mut Vec<Finding>,
        subject: &Subject,
        severity: Severity,
        since: Time,
        evidence: impl FnOnce() -> String,
    ) {
        let since = match self.standing.get(subject) {
            Some((standing, _)) if *standing >= severity => return,
            Some((_, earlier)) => since.min(*earlier),
            None => since,
        };
        self.standing.insert(subject.clone(), (severity, since));
        out.push(self.finding(subject.clone(), severity, since, evidence(), false));
    }

    /// Says that the claim about `subject` is over, if one stands.
    pub fn withdraw(&mut self, out: &mut Vec<Finding>, subject: &Subject, evidence: impl Into<String>) {
        if let Some((severity, since)) = self.standing.remove(subject) {
            out.push(self.finding(subject.clone(), severity, since, evidence.into(), true));
        }
    }

    /// Claims all of `wanted` and withdraws everything else.
    pub fn settle(&mut self, out: &mut Vec<Finding>, wanted: BTreeMap<Subject, Claim>, over: &str) {
        let gone: Vec<Subject> = self.standing.keys().filter(|s| !wanted.contains_key(s)).cloned().collect();
        for subject in gone {
            self.withdraw(out, &subject, over);
        }
        for (subject, claim) in wanted {
            self.make(out, &subject, claim.severity, claim.since, || claim.evidence);
        }
    }

    fn finding(&self, subject: Subject, severity: Severity, since: Time, evidence: String, cleared: bool) -> Finding {
        Finding {
            detector: self.info.name.to_owned(),
            incident: self.info.incident.to_owned(),
            level: self.info.level,
            severity,
            subject,
            evidence,
            since,
            cleared,
        }
    }
}
