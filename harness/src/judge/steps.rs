//! The steps of a chain, in force or healed, and what the judge does only in a chain.
//!
//! A trial that is not a chain has no steps, and everything in it counts from t0.

use relapse_detectors::time::Time;

use super::expected::Expected;
use super::{Judge, Stage};
use crate::event::{Decided, Expectation, OfStep, Verdict};

#[derive(Debug, Default)]
pub(super) struct Steps(Vec<Step>);

#[derive(Debug)]
struct Step {
    name: String,
    /// Immediately before its first mutation.
    injected: Option<Time>,
    /// Immediately before the first change that heals it.
    healing: Option<Time>,
    /// Deadline for its findings to be cleared. Set when its healing was read back.
    clear_by: Option<Time>,
}

impl Steps {
    pub(super) fn new(names: impl IntoIterator<Item = String>) -> Self {
        let step = |name| Step { name, injected: None, healing: None, clear_by: None };
        Self(names.into_iter().map(step).collect())
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn named(&self, name: &str) -> Option<&Step> {
        self.0.iter().find(|step| step.name == name)
    }

    fn each(&mut self, name: &str) -> impl Iterator<Item = &mut Step> {
        self.0.iter_mut().filter(move |step| step.name == name)
    }

    pub(super) fn injected(&mut self, name: &str, t0: Time) {
        self.each(name).for_each(|step| step.injected = step.injected.or(Some(t0)));
    }

    pub(super) fn healing(&mut self, name: &str, begin: Time) {
        self.each(name).for_each(|step| step.healing = step.healing.or(Some(begin)));
    }

    pub(super) fn healed(&mut self, name: &str, clear_by: Time) {
        self.each(name).for_each(|step| step.clear_by = Some(clear_by));
    }

    /// A step named by an expectation that does not exist.
    pub(super) fn unknown<'e>(&self, expectation: &'e Expectation) -> Option<&'e str> {
        let of = expectation.of.as_ref()?;
        let named = [&of.step, &of.after, &of.clears].into_iter().flatten();
        named.map(String::as_str).find(|name| self.named(name).is_none())
    }

    /// The instant an expectation counts from, once known.
    pub(super) fn origin(&self, expectation: &Expectation, t0: Option<Time>) -> Option<Time> {
        let of = expectation.of.as_ref();
        match of.map(|of| (of.after.as_deref(), of.step.as_deref())) {
            Some((Some(after), _)) => self.named(after)?.healing,
            Some((None, Some(step))) => self.named(step)?.injected,
            Some((None, None)) | None => t0,
        }
    }

    /// Whether a finding that meets it is too early: the step that covers it is not healed yet.
    pub(super) fn is_covered(&self, expectation: &Expectation) -> bool {
        let after = expectation.of.as_ref().and_then(|of| of.after.as_deref());
        after.is_some_and(|after| self.named(after).is_none_or(|step| step.healing.is_none()))
    }

    fn until(&self, expectation: &Expectation) -> Option<&Step> {
        self.named(expectation.of.as_ref()?.until()?)
    }

    /// Whether the step until whose healing its finding must stand is in force. A trial without steps is healed after the
    /// end of detection.
    pub(super) fn is_in_force(&self, expectation: &Expectation) -> bool {
        self.is_empty() || self.until(expectation).is_some_and(|step| step.healing.is_none())
    }

    /// Whether the healing that clears its finding was read back.
    pub(super) fn is_healed(&self, expectation: &Expectation) -> bool {
        self.until(expectation).is_some_and(|step| step.clear_by.is_some())
    }

    /// Whether it allows a finding now: nothing covers its step, which is in force, or healed within the deadline for
    /// clearing.
    pub(super) fn explain(&self, expectation: &Expectation, now: Time) -> bool {
        let until = expectation.of.as_ref().and_then(OfStep::until);
        !self.is_covered(expectation) && self.is_left(until, now)
    }

    /// Whether findings of a step may still be reported: it is in force, or healed within the deadline for clearing.
    pub(super) fn is_left(&self, step: Option<&str>, now: Time) -> bool {
        let over = step.and_then(|step| self.named(step)).and_then(|step| step.clear_by);
        over.is_none_or(|clear_by| now <= clear_by)
    }
}

/// What only chains need.
impl Judge {
    /// Makes this the judge of a chain with these steps. Expectations of any other step are undecided.
    #[must_use]
    pub fn with_steps(mut self, names: impl IntoIterator<Item = String>) -> Self {
        self.steps = Steps::new(names);
        let unknown = |expected: &mut Expected| {
            let why = format!("the scenario has no step {}", self.steps.unknown(expected.expectation())?);
            expected.close(Verdict::Undecided { why })
        };
        let decided = self.risks.iter_mut().chain(&mut self.expected).filter_map(unknown).collect();
        self.record(decided);
        self
    }

    /// Reports t0 of a step, or of a trial without steps, and until when clients may not see its faults.
    pub fn count_from(&mut self, step: Option<&str>, visible: Option<Time>, t0: Time) {
        if let Some(latest) = visible {
            self.visible(step, latest);
        }
        match step {
            Some(step) => self.step_injected(step, t0),
            None => self.injected(t0),
        }
    }

    /// Reports t0 of one step of a chain.
    pub fn step_injected(&mut self, step: &str, t0: Time) {
        self.steps.injected(step, t0);
        self.injected(t0);
        self.advance(t0);
        self.count();
    }

    /// A step of a chain is about to be healed: expectations that this uncovers count from now on.
    pub fn healing(&mut self, step: &str, now: Time) {
        self.advance(now);
        self.steps.healing(step, now);
        self.count();
    }

    /// The healing of a step was read back: its findings must be cleared by `clear_by`.
    pub fn healed(&mut self, step: &str, clear_by: Time) {
        self.steps.healed(step, clear_by);
    }

    /// Whether all findings of healed steps are cleared.
    #[must_use]
    pub fn healed_is_cleared(&self) -> bool {
        !self.found().any(|found| self.steps.is_healed(found.expectation()) && found.stands(&self.standing))
    }

    /// Ends a chain at this stage: expectations of later stages do not count.
    pub fn cut_short(&mut self, now: Time) {
        self.stage_ended(now);
        self.expected.retain(|expected| expected.deadline().is_some());
        self.detect_ended(now);
        self.abandoned = true;
    }

    /// Ends a stage of a chain and closes its open expectations. Findings of steps in force must stand, those of healed
    /// steps must not.
    pub fn stage_ended(&mut self, now: Time) {
        self.advance(now);
        if self.stage != Stage::Watching {
            return;
        }
        let mut decided = self.end_open(|open| open.deadline().is_some());
        decided.extend(self.out_of_place());
        self.record(decided);
    }

    pub(super) const fn is_chain(&self) -> bool {
        !self.steps.is_empty()
    }

    /// Expectations and risks that were met.
    pub(super) fn found(&self) -> impl Iterator<Item = &Expected> {
        self.expected.iter().chain(&self.risks).filter(|expected| expected.is_found())
    }

    /// Verdicts on findings that were cleared too early or not in time, each once.
    pub(super) fn out_of_place(&mut self) -> Vec<Decided> {
        let mut decided = Vec::new();
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
            decided.push(found.lose(verdict));
        }
        decided
    }

    /// Starts the clock of expectations whose origin is known.
    pub(super) fn count(&mut self) {
        let mut decided = Vec::new();
        for expected in self.expected.iter_mut().filter(|expected| expected.deadline().is_none()) {
            let name = &expected.expectation().detector;
            let exempt = self.outside.contains(name) && !self.strict.contains(name);
            let seen = self.visible.iter().find(|(step, _)| expected.is_seen_with(step.as_deref()));
            seen.iter().for_each(|(_, at)| expected.see(**at));
            if let Some(from) = self.steps.origin(expected.expectation(), self.t0) {
                decided.extend(expected.count_from(from, &self.standing, exempt));
            }
        }
        self.record(decided);
    }
}
