//! One expectation, from open to decided.
//!
//! Invariants: decided exactly once; in time means received at t0 + within or before, to the nanosecond, where t0 is, in
//! a chain, the instant it counts from, or, if later, when clients could first see the fault. The caller passes only
//! findings that have reached `warning` after t0.

use std::time::Duration;

use relapse_detectors::finding::{Finding, Subject};
use relapse_detectors::time::Time;

use super::standing::Standing;
use crate::event::{Decided, Expectation, Verdict};

/// A blind detector.
#[derive(Debug)]
pub(super) struct Blindness {
    pub since: Time,
    pub why: String,
}

#[derive(Debug)]
pub(super) struct Expected {
    expectation: Expectation,
    /// The effective deadline: the expectation's own, unless it has none.
    within: Duration,
    t0: Option<Time>,
    /// When clients can first see its fault, as far as known.
    visible: Option<Time>,
    decided: bool,
    /// A finding met it and has not been reported as cleared too early or too late.
    found: bool,
    /// Its detector was armed after its fault.
    late: bool,
    /// It is proved by history alone.
    history: bool,
    /// The earliest finding about another subject.
    elsewhere: Option<(Time, Subject)>,
}

/// Whether a finding matches an expectation, ignoring the subject.
fn concerns(expectation: &Expectation, finding: &Finding) -> bool {
    expectation.detector == finding.detector && expectation.level == finding.level
}

/// Whether a finding meets an expectation. An expectation without subject accepts any.
pub(super) fn meets(expectation: &Expectation, finding: &Finding) -> bool {
    concerns(expectation, finding) && expectation.subject.as_ref().is_none_or(|s| *s == finding.subject)
}

impl Expected {
    pub(super) const fn new(expectation: Expectation, within: Duration) -> Self {
        Self {
            expectation,
            within,
            t0: None,
            visible: None,
            decided: false,
            found: false,
            late: false,
            history: false,
            elsewhere: None,
        }
    }

    pub(super) const fn expectation(&self) -> &Expectation {
        &self.expectation
    }

    pub(super) const fn is_open(&self) -> bool {
        !self.decided
    }

    /// Marks it as proved by history alone.
    pub(super) const fn needs_history(&mut self) {
        self.history = true;
    }

    /// Its detector is armed after its fault.
    pub(super) const fn arm_late(&mut self) {
        self.late = true;
    }

    /// Opens it again: its finding must be reported once more, counted from `now`.
    pub(super) fn reopen(&mut self, now: Time) {
        (self.decided, self.found, self.elsewhere) = (false, false, None);
        self.t0 = Some(now);
    }

    /// Starts its clock. In a chain, a matching finding may have been received already, since then or before.
    pub(super) fn count_from(&mut self, from: Time, standing: &Standing, exempt: bool) -> Option<Decided> {
        self.t0 = Some(from);
        let (at, finding) = standing.warned_at().find(|(_, finding)| meets(&self.expectation, finding))?;
        if at < from { self.close(Verdict::PreExisting) } else { self.receive(at, finding, true, exempt) }
    }

    /// Whether it counts from the injection of this step, or, without a step, from t0.
    pub(super) fn is_seen_with(&self, step: Option<&str>) -> bool {
        let of = self.expectation.of.as_ref();
        of.is_none_or(|of| of.after.is_none()) && of.and_then(|of| of.step.as_deref()) == step
    }

    /// Clients can first see its fault then.
    pub(super) const fn see(&mut self, at: Time) {
        self.visible = Some(at);
    }

    pub(super) const fn is_found(&self) -> bool {
        self.found
    }

    /// Whether a finding that meets it stands.
    pub(super) fn stands(&self, standing: &Standing) -> bool {
        standing.warned().any(|finding| meets(&self.expectation, finding))
    }

    /// Its finding was cleared too early or too late.
    pub(super) fn lose(&mut self, verdict: Verdict) -> Decided {
        self.found = false;
        self.decided(verdict)
    }

    fn decided(&self, verdict: Verdict) -> Decided {
        let from = self.t0.filter(|_| self.expectation.of.is_some() || self.late);
        let visible = self.t0.map(|t0| self.hidden(t0));
        // A finding may be received before anything can be seen.
        let visible =
            visible.filter(|visible| !visible.is_zero() && verdict.after().is_none_or(|after| after >= *visible));
        Decided { expectation: self.expectation.clone(), verdict, from, visible }
    }

    /// Time from t0 until clients can see the fault.
    fn hidden(&self, t0: Time) -> Duration {
        self.visible.map(|visible| visible.since(t0)).unwrap_or_default()
    }

    /// The last instant that is in time.
    pub(super) fn deadline(&self) -> Option<Time> {
        Some(self.t0? + self.hidden(self.t0?) + self.within)
    }

    /// Whether it is open and its deadline has not passed.
    pub(super) fn is_pending(&self, now: Time) -> bool {
        self.is_open() && self.deadline().is_none_or(|deadline| now <= deadline)
    }

    /// Decides, unless already decided.
    pub(super) fn close(&mut self, verdict: Verdict) -> Option<Decided> {
        if std::mem::replace(&mut self.decided, true) {
            return None;
        }
        self.found = verdict.after().is_some();
        Some(self.decided(verdict))
    }

    /// A finding that reached `warning` after t0. A detector that named a subject that nothing asked for has not met its
    /// expectation by naming the right one later, unless it is exempt.
    pub(super) fn receive(&mut self, now: Time, finding: &Finding, asked: bool, exempt: bool) -> Option<Decided> {
        if self.decided || !concerns(&self.expectation, finding) {
            return None;
        }
        if !meets(&self.expectation, finding) {
            let reported = (now, finding.subject.clone());
            if !asked && self.elsewhere.as_ref().is_none_or(|earlier| reported < *earlier) {
                self.elsewhere = Some(reported);
            }
            return None;
        }
        let after = now.since(self.t0?);
        let counts = !exempt && self.expectation.expected_miss.is_none();
        if let Some((_, said)) = self.elsewhere.take_if(|(earlier, _)| *earlier < now && counts) {
            return self.close(Verdict::WrongSubject { said });
        }
        let in_time = after.saturating_sub(self.hidden(self.t0?)) <= self.within;
        self.close(match &self.expectation.expected_miss {
            None if in_time => Verdict::Detected { after },
            None => Verdict::Late { after },
            Some(_) if in_time => Verdict::UnexpectedlyDetected { after },
            Some(reason) => Verdict::ExpectedMiss { reason: reason.clone() },
        })
    }

    /// Refuses an expectation whose finding already stood before t0.
    pub(super) fn refuse_standing(&mut self, standing: &Standing) -> Option<Decided> {
        let stands = self.is_open() && self.t0.is_some() && self.stands(standing);
        if stands { self.close(Verdict::PreExisting) } else { None }
    }

    /// Decides an expected miss after its deadline. If the detector was blind until then, this proves nothing and is
    /// decided at the end: a finding may still come.
    pub(super) fn miss_is_over(&mut self, now: Time, blind: Option<&Blindness>) -> Option<Decided> {
        let reason = self.expectation.expected_miss.clone()?;
        if self.is_pending(now) || self.excuse(blind).is_some() {
            return None;
        }
        self.close(Verdict::ExpectedMiss { reason })
    }

    /// Decides at the end of detection.
    pub(super) fn end(&mut self, blind: Option<&Blindness>) -> Option<Decided> {
        let excuse = self.excuse(blind);
        let elsewhere = self.elsewhere.take();
        self.close(match (&self.expectation.expected_miss, elsewhere, excuse) {
            (None, Some((_, said)), _) => Verdict::WrongSubject { said },
            (_, None, Some(why)) => Verdict::Blind { why },
            (Some(reason), ..) => Verdict::ExpectedMiss { reason: reason.clone() },
            (None, None, None) if self.late && self.history => Verdict::StartedLate,
            (None, None, None) => Verdict::Missed,
        })
    }

    /// Decides a risk by the findings that stand at the end of the baseline.
    pub(super) fn assert_standing(&mut self, standing: &Standing, blind: Option<&Blindness>) -> Option<Decided> {
        if !self.stands(standing) {
            let mut others = standing.warned().filter(|finding| concerns(&self.expectation, finding));
            self.elsewhere = others.next().map(|finding| (Time::default(), finding.subject.clone()));
            return self.end(blind);
        }
        let after = Duration::ZERO;
        self.close(match self.expectation.expected_miss {
            None => Verdict::Detected { after },
            Some(_) => Verdict::UnexpectedlyDetected { after },
        })
    }

    /// Why its detector could not report in time. Blindness after the deadline is no excuse.
    fn excuse(&self, blind: Option<&Blindness>) -> Option<String> {
        let blind = blind?;
        self.deadline().is_none_or(|deadline| blind.since <= deadline).then(|| blind.why.clone())
    }
}
