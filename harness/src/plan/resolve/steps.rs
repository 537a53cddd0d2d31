//! Chains: steps that are injected in order, then healed in order.

use relapse_model::diagnostics::{did_you_mean, listed, quoted};
use relapse_model::spanned::Spanned;
use relapse_reports::event::{Expectation, OfStep};

use super::Planner;
use crate::plan::StepPlan;
use crate::scenario::Scenario;
use crate::scenario::trial::{Detect, Step};

/// An expectation with its deadline in a lab, and with that of a real cluster.
pub(super) type Both = (Expectation, Expectation);

/// The names of a chain's steps, in order, and the index of the planned one; none for risks.
pub(super) struct Chain<'a> {
    names: Vec<&'a str>,
    own: Option<usize>,
}

impl<'a> Chain<'a> {
    /// For the risks of a scenario.
    pub(super) fn of(scenario: &'a Scenario) -> Option<Self> {
        let steps = scenario.steps.as_ref()?;
        Some(Self { names: steps.iter().map(|step| &*step.name.0).collect(), own: None })
    }
}

impl Planner<'_> {
    pub(super) fn plan_chain(&mut self, steps: &Spanned<Vec<Step>>, scenario: &Scenario) -> (Vec<StepPlan>, Vec<Both>) {
        let spans = [
            ("inject", scenario.inject.as_ref().map(|key| key.span)),
            ("effect", scenario.effect.as_ref().map(|key| key.span)),
            ("detect", scenario.detect.as_ref().map(|key| key.span)),
        ];
        for (key, span) in spans.into_iter().filter_map(|(key, span)| Some((key, span?))) {
            self.error(span, format!("`{key}` has no place beside `steps`"), format!("each step has its own `{key}`"));
        }
        if steps.is_empty() {
            let help = "add `{ name: NAME, inject: [...], effect: { ... }, detect: [...] }`";
            self.error(steps.span, "the chain has no steps", help);
        }
        if let Some(first) = steps.first().filter(|first| !first.meanwhile.is_empty()) {
            let message = format!("`meanwhile` of {} never begins: no step is healed before it", quoted(&first.name.0));
            self.error(first.name.span, message, "move its changes to `inject`");
        }
        self.unique("steps", steps.iter().map(|step| (&*step.name.0, step.name.span)));
        self.no_finding_twice(&steps.iter().flat_map(|step| step.detect.iter()).collect::<Vec<_>>());
        let names: Vec<&str> = steps.iter().map(|step| &*step.name.0).collect();
        let mut both = Vec::new();
        let plans = steps.iter().enumerate().map(|(own, step)| {
            let chain = Chain { names: names.clone(), own: Some(own) };
            let plan = StepPlan {
                name: Some(step.name.0.clone()),
                inject: self.plan_inject(&step.inject),
                heal: step.heal.iter().filter_map(|change| change.plan(self)).collect(),
                meanwhile: step.meanwhile.iter().filter_map(|change| change.plan(self)).collect(),
                effect: self.plan_incident_effect(&step.effect),
                triage: step.triage.as_ref().and_then(|triage| self.plan_triage(triage)),
            };
            both.extend(self.plan_detections(&step.detect, Some(&chain)));
            plan
        });
        let plans: Vec<StepPlan> = plans.collect();
        self.nothing_changed_twice(steps, &plans);
        (plans, both)
    }

    /// Reports changes of one thing that are not undone newest first: the undo of one overrides the other.
    fn nothing_changed_twice(&mut self, steps: &[Step], plans: &[StepPlan]) {
        let mut changed: Vec<(String, usize, bool)> = Vec::new();
        for (number, (step, plan)) in steps.iter().zip(plans).enumerate() {
            let written = [&step.inject.value, &step.meanwhile, &step.heal].into_iter();
            // A fault that could not be planned has been reported.
            let planned = [&plan.inject, &plan.meanwhile, &plan.heal].into_iter();
            if written.clone().map(Vec::len).ne(planned.clone().map(Vec::len)) {
                continue;
            }
            let heals = [false, false, true].into_iter();
            for ((written, planned), heals) in written.zip(planned).zip(heals) {
                for (at, change) in written.iter().zip(planned) {
                    let all = change.changes(&self.cluster);
                    let clash = |(other, of, healed): &&(String, usize, bool)| {
                        all.contains(other) && (*of != number || *healed != heals)
                    };
                    if let Some((what, of, _)) = changed.iter().find(clash) {
                        let message = format!("{what} is changed by {} already", quoted(&steps[*of].name.0));
                        let help = "steps are healed one by one: change something else, or make them one step";
                        self.error(at.span(), message, help);
                    }
                    changed.extend(all.into_iter().map(|what| (what, number, heals)));
                }
            }
        }
    }

    /// Reports findings that are expected twice.
    pub(super) fn no_finding_twice(&mut self, detect: &[&Detect]) {
        for (i, one) in detect.iter().enumerate() {
            let same = |other: &&Detect| {
                other.detector.value == one.detector.value && other.subject.value == one.subject.value
            };
            if detect[..i].iter().any(same) {
                self.error(
                    one.detector.span,
                    format!("{} is expected twice about the same subject", quoted(&one.detector)),
                    "remove one",
                );
            }
        }
    }

    /// The step of a finding, and the steps that uncover and clear it.
    pub(super) fn plan_place(
        &mut self,
        chain: Option<&Chain<'_>>,
        after: Option<&Spanned<String>>,
        clears: Option<&Spanned<String>>,
    ) -> Option<OfStep> {
        let Some(chain) = chain else {
            for (key, name) in [("after", after), ("clears", clears)] {
                if let Some(name) = name {
                    let message = format!("`{key}` names a step, but this scenario has no `steps`");
                    self.error(name.span, message, format!("remove `{key}`"));
                }
            }
            return None;
        };
        let own = chain.own.map(|own| chain.names[own]).unwrap_or_default();
        let after = after.map(|name| {
            let earlier = &chain.names[..chain.own.unwrap_or_default()];
            let message = format!("{} is not healed before `{own}`, so it uncovers nothing of it", quoted(name));
            self.step(name, &chain.names, earlier, message)
        });
        let clears = clears.map(|name| {
            let later = &chain.names[chain.own.map_or(0, |own| own + 1)..];
            let message = format!("{} is not healed after `{own}`", quoted(name));
            self.step(name, &chain.names, later, message)
        });
        let step = chain.own.map(|own| chain.names[own].to_owned());
        let of = OfStep { step, after, clears };
        (of != OfStep::default()).then_some(of)
    }

    /// The step with this name, which must be one of those allowed.
    fn step(&mut self, name: &Spanned<String>, all: &[&str], allowed: &[&str], message: String) -> String {
        if !all.contains(&name.as_str()) {
            let help = did_you_mean(name, "steps", all.iter().copied());
            self.error(name.span, format!("there is no step {}", quoted(name)), help);
        } else if !allowed.contains(&name.as_str()) {
            let help = match allowed {
                [] => "leave it out".to_owned(),
                _ => format!("one of: {}", listed(allowed.iter().copied())),
            };
            self.error(name.span, message, help);
        }
        name.value.clone()
    }
}
