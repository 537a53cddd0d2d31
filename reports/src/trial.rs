//! Facts about one trial that several reports use.
//!
//! Job: derives times (t0, t1, t2, healed), the finding behind a verdict, the reasons and the name of a
//! [`TrialSummary`].
//! Invariants: pure; with several mutations t0 is the first call and t1 the time when the last one was in force, as
//! time to detect runs from the first call.
//! Left out: presentation.

use std::time::Duration;

use relapse_detectors::finding::{Level, Severity, Subject};
use relapse_detectors::time::Time;

use crate::event::{Decided, FindingReceived, Outcome, Phase, TrialEvent, Verdict};
use crate::summary::{Blind, FlowAt, Healed, PhaseSpan, Reduced, TrialSummary};
use crate::units::{self, Offset};

/// A finding from receipt until it was cleared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub detector: String,
    pub level: Level,
    /// Its highest severity.
    pub severity: Severity,
    pub subject: Subject,
    pub from: Time,
    /// When it was received at `warning` or above, if ever.
    pub warned: Option<Time>,
    pub cleared: Option<Time>,
    /// The evidence at its highest severity.
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
                let (verdicts, findings) = (self.verdicts.len(), self.findings.len());
                self.phases.push(PhaseSpan {
                    phase: *phase,
                    step: step.clone(),
                    from: at,
                    to: None,
                    verdicts,
                    findings,
                });
            }
            TrialEvent::Reduced { what, why } => {
                self.reduced.push(Reduced { what: what.clone(), why: why.clone() });
            }
            TrialEvent::Injected(injected) => self.injected.push(injected.clone()),
            TrialEvent::Visible(seen) => self.visible.push(seen.clone()),
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
            TrialEvent::Triage(_) => {}
            TrialEvent::TriageDecided(decided) => self.triage.push(decided.clone()),
            TrialEvent::Flow(sample) => self.flows.push(FlowAt { at, sample: sample.clone() }),
            TrialEvent::Database { read, report } => self.databases.push((*read, report.clone())),
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

    /// The outcome of the trial: as it ended, skipped, or inconclusive if it did not finish.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match (&self.ended, &self.skipped) {
            (Some(ended), _) => ended.outcome,
            (None, Some(_)) => Outcome::Skipped,
            (None, None) => Outcome::Inconclusive,
        }
    }

    /// Whether it has neither ended nor been skipped.
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

    /// The time immediately before the first mutating call.
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

    /// The time of the first affected attempt or packet.
    #[must_use]
    pub fn t2(&self) -> Option<Time> {
        self.effects.iter().filter_map(|effect| effect.t2).min()
    }

    /// When the last mutation was undone.
    #[must_use]
    pub fn healed_at(&self) -> Option<Time> {
        self.healed.iter().map(|healed| healed.at).max()
    }

    /// The times of its first and last event.
    #[must_use]
    pub fn bounds(&self) -> Option<(Time, Time)> {
        let from = self.phases.first().map(|phase| phase.from).or(self.started)?;
        Some((self.started.map_or(from, |started| started.min(from)), self.last?.max(from)))
    }

    /// How long it took, if it ended.
    #[must_use]
    pub fn took(&self) -> Option<Duration> {
        self.ended.as_ref().map(|ended| ended.took)
    }

    /// When the finding of a verdict was received.
    fn received(&self, decided: &Decided) -> Option<Time> {
        Some(decided.from.or_else(|| self.t0())? + decided.verdict.after()?)
    }

    /// The offset of the finding of a verdict from t2, the first attempt that failed or was slow; in a chain, from that of its own step.
    #[must_use]
    pub fn lead(&self, decided: &Decided) -> Option<Offset> {
        let received = self.received(decided)?;
        let step = decided.expectation.of.as_ref().and_then(|of| of.step.as_ref());
        // While earlier steps were in force, what users felt cannot be attributed.
        let watched = self.phases.iter().position(|span| step.is_some() && span.step.as_ref() == step).unwrap_or(0);
        let healing = self.phases[..watched].iter().rfind(|span| span.phase == Phase::Heal);
        if healing.is_some_and(|healing| received < healing.from) {
            return None;
        }
        let felt = self.effects.iter().filter(|effect| step.is_none() || effect.step.as_ref() == step);
        Some(Offset::between(felt.filter_map(|effect| effect.t2).min()?, received))
    }

    /// Verdicts that are shown. Silent verdicts are not, nor undecided ones of a control, which are a reason of the
    /// trial.
    #[must_use]
    pub fn shown_verdicts(&self) -> Vec<&Decided> {
        let hidden = |verdict: &Verdict| {
            *verdict == Verdict::Silent || self.is_control() && matches!(verdict, Verdict::Undecided { .. })
        };
        self.verdicts.iter().filter(|d| !hidden(&d.verdict)).collect()
    }

    /// The finding behind a verdict, if there is one.
    #[must_use]
    pub fn finding_behind(&self, decided: &Decided) -> Option<&FindingReceived> {
        let expected = &decided.expectation;
        let subject = match &decided.verdict {
            Verdict::WrongSubject { said: subject }
            | Verdict::FalseAlarm { subject, .. }
            | Verdict::Unexpected { subject, .. } => Some(subject),
            _ => expected.subject.as_ref(),
        };
        let fits = |received: &&FindingReceived| {
            let finding = &received.finding;
            finding.detector == expected.detector
                && finding.level == expected.level
                && !finding.cleared
                && finding.severity >= Severity::Warning
                && subject.is_none_or(|subject| *subject == finding.subject)
        };
        // The time of the verdict distinguishes several findings of the same kind (before and after t0).
        let exact = self.received(decided).and_then(|at| self.findings.iter().filter(fits).find(|f| f.received == at));
        exact.or_else(|| self.findings.iter().find(fits))
    }

    /// The subject of a verdict: the expected one, otherwise the reported one.
    #[must_use]
    pub fn about(&self, decided: &Decided) -> String {
        let expected = decided.expectation.subject.as_ref();
        let reported = || match &decided.verdict {
            Verdict::FalseAlarm { subject, .. } | Verdict::Unexpected { subject, .. } => Some(subject),
            _ => self.finding_behind(decided).map(|received| &received.finding.subject),
        };
        expected.or_else(reported).map_or_else(|| "anything".to_owned(), ToString::to_string)
    }

    /// "10 ms before first effect", "1.01 s after first effect"; only for detections.
    #[must_use]
    pub fn lead_text(&self, decided: &Decided) -> Option<String> {
        decided.verdict.after().filter(|after| !after.is_zero())?;
        let lead = self.lead(decided)?;
        let side = if lead.is_before() { "before" } else { "after" };
        Some(format!("{} {side} first effect", units::span(lead.distance())))
    }

    /// The finding's evidence, or why there is none.
    #[must_use]
    pub fn evidence(&self, decided: &Decided) -> Option<String> {
        let found = || self.finding_behind(decided).map(|received| received.finding.evidence.clone());
        match &decided.verdict {
            Verdict::Blind { why: text }
            | Verdict::Undecided { why: text }
            | Verdict::ExpectedMiss { reason: text }
            | Verdict::FalseAlarm { evidence: text, .. }
            | Verdict::Unexpected { evidence: text, .. } => Some(text.clone()),
            Verdict::Missed | Verdict::Silent => None,
            Verdict::WrongSubject { said: subject } => {
                let evidence = found().map(|evidence| format!(": {evidence}"));
                Some(format!("reported about {subject}{}", evidence.unwrap_or_default()))
            }
            Verdict::PreExisting => found().or_else(|| Some("reported before the fault was injected".to_owned())),
            _ => found(),
        }
    }

    /// When each finding stood, in order of appearance.
    #[must_use]
    pub fn standing(&self) -> Vec<Standing> {
        Self::standing_of(&self.findings)
    }

    /// The same of the first findings only.
    #[must_use]
    pub fn standing_of(findings: &[FindingReceived]) -> Vec<Standing> {
        let mut all: Vec<Standing> = Vec::new();
        for received in findings {
            let finding = &received.finding;
            let open = all.iter_mut().find(|standing| {
                standing.detector == finding.detector
                    && standing.level == finding.level
                    && standing.subject == finding.subject
                    && standing.cleared.is_none()
            });
            let warned = (finding.severity >= Severity::Warning).then_some(received.received);
            match open {
                Some(open) if finding.cleared => open.cleared = Some(received.received),
                Some(open) => {
                    if finding.severity > open.severity {
                        open.severity = finding.severity;
                        open.evidence.clone_from(&finding.evidence);
                    }
                    open.warned = open.warned.or(warned);
                }
                // Cleared without having been reported: the start of the file is lost.
                None if finding.cleared => {}
                None => all.push(Standing {
                    detector: finding.detector.clone(),
                    level: finding.level,
                    severity: finding.severity,
                    subject: finding.subject.clone(),
                    from: received.received,
                    warned,
                    cleared: None,
                    evidence: finding.evidence.clone(),
                }),
            }
        }
        all
    }

    /// When clients saw changes that were hidden from them: "oss.example.com visible after 4.20 s", "healing of
    /// oss.example.com visible after 3.10 s".
    #[must_use]
    pub fn seen(&self) -> Vec<String> {
        let each = self.visible.iter().filter_map(|seen| {
            let of_step = |step: &Option<String>| seen.step.is_none() || *step == seen.step;
            let since = if seen.healing {
                let heals = |span: &&PhaseSpan| span.phase == Phase::Heal && of_step(&span.step);
                self.phases.iter().find(heals)?.from
            } else {
                self.injected.iter().filter(|made| of_step(&made.step)).map(|made| made.t0).min()?
            };
            let healing = if seen.healing { "healing of " } else { "" };
            let how = if seen.observed { "" } else { ", when caches expired" };
            Some(format!("{healing}{} visible after {}{how}", seen.what, units::span(seen.at.since(since))))
        });
        each.collect()
    }

    /// Remarks besides verdicts and reasons: "left behind: ...", "left out: ...".
    #[must_use]
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = self.own_remarks();
        remarks.extend(self.host_changed.iter().map(|what| format!("host changed by another process: {what}")));
        remarks
    }

    /// The remarks without changes made by other processes.
    #[must_use]
    pub fn own_remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        remarks.extend(self.left_behind.iter().map(|what| format!("left behind: {what}")));
        let failed = self.healed.iter().filter_map(|h| Some((&h.what, h.error.as_ref()?)));
        remarks.extend(failed.map(|(what, error)| format!("not healed: {what}: {error}")));
        let broken = self.effects.iter().filter(|effect| !effect.holds);
        remarks.extend(broken.map(|effect| format!("effect not seen: {}: {}", effect.effect, effect.evidence)));
        // A blind verdict already shows this.
        let judged = |name: &str| self.verdicts.iter().any(|d| d.expectation.detector == name && !d.verdict.passes());
        let blind = self.blind.iter().filter(|blind| !judged(&blind.detector));
        remarks.extend(blind.map(|blind| format!("blind: {}: {}", blind.detector, blind.why)));
        remarks.extend(self.reduced.iter().map(|reduced| format!("left out: {}: {}", reduced.what, reduced.why)));
        // The same fact may already be among the reasons.
        let reasons = self.reasons();
        remarks.retain(|remark| !reasons.contains(remark));
        remarks
    }
}
