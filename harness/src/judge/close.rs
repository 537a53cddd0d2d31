//! The end of detection and of recovery: what is still open is decided.

use std::collections::BTreeMap;

use relapse_detectors::finding::{Finding, Level};
use relapse_detectors::time::Time;

use super::expected::{self, Expected};
use super::{Judge, Stage};
use crate::event::{Decided, Verdict};

impl Judge {
    /// Ends detection and closes open expectations. In a control, each detector without a false alarm is silent, or
    /// blind if it was blind at any time.
    pub fn detect_ended(&mut self, now: Time) {
        self.advance(now);
        match self.stage {
            Stage::Ended => return,
            Stage::Baseline | Stage::Between => return self.abandon("nothing was injected"),
            Stage::Watching => self.stage = Stage::Ended,
        }
        let mut decided = self.end_open(|_| true);
        decided.extend(self.out_of_place());
        decided.extend(self.quiet_detectors().into_iter().map(|detector| Decided {
            verdict: match self.blind.get(&detector) {
                Some(blind) => Verdict::Blind { why: blind.why.clone() },
                None => Verdict::Silent,
            },
            expectation: self.unplanned(&detector, Level::Cause, None),
            from: None,
            visible: None,
        }));
        self.record(decided);
    }

    /// Closes open expectations.
    pub(super) fn end_open(&mut self, which: impl Fn(&Expected) -> bool) -> Vec<Decided> {
        let open = self.expected.iter_mut().filter(|expected| which(expected));
        open.filter_map(|open| open.end(self.blind.get(&open.expectation().detector))).collect()
    }

    /// This machine cannot create the cause itself, only its consequences (a limit that is filled but not lowered):
    /// open expectations of level `cause`, in a chain those of this step, cannot be decided and do not count. The trial
    /// proves nothing if nothing else is expected, or if there are faults `beside` it, whose causes cannot be told apart.
    pub fn leave_out(&mut self, step: Option<&str>, beside: bool, what: &str, why: &str) {
        let undecided = Verdict::Undecided { why: format!("{what} was left out: {why}") };
        let of_step = |e: &&mut Expected| e.expectation().of.as_ref().and_then(|of| of.step.as_deref()) == step;
        let causes = self.expected.iter_mut().filter(of_step).filter(|e| e.expectation().level == Level::Cause);
        let closed: Vec<Decided> = causes.filter_map(|cause| cause.close(undecided.clone())).collect();
        if beside {
            return self.record(closed);
        }
        self.left_out += closed.len();
        // Not recorded: the outcome depends on the other expectations.
        self.undelivered.extend(closed);
    }

    /// The trial cannot prove the rest (no steady state, no effect, a fault that failed): closes open expectations as
    /// undecided.
    pub fn abandon(&mut self, why: &str) {
        if self.stage == Stage::Ended {
            return;
        }
        (self.stage, self.abandoned) = (Stage::Ended, true);
        // Unknown whether these came before or after a mutation: they stand, but decide nothing.
        for (received, finding) in std::mem::take(&mut self.held) {
            self.standing.take(received, &finding, false);
        }
        let undecided = Verdict::Undecided { why: why.to_owned() };
        let open = self.risks.iter_mut().chain(&mut self.expected);
        let mut decided: Vec<Decided> = open.filter_map(|expected| expected.close(undecided.clone())).collect();
        decided.extend(self.quiet_detectors().into_iter().map(|detector| Decided {
            expectation: self.unplanned(&detector, Level::Cause, None),
            verdict: undecided.clone(),
            from: None,
            visible: None,
        }));
        self.record(decided);
    }

    /// The recovery deadline has passed. Healing was read back, or reached the last client, at `healed`: warnings whose
    /// evidence begins later are false alarms. Findings since t0 that still stand and are no risks were not cleared: one
    /// verdict for each detector and level, on the expectation they met, if any; none if there is an alarm for them.
    pub fn recovered(&mut self, now: Time, healed: Time) {
        self.advance(now);
        if self.is_chain() {
            self.stage_ended(now);
            self.detect_ended(now);
        }
        for finding in std::mem::take(&mut self.since_t0) {
            // The evidence of a detector outside has no time of its own.
            let counts = !self.abandoned && !self.outside.contains(&finding.detector) && !self.is_known_risk(&finding);
            if counts && finding.since > healed {
                self.alarm(&finding);
            }
        }
        let mut groups: BTreeMap<(String, Level), Vec<&Finding>> = BTreeMap::new();
        for finding in self.standing.uncleared() {
            groups.entry((finding.detector.clone(), finding.level)).or_default().push(finding);
        }
        let mut decided = Vec::new();
        for ((detector, level), standing) in groups {
            let key = (detector.clone(), level);
            let mut planned = self.expected.iter().map(Expected::expectation);
            let met = planned.find(|e| standing.iter().any(|finding| expected::meets(e, finding)));
            let alarmed = (self.is_control() || self.is_chain() || met.is_none()) && self.alarms.contains(&key);
            if alarmed || self.uncleared.contains(&key) {
                continue;
            }
            let expectation = met.cloned().unwrap_or_else(|| {
                self.unplanned(&detector, level, standing.first().map(|finding| finding.subject.clone()))
            });
            decided.push(Decided { expectation, verdict: Verdict::NotCleared, from: None, visible: None });
        }
        self.record(decided);
    }
}
