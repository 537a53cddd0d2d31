//! Events and time in, verdicts out.
//!
//! Job: decide, for one trial, each expectation and each risk, every false alarm, and whether what was
//! said is taken back after healing. A map of the modules:
//! - `expected`: one expectation, from open to decided. `standing`: what has been said and not cleared.
//! - `steps`: those of a chain, which steps are in force and which are healed.
//! - `outcome`: verdicts to the outcome of a trial and its reasons.
//!
//! Invariants: no clock and no I/O, all time is passed in and compared exactly, in nanoseconds; no
//! order of calls panics. Only findings of `warning` and above decide anything, from the instant they
//! reach it. Whether a finding came before or after t0 is told by the instant it was *received*, never
//! by the order of calls: what is received between the end of the baseline and [`Judge::injected`] is
//! held until t0 is known, as a fault's first consequences may arrive before its call returns. Each
//! expectation is decided exactly once; of findings received at the same instant about different
//! things the order does not matter for it, nor does an additional [`Judge::tick`].
//!
//! In a chain ([`Judge::with_steps`]) an expectation counts from the injection of its step or from the healing that
//! uncovers it. What was found stands until its step is healed and is cleared after that, and every other warning is a
//! false alarm, but for those of the user's own detectors.
//!
//! Left out: whether the effect was seen, and phases; that is the run's. What a trial could not prove
//! for such reasons is closed with [`Judge::abandon`].

mod expected;
mod outcome;
mod standing;
mod steps;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use relapse_detectors::finding::{Finding, Level, Subject};
use relapse_detectors::time::Time;

use crate::event::{Decided, Expectation, Outcome, Verdict};

use expected::{Expected, Unsighted};
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
    /// Detectors that cannot see, by the first time they said so.
    blind: BTreeMap<String, Unsighted>,
    /// What has raised a false alarm already: one verdict each is enough.
    alarms: BTreeSet<(String, Level)>,
    /// The same of what was not cleared.
    uncleared: BTreeSet<(String, Level)>,
    outside: BTreeSet<String>,
    /// Expectations that count neither way.
    left_out: usize,
    /// Immediately before the first mutation.
    t0: Option<Time>,
    /// Latest instant seen.
    now: Time,
    decided: Vec<Decided>,
    /// What is to be told.
    news: Vec<Decided>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Baseline,
    /// The baseline is over, t0 is not known yet.
    Between,
    Watching,
    Ended,
}

impl Judge {
    /// For an incident: what detectors must say after t0, and which risks they must name before it.
    /// Expectations of level `risk` are risks, in whichever list they stand. A miss that is expected
    /// without a deadline (`within` zero) is watched for as long as the longest other deadline.
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

    /// For a control: the armed detectors, each of which must be silent, and the risks.
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
            alarms: BTreeSet::new(),
            uncleared: BTreeSet::new(),
            outside,
            left_out: 0,
            t0: None,
            now: Time::default(),
            decided: Vec::new(),
            news: Vec::new(),
        }
    }

    /// Names detectors that are the user's own programs, so that verdicts of which no expectation was
    /// planned (false alarms, silence) say so too.
    #[must_use]
    pub fn with_outside(mut self, names: impl IntoIterator<Item = String>) -> Self {
        self.outside.extend(names);
        self
    }

    /// Makes it the judge of a chain of steps with these names. What is expected of any other step cannot be decided.
    #[must_use]
    pub fn with_steps(mut self, names: impl IntoIterator<Item = String>) -> Self {
        self.steps = Steps::new(names);
        let unknown = |expected: &mut Expected| {
            let why = format!("the scenario has no step {}", self.steps.unknown(expected.expectation())?);
            expected.close(Verdict::Undecided { why })
        };
        let said = self.risks.iter_mut().chain(&mut self.expected).filter_map(unknown).collect();
        self.record(said);
        self
    }

    /// What was decided since this was last asked. A verdict that is not told is in no report.
    pub fn news(&mut self) -> Vec<Decided> {
        std::mem::take(&mut self.news)
    }

    /// The quiet baseline is over: each risk must stand by now, at `warning` or above.
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
        let said = self.risks.iter_mut().filter_map(standing).collect();
        self.record(said);
    }

    /// The first mutation was made: t0 is the instant before its call. What stood then cannot be
    /// detected any more; what was received since then counts.
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

    /// The same of one step of a chain.
    pub fn step_injected(&mut self, step: &str, t0: Time) {
        self.steps.injected(step, t0);
        self.injected(t0);
        self.advance(t0);
        self.count();
    }

    /// A step of a chain is about to be healed: what that uncovers counts from now on.
    pub fn healing(&mut self, step: &str, now: Time) {
        self.advance(now);
        self.steps.healing(step, now);
        self.count();
    }

    /// The healing of a step was read back: what was found of it must be cleared by then.
    pub fn healed(&mut self, step: &str, clear_by: Time) {
        self.steps.healed(step, clear_by);
    }

    /// What was found of healed steps does not stand any more.
    #[must_use]
    pub fn healed_is_cleared(&self) -> bool {
        !self.found().any(|found| self.steps.is_healed(found.expectation()) && found.stands(&self.standing))
    }

    /// What comes later in a chain is not watched: it counts neither way.
    pub fn cut_short(&mut self, now: Time) {
        self.stage_ended(now);
        self.expected.retain(|expected| expected.deadline().is_some());
        self.detect_ended(now);
    }

    /// A stage of a chain is over: closes what could be met in it. What was found of steps in force must stand, and
    /// what was found of healed steps must not.
    pub fn stage_ended(&mut self, now: Time) {
        self.advance(now);
        if self.stage != Stage::Watching {
            return;
        }
        let counting = self.expected.iter_mut().filter(|e| e.deadline().is_some());
        let mut said: Vec<Decided> =
            counting.filter_map(|open| open.end(self.blind.get(&open.expectation().detector))).collect();
        said.extend(self.out_of_place());
        self.record(said);
    }

    /// A detector said something, or took it back.
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
            Stage::Ended => {
                self.standing.take(now, finding, self.is_past_t0(now));
            }
        }
    }

    /// A detector cannot see. The first reason is kept; nothing takes it back within the trial, as
    /// what went unseen stays unseen.
    pub fn blind(&mut self, now: Time, detector: &str, why: &str) {
        self.advance(now);
        if !self.blind.contains_key(detector) {
            self.blind.insert(detector.to_owned(), Unsighted { since: now, why: why.to_owned() });
        }
    }

    /// Time has passed. Decides expected misses whose deadline is over; other expectations stay open,
    /// as a late finding says more than none.
    pub fn tick(&mut self, now: Time) {
        self.advance(now);
        if self.stage == Stage::Watching {
            let over = |miss: &mut Expected| miss.miss_is_over(self.now, self.blind.get(&miss.expectation().detector));
            let said = self.expected.iter_mut().filter_map(over).collect();
            self.record(said);
        }
    }

    /// The last instant at which any expectation, open or not, can be met.
    #[must_use]
    pub fn last_deadline(&self) -> Option<Time> {
        self.expected.iter().filter_map(Expected::deadline).max()
    }

    #[must_use]
    pub const fn is_control(&self) -> bool {
        self.silent.is_some()
    }

    /// Nothing is left to wait for, in a chain at this stage: every expectation is decided or past its deadline. A control is
    /// watched for as long as its plan says, so never before [`Judge::detect_ended`].
    #[must_use]
    pub fn all_decided(&self) -> bool {
        if self.is_control() {
            return self.stage == Stage::Ended;
        }
        let comes_later = |e: &Expected| self.is_chain() && e.deadline().is_none();
        !self.expected.iter().any(|e| e.is_pending(self.now) && !comes_later(e))
    }

    /// Nothing more will be watched: closes what is open. In a control, each detector that raised no
    /// alarm is silent, or blind if it could not see at any time.
    pub fn detect_ended(&mut self, now: Time) {
        self.advance(now);
        match self.stage {
            Stage::Ended => return,
            Stage::Baseline | Stage::Between => return self.abandon("nothing was injected"),
            Stage::Watching => self.stage = Stage::Ended,
        }
        let end = |open: &mut Expected| open.end(self.blind.get(&open.expectation().detector));
        let mut said: Vec<Decided> = self.expected.iter_mut().filter_map(end).collect();
        said.extend(self.quiet_detectors().into_iter().map(|detector| Decided {
            verdict: match self.blind.get(&detector) {
                Some(blind) => Verdict::Blind { why: blind.why.clone() },
                None => Verdict::Silent,
            },
            expectation: self.unplanned(&detector, Level::Cause, None),
            from: None,
        }));
        self.record(said);
    }

    /// This machine cannot make the cause itself, only what follows from it (a limit that is filled but
    /// not lowered): open expectations of level `cause`, in a chain those of this step, cannot be decided, and do not count. With
    /// nothing else expected, the trial proves nothing.
    pub fn leave_out(&mut self, step: Option<&str>, what: &str, why: &str) {
        let undecided = Verdict::Undecided { why: format!("{what} was left out: {why}") };
        let of_step = |e: &&mut Expected| e.expectation().of.as_ref().and_then(|of| of.step.as_deref()) == step;
        let causes = self.expected.iter_mut().filter(of_step).filter(|e| e.expectation().level == Level::Cause);
        let said: Vec<Decided> = causes.filter_map(|cause| cause.close(undecided.clone())).collect();
        self.left_out += said.len();
        // Not recorded: the outcome is that of the rest.
        self.news.extend(said);
    }

    /// The trial cannot prove the rest (no steady state, no effect, a fault that failed): closes what
    /// is open as undecided.
    pub fn abandon(&mut self, why: &str) {
        if self.stage == Stage::Ended {
            return;
        }
        self.stage = Stage::Ended;
        // Whether these came before or after a mutation is not known: they stand, and decide nothing.
        for (received, finding) in std::mem::take(&mut self.held) {
            self.standing.take(received, &finding, false);
        }
        let undecided = Verdict::Undecided { why: why.to_owned() };
        let open = self.risks.iter_mut().chain(&mut self.expected);
        let mut said: Vec<Decided> = open.filter_map(|expected| expected.close(undecided.clone())).collect();
        said.extend(self.quiet_detectors().into_iter().map(|detector| Decided {
            expectation: self.unplanned(&detector, Level::Cause, None),
            verdict: undecided.clone(),
            from: None,
        }));
        self.record(said);
    }

    /// Nothing stands any more of what was said since t0. Risks may stand.
    #[must_use]
    pub fn all_cleared(&self) -> bool {
        self.standing.uncleared().next().is_none()
    }

    /// The recovery deadline has passed: what was said since t0, is no risk and still stands was not
    /// cleared. One verdict for each detector and level, on the expectation it met, if any; where a
    /// control already has a false alarm for them, that is the verdict.
    pub fn recovered(&mut self, now: Time) {
        self.advance(now);
        if self.is_chain() {
            self.stage_ended(now);
            self.detect_ended(now);
        }
        let mut groups: BTreeMap<(String, Level), Vec<&Finding>> = BTreeMap::new();
        for finding in self.standing.uncleared() {
            groups.entry((finding.detector.clone(), finding.level)).or_default().push(finding);
        }
        let mut said = Vec::new();
        for ((detector, level), standing) in groups {
            let key = (detector.clone(), level);
            let alarmed = (self.is_control() || self.is_chain()) && self.alarms.contains(&key);
            if alarmed || self.uncleared.contains(&key) {
                continue;
            }
            let mut planned = self.expected.iter().map(Expected::expectation);
            let met = planned.find(|e| standing.iter().any(|finding| expected::meets(e, finding)));
            let expectation = met.cloned().unwrap_or_else(|| {
                self.unplanned(&detector, level, standing.first().map(|finding| finding.subject.clone()))
            });
            said.push(Decided { expectation, verdict: Verdict::NotCleared, from: None });
        }
        self.record(said);
    }

    /// How the trial came out as far as detection goes, and why it is not a pass, worst first.
    #[must_use]
    pub fn outcome(&self) -> (Outcome, Vec<String>) {
        let open = self.risks.iter().chain(&self.expected).filter(|e| e.is_open());
        let nothing_left = self.left_out > 0 && self.left_out == self.expected.len();
        outcome::outcome(&self.decided, open.map(Expected::expectation), nothing_left)
    }

    fn advance(&mut self, now: Time) {
        self.now = self.now.max(now);
    }

    fn is_past_t0(&self, now: Time) -> bool {
        self.t0.is_some_and(|t0| t0 <= now)
    }

    fn record(&mut self, said: Vec<Decided>) {
        self.decided.extend_from_slice(&said);
        self.news.extend(said);
    }

    /// A finding received before t0.
    fn before(&mut self, now: Time, finding: &Finding) {
        if self.standing.take(now, finding, false) && finding.level != Level::Risk {
            self.alarm(finding);
        }
    }

    /// A finding received after t0, while it is watched for.
    fn after(&mut self, now: Time, finding: &Finding) {
        if !self.standing.take(now, finding, true) {
            return;
        }
        if self.is_control() {
            return self.alarm(finding);
        }
        let hear = |e: &mut Expected| {
            let early = self.steps.is_covered(e.expectation()) && expected::meets(e.expectation(), finding);
            if early { e.close(Verdict::PreExisting) } else { e.hear(now, finding) }
        };
        let said: Vec<Decided> = self.expected.iter_mut().filter_map(hear).collect();
        let too_early = said.iter().any(|decided| decided.verdict == Verdict::PreExisting);
        self.record(said);
        if self.is_chain() && !too_early && !self.is_explained(now, finding) {
            self.alarm(finding);
        }
    }

    const fn is_chain(&self) -> bool {
        !self.steps.is_empty()
    }

    /// In a chain: somebody may say this now.
    fn is_explained(&self, now: Time, finding: &Finding) -> bool {
        let explains = |e: &Expected| {
            let expectation = e.expectation();
            let covered = self.steps.is_covered(expectation);
            expected::meets(expectation, finding) && !covered && self.steps.explains(expectation, now)
        };
        finding.level == Level::Risk || self.outside.contains(&finding.detector) || self.expected.iter().any(explains)
    }

    /// What was found, or stood as a risk.
    fn found(&self) -> impl Iterator<Item = &Expected> {
        self.expected.iter().chain(&self.risks).filter(|expected| expected.is_found())
    }

    /// In a chain: what was found and is cleared too early, or is not cleared in time; each once.
    fn out_of_place(&mut self) -> Vec<Decided> {
        let mut said = Vec::new();
        for found in self.expected.iter_mut().chain(&mut self.risks).filter(|expected| expected.is_found()) {
            let stands = found.stands(&self.standing);
            let verdict = match stands {
                false if self.steps.is_in_force(found.expectation()) => Verdict::ClearedEarly,
                true if self.steps.is_healed(found.expectation()) => Verdict::NotCleared,
                _ => continue,
            };
            if stands {
                self.uncleared.insert((found.expectation().detector.clone(), found.expectation().level));
            }
            said.push(found.lose(verdict));
        }
        said
    }

    /// Begins to count where the instant to count from has come.
    fn count(&mut self) {
        let mut said = Vec::new();
        for expected in self.expected.iter_mut().filter(|expected| expected.deadline().is_none()) {
            if let Some(from) = self.steps.origin(expected.expectation(), self.t0) {
                said.extend(expected.count_from(from, &self.standing));
            }
        }
        self.record(said);
    }

    fn pre_existing(&mut self) {
        let said = self.expected.iter_mut().filter_map(|e| e.refuse_standing(&self.standing)).collect();
        self.record(said);
    }

    fn alarm(&mut self, finding: &Finding) {
        if self.alarms.insert((finding.detector.clone(), finding.level)) {
            let verdict = Verdict::FalseAlarm {
                severity: finding.severity,
                subject: finding.subject.clone(),
                evidence: finding.evidence.clone(),
            };
            let expectation = self.unplanned(&finding.detector, finding.level, None);
            self.record(vec![Decided { expectation, verdict, from: None }]);
        }
    }

    /// Detectors of a control without a false alarm.
    fn quiet_detectors(&self) -> Vec<String> {
        let loud = |detector: &String| self.alarms.iter().any(|(name, _)| name == detector);
        self.silent.iter().flatten().filter(|detector| !loud(detector)).cloned().collect()
    }

    /// What a verdict is about that no plan asked for: no deadline.
    fn unplanned(&self, detector: &str, level: Level, subject: Option<Subject>) -> Expectation {
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
