//! The same with faults that a cache or kept connections hide from clients.

use super::*;

/// When caches have expired, at the latest.
const EXPIRED: i64 = 5 * LIMIT;

fn played(hidden: bool, steps: Vec<Step>) -> Vec<(Verdict, Option<Duration>)> {
    let mut judge = Judge::incident(vec![expect(D, Cause, Some(A))], vec![]);
    let mut all = vec![Baseline(-5)];
    all.extend(hidden.then_some(Visible(None, EXPIRED)));
    all.push(Inject);
    all.extend(steps);
    all.push(End(10 * LIMIT));
    play(&mut judge, &all).into_iter().map(|decided| (decided.verdict, decided.visible)).collect()
}

#[test]
fn a_deadline_counts_from_when_clients_could_first_see_the_fault() {
    let after = |t: i64| ns(t.unsigned_abs());
    let report = |t| Report(t, D, Cause, Warning, A);
    let seen = 4 * LIMIT;
    let cases = [
        ("as before", false, vec![report(seen + 17)], (Verdict::Late { after: after(seen + 17) }, None)),
        (
            "in time, since it was hidden",
            true,
            vec![Visible(None, seen), report(seen + 17)],
            (Verdict::Detected { after: after(seen + 17) }, Some(after(seen))),
        ),
        (
            "at the last instant",
            true,
            vec![Visible(None, seen), Tick(seen + LIMIT), report(seen + LIMIT)],
            (Verdict::Detected { after: after(seen + LIMIT) }, Some(after(seen))),
        ),
        (
            "late all the same",
            true,
            vec![Visible(None, seen), report(seen + LIMIT + 1)],
            (Verdict::Late { after: after(seen + LIMIT + 1) }, Some(after(seen))),
        ),
        (
            "no client has seen it yet",
            true,
            vec![report(seen + 17), Visible(None, seen + 20)],
            (Verdict::Detected { after: after(seen + 17) }, None),
        ),
        (
            "no client ever looked",
            true,
            vec![report(EXPIRED + 17)],
            (Verdict::Detected { after: after(EXPIRED + 17) }, Some(after(EXPIRED))),
        ),
        (
            "it only becomes earlier",
            true,
            vec![Visible(None, seen), Visible(None, seen + 9)],
            (Verdict::Missed, Some(after(seen))),
        ),
        ("at once", true, vec![Visible(None, 0), report(LIMIT + 1)], (Verdict::Late { after: after(LIMIT + 1) }, None)),
    ];
    for (name, hidden, steps, expected) in cases {
        assert_eq!(played(hidden, steps), [expected], "{name}");
    }
}

#[test]
fn a_trial_is_watched_until_the_deadline_that_counts() {
    let mut judge = Judge::incident(vec![expect(D, Cause, Some(A))], vec![]);
    play(&mut judge, &[Baseline(-5), Visible(None, EXPIRED), Inject, Tick(LIMIT + 1)]);
    assert_eq!((judge.last_deadline(), judge.all_decided()), (Some(at(EXPIRED + LIMIT)), false));
    play(&mut judge, &[Visible(None, LIMIT), Tick(2 * LIMIT + 1)]);
    assert_eq!((judge.last_deadline(), judge.all_decided()), (Some(at(2 * LIMIT)), true));
}

#[test]
fn a_reason_says_since_when_it_was_visible() {
    let mut judge = Judge::incident(vec![expect(D, Cause, Some(A))], vec![]);
    let late = Report(6 * LIMIT, D, Cause, Warning, A);
    play(&mut judge, &[Baseline(-5), Visible(None, 4 * LIMIT), Inject, late, End(7 * LIMIT)]);
    let reason = "policy-route was late: 6.00 s, deadline 1 s, visible after 4.00 s".to_owned();
    assert_eq!(judge.outcome(), (Outcome::Fail, vec![reason]));
}

/// The step that is hidden, and what the healing of the other uncovers, which is not.
#[test]
fn in_a_chain_only_the_step_that_is_hidden_counts_from_then() {
    let of = |step: &str, after: Option<&str>, expectation| {
        let of = OfStep { step: Some(step.to_owned()), after: after.map(str::to_owned), clears: None };
        Expectation { of: Some(of), ..expectation }
    };
    let expectations = vec![
        of("record", None, expect("dns-answer", Cause, Some(A))),
        of("record", Some("route"), expect("path-slow", Symptom, Some(A))),
        of("route", None, expect(D, Cause, Some(B))),
    ];
    let mut judge = Judge::incident(expectations, vec![]).with_steps(["route", "record"].map(str::to_owned));
    let second = Some("record");
    let steps = [
        Baseline(-5),
        Injected("route", 0),
        Visible(second, EXPIRED),
        Injected("record", 10),
        Report(12, D, Cause, Warning, B),
        Visible(second, 3 * LIMIT),
        Report(3 * LIMIT + 5, "dns-answer", Cause, Warning, A),
        StageEnd(4 * LIMIT),
        Heal("route", 5 * LIMIT),
        Healed("route", 6 * LIMIT),
        Clear(5 * LIMIT + 1, D, Cause, B),
        Report(5 * LIMIT + 20, "path-slow", Symptom, Warning, A),
    ];
    let decided = play(&mut judge, &steps);
    let times: Vec<_> = decided.iter().map(|d| (d.verdict.name(), d.visible, d.since_visible())).collect();
    let hidden = ns((3 * LIMIT - 10).unsigned_abs());
    assert_eq!(
        times,
        [("detected", None, Some(ns(12))), ("detected", Some(hidden), Some(ns(5))), ("detected", None, Some(ns(20)))]
    );

    // The healing of the record reaches clients late: what is reported meanwhile is no false alarm.
    let healed = [StageEnd(7 * LIMIT), Heal("record", 7 * LIMIT + 1), Healed("record", 8 * LIMIT)];
    play(&mut judge, &healed);
    judge.healed("record", at(12 * LIMIT));
    let again = [
        Clear(8 * LIMIT, "dns-answer", Cause, A),
        Report(9 * LIMIT, "dns-answer", Cause, Warning, A),
        Clear(11 * LIMIT, "dns-answer", Cause, A),
        Clear(11 * LIMIT, "path-slow", Symptom, A),
        Recovered(12 * LIMIT),
    ];
    assert_eq!(verdicts(&play(&mut judge, &again)), []);
    assert_eq!(judge.outcome(), (Outcome::Pass, vec![]));
}
