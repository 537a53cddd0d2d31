//! JUnit XML, for CI systems.
//!
//! Job: one test case per trial, one suite per backend. Invariants: a skipped trial is `skipped`, never a success; a
//! failed detection is a `failure`, an inconclusive or dirty trial is an `error`; the type is the outcome's name, and
//! the text has reasons and verdicts. Times to detect are properties in milliseconds, so that CI can plot them: from t0, and
//! from when clients could first see the fault if that was later. Left out: reruns; repetitions are separate cases.

use quick_junit::{NonSuccessKind, Property, Report, TestCase, TestCaseStatus, TestSuite};

use crate::block;
use crate::event::Outcome;
use crate::paint::Page;
use crate::summary::{RunSummary, TrialSummary};
use crate::words;

/// Why the report was not written.
#[derive(Debug, thiserror::Error)]
#[error("write the JUnit report")]
pub struct JunitError(#[source] quick_junit::SerializeError);

/// Renders the report.
///
/// # Errors
/// The XML cannot be written.
pub fn junit(run: &RunSummary) -> Result<String, JunitError> {
    let mut report = Report::new("relapse");
    report.time = Some(run.took());
    report.timestamp = run.run.as_ref().and_then(|run| run.started.parse().ok());
    for backend in run.backends() {
        let mut suite = TestSuite::new(format!("relapse.{backend}"));
        suite.timestamp = report.timestamp;
        suite.add_properties(properties(run));
        for trial in run.trials.iter().filter(|trial| trial.info.trial.backend == backend) {
            suite.add_test_case(case(run, trial));
        }
        report.add_test_suite(suite);
    }
    report.to_string().map_err(JunitError)
}

fn properties(run: &RunSummary) -> Vec<Property> {
    let mut all = vec![Property::new("outcome", run.outcome().name())];
    if let Some(run) = &run.run {
        all.push(Property::new("run-id", &run.run_id));
        all.push(Property::new("relapse-version", &run.version));
        all.push(Property::new("kernel", &run.kernel));
        all.push(Property::new("root", run.root.to_string()));
        all.push(Property::new("host-writes", run.host_writes.to_string()));
        all.push(Property::new("detectors", run.detectors.join(" ")));
    }
    all.extend(run.notices.iter().map(|notice| Property::new("notice", notice)));
    all
}

fn case(run: &RunSummary, trial: &TrialSummary) -> TestCase {
    let outcome = trial.outcome();
    let reasons = trial.reasons().join("; ");
    let text = block::lines(run, trial, Page::PLAIN).join("\n");
    let status = match outcome {
        Outcome::Pass => TestCaseStatus::success(),
        Outcome::Skipped => {
            let mut status = TestCaseStatus::skipped();
            status.set_type(outcome.name()).set_message(&reasons);
            status
        }
        Outcome::Fail | Outcome::Inconclusive | Outcome::Dirty | Outcome::InternalError => {
            let kind = if outcome == Outcome::Fail { NonSuccessKind::Failure } else { NonSuccessKind::Error };
            let mut status = TestCaseStatus::non_success(kind);
            status.set_type(outcome.name()).set_message(&reasons).set_description(&text);
            status
        }
    };
    let mut case = TestCase::new(run.label(trial), status);
    case.set_classname(format!("relapse.{}.{}", trial.info.trial.backend, trial.info.trial.scenario));
    if let Some(took) = trial.took() {
        case.set_time(took);
    }
    if outcome == Outcome::Pass {
        case.set_system_out(&text);
    }
    for decided in &trial.verdicts {
        let expected = &decided.expectation;
        let step = expected.of.as_ref().and_then(|of| of.step.as_ref()).map(|step| format!("{step}."));
        let key = format!("{}{}.{}", step.unwrap_or_default(), expected.detector, words::level(expected.level));
        case.add_property(Property::new(format!("verdict.{key}"), decided.verdict.name()));
        if let Some(after) = decided.verdict.after() {
            let ms = format!("{:.3}", after.as_secs_f64() * 1e3);
            case.add_property(Property::new(format!("time-to-detect-ms.{key}"), ms));
        }
        if let (Some(_), Some(after)) = (decided.visible, decided.since_visible()) {
            let ms = format!("{:.3}", after.as_secs_f64() * 1e3);
            case.add_property(Property::new(format!("time-to-detect-from-visible-ms.{key}"), ms));
        }
    }
    case
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::sample;

    #[test]
    fn report() {
        let xml = junit(&RunSummary::of(&sample::run())).expect("written");
        // Only the timestamp may differ between renderings of the same events.
        let xml = xml.replace("2026-11-21T11:42:00.000+00:00", "[timestamp]");
        insta::assert_snapshot!(xml);
    }

    #[test]
    fn verdicts_of_a_chain_say_their_step() {
        let run = RunSummary::of(&sample::chain::chain());
        let case = case(&run, &run.trials[0]);
        let names: Vec<&str> = case.properties.iter().map(|property| property.name.as_str()).collect();
        assert!(names.contains(&"time-to-detect-ms.route.wrong-nic.symptom"), "{names:?}");
    }

    #[test]
    fn times_count_from_t0_and_from_when_clients_saw_the_fault() {
        let run = RunSummary::of(&sample::cached::cached(&[4_200]));
        let case = case(&run, &run.trials[0]);
        let value = |name: &str| {
            let named = |property: &&Property| property.name.as_str() == name;
            case.properties.iter().find(named).map(|property| property.value.as_str())
        };
        assert_eq!(value("time-to-detect-ms.dns-answer.cause"), Some("4217.000"));
        assert_eq!(value("time-to-detect-from-visible-ms.dns-answer.cause"), Some("17.000"));
    }

    #[test]
    fn every_case_has_a_name_of_its_own_and_says_its_backend() {
        let run = RunSummary::of(&sample::both(|_| true));
        let cases: Vec<TestCase> = run.trials.iter().map(|trial| case(&run, trial)).collect();
        assert_eq!(cases.iter().map(|case| &case.name).collect::<BTreeSet<_>>().len(), cases.len());
        for case in cases {
            let class = if case.name.contains(" on kind") { "relapse.kind." } else { "relapse.netns." };
            assert!(case.classname.expect("a class").starts_with(class), "{:?}", case.name);
        }
    }
}
