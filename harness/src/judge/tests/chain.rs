//! The same for chains: steps injected together and healed one after another.

use super::*;

/// About a step of a chain, uncovered by the healing of another where one is named.
fn of(step: &str, after: Option<&str>, expectation: Expectation) -> Expectation {
    let of = OfStep { step: Some(step.to_owned()), after: after.map(str::to_owned), clears: None };
    Expectation { of: Some(of), ..expectation }
}

const NIC: &str = "pod-nic";
const STRAY: &str = "wrong-nic";
const RISK: &str = "dns-redundancy";

/// Two steps: the first step's cause, the second's cause from its injection and its symptom once the first is healed,
/// and a risk that goes with the second.
fn chain() -> Judge {
    let expectations = vec![
        of("dns", None, expect(NIC, Cause, Some(A))),
        of("route", None, expect(D, Cause, Some(B))),
        of("route", Some("dns"), expect(STRAY, Symptom, Some(B))),
    ];
    let clears = OfStep { clears: Some("route".to_owned()), ..OfStep::default() };
    let risk = Expectation { of: Some(clears), ..expect(RISK, Risk, Some(A)) };
    Judge::incident(expectations, vec![risk]).with_steps(["dns", "route"].map(str::to_owned))
}

/// The stages of a chain as they should be, with something besides in each: before and after the first healing, and
/// after the second.
fn play_chain(first: Vec<Step>, second: Vec<Step>, last: Vec<Step>) -> (Judge, Vec<Decided>) {
    let mut judge = chain();
    let mut steps = vec![Report(-9, RISK, Risk, Warning, A), Baseline(-5), Injected("dns", 0)];
    steps.extend([Report(3, NIC, Cause, Warning, A), Injected("route", 10), Report(12, D, Cause, Warning, B)]);
    steps.extend(first);
    steps.extend([StageEnd(100), Heal("dns", 110), Healed("dns", 150), Clear(125, NIC, Cause, A)]);
    steps.push(Report(130, STRAY, Symptom, Warning, B));
    steps.extend(second);
    steps.extend([StageEnd(200), Heal("route", 210), Healed("route", 250), Clear(215, D, Cause, B)]);
    steps.extend([Clear(216, STRAY, Symptom, B), Clear(217, RISK, Risk, A)]);
    steps.extend(last);
    steps.push(Recovered(300));
    let decided = play(&mut judge, &steps);
    (judge, decided)
}

/// Each verdict with its detector, in short.
fn names(decided: &[Decided]) -> Vec<String> {
    let one = |d: &Decided| match d.verdict.after() {
        Some(after) => format!("{} {} {}", d.expectation.detector, d.verdict.name(), after.as_nanos()),
        None => format!("{} {}", d.expectation.detector, d.verdict.name()),
    };
    decided.iter().map(one).collect()
}

const AS_IT_SHOULD: [&str; 4] =
    ["dns-redundancy detected 0", "pod-nic detected 3", "policy-route detected 2", "wrong-nic detected 20"];

#[test]
fn a_chain_counts_from_its_own_injections_and_healings() {
    let (judge, decided) = play_chain(vec![], vec![], vec![]);
    assert_eq!(names(&decided), AS_IT_SHOULD);
    assert_eq!(decided.iter().map(|d| d.from).collect::<Vec<_>>(), [None, Some(at(0)), Some(at(10)), Some(at(110))]);
    assert_eq!(judge.outcome(), (Outcome::Pass, vec![]));
}

#[test]
fn what_is_out_of_place_in_a_chain() {
    type More = (Vec<Step>, Vec<Step>, Vec<Step>);
    let cases: Vec<(&str, More, Vec<&str>)> = vec![
        ("cleared in force", (vec![Clear(50, D, Cause, B)], vec![], vec![]), vec!["policy-route cleared-early"]),
        (
            "cleared and reported again",
            (vec![Clear(50, D, Cause, B), Report(60, D, Cause, Warning, B)], vec![], vec![]),
            vec![],
        ),
        (
            "a risk cleared too early",
            (vec![], vec![Clear(150, RISK, Risk, A)], vec![]),
            vec!["dns-redundancy cleared-early"],
        ),
        (
            "reported again while it may clear",
            (vec![], vec![Report(140, NIC, Cause, Warning, A), Clear(145, NIC, Cause, A)], vec![]),
            vec![],
        ),
        (
            "reported again long after",
            (vec![], vec![Report(160, NIC, Cause, Warning, A)], vec![]),
            vec!["pod-nic unexpected", "pod-nic not-cleared"],
        ),
        ("not cleared", (vec![], vec![Report(140, NIC, Cause, Warning, A)], vec![]), vec!["pod-nic not-cleared"]),
        (
            "not cleared at the end",
            (vec![], vec![], vec![Report(220, D, Cause, Warning, B)]),
            vec!["policy-route not-cleared"],
        ),
        ("something else", (vec![Report(50, "x", Symptom, Warning, A)], vec![], vec![]), vec!["x unexpected"]),
        ("something below warning", (vec![Report(50, "x", Symptom, Info, A)], vec![], vec![]), vec![]),
        ("another risk", (vec![Report(50, "x", Risk, Warning, A)], vec![], vec![]), vec!["x unexpected"]),
        (
            "a risk that stood before",
            (vec![], vec![], vec![Report(260, RISK, Risk, Warning, A), Clear(270, RISK, Risk, A)]),
            vec![],
        ),
        ("another subject", (vec![Report(50, NIC, Cause, Warning, B)], vec![], vec![]), vec!["pod-nic unexpected"]),
        ("when all is healed", (vec![], vec![], vec![Report(260, "x", Symptom, Warning, A)]), vec!["x unexpected"]),
    ];
    for (name, (first, second, last), more) in cases {
        let (judge, decided) = play_chain(first, second, last);
        let all = names(&decided);
        let rest: Vec<&str> = all.iter().map(String::as_str).filter(|one| !AS_IT_SHOULD.contains(one)).collect();
        assert_eq!(rest, more, "{name}");
        assert_eq!(all.len() - rest.len(), AS_IT_SHOULD.len(), "{name}");
        assert_eq!(judge.outcome().0, if more.is_empty() { Outcome::Pass } else { Outcome::Fail }, "{name}");
    }
}

#[test]
fn what_comes_before_it_is_uncovered_is_pre_existing() {
    let (judge, decided) = play_chain(vec![Report(90, STRAY, Symptom, Warning, B)], vec![], vec![]);
    assert!(names(&decided).contains(&"wrong-nic pre-existing".to_owned()));
    assert_eq!(judge.outcome().1, ["wrong-nic already reported a finding about node/b before dns was healed"]);
}

#[test]
fn a_step_may_be_known_to_be_injected_after_its_first_finding() {
    let mut judge = chain();
    let steps = [Baseline(-5), Injected("dns", 0), Report(12, D, Cause, Warning, B), Report(13, D, Cause, Warning, A)];
    play(&mut judge, &steps);
    assert_eq!(names(&play(&mut judge, &[Injected("route", 10)])), ["policy-route detected 2"]);
    let mut judge = chain();
    play(&mut judge, &steps);
    assert_eq!(names(&play(&mut judge, &[Injected("route", 13)])), ["policy-route pre-existing"]);
}

#[test]
fn a_stage_waits_for_what_it_uncovers_and_for_what_must_clear() {
    let mut judge = chain();
    play(&mut judge, &[Baseline(-5), Injected("dns", 0), Injected("route", 10), Report(12, D, Cause, Warning, B)]);
    assert!(!judge.all_decided());
    play(&mut judge, &[Report(20, NIC, Cause, Warning, A)]);
    assert!(judge.all_decided(), "the symptom comes later");
    let decided = play(&mut judge, &[StageEnd(100), Heal("dns", 110), Healed("dns", 150)]);
    assert_eq!(names(&decided), Vec::<String>::new());
    assert!(!judge.all_decided() && !judge.healed_is_cleared());
    play(&mut judge, &[Clear(120, NIC, Cause, A), Report(130, STRAY, Symptom, Warning, B)]);
    assert!(judge.all_decided() && judge.healed_is_cleared());
    // What is missed is missed at its own stage.
    let mut judge = chain();
    play(&mut judge, &[Baseline(-5), Injected("dns", 0), Injected("route", 10), Report(12, D, Cause, Warning, B)]);
    assert_eq!(names(&play(&mut judge, &[StageEnd(100)])), ["pod-nic missed"]);
}

#[test]
fn a_chain_that_is_cut_short_leaves_later_stages_out() {
    let mut judge = chain();
    let first = [Report(-9, RISK, Risk, Warning, A), Baseline(-5), Injected("dns", 0), Injected("route", 10)];
    play(&mut judge, &first);
    play(&mut judge, &[Report(20, NIC, Cause, Warning, A), Report(21, D, Cause, Warning, B), CutShort(100)]);
    let healed = [Report(110, STRAY, Symptom, Warning, B), Clear(111, NIC, Cause, A), Clear(111, D, Cause, B)];
    assert_eq!(names(&play(&mut judge, &healed)), Vec::<String>::new());
    play(&mut judge, &[Clear(120, STRAY, Symptom, B), Recovered(200)]);
    assert_eq!(judge.outcome(), (Outcome::Pass, vec![]));
}

#[test]
fn users_own_detectors_may_report_anything_in_a_chain_and_are_graded_by_its_steps() {
    let own = |step: &str| Expectation { outside: true, ..of(step, None, expect("agent", Symptom, None)) };
    let steps = ["dns", "route"].map(str::to_owned);
    let mut judge = Judge::incident(vec![own("route"), own("rout")], vec![]).with_steps(steps);
    let decided = [Baseline(-5), Injected("dns", 0), Injected("route", 10), Report(15, "agent", Symptom, Warning, A)];
    assert_eq!(names(&play(&mut judge, &decided)), ["agent undecided", "agent detected 5"]);
    assert_eq!(names(&play(&mut judge, &[Report(20, "agent", Cause, Warning, A)])), Vec::<String>::new());
    assert_eq!(judge.outcome().1, ["agent was not decided: the scenario has no step rout"]);
}

#[test]
fn a_part_of_one_step_that_is_left_out_affects_no_other() {
    let mut judge = chain();
    judge.leave_out(Some("dns"), false, "the fall of the limit", "only root may write it");
    assert_eq!(names(&judge.take_decided()), ["pod-nic undecided"]);
}
