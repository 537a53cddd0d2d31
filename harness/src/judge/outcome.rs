//! Derives the outcome of detection in a trial from its verdicts.
//!
//! A blind or undecided verdict proves nothing: inconclusive, unless a detector reported what is not so. The effect, the
//! guard and the host are added by the run.

use relapse_reports::units;

use crate::event::{Decided, Expectation, Outcome, Verdict};

/// The outcome, and a reason for every verdict that does not pass, those of the outcome first.
pub(super) fn outcome<'a>(
    decided: &[Decided],
    open: impl Iterator<Item = &'a Expectation>,
    nothing_left: bool,
    too_late: bool,
) -> (Outcome, Vec<String>) {
    let wrong = decided.iter().filter_map(|d| Some((weight(&d.verdict), reason(d)?)));
    let open = open.map(|e| (Outcome::Inconclusive, format!("{} was not decided", e.detector)));
    let mut reasons: Vec<(Outcome, String)> = wrong.chain(open).collect();
    if nothing_left {
        let reason = "this machine cannot reproduce anything that a detector is expected to report".to_owned();
        reasons.push((Outcome::Inconclusive, reason));
    }
    if too_late && reasons.is_empty() {
        let reason = "nothing is left to judge: all that is expected needs what was before detectors started";
        return (Outcome::Skipped, vec![reason.to_owned()]);
    }
    let worst = reasons.iter().map(|(outcome, _)| *outcome).max().unwrap_or(Outcome::Pass);
    let outcome = if decided.iter().any(|d| is_false(&d.verdict)) { Outcome::Fail } else { worst };
    reasons.sort_by_key(|(of, _)| *of != outcome);
    (outcome, reasons.into_iter().map(|(_, reason)| reason).collect())
}

/// Whether a detector reported what is not so: no blindness of others excuses that, as it may excuse a silence.
const fn is_false(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::FalseAlarm { .. } | Verdict::Unexpected { .. } | Verdict::WrongSubject { .. })
}

/// The outcome of a verdict that does not pass.
const fn weight(verdict: &Verdict) -> Outcome {
    match verdict {
        Verdict::Blind { .. } | Verdict::Undecided { .. } => Outcome::Inconclusive,
        _ => Outcome::Fail,
    }
}

/// Why a verdict does not pass.
fn reason(decided: &Decided) -> Option<String> {
    let expected = &decided.expectation;
    let name = &expected.detector;
    let about = expected.subject.as_ref().map(|subject| format!(" about {subject}")).unwrap_or_default();
    Some(match &decided.verdict {
        Verdict::Detected { .. } | Verdict::Silent | Verdict::StartedLate | Verdict::ExpectedMiss { .. } => {
            return None;
        }
        Verdict::Late { after } => {
            let visible = decided.visible.map(|visible| format!(", visible after {}", units::span(visible)));
            let (after, within) = (units::span(*after), units::limit(expected.within));
            format!("{name} was late: {after}, deadline {within}{}", visible.unwrap_or_default())
        }
        Verdict::Missed => format!("{name} reported nothing{about}"),
        Verdict::WrongSubject { said } => match &expected.subject {
            Some(subject) => format!("{name} reported {said}, not {subject}"),
            None => format!("{name} reported {said}"),
        },
        Verdict::PreExisting => match expected.of.as_ref().and_then(|of| of.after.as_ref()) {
            Some(after) => format!("{name} already reported a finding{about} before {after} was healed"),
            None => format!("{name} already reported a finding{about} before the fault"),
        },
        Verdict::FalseAlarm { subject, .. } => format!("{name} raised a false alarm about {subject}"),
        Verdict::Unexpected { subject, .. } => {
            format!("{name} reported {subject}, which the scenario neither expects nor lists under `also`")
        }
        Verdict::Blind { why } => format!("{name} could not see: {why}"),
        Verdict::NotCleared => format!("{name} did not clear its finding{about}"),
        Verdict::ClearedEarly => format!("{name} cleared its finding{about} while the fault was in force"),
        Verdict::UnexpectedlyDetected { after } => {
            format!("{name} was expected to miss, but detected it after {}", units::span(*after))
        }
        Verdict::Undecided { why } => format!("{name} was not decided: {why}"),
    })
}
