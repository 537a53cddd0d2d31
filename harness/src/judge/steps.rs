//! The steps of a chain: which are in force, and which are healed.
//!
//! A trial that is not a chain has no steps, and everything in it counts from t0.

use relapse_detectors::time::Time;

use crate::event::Expectation;

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

    /// Whether the step until whose healing its finding must stand is in force.
    pub(super) fn is_in_force(&self, expectation: &Expectation) -> bool {
        self.until(expectation).is_some_and(|step| step.healing.is_none())
    }

    /// Whether the healing that clears its finding was read back.
    pub(super) fn is_healed(&self, expectation: &Expectation) -> bool {
        self.until(expectation).is_some_and(|step| step.clear_by.is_some())
    }

    /// Whether it allows a finding now: its step is in force, or healed within the deadline for clearing.
    pub(super) fn explains(&self, expectation: &Expectation, now: Time) -> bool {
        let over = self.until(expectation).and_then(|step| step.clear_by);
        over.is_none_or(|clear_by| now <= clear_by)
    }
}
