//! Questions about one trial that several reports ask.
//!
//! Job: the instants (t0, t1, t2, healed), the finding behind a verdict, the reasons and the name of
//! a [`TrialSummary`], each worked out once. Invariants: pure; with several mutations t0 is the first
//! call and t1 the moment the last one was in force, as time to detect runs from the first call.
//! Left out: how any of it is shown.

use std::time::Duration;

use relapse_detectors::finding::{Level, Severity, Subject};
use relapse_detectors::time::Time;

use crate::event::{Decided, FindingReceived, Outcome, Phase, TrialEvent, Verdict};
use crate::summary::{Blind, FlowAt, Healed, PhaseSpan, Reduced, TrialSummary};
use crate::units::{self, Offset};

/// A finding from when it was received to when it was cleared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub detector: String,
    pub level: Level,
    /// The highest it reached.
    pub severity: Severity,
    pub subject: Subject,
    pub from: Time,
    /// When it was received at `warning` or above, if ever.
    pub warned: Option<Time>,
    pub cleared: Option<Time>,
    /// As of its highest severity.
    pub evidence: String,
}

impl TrialSummary {
    /// Folds one of its events.
    pub fn push(&mut self, at: Time, event: &TrialEvent) {
        self.last = Some(self.last.map_or(at, |last| last.max(at)));
        match event {
            TrialEvent::Started => self.started = Some(at),
            TrialEvent::Skipped { reason } => self.skipped = Some(reason.clone()),
            TrialEvent::Waiting { reason } => self.waited.push(reason.clone()),
            TrialEvent::Phase { phase, step } => {
                self.close_phase(at);
                let verdicts = self.verdicts.len();
                self.phases.push(PhaseSpan { phase: *phase, step: step.clone(), from: at, to: None, verdicts });
            }
            TrialEvent::Reduced { what, why } => {
                self.reduced.push(Reduced { what: what.clone(), why: why.clone() });
            }
            TrialEvent::Injected(injected) => self.injected.push(injected.clone()),
            TrialEvent::Effect(effect) => self.effects.push(effect.clone()),
            TrialEvent::Finding(finding) => self.findings.push(finding.clone()),
            TrialEvent::Blind { detector, why } => {
                self.blind.push(Blind { at, detector: detector.clone(), why: why.clone() });
            }
            TrialEvent::Verdict(decided) => self.verdicts.push(decided.clone()),
            TrialEvent::Healed { what, error } => {
                self.healed.push(Healed { at, what: what.clone(), error: error.clone() });
            }
            TrialEvent::LeftBehind { what } => self.left_behind.push(what.clone()),
            TrialEvent::HostChanged { what } => self.host_changed.push(what.clone()),
            TrialEvent::Flow(sample) => self.flows.push(FlowAt { at, sample: sample.clone() }),
            TrialEvent::Ended(ended) => {
                self.close_phase(at);
                self.ended = Some(ended.clone());
            }
        }
    }

    fn close_phase(&mut self, at: Time) {
        if let Some(open) = self.phases.last_mut()
            && open.to.is_none()
        {
            open.to = Some(at);
        }
    }

    /// As the trial said; skipped if it was; else it did not finish, which proves nothing.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match (&self.ended, &self.skipped) {
            (Some(ended), _) => ended.outcome,
            (None, Some(_)) => Outcome::Skipped,
            (None, None) => Outcome::Inconclusive,
        }
    }

    /// It began, and has neither ended nor been skipped.
    #[must_use]
    pub const fn is_unfinished(&self) -> bool {
        self.ended.is_none() && self.skipped.is_none()
    }

    /// Why it is not a pass, worst first; empty for a pass.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        if self.is_unfinished() {
            return vec![match self.phases.last() {
                Some(last) => format!("not finished: the events end in phase {}", last.phase.as_str()),
                None if self.started.is_some() => "not finished: the events end right after its start".to_owned(),
                None => "not finished: it was never started".to_owned(),
            }];
        }
        let mut reasons = self.ended.as_ref().map(|ended| ended.reasons.clone()).unwrap_or_default();
        if let Some(skipped) = &self.skipped
            && !reasons.iter().any(|reason| reason.contains(skipped.as_str()))
        {
            reasons.push(skipped.clone());
        }
        reasons
    }

    #[must_use]
    pub const fn is_control(&self) -> bool {
        self.info.trial.control.is_some()
    }

    /// "I4 policy-route-lost", "I4 policy-route-lost / table-rebuilt (control)".
    #[must_use]
    pub fn name(&self) -> String {
        let scenario = format!("{} {}", self.info.incident, self.info.trial.scenario);
        match &self.info.trial.control {
            None => scenario.trim_start().to_owned(),
            Some(control) => format!("{} / {control} (control)", scenario.trim_start()),
        }
    }

    /// Immediately before the first mutating call.
    #[must_use]
    pub fn t0(&self) -> Option<Time> {
        self.injected.iter().map(|injected| injected.t0).min()
    }

    /// When the last mutation was read back as in force. Changes that heal steps of a chain are none of these.
    #[must_use]
    pub fn t1(&self) -> Option<Time> {
        let healing = self.phases.iter().find(|span| span.phase == Phase::Heal).map(|span| span.from);
        let faults = self.injected.iter().filter(|injected| healing.is_none_or(|healing| injected.t0 < healing));
        faults.map(|injected| injected.t1).max()
    }

    /// The first affected attempt or packet.
    #[must_use]
    pub fn t2(&self) -> Option<Time> {
        self.effects.iter().filter_map(|effect| effect.t2).min()
    }

    /// When the last mutation was undone.
    #[must_use]
    pub fn healed_at(&self) -> Option<Time> {
        self.healed.iter().map(|healed| healed.at).max()
    }

    /// Beginning and end of all that was seen of it.
    #[must_use]
    pub fn bounds(&self) -> Option<(Time, Time)> {
        let from = self.phases.first().map(|phase| phase.from).or(self.started)?;
        Some((self.started.map_or(from, |started| started.min(from)), self.last?.max(from)))
    }

    /// How long it took, where it ended.
    #[must_use]
    pub fn took(&self) -> Option<Duration> {
        self.ended.as_ref().map(|ended| ended.took)
    }

    /// When a verdict's finding was received, where it has one with a time.
    fn received(&self, decided: &Decided) -> Option<Time> {
        Some(decided.from.or_else(|| self.t0())? + decided.verdict.after()?)
    }

    /// Where a verdict's finding lies, seen from the moment users felt the fault; in a chain, that of its step.
    #[must_use]
    pub fn lead(&self, decided: &Decided) -> Option<Offset> {
        let step = decided.expectation.of.as_ref().and_then(|of| of.step.as_ref());
        let felt = self.effects.iter().filter(|effect| step.is_none() || effect.step.as_ref() == step);
        Some(Offset::between(felt.filter_map(|effect| effect.t2).min()?, self.received(decided)?))
    }

    /// Verdicts that deserve a row. That nothing was proved of any detector is a reason of the trial, and
    /// said once.
    #[must_use]
    pub fn telling(&self) -> Vec<&Decided> {
        let moot = |verdict: &Verdict| {
            *verdict == Verdict::Silent || self.is_control() && matches!(verdict, Verdict::Undecided { .. })
        };
        self.verdicts.iter().filter(|d| !moot(&d.verdict)).collect()
    }

    /// The finding that a verdict is about, where there is one.
    #[must_use]
    pub fn finding_behind(&self, decided: &Decided) -> Option<&FindingReceived> {
        let expected = &decided.expectation;
        let subject = match &decided.verdict {
            Verdict::WrongSubject { said: subject } | Verdict::FalseAlarm { subject, .. } => Some(subject),
            _ => expected.subject.as_ref(),
        };
        let fits = |received: &&FindingReceived| {
            let said = &received.finding;
            said.detector == expected.detector
                && said.level == expected.level
                && !said.cleared
                && said.severity >= Severity::Warning
                && subject.is_none_or(|subject| *subject == said.subject)
        };
        // The decided instant tells apart several findings of the same kind (before and after t0).
        let exact = self.received(decided).and_then(|at| self.findings.iter().filter(fits).find(|f| f.received == at));
        exact.or_else(|| self.findings.iter().find(fits))
    }

    /// What a verdict is about: the subject expected, else the one that was named.
    #[must_use]
    pub fn about(&self, decided: &Decided) -> String {
        let expected = decided.expectation.subject.as_ref();
        let said = || match &decided.verdict {
            Verdict::FalseAlarm { subject, .. } => Some(subject),
            _ => self.finding_behind(decided).map(|received| &received.finding.subject),
        };
        expected.or_else(said).map_or_else(|| "anything".to_owned(), ToString::to_string)
    }

    /// "10 ms before first failure", "1.01 s after first failure"; only for what was detected.
    #[must_use]
    pub fn felt(&self, decided: &Decided) -> Option<String> {
        decided.verdict.after().filter(|after| !after.is_zero())?;
        let lead = self.lead(decided)?;
        let side = if lead.is_before() { "before" } else { "after" };
        Some(format!("{} {side} first failure", units::span(lead.distance())))
    }

    /// What a person can check: the finding's evidence, or why there is none.
    #[must_use]
    pub fn evidence(&self, decided: &Decided) -> Option<String> {
        let found = || self.finding_behind(decided).map(|received| received.finding.evidence.clone());
        match &decided.verdict {
            Verdict::Blind { why: text }
            | Verdict::Undecided { why: text }
            | Verdict::ExpectedMiss { reason: text }
            | Verdict::FalseAlarm { evidence: text, .. } => Some(text.clone()),
            Verdict::Missed | Verdict::Silent => None,
            Verdict::WrongSubject { said } => {
                let evidence = found().map(|evidence| format!(": {evidence}"));
                Some(format!("reported only about {said}{}", evidence.unwrap_or_default()))
            }
            Verdict::PreExisting => found().or_else(|| Some("reported before the fault was injected".to_owned())),
            _ => found(),
        }
    }

    /// What each detector said, from when to when, in order of appearance.
    #[must_use]
    pub fn standing(&self) -> Vec<Standing> {
        let mut all: Vec<Standing> = Vec::new();
        for received in &self.findings {
            let said = &received.finding;
            let open = all.iter_mut().find(|standing| {
                standing.detector == said.detector
                    && standing.level == said.level
                    && standing.subject == said.subject
                    && standing.cleared.is_none()
            });
            let warned = (said.severity >= Severity::Warning).then_some(received.received);
            match open {
                Some(open) if said.cleared => open.cleared = Some(received.received),
                Some(open) => {
                    if said.severity > open.severity {
                        open.severity = said.severity;
                        open.evidence.clone_from(&said.evidence);
                    }
                    open.warned = open.warned.or(warned);
                }
                // Cleared without having been said: the beginning of the file is lost.
                None if said.cleared => {}
                None => all.push(Standing {
                    detector: said.detector.clone(),
                    level: said.level,
                    severity: said.severity,
                    subject: said.subject.clone(),
                    from: received.received,
                    warned,
                    cleared: None,
                    evidence: said.evidence.clone(),
                }),
            }
        }
        all
    }

    /// All that deserves a line beyond verdicts and reasons: "left behind: ...", "reduced: ...".
    #[must_use]
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = self.own_remarks();
        remarks.extend(self.host_changed.iter().map(|what| format!("host changed (not by us): {what}")));
        remarks
    }

    /// Without what others did to the machine.
    #[must_use]
    pub fn own_remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        remarks.extend(self.left_behind.iter().map(|what| format!("left behind: {what}")));
        let failed = self.healed.iter().filter_map(|h| Some((&h.what, h.error.as_ref()?)));
        remarks.extend(failed.map(|(what, error)| format!("not healed: {what}: {error}")));
        let broken = self.effects.iter().filter(|effect| !effect.holds);
        remarks.extend(broken.map(|effect| format!("effect not seen: {}: {}", effect.effect, effect.evidence)));
        // A blind verdict says so already.
        let judged = |name: &str| self.verdicts.iter().any(|d| d.expectation.detector == name && !d.verdict.passes());
        let blind = self.blind.iter().filter(|blind| !judged(&blind.detector));
        remarks.extend(blind.map(|blind| format!("blind: {}: {}", blind.detector, blind.why)));
        remarks.extend(self.reduced.iter().map(|reduced| format!("left out: {}: {}", reduced.what, reduced.why)));
        // The same fact may stand among the reasons already.
        let reasons = self.reasons();
        remarks.retain(|remark| !reasons.contains(remark));
        remarks
    }
}
