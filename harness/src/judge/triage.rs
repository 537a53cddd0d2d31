//! Judges where triage leads: to the expected step and place, within the deadline from the first complaint on, for good.

use relapse_detectors::time::Time;
use relapse_detectors::triage::{STEPS, Triaged};
use relapse_reports::event::{TriageDecided, TriageExpected};
use relapse_reports::units;

/// Triage of one trial, or of one stage of a chain.
#[derive(Debug, Default)]
pub struct TriageJudge {
    step: Option<String>,
    expected: Option<TriageExpected>,
    /// Nothing may be found.
    nothing: bool,
    /// A request failed or was slow.
    complaint: Option<Time>,
    /// Since when the verdict has been right, and the end of the first such request of the flow it is about.
    right: Option<(Time, Time)>,
    found: Option<Triaged>,
}

impl TriageJudge {
    /// `nothing`: users see nothing wrong, so that no step may explain anything.
    #[must_use]
    pub fn new(step: Option<&str>, expected: Option<&TriageExpected>, nothing: bool) -> Self {
        let (step, expected) = (step.map(str::to_owned), expected.cloned());
        Self { step, nothing: nothing && expected.is_none(), expected, ..Self::default() }
    }

    /// Whether users see nothing wrong, so that no step may explain anything.
    #[must_use]
    pub const fn finds_nothing(&self) -> bool {
        self.nothing
    }

    /// A user complains about a request that ended at `at`. Only the first counts.
    pub fn complaint(&mut self, at: Time) {
        self.complaint.get_or_insert(at);
    }

    /// The verdict changed.
    pub fn verdict(&mut self, now: Time, triaged: Option<&Triaged>) {
        let Some(triaged) = triaged else { return };
        if triaged.verdict.first.is_some() || self.found.as_ref().is_none_or(|found| found.verdict.first.is_none()) {
            self.found = Some(triaged.clone());
        }
        let is_right = |expected: &TriageExpected| mismatch(expected, triaged).is_none();
        if !self.expected.as_ref().is_some_and(is_right) {
            self.right = None;
        } else if self.right.is_none() {
            self.right = Some((now, triaged.since));
        }
    }

    /// Whether triage was to find something, and no user complained.
    #[must_use]
    pub const fn lacks_complaint(&self) -> bool {
        self.expected.is_some() && self.complaint.is_none()
    }

    /// Whether the verdict may still become right.
    #[must_use]
    pub fn is_pending(&self, now: Time) -> bool {
        let Some(expected) = &self.expected else { return false };
        let since = self.found.as_ref().map(|found| found.since).max(self.complaint);
        self.right.is_none() && since.is_some_and(|since| now < since + expected.within)
    }

    /// The decision, at the end of the stage; `None` if nothing was expected of triage.
    #[must_use]
    pub fn end(&self) -> Option<TriageDecided> {
        let found = self.found.clone();
        let after = self.right.map(|(right, complaint)| right.since(complaint));
        let wrong = match (&self.expected, &found) {
            (None, Some(triaged)) if self.nothing => {
                let (first, at) = (triaged.verdict.first, triaged.verdict.at.as_ref());
                first.map(|first| format!("{} although users see nothing wrong", place(first, at)))
            }
            (None, None) if self.nothing => None,
            (None, _) => {
                // Shown, but not judged.
                found.as_ref()?;
                None
            }
            (Some(_), _) if self.complaint.is_none() => None,
            (Some(expected), None) => Some(format!("it reported nothing instead of {}", of(expected))),
            (Some(expected), Some(triaged)) if self.right.is_none() => {
                Some(mismatch(expected, triaged).unwrap_or_else(|| format!("it did not keep to {}", of(expected))))
            }
            (Some(expected), Some(_)) => after.filter(|after| *after > expected.within).map(|after| {
                format!("{} was late: {}, deadline {}", of(expected), units::span(after), units::limit(expected.within))
            }),
        };
        Some(TriageDecided { step: self.step.clone(), expected: self.expected.clone(), found, after, wrong })
    }
}

fn place(step: u8, at: Option<&relapse_detectors::finding::Subject>) -> String {
    let name = STEPS.get(usize::from(step).wrapping_sub(1)).copied().unwrap_or_default();
    let at = at.map(|at| format!(", {at}")).unwrap_or_default();
    format!("step {step} ({name}{at})")
}

fn of(expected: &TriageExpected) -> String {
    place(expected.step, Some(&expected.at))
}

/// What differs from the expectation.
fn mismatch(expected: &TriageExpected, triaged: &Triaged) -> Option<String> {
    let verdict = &triaged.verdict;
    let Some(first) = verdict.first else {
        return Some(format!("no step explains what users of {} see, not {}", triaged.flow, of(expected)));
    };
    if first != expected.step || verdict.at.as_ref() != Some(&expected.at) {
        return Some(format!("{} instead of {}", place(first, verdict.at.as_ref()), of(expected)));
    }
    let missing = expected.contributing.iter().find(|step| !verdict.contributing.contains(step));
    missing.map(|step| format!("step {step} is not faulty besides {}", of(expected)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use relapse_detectors::triage::{Outcome, Seen, Verdict};

    use super::*;

    fn ms(at: u64) -> Time {
        Time(at * 1_000_000)
    }

    fn expected() -> TriageExpected {
        let at = "path/192.168.40.0/24".parse().unwrap();
        TriageExpected { step: 6, at, contributing: Vec::new(), within: Duration::from_secs(5) }
    }

    fn triaged(first: Option<u8>, at: &str) -> Triaged {
        let at = first.map(|_| at.parse().unwrap());
        let verdict = Verdict { steps: Vec::new(), first, at, contributing: vec![1] };
        Triaged {
            flow: "large".to_owned(),
            since: ms(100),
            seen: Seen { at: ms(100), outcome: Outcome::Timeout },
            verdict,
        }
    }

    fn decided(verdicts: &[(u64, Triaged)]) -> TriageDecided {
        let mut judge = TriageJudge::new(None, Some(&expected()), false);
        judge.complaint(ms(100));
        for (at, triaged) in verdicts {
            judge.verdict(ms(*at), Some(triaged));
        }
        judge.end().unwrap()
    }

    #[test]
    fn right_in_time_and_for_good() {
        let (right, wrong) = (triaged(Some(6), "path/192.168.40.0/24"), triaged(Some(1), "node/worker-1"));
        let nothing = triaged(None, "");
        let good = decided(&[(200, nothing.clone()), (900, wrong.clone()), (1_100, right.clone())]);
        assert_eq!((good.after, good.wrong), (Some(Duration::from_secs(1)), None));
        let why = |verdicts: &[(u64, Triaged)]| decided(verdicts).wrong.unwrap();
        assert_eq!(
            why(&[(5_200, right.clone())]),
            "step 6 (hop by hop, path/192.168.40.0/24) was late: 5.10 s, deadline 5 s"
        );
        assert_eq!(
            why(&[(200, right), (900, wrong)]),
            "step 1 (nodes and pods, node/worker-1) instead of step 6 (hop by hop, path/192.168.40.0/24)"
        );
        assert_eq!(
            why(&[(200, nothing)]),
            "no step explains what users of large see, not step 6 (hop by hop, path/192.168.40.0/24)"
        );
        assert_eq!(why(&[]), "it reported nothing instead of step 6 (hop by hop, path/192.168.40.0/24)");
    }

    #[test]
    fn a_twin_whose_users_see_nothing_wrong_has_no_explanation() {
        let mut judge = TriageJudge::new(None, None, true);
        judge.complaint(ms(100));
        judge.verdict(ms(200), Some(&triaged(None, "")));
        assert_eq!(judge.end().unwrap().wrong, None);
        judge.verdict(ms(300), Some(&triaged(Some(6), "node/a")));
        let wrong = judge.end().unwrap().wrong.unwrap();
        assert_eq!(wrong, "step 6 (hop by hop, node/a) although users see nothing wrong");
    }

    #[test]
    fn it_waits_for_the_deadline_only_while_it_is_not_right() {
        let mut judge = TriageJudge::new(None, Some(&expected()), false);
        assert!(!judge.is_pending(ms(50)), "without a complaint the effect decides");
        judge.complaint(ms(100));
        assert!(judge.is_pending(ms(5_099)) && !judge.is_pending(ms(5_100)));
        judge.verdict(ms(200), Some(&triaged(Some(6), "path/192.168.40.0/24")));
        assert!(!judge.is_pending(ms(300)));
    }
}
