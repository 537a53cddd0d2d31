//! Which findings an incident asks for: expected ones, those that also follow, and risks from before.

use super::*;
use crate::event::Also;

fn also(level: Level, subject: &str, step: Option<&str>) -> Also {
    let (detector, subject) = ("x".to_owned(), subject.parse().expect("a subject"));
    Also { detector, level, subject, why: "it follows".to_owned(), step: step.map(str::to_owned) }
}

/// The verdicts besides that on the one expectation, which is met.
fn besides(judge: Judge, steps: Vec<Step>) -> Vec<Verdict> {
    let mut judge = judge;
    let mut all = vec![Report(-9, "old", Risk, Warning, A), Baseline(-5), Inject, Report(1, D, Cause, Warning, A)];
    all.extend(steps);
    let mut verdicts = verdicts(&play(&mut judge, &all));
    let met = verdicts.iter().position(|verdict| *verdict == Verdict::Detected { after: ns(1) }).expect("it is met");
    verdicts.remove(met);
    assert_eq!(judge.outcome().0 == Outcome::Pass, verdicts.is_empty());
    verdicts
}

fn incident() -> Judge {
    Judge::incident(vec![expect(D, Cause, Some(A))], vec![])
}

#[test]
fn what_is_not_asked_for_is_unexpected() {
    let late = Verdict::FalseAlarm { severity: Warning, subject: Subject::node("a"), evidence: "seen".to_owned() };
    let cases: Vec<(&str, Vec<Step>, Vec<Verdict>)> = vec![
        ("nothing else", vec![End(9)], vec![]),
        ("another detector", vec![Report(5, "y", Symptom, Warning, A), End(9)], vec![unexpected(A)]),
        ("below warning", vec![Report(5, "y", Symptom, Info, A), End(9)], vec![]),
        ("what also follows", vec![Report(5, "x", Symptom, Warning, B), End(9)], vec![]),
        ("it must be cleared as well", vec![Report(5, "x", Symptom, Warning, B), End(9), Recovered(20)], {
            vec![Verdict::NotCleared, Verdict::NotCleared]
        }),
        ("about another subject", vec![Report(5, "x", Symptom, Warning, A), End(9)], vec![unexpected(A)]),
        ("of another level", vec![Report(5, "x", Cause, Warning, B), End(9)], vec![unexpected(B)]),
        ("while it is healed", vec![End(9), Report(12, "y", Symptom, Warning, A)], vec![unexpected(A)]),
        ("a risk from before", vec![Clear(3, "old", Risk, A), Report(5, "old", Risk, Warning, A), End(9)], vec![]),
        ("a new risk", vec![Report(5, "old", Risk, Warning, B), End(9)], vec![unexpected(B)]),
        (
            "one verdict for each detector and level",
            { vec![Report(5, "y", Cause, Warning, A), Report(6, "y", Cause, Warning, B), End(9)] },
            vec![unexpected(A)],
        ),
        (
            "evidence from before healing",
            {
                vec![
                    End(9),
                    Clear(9, D, Cause, A),
                    Since(12, 9, D, Cause, A),
                    Clear(13, D, Cause, A),
                    RecoveredFrom(20, 9),
                ]
            },
            vec![],
        ),
        (
            "evidence from after it",
            {
                vec![
                    End(9),
                    Clear(9, D, Cause, A),
                    Since(12, 10, D, Cause, A),
                    Clear(13, D, Cause, A),
                    RecoveredFrom(20, 9),
                ]
            },
            vec![late],
        ),
        (
            "a risk from before, seen again",
            {
                vec![
                    End(9),
                    Clear(9, D, Cause, A),
                    Clear(9, "old", Risk, A),
                    Since(12, 10, "old", Risk, A),
                    RecoveredFrom(20, 9),
                ]
            },
            vec![],
        ),
    ];
    for (name, steps, expected) in cases {
        let judge = incident().with_also(vec![also(Symptom, B, None)]);
        assert_eq!(besides(judge, steps), expected, "{name}");
    }
}

#[test]
fn a_detector_that_warns_about_every_node_fails_by_its_verdict() {
    for at in [1, 5] {
        let mut judge = incident();
        let all = ["node/c", A, B].map(|node| Report(at, D, Cause, Warning, node));
        play(&mut judge, &[Baseline(-1), Inject]);
        play(&mut judge, &all);
        play(&mut judge, &[End(9)]);
        let reason =
            "policy-route reported node/c, which the scenario neither expects nor lists under `also`".to_owned();
        assert_eq!(judge.outcome(), (Outcome::Fail, vec![reason]));
    }
}

#[test]
fn a_users_detector_is_shown_and_only_a_strict_one_fails() {
    let own = |subject| Expectation { outside: true, ..expect("agent", Cause, subject) };
    let verdicts = |strict: bool| {
        let names = strict.then(|| "agent".to_owned());
        let judge = Judge::incident(vec![own(Some(A))], vec![]).with_outside(["agent".to_owned()]);
        let mut judge = judge.with_strict(names);
        let first =
            [Baseline(-5), Inject, Report(2, "agent", Symptom, Warning, A), Report(3, "agent", Cause, Warning, B)];
        let mut decided = play(&mut judge, &first);
        // Its evidence has no time of its own: `since` is when it was printed.
        decided.extend(play(&mut judge, &[Report(4, "agent", Cause, Warning, A), End(9)]));
        decided.extend(play(&mut judge, &[Clear(10, "agent", Cause, A), Clear(10, "agent", Cause, B)]));
        decided.extend(play(&mut judge, &[Clear(10, "agent", Symptom, A), Since(12, 11, "agent", Cause, A)]));
        decided.extend(play(&mut judge, &[Clear(13, "agent", Cause, A), RecoveredFrom(20, 9)]));
        verdicts(&decided)
    };
    assert_eq!(verdicts(false), [Verdict::Detected { after: ns(4) }]);
    assert_eq!(verdicts(true), [unexpected(A), unexpected(B), wrong(B)]);
}

#[test]
fn in_a_chain_what_follows_from_a_step_may_be_reported_until_it_is_healed() {
    let step = |name: &str| Some(OfStep { step: Some(name.to_owned()), ..OfStep::default() });
    let expectation = Expectation { of: step("one"), ..expect(D, Cause, Some(A)) };
    let unexpected_at = |t: i64| {
        let judge = Judge::incident(vec![expectation.clone()], vec![]).with_also(vec![also(Symptom, B, Some("one"))]);
        let mut judge = judge.with_steps(["one", "two"].map(str::to_owned));
        let steps = vec![
            (0, vec![Baseline(-5), Injected("one", 0), Injected("two", 0), Report(1, D, Cause, Warning, A)]),
            (100, vec![StageEnd(100), Heal("one", 110), Healed("one", 150), Clear(120, D, Cause, A)]),
            (300, vec![StageEnd(300), Heal("two", 310), Healed("two", 350), RecoveredFrom(400, 320)]),
        ];
        let mut decided = Vec::new();
        let mut reported = false;
        for (at, steps) in steps {
            if at > t && !reported {
                reported = true;
                decided.extend(play(&mut judge, &[Report(t, "x", Symptom, Warning, B), Clear(t, "x", Symptom, B)]));
            }
            decided.extend(play(&mut judge, &steps));
        }
        verdicts(&decided).contains(&unexpected(B))
    };
    assert_eq!([50, 130, 200].map(unexpected_at), [false, false, true]);
}
