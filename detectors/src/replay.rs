//! Replays a recording through triage, as if users of one flow had complained all the time.

use std::io::BufRead;
use std::time::Duration;

use crate::record::{RecordError, Recording, TICK};
use crate::time::Time;
use crate::triage::{Outcome, Seen, Triage, Triaged};

/// No evidence is used for so long.
const LONG: Duration = Duration::from_secs(30);

/// A complaint on the command line: `FLOW=OUTCOME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    pub flow: String,
    pub outcome: Outcome,
}

/// The text is not of the form `FLOW=OUTCOME`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a complaint: write FLOW=OUTCOME with timeout, refused, name-error, failed, slow or http-STATUS")]
pub struct ComplaintError(String);

impl std::str::FromStr for Complaint {
    type Err = ComplaintError;
    fn from_str(text: &str) -> Result<Self, ComplaintError> {
        let error = || ComplaintError(text.to_owned());
        let (flow, outcome) = text.split_once('=').filter(|(flow, _)| !flow.is_empty()).ok_or_else(error)?;
        let outcome = match outcome {
            "timeout" => Outcome::Timeout,
            "refused" => Outcome::Refused,
            "name-error" => Outcome::NameError,
            "failed" => Outcome::Failed,
            "slow" => Outcome::Slow(Duration::ZERO),
            other => {
                let status = other.strip_prefix("http-").and_then(|status| status.parse().ok());
                Outcome::Status(status.filter(|status| (400..=599).contains(status)).ok_or_else(error)?)
            }
        };
        Ok(Self { flow: flow.to_owned(), outcome })
    }
}

/// The verdicts on a recording, each when it changed; `None` if it does not know the way in of the flow.
///
/// # Errors
/// When the recording cannot be read.
pub fn triage(reader: impl BufRead, complaint: &Complaint) -> Result<Option<Vec<(Time, Triaged)>>, RecordError> {
    let mut recording = Recording::open(reader)?;
    let accesses = recording.header().accesses.clone();
    if !accesses.iter().any(|access| access.flow == complaint.flow) {
        return Ok(None);
    }
    let mut triage = Triage::new(&recording.header().operator, accesses);
    let mut changes: Vec<(Time, Triaged)> = Vec::new();
    let mut look = |triage: &mut Triage, at: Time| {
        triage.tick(at);
        triage.seen(&complaint.flow, Seen { at, outcome: complaint.outcome });
        let verdict = triage.verdict();
        let changed = verdict.filter(|now| changes.last().is_none_or(|(_, last)| !now.verdict.is_same(&last.verdict)));
        changes.extend(changed.map(|verdict| (at, verdict)));
    };
    let (mut next, mut last) = (None, Time::default());
    while let Some(signal) = recording.next_signal()? {
        last = last.max(signal.at);
        let tick = next.get_or_insert(signal.at);
        // After a long gap, what was seen before it is out of date.
        *tick = (*tick).max(signal.at - LONG);
        while *tick <= signal.at {
            look(&mut triage, *tick);
            *tick = *tick + TICK;
        }
        triage.observe(&signal);
    }
    look(&mut triage, last);
    Ok(Some(changes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_a_flow_and_what_its_users_see() {
        let read = |text: &str| text.parse::<Complaint>();
        assert_eq!(read("order=http-502").unwrap().outcome, Outcome::Status(502));
        assert_eq!(read("order=slow").unwrap().flow, "order");
        for wrong in ["order", "=slow", "order=late", "order=http-200"] {
            assert!(read(wrong).unwrap_err().to_string().starts_with(&format!("{wrong:?} is not a complaint")));
        }
    }
}
