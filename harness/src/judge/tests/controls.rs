//! Twins: silence, alarms and risks that stand.

use super::*;

#[test]
fn controls() {
    let cases: Vec<(&str, Vec<Step>, Vec<Verdict>)> = vec![
        ("silence", vec![Baseline(-5), Inject, End(9)], vec![Verdict::Silent; 2]),
        ("info", vec![Baseline(-5), Inject, Report(1, D, Cause, Info, A), End(9)], vec![Verdict::Silent; 2]),
        (
            "a finding",
            vec![Baseline(-5), Inject, Report(1, D, Cause, Warning, A), End(9)],
            vec![false_alarm(Warning), Verdict::Silent],
        ),
        (
            "a finding that is cleared",
            vec![Baseline(-5), Inject, Report(1, D, Cause, Warning, A), Clear(2, D, Cause, A), End(9)],
            vec![false_alarm(Warning), Verdict::Silent],
        ),
        (
            "a new risk",
            vec![Baseline(-5), Inject, Report(1, D, Risk, Warning, A), End(9)],
            vec![false_alarm(Warning), Verdict::Silent],
        ),
        (
            "a risk since the baseline, more severe now",
            vec![Report(-9, D, Risk, Warning, A), Baseline(-5), Inject, Report(1, D, Risk, Critical, A), End(9)],
            vec![Verdict::Silent; 2],
        ),
        (
            "in the baseline",
            vec![Report(-9, D, Cause, Warning, A), Baseline(-5), Inject, End(9)],
            vec![false_alarm(Warning), Verdict::Silent],
        ),
        (
            "two levels are two alarms",
            vec![Baseline(-5), Inject, Report(1, D, Cause, Warning, A), Report(2, D, Symptom, Critical, A), End(9)],
            vec![false_alarm(Warning), false_alarm(Critical), Verdict::Silent],
        ),
        ("blind", vec![Baseline(-5), Inject, Blind(3, D), End(9)], vec![blind(), Verdict::Silent]),
        (
            "blind and loud",
            vec![Baseline(-5), Inject, Blind(3, D), Report(4, D, Cause, Warning, A), End(9)],
            vec![false_alarm(Warning), Verdict::Silent],
        ),
        (
            "findings while the twin is healed do not count",
            vec![Baseline(-5), Inject, End(9), Report(10, D, Cause, Warning, A), Clear(11, D, Cause, A), Recovered(12)],
            vec![Verdict::Silent; 2],
        ),
        (
            "but findings left standing fail",
            vec![Baseline(-5), Inject, End(9), Report(10, D, Cause, Warning, A), Recovered(12)],
            vec![Verdict::Silent, Verdict::Silent, Verdict::NotCleared],
        ),
        (
            "evidence from before the undo does not count",
            vec![
                Baseline(-5),
                Inject,
                End(9),
                Since(11, 10, D, Cause, A),
                Clear(12, D, Cause, A),
                RecoveredFrom(13, 10),
            ],
            vec![Verdict::Silent; 2],
        ),
        (
            "evidence from after the undo",
            vec![
                Baseline(-5),
                Inject,
                End(9),
                Since(12, 11, D, Cause, A),
                Clear(13, D, Cause, A),
                RecoveredFrom(14, 10),
            ],
            vec![Verdict::Silent, Verdict::Silent, false_alarm(Warning)],
        ),
    ];
    for (name, steps, expected) in cases {
        let detectors = vec![D.to_owned(), "wrong-nic".to_owned(), D.to_owned()];
        let mut judge = Judge::control(detectors, vec![]);
        assert!(!judge.all_decided());
        assert_eq!(verdicts(&play(&mut judge, &steps)), expected, "{name}");
        assert!(judge.all_decided(), "{name}");
        assert_eq!(judge.outcome().0 == Outcome::Pass, expected.iter().all(Verdict::passes), "{name}");
    }
}

#[test]
fn a_control_may_list_its_risks() {
    let listed = |risks: &[&str]| {
        let risks = risks.iter().map(|subject| expect(D, Risk, Some(subject))).collect();
        let mut judge = Judge::control(vec![D.into(), "x".into()], risks).with_no_other_risks();
        let steps = [Report(-9, D, Risk, Warning, A), Report(-9, "x", Risk, Warning, A), Baseline(-5), Inject, End(9)];
        play(&mut judge, &steps);
        judge.outcome().0
    };
    assert_eq!(listed(&[A]), Outcome::Pass);
    assert_eq!(listed(&[]), Outcome::Fail, "always on");
    assert_eq!(listed(&[A, "node/other"]), Outcome::Fail, "missed");
}
