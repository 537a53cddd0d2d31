//! What a detector has claimed and not yet withdrawn.
//!
//! Job: a detector may state what holds now as often as it likes; only changes become findings.
//! Invariants: a claim is reported once, again only when its severity rises, and once more when it is over. A
//! withdrawal is reported only for a standing claim, and carries that claim's severity.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::finding::{Finding, Level, Severity, Subject};
use crate::time::Time;

/// Whose state a claim comes from: a node's, or the cluster's.
pub(crate) type Holder = Option<Arc<str>>;

/// A statement of a detector about a subject.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    pub severity: Severity,
    pub since: Time,
    pub evidence: String,
}

/// The standing claims of one detector.
#[derive(Debug)]
pub(crate) struct Claims {
    name: &'static str,
    incident: &'static str,
    level: Level,
    /// The DNS Service of the cluster.
    service: String,
    /// Whose state is being evaluated. Claims are about it unless they name another subject.
    pub holder: Holder,
    standing: BTreeMap<Subject, Standing>,
    /// Findings that have not been collected yet.
    pub findings: Vec<Finding>,
}

#[derive(Debug)]
struct Standing {
    severity: Severity,
    since: Time,
    holder: Holder,
}

impl Claims {
    pub fn new(name: &'static str, incident: &'static str, level: Level, service: &str) -> Self {
        let (holder, standing, findings) = (None, BTreeMap::new(), Vec::new());
        Self { name, incident, level, service: service.to_owned(), holder, standing, findings }
    }

    /// The node, or the cluster's DNS Service.
    fn about(&self) -> Subject {
        match &self.holder {
            Some(node) => Subject::node(&**node),
            None => Subject::service(&self.service),
        }
    }

    /// The severity of the standing claim.
    pub fn standing(&self) -> Option<Severity> {
        self.standing_of(&self.about())
    }

    /// The same for a claim about `subject`.
    pub fn standing_of(&self, subject: &Subject) -> Option<Severity> {
        self.standing.get(subject).map(|standing| standing.severity)
    }

    /// Makes a claim, if it is new or more severe than the standing one. Only then is the evidence formatted.
    pub fn make(&mut self, severity: Severity, since: Time, evidence: impl FnOnce() -> String) {
        self.make_of(self.about(), severity, since, evidence);
    }

    /// The same about `subject`.
    pub fn make_of(&mut self, subject: Subject, severity: Severity, since: Time, evidence: impl FnOnce() -> String) {
        let since = match self.standing.get(&subject) {
            Some(standing) if standing.severity >= severity => return,
            Some(standing) => since.min(standing.since),
            None => since,
        };
        self.standing.insert(subject.clone(), Standing { severity, since, holder: self.holder.clone() });
        self.report(subject, severity, since, evidence(), false);
    }

    /// Withdraws the claim, if one stands.
    pub fn withdraw(&mut self, evidence: impl Into<String>) {
        self.withdraw_of(self.about(), evidence);
    }

    /// The same about `subject`.
    pub fn withdraw_of(&mut self, subject: Subject, evidence: impl Into<String>) {
        if let Some(Standing { severity, since, .. }) = self.standing.remove(&subject) {
            self.report(subject, severity, since, evidence.into(), true);
        }
    }

    /// Makes all claims in `wanted` and withdraws all others of its holder.
    pub fn settle(&mut self, wanted: BTreeMap<Subject, Claim>, over: &str) {
        let is_gone = |(subject, standing): &(&Subject, &Standing)| {
            standing.holder == self.holder && !wanted.contains_key(*subject)
        };
        let gone: Vec<_> = self.standing.iter().filter(is_gone).map(|(subject, _)| subject.clone()).collect();
        gone.into_iter().for_each(|subject| self.withdraw_of(subject, over));
        for (subject, claim) in wanted {
            self.make_of(subject, claim.severity, claim.since, || claim.evidence);
        }
    }

    fn report(&mut self, subject: Subject, severity: Severity, since: Time, evidence: String, cleared: bool) {
        self.findings.push(Finding {
            detector: self.name.to_owned(),
            incident: self.incident.to_owned(),
            level: self.level,
            severity,
            subject,
            evidence,
            since,
            cleared,
        });
    }
}

/// Of two claims about one subject, keeps the more severe one, or the first of two equal ones.
pub(crate) fn want(wanted: &mut BTreeMap<Subject, Claim>, subject: Subject, claim: Claim) {
    if wanted.get(&subject).is_none_or(|other| other.severity < claim.severity) {
        wanted.insert(subject, claim);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_reported_once_again_only_when_more_severe_and_cleared_once() {
        use Severity::{Critical, Info, Warning};
        let mut claims = Claims::new("test", "I1", Level::Cause, "kube-dns");
        let mut reported = |claim| {
            match claim {
                Some(severity) => claims.make(severity, Time(0), String::new),
                None => claims.withdraw("over"),
            }
            claims.findings.pop().map(|finding| (finding.severity, finding.cleared))
        };
        assert_eq!(reported(None), None);
        assert_eq!(reported(Some(Info)), Some((Info, false)));
        assert_eq!(reported(Some(Info)), None);
        assert_eq!(reported(Some(Warning)), Some((Warning, false)));
        assert_eq!(reported(Some(Info)), None);
        assert_eq!(reported(Some(Critical)), Some((Critical, false)));
        assert_eq!(reported(None), Some((Critical, true)));
        assert_eq!(reported(None), None);
        assert_eq!(reported(Some(Info)), Some((Info, false)));
    }
}
