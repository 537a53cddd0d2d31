//! A finding that reached `warning`: asked for, or an alarm.

use std::time::Duration;

use relapse_detectors::finding::{Finding, Level, Subject};
use relapse_detectors::time::Time;

use super::Judge;
use super::expected::{self, Expected};
use crate::event::{Also, Decided, Expectation, Verdict};

impl Judge {
    /// A finding received before t0.
    pub(super) fn before(&mut self, now: Time, finding: &Finding) {
        if !self.standing.take(now, finding, false) {
            return;
        }
        if finding.level == Level::Risk {
            self.known_risks.insert((finding.detector.clone(), finding.subject.clone()));
        } else {
            self.alarm(finding);
        }
    }

    /// A finding received after t0, during detection.
    pub(super) fn after(&mut self, now: Time, finding: &Finding) {
        if !self.standing.take(now, finding, true) {
            return;
        }
        self.since_t0.push(finding.clone());
        if self.is_control() {
            if !self.is_known_risk(finding) {
                self.alarm(finding);
            }
            return;
        }
        let (asked, exempt) = (self.is_asked(now, finding), self.is_exempt(&finding.detector));
        let receive = |e: &mut Expected| {
            let early = self.steps.is_covered(e.expectation()) && expected::meets(e.expectation(), finding);
            if early { e.close(Verdict::PreExisting) } else { e.receive(now, finding, asked, exempt) }
        };
        let decided: Vec<Decided> = self.expected.iter_mut().filter_map(receive).collect();
        let too_early = decided.iter().any(|d| d.verdict == Verdict::PreExisting);
        self.record(decided);
        if !too_early && !asked && !exempt {
            self.unexpected(finding);
        }
    }

    /// A finding received after the end of detection.
    pub(super) fn after_the_end(&mut self, now: Time, finding: &Finding) {
        let is_past_t0 = self.is_past_t0(now);
        if !self.standing.take(now, finding, is_past_t0) || !is_past_t0 || self.abandoned {
            return;
        }
        self.since_t0.push(finding.clone());
        if !self.is_control() && !self.is_asked(now, finding) && !self.is_exempt(&finding.detector) {
            self.unexpected(finding);
        }
    }

    /// Whether the scenario asks for a finding, or it was known before the fault.
    pub(super) fn is_asked(&self, now: Time, finding: &Finding) -> bool {
        let expected =
            |e: &Expected| expected::meets(e.expectation(), finding) && self.steps.explain(e.expectation(), now);
        let follows = |also: &Also| also.is(finding) && self.steps.is_left(also.step.as_deref(), now);
        self.expected.iter().any(expected) || self.also.iter().any(follows) || self.is_known_risk(finding)
    }

    /// Detectors that start after a change see the risks that stand, and not since when.
    pub(super) fn is_known_risk(&self, finding: &Finding) -> bool {
        let is_known = || self.known_risks.contains(&(finding.detector.clone(), finding.subject.clone()));
        finding.level == Level::Risk && (self.late || is_known())
    }

    /// A detector of users may report what nothing asked for, unless it is strict.
    pub(super) fn is_exempt(&self, detector: &str) -> bool {
        self.outside.contains(detector) && !self.strict.contains(detector)
    }

    pub(super) fn pre_existing(&mut self) {
        let decided = self.expected.iter_mut().filter_map(|e| e.refuse_standing(&self.standing)).collect();
        self.record(decided);
    }

    pub(super) fn alarm(&mut self, finding: &Finding) {
        let Finding { severity, subject, evidence, .. } = finding.clone();
        self.unplanned_once(finding, Verdict::FalseAlarm { severity, subject, evidence });
    }

    pub(super) fn unexpected(&mut self, finding: &Finding) {
        let Finding { severity, subject, evidence, .. } = finding.clone();
        self.unplanned_once(finding, Verdict::Unexpected { severity, subject, evidence });
    }

    pub(super) fn unplanned_once(&mut self, finding: &Finding, verdict: Verdict) {
        if self.alarms.insert((finding.detector.clone(), finding.level)) {
            let expectation = self.unplanned(&finding.detector, finding.level, None);
            self.record(vec![Decided { expectation, verdict, from: None, visible: None }]);
        }
    }

    /// Detectors of a control without a false alarm.
    pub(super) fn quiet_detectors(&self) -> Vec<String> {
        let loud = |detector: &String| self.alarms.iter().any(|(name, _)| name == detector);
        self.silent.iter().flatten().filter(|detector| !loud(detector)).cloned().collect()
    }

    /// The expectation of an unplanned verdict: no deadline.
    pub(super) fn unplanned(&self, detector: &str, level: Level, subject: Option<Subject>) -> Expectation {
        Expectation {
            detector: detector.to_owned(),
            level,
            subject,
            within: Duration::ZERO,
            of: None,
            expected_miss: None,
            outside: self.outside.contains(detector),
        }
    }
}
