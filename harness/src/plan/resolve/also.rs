//! What else follows from an incident.

use relapse_model::diagnostics::quoted;
use relapse_reports::event::{Also, Expectation};
use relapse_reports::words;

use super::Planner;
use crate::scenario::{Scenario, trial};

impl Planner<'_> {
    /// The findings that follow from an incident in labs, and those on a real cluster.
    pub(super) fn plan_also(&mut self, scenario: &Scenario, detect: &[Expectation]) -> [Vec<Also>; 2] {
        let steps = scenario.steps.iter().flat_map(|steps| &steps.value);
        let of_steps = steps.flat_map(|step| step.also.iter().map(move |also| (Some(&*step.name.0), also)));
        let mut plans: [Vec<Also>; 2] = Default::default();
        for (step, also) in scenario.also.iter().map(|also| (None, also)).chain(of_steps) {
            let Some(plan) = self.plan_one_also(step, also, detect) else { continue };
            let mut twice = false;
            for (in_real_cluster, plans) in [false, true].into_iter().zip(&mut plans) {
                if also.in_real_cluster.is_none_or(|only| only == in_real_cluster) {
                    let same = |other: &Also| {
                        (&other.detector, &other.subject, &other.step) == (&plan.detector, &plan.subject, &plan.step)
                    };
                    twice |= plans.iter().any(same);
                    plans.push(plan.clone());
                }
            }
            if twice {
                let message = format!("{} is listed twice about the same subject", quoted(&also.detector));
                self.error(also.detector.span, message, "remove one");
            }
        }
        plans
    }

    fn plan_one_also(&mut self, step: Option<&str>, also: &trial::Also, detect: &[Expectation]) -> Option<Also> {
        self.level_of(&also.detector, &also.level, |actual| format!("write `{}`", words::level(actual)));
        if also.why.trim().is_empty() {
            self.error(also.why.span, "`why` is empty", "explain in a sentence why this follows from the incident");
        }
        let subject = self.about(&also.detector, &also.subject)?;
        let is_expected = |e: &Expectation| e.detector == also.detector.value && e.subject.as_ref() == Some(&subject);
        if detect.iter().any(is_expected) {
            let message = format!("{} is expected about {subject} already", quoted(&also.detector));
            self.error(also.detector.span, message, "remove it here: `also` is for what is not required");
        }
        let (detector, level, why) = (also.detector.value.clone(), also.level.value, also.why.value.clone());
        Some(Also { detector, level, subject, why, step: step.map(str::to_owned) })
    }
}
