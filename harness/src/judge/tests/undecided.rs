//! What a trial cannot prove, and what this machine leaves out.

use super::*;

#[test]
fn what_cannot_be_proved_is_undecided() {
    let why = Verdict::Undecided { why: "no effect".to_owned() };
    let mut judge = Judge::incident(vec![expect(D, Cause, None), expect("x", Cause, None)], vec![]);
    play(&mut judge, &[Baseline(-1), Inject, Report(1, D, Cause, Warning, A)]);
    assert_eq!(verdicts(&play(&mut judge, &[Abandon("no effect")])), std::slice::from_ref(&why));
    assert_eq!(judge.outcome(), (Outcome::Inconclusive, vec!["x was not decided: no effect".to_owned()]));
    assert_eq!(play(&mut judge, &[Abandon("again"), End(9)]), []);

    let mut judge = Judge::control(vec![D.to_owned()], vec![expect("r", Risk, None)]);
    assert_eq!(verdicts(&play(&mut judge, &[Abandon("no effect")])), [why.clone(), why]);

    let mut judge = Judge::incident(vec![expect(D, Cause, None)], vec![]);
    let decided = play(&mut judge, &[Baseline(-1), Report(1, D, Cause, Warning, A), End(5)]);
    assert_eq!(verdicts(&decided), [Verdict::Undecided { why: "nothing was injected".to_owned() }]);
}

#[test]
fn what_is_left_out_counts_neither_way() {
    let mut judge = Judge::incident(vec![expect(D, Cause, None), expect("x", Symptom, None)], vec![]);
    play(&mut judge, &[Baseline(-1)]);
    judge.leave_out(None, false, "the fall of the limit", "only root may write it");
    let decided = judge.take_decided();
    let why = "the fall of the limit was left out: only root may write it".to_owned();
    assert_eq!(verdicts(&decided), [Verdict::Undecided { why }]);
    play(&mut judge, &[Inject, Report(1, "x", Symptom, Warning, A)]);
    assert!(judge.all_decided());
    assert_eq!(judge.last_deadline(), Some(at(LIMIT)));
    assert_eq!(play(&mut judge, &[End(9)]), []);
    assert_eq!(judge.outcome(), (Outcome::Pass, vec![]));

    let mut judge = Judge::incident(vec![expect(D, Cause, None)], vec![]);
    judge.leave_out(None, false, "the fall of the limit", "only root may write it");
    assert_eq!(judge.take_decided().len(), 1);
    assert_eq!(judge.outcome().0, Outcome::Inconclusive);
}

#[test]
fn the_causes_of_faults_beside_what_is_left_out_are_not_passed_over() {
    let mut judge = Judge::incident(vec![expect(D, Cause, None), expect("x", Symptom, None)], vec![]);
    play(&mut judge, &[Baseline(-1)]);
    judge.leave_out(None, true, "the fall of the limit", "only root may write it");
    play(&mut judge, &[Inject, Report(1, "x", Symptom, Warning, A), End(9)]);
    assert_eq!(judge.outcome().0, Outcome::Inconclusive);
}
