//! Detectors that are armed after the fault, or once more while it is in force.
//!
//! Whatever they report counts from then. Where only history proves a cause, they cannot name it, and that is accepted
//! for the causes listed in [`relapse_detectors::history`], there alone.

use relapse_detectors::finding::Level;
use relapse_detectors::time::Time;

use super::expected::Expected;
use super::standing::Standing;
use super::{Judge, Stage};
use crate::event::{Decided, Expectation, Verdict};

impl Judge {
    /// Names the expectations that a detector armed late may miss.
    #[must_use]
    pub fn with_history(mut self, is_needed: impl Fn(&Expectation) -> bool) -> Self {
        let needed = self.expected.iter_mut().filter(|expected| is_needed(expected.expectation()));
        needed.for_each(Expected::needs_history);
        self
    }

    /// Detectors will be armed once more: until then no verdict is delivered.
    #[must_use]
    pub fn with_restart(mut self) -> Self {
        self.withheld = true;
        self
    }

    /// All detectors are armed now, and know nothing of what was before. Those that had reported a finding must report
    /// it again, and what they had not reported is decided.
    pub fn armed_late(&mut self, now: Time) {
        self.advance(now);
        if self.stage == Stage::Ended {
            return;
        }
        let missed = self.end_open(|open| open.deadline().is_some());
        self.record(missed);
        let is_over = |decided: &Decided| {
            decided.expectation.level == Level::Risk || !matches!(decided.verdict, Verdict::Detected { .. })
        };
        let (over, again) = std::mem::take(&mut self.decided).into_iter().partition::<Vec<_>, _>(is_over);
        self.decided = over;
        self.undelivered.retain(is_over);
        let again =
            |of: &&mut Expected| of.is_found() && again.iter().any(|decided| decided.expectation == *of.expectation());
        for found in self.expected.iter_mut().filter(again) {
            found.reopen(now);
            self.found_before = true;
        }
        self.expected.iter_mut().filter(|expected| expected.is_open()).for_each(Expected::arm_late);
        self.standing = Standing::default();
        self.late = true;
        self.withheld = false;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use relapse_detectors::finding::{Finding, Severity, Subject};

    use super::*;
    use crate::event::Outcome;

    const WITHIN: Duration = Duration::from_millis(50);

    fn at(ms: u64) -> Time {
        Time(1_000_000_000 + ms * 1_000_000)
    }

    fn cause(detector: &str) -> Expectation {
        Expectation {
            detector: detector.to_owned(),
            level: Level::Cause,
            subject: Some(Subject::node("a")),
            within: WITHIN,
            of: None,
            expected_miss: None,
            outside: false,
        }
    }

    fn finding(detector: &str, cleared: bool) -> Finding {
        Finding {
            detector: detector.to_owned(),
            incident: "I2".to_owned(),
            level: Level::Cause,
            severity: Severity::Warning,
            subject: Subject::node("a"),
            evidence: String::new(),
            since: at(0),
            cleared,
        }
    }

    /// A judge of two causes, of which only history proves `fall`.
    fn judge() -> Judge {
        Judge::incident(vec![cause("rule"), cause("fall")], vec![]).with_history(|e| e.detector == "fall")
    }

    fn verdicts(judge: &mut Judge) -> Vec<(String, Verdict)> {
        judge.take_decided().into_iter().map(|d| (d.expectation.detector, d.verdict)).collect()
    }

    #[test]
    fn only_a_late_start_excuses_and_only_what_history_proves() {
        for (late, fall, rule) in
            [(true, Verdict::StartedLate, Verdict::Missed), (false, Verdict::Missed, Verdict::Missed)]
        {
            let mut judge = judge();
            judge.baseline_ended(at(0));
            if late {
                judge.armed_late(at(100));
            }
            judge.injected(at(100));
            judge.detect_ended(at(200));
            assert_eq!(verdicts(&mut judge), [("rule".to_owned(), rule), ("fall".to_owned(), fall)]);
            assert_eq!(judge.outcome().0, Outcome::Fail);
        }
    }

    #[test]
    fn a_late_detector_counts_from_when_it_was_armed() {
        let mut judge = judge();
        judge.baseline_ended(at(0));
        judge.armed_late(at(100));
        judge.injected(at(100));
        judge.finding(at(150), &finding("rule", false));
        judge.detect_ended(at(200));
        let decided = judge.take_decided();
        assert_eq!(decided[0].verdict, Verdict::Detected { after: WITHIN });
        assert_eq!(decided[0].from, Some(at(100)));
        assert_eq!(judge.outcome().0, Outcome::Pass);
    }

    /// Plays a restart at 100 ms; `again` are the findings after it.
    fn restarted(first: &[&str], again: &[&str]) -> (Vec<(String, Verdict)>, Judge) {
        let mut judge = judge().with_restart();
        judge.injected(at(0));
        first.iter().for_each(|detector| judge.finding(at(10), &finding(detector, false)));
        assert_eq!(judge.take_decided(), []);
        judge.armed_late(at(100));
        again.iter().for_each(|detector| judge.finding(at(120), &finding(detector, false)));
        judge.detect_ended(at(200));
        (verdicts(&mut judge), judge)
    }

    #[test]
    fn a_restarted_detector_must_report_what_stands_once_more_and_clear_it() {
        let found = |ms| Verdict::Detected { after: Duration::from_millis(ms) };
        let (seen, mut judge) = restarted(&["rule", "fall"], &["rule"]);
        assert_eq!(seen, [("rule".to_owned(), found(20)), ("fall".to_owned(), Verdict::StartedLate)]);
        assert!(!judge.all_cleared());
        judge.finding(at(300), &finding("rule", true));
        judge.recovered(at(400), at(250));
        assert_eq!(judge.outcome().0, Outcome::Pass);

        let (seen, judge) = restarted(&["rule", "fall"], &[]);
        assert_eq!(seen[0], ("rule".to_owned(), Verdict::Missed));
        assert_eq!(judge.outcome().0, Outcome::Fail);
    }

    #[test]
    fn silence_passes_no_trial_in_which_only_history_proves_anything() {
        let judge = || Judge::incident(vec![cause("fall")], vec![]).with_history(|_| true);
        let mut late = judge();
        late.baseline_ended(at(0));
        late.armed_late(at(100));
        late.injected(at(100));
        let mut restarted = judge().with_restart();
        restarted.injected(at(0));
        restarted.finding(at(10), &finding("fall", false));
        restarted.armed_late(at(100));
        for (mut judge, outcome) in [(late, Outcome::Skipped), (restarted, Outcome::Pass)] {
            judge.detect_ended(at(200));
            assert_eq!(judge.outcome().0, outcome);
        }
    }

    #[test]
    fn in_a_control_a_late_detector_may_report_a_risk_that_stands_and_nothing_else() {
        for (late, level, outcome) in [
            (true, Level::Risk, Outcome::Pass),
            (false, Level::Risk, Outcome::Fail),
            (true, Level::Symptom, Outcome::Fail),
        ] {
            let mut judge = Judge::control(vec!["rule".to_owned()], vec![]);
            judge.baseline_ended(at(0));
            if late {
                judge.armed_late(at(100));
            }
            judge.injected(at(100));
            judge.finding(at(150), &Finding { level, ..finding("rule", false) });
            judge.detect_ended(at(200));
            assert_eq!(judge.outcome().0, outcome);
        }
    }

    #[test]
    fn what_was_missed_before_a_restart_is_not_excused_by_it() {
        let (seen, _) = restarted(&["rule"], &["rule", "fall"]);
        assert!(seen.contains(&("fall".to_owned(), Verdict::Missed)), "{seen:?}");
    }
}
