//! Properties of any trial: nothing panics, each expectation is decided once, and neither the order of findings
//! received at the same instant nor the moment at which t0 becomes known matters.

use std::collections::BTreeMap;

use proptest::prelude::*;
use relapse_detectors::finding::{Finding, Level, Severity};
use relapse_detectors::time::Time;

use super::Judge;
use super::tests::{expect, finding};
use crate::event::{Decided, Expectation, Verdict};

#[derive(Debug, Clone)]
enum Call {
    Baseline(u64),
    Inject(u64),
    Finding(u64, Finding),
    Blind(u64, &'static str),
    Tick(u64),
    End(u64),
    Abandon,
    Recovered(u64),
}

const DETECTORS: [&str; 3] = ["x", "y", "z"];
const LEVELS: [Level; 3] = [Level::Risk, Level::Cause, Level::Symptom];
const SEVERITIES: [Severity; 3] = [Severity::Info, Severity::Warning, Severity::Critical];

fn any_finding() -> impl Strategy<Value = Finding> {
    let subject = prop::sample::select(vec!["node/a", "node/b", "pod/a"]);
    let (detector, level) = (prop::sample::select(&DETECTORS[..]), prop::sample::select(&LEVELS[..]));
    (detector, level, prop::sample::select(&SEVERITIES[..]), subject, prop::bool::weighted(0.2))
        .prop_map(|(detector, level, severity, subject, cleared)| finding(detector, level, severity, subject, cleared))
}

/// Times around t0 = 100 and around deadlines; a few at the ends of the range.
fn any_time() -> impl Strategy<Value = u64> {
    prop_oneof![20 => 0..300_u64, 1 => Just(u64::MAX), 1 => Just(0)]
}

fn any_call() -> impl Strategy<Value = Call> {
    prop_oneof![
        2 => any_time().prop_map(Call::Baseline),
        2 => any_time().prop_map(Call::Inject),
        12 => (any_time(), any_finding()).prop_map(|(t, f)| Call::Finding(t, f)),
        2 => (any_time(), prop::sample::select(&DETECTORS[..])).prop_map(|(t, d)| Call::Blind(t, d)),
        4 => any_time().prop_map(Call::Tick),
        1 => any_time().prop_map(Call::End),
        1 => Just(Call::Abandon),
        1 => any_time().prop_map(Call::Recovered),
    ]
}

fn any_expectations() -> impl Strategy<Value = Vec<Expectation>> {
    let one = (
        prop::sample::select(&DETECTORS[..]),
        prop::sample::select(&LEVELS[..]),
        prop::option::of(prop::sample::select(vec!["node/a", "node/b"])),
        0..120_u64,
        prop::bool::weighted(0.3),
    );
    let one = one.prop_map(|(detector, level, subject, within, miss)| Expectation {
        within: std::time::Duration::from_nanos(within),
        expected_miss: miss.then(|| "known".to_owned()),
        ..expect(detector, level, subject)
    });
    prop::collection::vec(one, 0..6)
}

fn call(judge: &mut Judge, call: &Call) -> Vec<Decided> {
    match call {
        Call::Baseline(t) => judge.baseline_ended(Time(*t)),
        Call::Inject(t) => judge.injected(Time(*t)),
        Call::Finding(t, finding) => judge.finding(Time(*t), finding),
        Call::Blind(t, detector) => judge.blind(Time(*t), detector, "overrun"),
        Call::Tick(t) => judge.tick(Time(*t)),
        Call::End(t) => judge.detect_ended(Time(*t)),
        Call::Abandon => judge.abandon("because"),
        Call::Recovered(t) => judge.recovered(Time(*t), Time(t / 2)),
    }
    judge.take_decided()
}

/// How often each planned expectation was decided; equal ones are added up.
fn tally<'a>(expectations: impl Iterator<Item = &'a Expectation>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for expectation in expectations {
        *counts.entry(format!("{expectation:?}")).or_default() += 1;
    }
    counts
}

fn planned(decided: &[Decided]) -> impl Iterator<Item = &Decided> {
    decided.iter().filter(|d| {
        let unplanned = matches!(
            d.verdict,
            Verdict::FalseAlarm { .. }
                | Verdict::Unexpected { .. }
                | Verdict::Silent
                | Verdict::NotCleared
                | Verdict::ClearedEarly
        );
        !unplanned && d.expectation.within != std::time::Duration::ZERO
    })
}

/// A trial in chronological order, with t0 at 100.
#[derive(Debug, Clone)]
struct Trial {
    expectations: Vec<Expectation>,
    findings: Vec<(u64, Finding)>,
    blind: Vec<(u64, &'static str)>,
}

fn any_trial() -> impl Strategy<Value = Trial> {
    let blind = (any_time(), prop::sample::select(&DETECTORS[..]));
    let findings = prop::collection::vec((0..260_u64, any_finding()), 0..25);
    (any_expectations(), findings, prop::collection::vec(blind, 0..2)).prop_map(
        |(expectations, mut findings, blind)| {
            findings.sort_by_key(|(t, _)| *t);
            // One finding for each subject at an instant.
            let mut seen = std::collections::BTreeSet::new();
            findings.retain(|(t, f)| seen.insert((*t, f.detector.clone(), f.level, f.subject.clone())));
            Trial { expectations, findings, blind }
        },
    )
}

/// Plays a trial. At `know_t0_at` the judge learns that t0 was 100; it ticks at `ticks`.
fn play(trial: &Trial, know_t0_at: u64, ticks: &[u64]) -> Vec<String> {
    let mut calls: Vec<(u64, u8, Call)> = vec![(50, 1, Call::Baseline(50)), (know_t0_at, 1, Call::Inject(100))];
    calls.extend(trial.blind.iter().map(|(t, d)| (*t, 0, Call::Blind(*t, d))));
    calls.extend(trial.findings.iter().map(|(t, f)| (*t, 2, Call::Finding(*t, f.clone()))));
    calls.extend(ticks.iter().map(|t| (*t, 3, Call::Tick(*t))));
    calls.sort_by_key(|(t, order, _)| (*t, *order));
    let mut judge = Judge::incident(trial.expectations.clone(), vec![]);
    let mut all: Vec<Decided> = calls.iter().flat_map(|(_, _, c)| call(&mut judge, c)).collect();
    all.extend(call(&mut judge, &Call::End(300)));
    // Of several such findings at one instant, any may be shown.
    let line = |d: &Decided| match &d.verdict {
        Verdict::FalseAlarm { .. } | Verdict::Unexpected { .. } => {
            format!("{} {:?} {}", d.expectation.detector, d.expectation.level, d.verdict.name())
        }
        _ => format!("{d:?}"),
    };
    let mut lines: Vec<String> = all.iter().map(line).collect();
    lines.sort();
    lines
}

proptest! {
    #[test]
    fn nothing_panics_and_each_expectation_is_decided_once(
        expectations in any_expectations(),
        risks in any_expectations(),
        control in any::<bool>(),
        calls in prop::collection::vec(any_call(), 0..60),
    ) {
        let mut judge = if control {
            Judge::control(DETECTORS.map(str::to_owned).to_vec(), risks.clone())
        } else {
            Judge::incident(expectations.clone(), risks.clone())
        };
        let mut all = Vec::new();
        for step in &calls {
            all.extend(call(&mut judge, step));
            let _ = (judge.all_decided(), judge.all_cleared(), judge.outcome());
        }
        all.extend(call(&mut judge, &Call::End(400)));
        prop_assert!(judge.all_decided());
        let expected = risks.iter().chain(expectations.iter().filter(|_| !control));
        let expected = tally(expected.filter(|e| !e.within.is_zero()));
        prop_assert_eq!(tally(planned(&all).map(|d| &d.expectation)), expected);
        if control {
            for detector in DETECTORS {
                let about = all.iter().filter(|d| {
                    d.expectation.detector == detector && d.expectation.level == Level::Cause
                        && d.expectation.within.is_zero() && d.verdict == Verdict::Silent
                });
                prop_assert!(about.count() <= 1);
            }
        }
    }

    #[test]
    fn what_nothing_asks_for_fails(trial in any_trial()) {
        let asks = |finding: &Finding| trial.expectations.iter().any(|e| super::expected::meets(e, finding));
        let warns = |finding: &Finding| finding.severity >= Severity::Warning && !finding.cleared;
        let is_new = |finding: &Finding| {
            let same = |other: &Finding| {
                (&other.detector, other.level, &other.subject) == (&finding.detector, finding.level, &finding.subject)
            };
            !trial.findings.iter().any(|(at, other)| *at < 100 && same(other))
        };
        let mut after = trial.findings.iter().filter(|(at, _)| *at >= 100).map(|(_, finding)| finding);
        if after.any(|finding| warns(finding) && is_new(finding) && !asks(finding)) {
            let lines = play(&trial, 100, &[]);
            prop_assert!(lines.iter().any(|line| line.ends_with("unexpected") || line.ends_with("false-alarm")), "{lines:?}");
        }
    }

    #[test]
    fn order_within_an_instant_does_not_matter(trial in any_trial(), seed in any::<u64>()) {
        let mut shuffled = trial.clone();
        let key = |f: &Finding| format!("{f:?}").bytes().fold(seed, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        shuffled.findings.sort_by_key(|(t, f)| (*t, key(f)));
        prop_assert_eq!(play(&trial, 100, &[]), play(&shuffled, 100, &[]));
    }

    #[test]
    fn neither_ticks_nor_the_moment_t0_is_known_matter(
        trial in any_trial(),
        known in 100..260_u64,
        ticks in prop::collection::vec(0..300_u64, 0..20),
    ) {
        let plain = play(&trial, 100, &[]);
        prop_assert_eq!(&plain, &play(&trial, 100, &ticks));
        prop_assert_eq!(&plain, &play(&trial, known, &[]));
    }
}
