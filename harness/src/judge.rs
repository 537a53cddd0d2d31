//! Turns findings and time into verdicts.
//!
//! For one trial, decides each expectation and each risk, every false alarm, and whether findings are cleared after
//! healing. Modules:
//! - `expected`: one expectation, from open to decided. `standing`: findings not cleared yet.
//! - `receive`: a finding, asked for or an alarm. `close`: the end of detection and of recovery.
//! - `steps`: the steps of a chain, in force or healed.
//! - [`triage`]: where triage leads, judged for each stage by itself.
//! - `late`: detectors that are armed after the fault, or again.
//! - `outcome`: from verdicts to the outcome of a trial and its reasons.
//!
//! Invariants: no clock and no I/O; all times are passed in and compared exactly, in nanoseconds; no order of calls
//! causes a panic. Only findings of `warning` and above decide anything, from the instant they reach it. Whether a
//! finding came before or after t0 depends on the instant it was *received*, never on the order of calls: what is
//! received between the end of the baseline and [`Judge::injected`] is held until t0 is known, because a fault's first
//! consequences may arrive before its call returns. Each expectation is decided exactly once; neither the order of
//! findings received at the same instant about different subjects nor an additional [`Judge::tick`] changes the
//! decision.
//!
//! In an incident each warning is *asked for*: by an expectation, by the scenario's list of what also follows
//! ([`Judge::with_also`]), or as a risk that stood in the baseline. Any other is `unexpected`, and an expectation that
//! another subject came before is not met. Exempt are detectors of users, unless they are strict. Evidence that begins
//! after healing is a false alarm, whatever was expected ([`Judge::recovered`]).
//!
//! In a chain ([`Judge::with_steps`]) an expectation counts from the injection of its step or from the healing that
//! uncovers it. In any incident a finding must stand until its fault (in a chain, its step) is healed, and be cleared
//! after that.
//!
//! A cache or kept connections may hide a fault: deadlines count from when clients could first see it
//! ([`Judge::visible`]), times to detect from t0 all the same.
//!
//! Effects and phases are handled by the run, which closes what a trial could not prove with [`Judge::abandon`].

mod close;
mod expected;
mod late;
mod outcome;
mod receive;
mod standing;
mod steps;
pub mod triage;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use relapse_detectors::finding::{Finding, Level, Subject};
use relapse_detectors::time::Time;

use crate::event::{Also, Decided, Expectation, Outcome, Verdict};

use expected::{Blindness, Expected};
use standing::Standing;
use steps::Steps;

/// Judges one trial.
#[derive(Debug)]
pub struct Judge {
    /// Of a control: the detectors that must be silent.
    silent: Option<Vec<String>>,
    stage: Stage,
    /// Of a chain.
    steps: Steps,
    expected: Vec<Expected>,
    risks: Vec<Expected>,
    standing: Standing,
    /// Received after the baseline and before t0 was known.
    held: Vec<(Time, Finding)>,
    /// Blind detectors, with the first time and reason.
    blind: BTreeMap<String, Blindness>,
    /// What follows from the incident without being expected.
    also: Vec<Also>,
    /// Detectors were armed after the fault.
    late: bool,
    /// A finding was reported before its detector was armed again.
    found_before: bool,
    /// Risks that were reported before t0.
    known_risks: BTreeSet<(String, Subject)>,
    /// Findings that reached `warning` after t0.
    since_t0: Vec<Finding>,
    /// Of a control: no risk may stand but those that are expected.
    only_risks: bool,
    /// Detectors and levels that already raised a false alarm or were unexpected, which is reported once.
    alarms: BTreeSet<(String, Level)>,
    /// Detectors and levels that already have a verdict for a finding that was not cleared.
    uncleared: BTreeSet<(String, Level)>,
    outside: BTreeSet<String>,
    /// Detectors outside that are judged like built-in ones.
    strict: BTreeSet<String>,
    /// The rest of the trial proves nothing.
    abandoned: bool,
    /// Number of expectations that do not count.
    left_out: usize,
    /// Immediately before the first mutation.
    t0: Option<Time>,
    /// When clients could first see the faults of a step, or of a trial without steps, if that is later.
    visible: BTreeMap<Option<String>, Time>,
    /// The latest time passed in.
    now: Time,
    decided: Vec<Decided>,
    /// Decided but not yet returned.
    undelivered: Vec<Decided>,
    /// Detectors will be armed once more, and only what they report then is delivered.
    withheld: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Baseline,
    /// The baseline has ended, t0 is not known yet.
    Between,
    Watching,
    Ended,
}

impl Judge {
    /// For an incident: the findings that detectors must report after t0, and the risks they must report before it.
    /// Expectations of level `risk` count as risks in either list. An expected miss without a deadline (`within` zero)
    /// is watched for as long as the longest other deadline.
    #[must_use]
    pub fn incident(expectations: Vec<Expectation>, risks: Vec<Expectation>) -> Self {
        let (misplaced, expectations): (Vec<_>, Vec<_>) =
            expectations.into_iter().partition(|e| e.level == Level::Risk);
        let longest = expectations.iter().map(|e| e.within).max().unwrap_or_default();
        let expected = expectations
            .into_iter()
            .map(|e| {
                let open_end = e.expected_miss.is_some() && e.within.is_zero();
                let within = if open_end { longest } else { e.within };
                Expected::new(e, within)
            })
            .collect();
        Self::new(None, expected, risks.into_iter().chain(misplaced))
    }

    /// For a control: the armed detectors, all of which must stay silent, and the risks.
    #[must_use]
    pub fn control(mut detectors: Vec<String>, risks: Vec<Expectation>) -> Self {
        let mut seen = BTreeSet::new();
        detectors.retain(|detector| seen.insert(detector.clone()));
        Self::new(Some(detectors), Vec::new(), risks)
    }

    fn new(silent: Option<Vec<String>>, expected: Vec<Expected>, risks: impl IntoIterator<Item = Expectation>) -> Self {
        let risks: Vec<_> = risks.into_iter().map(|risk| Expected::new(risk, Duration::ZERO)).collect();
        let outside = expected.iter().chain(&risks).map(Expected::expectation);
        let outside = outside.filter(|e| e.outside).map(|e| e.detector.clone()).collect();
        Self {
            silent,
            stage: Stage::Baseline,
            steps: Steps::default(),
            expected,
            risks,
            standing: Standing::default(),
            held: Vec::new(),
            blind: BTreeMap::new(),
            also: Vec::new(),
            late: false,
            found_before: false,
            known_risks: BTreeSet::new(),
            since_t0: Vec::new(),
            only_risks: false,
            alarms: BTreeSet::new(),
            uncleared: BTreeSet::new(),
            outside,
            strict: BTreeSet::new(),
            abandoned: false,
            left_out: 0,
            t0: None,
            visible: BTreeMap::new(),
            now: Time::default(),
            decided: Vec::new(),
            undelivered: Vec::new(),
            withheld: false,
        }
    }

    /// Names the detectors that are the user's programs, so that verdicts without a planned expectation (false alarms,
    /// silence) are marked as such.
    #[must_use]
    pub fn with_outside(mut self, names: impl IntoIterator<Item = String>) -> Self {
        self.outside.extend(names);
        self
    }

    /// Names those of them that are judged like built-in detectors where nothing asked for their findings.
    #[must_use]
    pub fn with_strict(mut self, names: impl IntoIterator<Item = String>) -> Self {
        self.strict.extend(names);
        self
    }

    /// Of an incident: what else follows from it.
    #[must_use]
    pub fn with_also(mut self, also: Vec<Also>) -> Self {
        self.also = also;
        self
    }

    /// Of a control: no risk may stand at the end of the baseline but those about what is expected to be one.
    #[must_use]
    pub fn with_no_other_risks(mut self) -> Self {
        self.only_risks = true;
        self
    }

    /// Returns the verdicts since the last call. Verdicts not taken are missing from reports.
    pub fn take_decided(&mut self) -> Vec<Decided> {
        if self.withheld { Vec::new() } else { std::mem::take(&mut self.undelivered) }
    }

    /// Ends the quiet baseline: each risk must stand by now, at `warning` or above.
    pub fn baseline_ended(&mut self, now: Time) {
        self.advance(now);
        if self.stage != Stage::Baseline {
            return;
        }
        self.stage = Stage::Between;
        let standing = |risk: &mut Expected| {
            let blind = self.blind.get(&risk.expectation().detector);
            risk.assert_standing(&self.standing, blind)
        };
        let decided = self.risks.iter_mut().filter_map(standing).collect();
        self.record(decided);
        if self.only_risks {
            let is_listed = |finding: &Finding| {
                self.risks.iter().any(|risk| risk.expectation().subject.as_ref() == Some(&finding.subject))
            };
            let risks = self.standing.warned().filter(|finding| finding.level == Level::Risk && !is_listed(finding));
            for risk in risks.cloned().collect::<Vec<_>>() {
                self.alarm(&risk);
            }
        }
    }

    /// The first mutation was made; t0 is the instant before its call. Findings that stood then can no longer be
    /// detected; findings received since then count.
    pub fn injected(&mut self, t0: Time) {
        match self.stage {
            Stage::Baseline => self.baseline_ended(t0),
            Stage::Between => {}
            Stage::Watching | Stage::Ended => return,
        }
        self.advance(t0);
        let (before, after): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.held).into_iter().partition(|(received, _)| *received < t0);
        for (received, finding) in before {
            self.before(received, &finding);
        }
        self.stage = Stage::Watching;
        self.t0 = Some(t0);
        self.count();
        self.pre_existing();
        for (received, finding) in after {
            self.after(received, &finding);
        }
    }

    /// Clients cannot see the faults of a step (of the trial, if it has no steps) before `at`. Called again when they
    /// turn out to see them earlier.
    pub fn visible(&mut self, step: Option<&str>, at: Time) {
        let earliest = self.visible.entry(step.map(str::to_owned)).or_insert(at);
        *earliest = at.min(*earliest);
        let (earliest, open) = (*earliest, self.expected.iter_mut().filter(|expected| expected.is_open()));
        open.filter(|expected| expected.is_seen_with(step)).for_each(|expected| expected.see(earliest));
    }

    /// A detector reported or cleared a finding.
    pub fn finding(&mut self, now: Time, finding: &Finding) {
        self.advance(now);
        match self.stage {
            Stage::Baseline => self.before(now, finding),
            Stage::Between => self.held.push((now, finding.clone())),
            Stage::Watching if self.is_past_t0(now) => self.after(now, finding),
            Stage::Watching => {
                self.before(now, finding);
                self.pre_existing();
            }
            Stage::Ended => self.after_the_end(now, finding),
        }
    }

    /// A detector is blind. The first reason is kept for the whole trial, because what was missed cannot be recovered.
    pub fn blind(&mut self, now: Time, detector: &str, why: &str) {
        self.advance(now);
        if !self.blind.contains_key(detector) {
            self.blind.insert(detector.to_owned(), Blindness { since: now, why: why.to_owned() });
        }
    }

    /// Time has passed. Decides expected misses after their deadline; other expectations stay open, because a late
    /// finding is more informative than none.
    pub fn tick(&mut self, now: Time) {
        self.advance(now);
        if self.stage == Stage::Watching {
            let over = |miss: &mut Expected| miss.miss_is_over(self.now, self.blind.get(&miss.expectation().detector));
            let decided = self.expected.iter_mut().filter_map(over).collect();
            self.record(decided);
        }
    }

    /// The last instant at which any expectation, open or decided, can be met.
    #[must_use]
    pub fn last_deadline(&self) -> Option<Time> {
        self.expected.iter().filter_map(Expected::deadline).max()
    }

    #[must_use]
    pub const fn is_control(&self) -> bool {
        self.silent.is_some()
    }

    /// Whether every expectation, in a chain of this stage, is decided or past its deadline. A control is watched for as
    /// long as its plan says, so this is false before [`Judge::detect_ended`].
    #[must_use]
    pub fn all_decided(&self) -> bool {
        if self.is_control() {
            return self.stage == Stage::Ended;
        }
        let comes_later = |e: &Expected| self.is_chain() && e.deadline().is_none();
        !self.expected.iter().any(|e| e.is_pending(self.now) && !comes_later(e))
    }

    /// Whether all findings since t0 are cleared. Risks may stand.
    #[must_use]
    pub fn all_cleared(&self) -> bool {
        self.standing.uncleared().next().is_none()
    }

    /// The outcome of detection, with the reasons why it is not a pass, those of the outcome first.
    #[must_use]
    pub fn outcome(&self) -> (Outcome, Vec<String>) {
        let open = self.risks.iter().chain(&self.expected).filter(|e| e.is_open());
        let nothing_left = self.left_out > 0 && self.left_out == self.expected.len();
        let late = self.decided.iter().filter(|decided| decided.verdict == Verdict::StartedLate).count();
        let too_late = late > 0 && late == self.expected.len() && !self.found_before;
        outcome::outcome(&self.decided, open.map(Expected::expectation), nothing_left, too_late)
    }

    fn advance(&mut self, now: Time) {
        self.now = self.now.max(now);
    }

    fn is_past_t0(&self, now: Time) -> bool {
        self.t0.is_some_and(|t0| t0 <= now)
    }

    fn record(&mut self, decided: Vec<Decided>) {
        self.decided.extend_from_slice(&decided);
        self.undelivered.extend(decided);
    }
}
