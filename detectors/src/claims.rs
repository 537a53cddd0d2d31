//! What a detector has claimed and not yet withdrawn.
//!
//! Job: let a detector state what holds now, as often as it likes; only news becomes a finding.
//! Invariants: a claim is said once, again only when its severity rises, and once more when it is over. A withdrawal
//! is said only of a standing claim, and carries that claim's severity.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::finding::{Finding, Level, Severity, Subject};
use crate::time::Time;

/// Whose state a claim comes from: a node's, or that of the cluster.
pub(crate) type Holder = Option<Arc<str>>;

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
    name: &'static str,
    incident: &'static str,
    level: Level,
    /// The DNS Service of the cluster.
    service: String,
    /// Who claims now. What is claimed is claimed of it, unless something else is named.
    pub holder: Holder,
    standing: BTreeMap<Subject, Standing>,
    /// Findings that nobody took yet.
    pub said: Vec<Finding>,
}

#[derive(Debug)]
struct Standing {
    severity: Severity,
    since: Time,
    holder: Holder,
}

impl Claims {
    pub fn new(name: &'static str, incident: &'static str, level: Level, service: &str) -> Self {
        let (holder, standing, said) = (None, BTreeMap::new(), Vec::new());
        Self { name, incident, level, service: service.to_owned(), holder, standing, said }
    }

    /// The node, or the cluster's DNS Service.
    fn about(&self) -> Subject {
        match &self.holder {
            Some(node) => Subject::node(&**node),
            None => Subject::service(&self.service),
        }
    }

    /// The severity at which a claim stands.
    pub fn standing(&self) -> Option<Severity> {
        self.standing_of(&self.about())
    }

    /// The same of a claim about `subject`.
    pub fn standing_of(&self, subject: &Subject) -> Option<Severity> {
        self.standing.get(subject).map(|standing| standing.severity)
    }

    /// Claims it, if that is new or more severe than what stands. The evidence is only then put in words.
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
        self.say(subject, severity, since, evidence(), false);
    }

    /// Says that the claim is over, if one stands.
    pub fn withdraw(&mut self, evidence: impl Into<String>) {
        self.withdraw_of(self.about(), evidence);
    }

    /// The same about `subject`.
    pub fn withdraw_of(&mut self, subject: Subject, evidence: impl Into<String>) {
        if let Some(Standing { severity, since, .. }) = self.standing.remove(&subject) {
            self.say(subject, severity, since, evidence.into(), true);
        }
    }

    /// Claims all of `wanted` and withdraws everything else that its holder claimed.
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

    fn say(&mut self, subject: Subject, severity: Severity, since: Time, evidence: String, cleared: bool) {
        self.said.push(Finding {
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

/// Of two claims about one subject the more severe stands, of equal ones the earlier.
pub(crate) fn want(wanted: &mut BTreeMap<Subject, Claim>, subject: Subject, claim: Claim) {
    if wanted.get(&subject).is_none_or(|other| other.severity < claim.severity) {
        wanted.insert(subject, claim);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_said_once_then_only_louder_then_cleared_once() {
        use Severity::{Critical, Info, Warning};
        let mut claims = Claims::new("parrot", "I1", Level::Cause, "kube-dns");
        let mut news = |claim| {
            match claim {
                Some(severity) => claims.make(severity, Time(0), String::new),
                None => claims.withdraw("over"),
            }
            claims.said.pop().map(|finding| (finding.severity, finding.cleared))
        };
        assert_eq!(news(None), None);
        assert_eq!(news(Some(Info)), Some((Info, false)));
        assert_eq!(news(Some(Info)), None);
        assert_eq!(news(Some(Warning)), Some((Warning, false)));
        assert_eq!(news(Some(Info)), None);
        assert_eq!(news(Some(Critical)), Some((Critical, false)));
        assert_eq!(news(None), Some((Critical, true)));
        assert_eq!(news(None), None);
        assert_eq!(news(Some(Info)), Some((Info, false)));
    }
}
