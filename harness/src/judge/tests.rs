//! Cases for each verdict: steps and expected decisions.

use std::time::Duration;

use relapse_detectors::finding::{Finding, Level, Severity, Subject};
use relapse_detectors::time::Time;

mod asked;
mod chain;
mod controls;
mod hidden;
mod undecided;

use super::Judge;
use crate::event::{Decided, Expectation, OfStep, Outcome, Verdict};
use Level::{Cause, Risk, Symptom};
use Severity::{Critical, Info, Warning};
use Step::{
    Abandon, Baseline, Blind, Clear, CutShort, End, Heal, Healed, Inject, Injected, Recovered, RecoveredFrom, Report,
    Since, StageEnd, Tick, Visible,
};

const T0: u64 = 10_000_000_000;
/// Deadline of every expectation in the table.
const WITHIN: u64 = 1_000_000_000;

/// Times are nanoseconds from t0.
enum Step {
    Baseline(i64),
    Inject,
    Report(i64, &'static str, Level, Severity, &'static str),
    Clear(i64, &'static str, Level, &'static str),
    Blind(i64, &'static str),
    Tick(i64),
    End(i64),
    /// Nothing has evidence from after healing.
    Recovered(i64),
    /// Now, and when healing was read back.
    RecoveredFrom(i64, i64),
    /// A warning received at the first time, with evidence since the second.
    Since(i64, i64, &'static str, Level, &'static str),
    Abandon(&'static str),
    /// Clients see the faults of a step, or of the trial, no earlier.
    Visible(Option<&'static str>, i64),
    /// Of a chain.
    Injected(&'static str, i64),
    Heal(&'static str, i64),
    /// Read back; its findings must be cleared by then.
    Healed(&'static str, i64),
    StageEnd(i64),
    CutShort(i64),
}

fn at(offset: i64) -> Time {
    Time(T0.checked_add_signed(offset).expect("within range"))
}

pub(super) fn finding(detector: &str, level: Level, severity: Severity, subject: &str, cleared: bool) -> Finding {
    let subject: Subject = subject.parse().expect("a subject");
    let evidence = "seen".to_owned();
    Finding {
        detector: detector.to_owned(),
        incident: "I4".to_owned(),
        level,
        severity,
        subject,
        evidence,
        since: Time(0),
        cleared,
    }
}

pub(super) fn expect(detector: &str, level: Level, subject: Option<&str>) -> Expectation {
    Expectation {
        detector: detector.to_owned(),
        level,
        subject: subject.map(|s| s.parse().expect("a subject")),
        within: Duration::from_nanos(WITHIN),
        of: None,
        expected_miss: None,
        outside: false,
    }
}

fn miss(expectation: Expectation) -> Expectation {
    Expectation { expected_miss: Some("no collector".to_owned()), outside: true, ..expectation }
}

fn play(judge: &mut Judge, steps: &[Step]) -> Vec<Decided> {
    for step in steps {
        match step {
            Baseline(t) => judge.baseline_ended(at(*t)),
            Inject => judge.injected(Time(T0)),
            Report(t, detector, level, severity, subject) => {
                judge.finding(at(*t), &finding(detector, *level, *severity, subject, false));
            }
            Clear(t, detector, level, subject) => {
                judge.finding(at(*t), &finding(detector, *level, Warning, subject, true));
            }
            Blind(t, detector) => judge.blind(at(*t), detector, "overrun"),
            Tick(t) => judge.tick(at(*t)),
            End(t) => judge.detect_ended(at(*t)),
            Recovered(t) => judge.recovered(at(*t), at(*t)),
            RecoveredFrom(t, healed) => judge.recovered(at(*t), at(*healed)),
            Since(t, since, detector, level, subject) => {
                let found = finding(detector, *level, Warning, subject, false);
                judge.finding(at(*t), &Finding { since: at(*since), ..found });
            }
            Abandon(why) => judge.abandon(why),
            Visible(step, t) => judge.visible(*step, at(*t)),
            Injected(step, t) => judge.step_injected(step, at(*t)),
            Heal(step, t) => judge.healing(step, at(*t)),
            Healed(step, clear_by) => judge.healed(step, at(*clear_by)),
            StageEnd(t) => judge.stage_ended(at(*t)),
            CutShort(t) => judge.cut_short(at(*t)),
        }
    }
    judge.take_decided()
}

fn verdicts(decided: &[Decided]) -> Vec<Verdict> {
    decided.iter().map(|d| d.verdict.clone()).collect()
}

fn ns(n: u64) -> Duration {
    Duration::from_nanos(n)
}

fn false_alarm(severity: Severity) -> Verdict {
    Verdict::FalseAlarm { severity, subject: Subject::node("a"), evidence: "seen".to_owned() }
}

fn unexpected(subject: &str) -> Verdict {
    let subject = subject.parse().expect("a subject");
    Verdict::Unexpected { severity: Warning, subject, evidence: "seen".to_owned() }
}

fn wrong(subject: &str) -> Verdict {
    Verdict::WrongSubject { said: subject.parse().expect("a subject") }
}

fn blind() -> Verdict {
    Verdict::Blind { why: "overrun".to_owned() }
}

fn known() -> Verdict {
    Verdict::ExpectedMiss { reason: "no collector".to_owned() }
}

const D: &str = "policy-route";
const A: &str = "node/a";
const B: &str = "node/b";
const LIMIT: i64 = 1_000_000_000;

#[test]
fn one_expectation_of_an_incident() {
    let cases: Vec<(&str, Vec<Step>, Vec<Verdict>)> = vec![
        ("in time", vec![Report(5, D, Cause, Warning, A)], vec![Verdict::Detected { after: ns(5) }]),
        ("at t0", vec![Report(0, D, Cause, Warning, A)], vec![Verdict::Detected { after: ns(0) }]),
        ("critical", vec![Report(5, D, Cause, Critical, A)], vec![Verdict::Detected { after: ns(5) }]),
        (
            "exactly at the deadline",
            vec![Tick(LIMIT), Report(LIMIT, D, Cause, Warning, A)],
            vec![Verdict::Detected { after: ns(WITHIN) }],
        ),
        (
            "1 ns later",
            vec![Tick(LIMIT + 1), Report(LIMIT + 1, D, Cause, Warning, A)],
            vec![Verdict::Late { after: ns(WITHIN + 1) }],
        ),
        ("reported twice", vec![Report(5, D, Cause, Warning, A), Report(6, D, Cause, Critical, A)], {
            vec![Verdict::Detected { after: ns(5) }]
        }),
        ("silence", vec![], vec![Verdict::Missed]),
        ("only after the end", vec![End(LIMIT), Report(LIMIT, D, Cause, Warning, A)], vec![Verdict::Missed]),
        ("info only", vec![Report(5, D, Cause, Info, A)], vec![Verdict::Missed]),
        ("another level", vec![Report(5, D, Symptom, Warning, A)], vec![unexpected(A), Verdict::Missed]),
        ("another detector", vec![Report(5, "wrong-nic", Cause, Warning, A)], vec![unexpected(A), Verdict::Missed]),
        ("cleared without having been reported", vec![Clear(5, D, Cause, A)], vec![Verdict::Missed]),
        (
            "another subject",
            vec![Report(5, D, Cause, Warning, B), Report(6, D, Cause, Warning, "node/c")],
            vec![unexpected(B), wrong(B)],
        ),
        ("another subject, as info", vec![Report(5, D, Cause, Info, B)], vec![Verdict::Missed]),
        (
            "another subject, then the right one",
            vec![Report(5, D, Cause, Warning, B), Report(9, D, Cause, Warning, A)],
            vec![unexpected(B), wrong(B)],
        ),
        (
            "both subjects at once",
            vec![Report(5, D, Cause, Warning, B), Report(5, D, Cause, Warning, A)],
            vec![unexpected(B), Verdict::Detected { after: ns(5) }],
        ),
        (
            "the right subject, then another",
            vec![Report(5, D, Cause, Warning, A), Report(9, D, Cause, Warning, B)],
            vec![Verdict::Detected { after: ns(5) }, unexpected(B)],
        ),
        (
            "another subject after the end",
            vec![Report(5, D, Cause, Warning, A), End(9), Report(10, D, Cause, Warning, B)],
            vec![Verdict::Detected { after: ns(5) }, unexpected(B)],
        ),
        (
            "more severe later: counts from warning",
            vec![Report(5, D, Cause, Info, A), Report(900, D, Cause, Warning, A)],
            vec![Verdict::Detected { after: ns(900) }],
        ),
        (
            "more severe too late",
            vec![Report(5, D, Cause, Info, A), Report(LIMIT + 7, D, Cause, Warning, A)],
            vec![Verdict::Late { after: ns(WITHIN + 7) }],
        ),
        (
            "info before t0, warning after",
            vec![Report(-9, D, Cause, Info, A), Report(7, D, Cause, Warning, A)],
            vec![Verdict::Detected { after: ns(7) }],
        ),
        (
            "cleared before healing",
            vec![Report(5, D, Cause, Warning, A), Clear(6, D, Cause, A)],
            vec![Verdict::Detected { after: ns(5) }, Verdict::ClearedEarly],
        ),
        ("blind and silent", vec![Blind(5, D)], vec![blind()]),
        ("blind before t0", vec![Blind(-5, D)], vec![blind()]),
        ("blind at the deadline", vec![Blind(LIMIT, D)], vec![blind()]),
        ("blind after the deadline", vec![Blind(LIMIT + 1, D)], vec![Verdict::Missed]),
        ("another is blind", vec![Blind(5, "wrong-nic")], vec![Verdict::Missed]),
        ("blind, info only", vec![Blind(5, D), Report(6, D, Cause, Info, A)], vec![blind()]),
        ("blind, but reports it", vec![Blind(5, D), Report(6, D, Cause, Warning, A)], {
            vec![Verdict::Detected { after: ns(6) }]
        }),
        ("blind, and reports something else", vec![Blind(5, D), Report(6, D, Cause, Warning, B)], {
            vec![unexpected(B), wrong(B)]
        }),
    ];
    for (name, steps, expected) in cases {
        let mut judge = Judge::incident(vec![expect(D, Cause, Some(A))], vec![]);
        let mut decided = play(&mut judge, &[Baseline(-1), Inject]);
        decided.extend(play(&mut judge, &steps));
        decided.extend(play(&mut judge, &[End(2 * LIMIT)]));
        assert_eq!(verdicts(&decided), expected, "{name}");
        let passes = expected.iter().all(Verdict::passes);
        assert_eq!(judge.outcome().0 == Outcome::Pass, passes, "{name}");
        assert_eq!(judge.outcome().1.is_empty(), passes, "{name}");
        assert!(judge.all_decided(), "{name}");
    }
}

#[test]
fn before_the_fault() {
    let late = Verdict::Detected { after: ns(0) };
    let cases: Vec<(&str, Vec<Step>, Vec<Verdict>)> = vec![
        (
            "a warning in the baseline",
            vec![Report(-9, D, Cause, Warning, A), Baseline(-5), Inject],
            vec![false_alarm(Warning), Verdict::PreExisting],
        ),
        (
            "taken back before t0: a false alarm all the same, and then detected",
            vec![Report(-9, D, Cause, Critical, A), Clear(-8, D, Cause, A), Baseline(-5), Inject]
                .into_iter()
                .chain([Report(0, D, Cause, Warning, A)])
                .collect(),
            vec![false_alarm(Critical), late],
        ),
        (
            "by a detector without an expectation",
            vec![Report(-9, "wrong-nic", Symptom, Warning, A), Baseline(-5), Inject, End(2)],
            vec![false_alarm(Warning), Verdict::Missed],
        ),
        (
            "one verdict for each detector and level",
            vec![Report(-9, "x", Cause, Warning, A), Report(-8, "x", Cause, Warning, B), Baseline(-5), Inject, End(2)],
            vec![false_alarm(Warning), Verdict::Missed],
        ),
        ("info", vec![Report(-9, D, Cause, Info, A), Baseline(-5), Inject, End(2)], vec![Verdict::Missed]),
        ("a risk", vec![Report(-9, D, Risk, Critical, A), Baseline(-5), Inject, End(2)], vec![Verdict::Missed]),
        (
            "received after the baseline, before t0",
            vec![Baseline(-5), Report(-1, D, Cause, Warning, A), Inject],
            vec![false_alarm(Warning), Verdict::PreExisting],
        ),
        (
            "received after t0, before t0 was known",
            vec![Baseline(-5), Report(400, D, Cause, Warning, A), Inject],
            vec![Verdict::Detected { after: ns(400) }],
        ),
        (
            "standing since before t0, more severe after",
            vec![Report(-9, D, Cause, Warning, A), Baseline(-5), Inject, Report(4, D, Cause, Critical, A), End(9)],
            vec![false_alarm(Warning), Verdict::PreExisting],
        ),
    ];
    for (name, steps, expected) in cases {
        let mut judge = Judge::incident(vec![expect(D, Cause, Some(A))], vec![]);
        assert_eq!(verdicts(&play(&mut judge, &steps)), expected, "{name}");
    }
}

#[test]
fn risks_are_asserted_at_the_end_of_the_baseline() {
    let standing = Verdict::Detected { after: Duration::ZERO };
    let cases: Vec<(&str, Vec<Step>, Verdict)> = vec![
        ("reported", vec![Report(-9, D, Risk, Warning, A)], standing),
        ("not reported", vec![], Verdict::Missed),
        ("info only", vec![Report(-9, D, Risk, Info, A)], Verdict::Missed),
        ("about another", vec![Report(-9, D, Risk, Warning, B)], Verdict::WrongSubject { said: Subject::node("b") }),
        ("cleared: it no longer stands", vec![Report(-9, D, Risk, Warning, A), Clear(-8, D, Risk, A)], {
            Verdict::Missed
        }),
        ("blind", vec![Blind(-9, D)], blind()),
    ];
    for (name, steps, expected) in cases {
        for control in [false, true] {
            let risks = vec![expect(D, Risk, Some(A))];
            let mut judge = if control { Judge::control(vec![], risks) } else { Judge::incident(vec![], risks) };
            assert_eq!(verdicts(&play(&mut judge, &steps)), [], "{name}");
            assert_eq!(verdicts(&play(&mut judge, &[Baseline(-5)])), std::slice::from_ref(&expected), "{name}");
            assert_eq!(verdicts(&play(&mut judge, &[Inject, End(5), Recovered(9)])), [], "{name}");
        }
    }
    // A risk among the expectations is treated as a risk.
    let mut judge = Judge::incident(vec![expect(D, Risk, Some(A))], vec![]);
    assert_eq!(verdicts(&play(&mut judge, &[Baseline(-5)])), [Verdict::Missed]);
}

#[test]
fn expected_misses() {
    let unexpected = |n| Verdict::UnexpectedlyDetected { after: ns(n) };
    let cases: Vec<(&str, Vec<Step>, Verdict)> = vec![
        ("missed", vec![], known()),
        ("missed: certain 1 ns past the deadline", vec![Tick(LIMIT), Tick(LIMIT + 1)], known()),
        ("detected", vec![Report(5, D, Cause, Warning, A)], unexpected(5)),
        ("detected at the deadline", vec![Tick(LIMIT), Report(LIMIT, D, Cause, Warning, A)], unexpected(WITHIN)),
        ("late is missed", vec![Report(LIMIT + 1, D, Cause, Warning, A)], known()),
        ("about another subject is missed", vec![Report(5, D, Cause, Warning, B)], known()),
        ("blind proves nothing", vec![Blind(5, D), Tick(LIMIT + 1)], blind()),
    ];
    for (name, steps, expected) in cases {
        let mut judge = Judge::incident(vec![miss(expect(D, Cause, Some(A)))], vec![]);
        let mut decided = play(&mut judge, &[Baseline(-1), Inject]);
        decided.extend(play(&mut judge, &steps));
        decided.extend(play(&mut judge, &[End(2 * LIMIT)]));
        assert_eq!(verdicts(&decided), [expected], "{name}");
    }
}

#[test]
fn a_miss_without_deadline_is_watched_for_as_long_as_the_others() {
    let open_end = Expectation { within: Duration::ZERO, ..miss(expect("agent", Cause, None)) };
    let mut judge = Judge::incident(vec![expect(D, Cause, None), open_end.clone()], vec![]);
    let decided = play(&mut judge, &[Baseline(-1), Inject, Report(5, D, Cause, Warning, A), Tick(6)]);
    assert_eq!(decided.len(), 1);
    assert!(!judge.all_decided(), "the miss is not certain yet");
    let decided = play(&mut judge, &[Tick(LIMIT + 1)]);
    let unchanged = [Decided { expectation: open_end, verdict: known(), from: None, visible: None }];
    assert_eq!(decided, unchanged, "the expectation is unchanged");
    assert!(judge.all_decided());
}

#[test]
fn deadlines() {
    let soon = Expectation { within: ns(10), ..expect("soon", Cause, None) };
    let mut judge = Judge::incident(vec![expect(D, Cause, None), soon], vec![]);
    assert_eq!((judge.last_deadline(), judge.all_decided()), (None, false), "t0 is not known");
    play(&mut judge, &[Baseline(-1), Inject, Tick(LIMIT)]);
    assert_eq!(judge.last_deadline(), Some(at(LIMIT)));
    assert!(!judge.all_decided(), "at the deadline it can still be met");
    play(&mut judge, &[Tick(LIMIT + 1)]);
    assert!(judge.all_decided(), "late expectations are not waited for");
    let decided = play(&mut judge, &[Report(LIMIT + 2, "soon", Cause, Warning, A), End(LIMIT + 3)]);
    assert_eq!(verdicts(&decided), [Verdict::Late { after: ns(WITHIN + 2) }, Verdict::Missed]);
    assert!(Judge::incident(vec![], vec![]).all_decided());
}

#[test]
fn recovery() {
    let expectations = vec![expect(D, Cause, None)];
    let mut judge = Judge::incident(expectations.clone(), vec![]);
    play(
        &mut judge,
        &[Report(-9, "old", Cause, Warning, A), Report(-9, "risk", Risk, Warning, A), Baseline(-5), Inject],
    );
    assert!(judge.all_cleared(), "findings from before the fault are not its consequence");
    play(&mut judge, &[Report(1, D, Cause, Warning, A), Report(1, "quiet", Cause, Info, A)]);
    let other = Expectation { outside: true, ..expect("other", Symptom, None) };
    let mut judge = judge.with_outside(["other".to_owned()]);
    play(&mut judge, &[Report(2, "risk", Risk, Critical, A), Report(2, "other", Symptom, Critical, B), End(5)]);
    assert!(!judge.all_cleared());
    play(&mut judge, &[Report(6, "other", Symptom, Critical, A)]);
    let decided = play(&mut judge, &[Recovered(9)]);
    assert_eq!(verdicts(&decided), [Verdict::NotCleared, Verdict::NotCleared]);
    let first = Expectation { subject: Some(Subject::node("b")), within: Duration::ZERO, ..other };
    assert_eq!(decided[0].expectation, first, "the first of two");
    assert_eq!(decided[1].expectation, expectations[0]);
    play(&mut judge, &[Clear(10, D, Cause, A), Clear(10, "other", Symptom, A)]);
    assert!(!judge.all_cleared());
    play(&mut judge, &[Clear(10, "other", Symptom, B)]);
    assert!(judge.all_cleared());
}

#[test]
fn failures_come_first() {
    let miss = miss(expect("agent", Symptom, None));
    let expectations = vec![expect(D, Cause, Some(A)), expect("x", Cause, Some(A)), expect("y", Cause, None), miss];
    let mut judge = Judge::incident(expectations, vec![]);
    assert_eq!(judge.outcome().0, Outcome::Inconclusive, "still open");
    play(
        &mut judge,
        &[Baseline(-1), Inject, Report(LIMIT + 5, D, Cause, Warning, A), Report(1, "x", Cause, Warning, B)],
    );
    play(&mut judge, &[Report(2, "agent", Symptom, Warning, B), Blind(3, "y"), End(LIMIT + 9), Recovered(LIMIT * 2)]);
    let (outcome, reasons) = judge.outcome();
    assert_eq!(outcome, Outcome::Fail, "what one did not see excuses no other");
    let expected = [
        "policy-route was late: 1.00 s, deadline 1 s",
        "x reported node/b, which the scenario neither expects nor lists under `also`",
        "agent was expected to miss, but detected it after 2 ns",
        "x reported node/b, not node/a",
        "agent did not clear its finding",
        "policy-route did not clear its finding about node/a",
        "y could not see: overrun",
    ];
    assert_eq!(reasons, expected);
}

#[test]
fn verdicts_nobody_planned_say_whether_the_detector_is_a_users_own() {
    let mut judge = Judge::control(vec![D.to_owned(), "agent".to_owned()], vec![]).with_outside(["agent".to_owned()]);
    let decided = play(&mut judge, &[Baseline(-1), Inject, End(5)]);
    assert_eq!(decided.iter().map(|d| d.expectation.outside).collect::<Vec<_>>(), [false, true]);
}
