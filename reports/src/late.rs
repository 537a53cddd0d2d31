//! What detectors name that were armed after the fault, or once more while it was in force.
//!
//! Job: a row per expectation of such a trial: named after how long, or blind, as accepted where only history proves it.
//! Left out: benign twins; the matrix has them.

use crate::event::{Decided, Verdict};
use crate::summary::RunSummary;
use crate::table::{Cell, Table};
use crate::units;
use crate::words;

/// The table; `None` if all detectors were armed before the baseline.
#[must_use]
pub fn table(run: &RunSummary) -> Option<Table<'static>> {
    let mut rows = Vec::new();
    for trial in run.trials.iter().filter(|trial| trial.info.trial.control.is_none()) {
        let Some(armed) = &trial.info.armed else { continue };
        for decided in &trial.verdicts {
            rows.push(vec![
                Cell::Text(run.label(trial)),
                Cell::text(armed),
                Cell::text(words::level(decided.expectation.level)),
                Cell::text(&decided.expectation.detector),
                Cell::Text(trial.about(decided)),
                Cell::Toned(words::verdict_tone(&decided.verdict), result(decided)),
            ]);
        }
    }
    let head = ["incident", "armed", "level", "detector", "about", "result"];
    (!rows.is_empty()).then(|| Table {
        note: Some("times count from when detectors were armed".to_owned()),
        ..Table::of_times(&head, rows)
    })
}

/// "named after 1.20 s", "blind: started after the change".
fn result(decided: &Decided) -> String {
    match decided.verdict {
        Verdict::Detected { after } => format!("named after {}", units::span(after)),
        _ => words::sentence(decided),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn only_trials_with_a_late_start_are_listed() {
        let mut run = RunSummary::of(&sample::run());
        assert_eq!(table(&run), None);
        let trial = run.trials.iter_mut().find(|trial| trial.verdicts.iter().any(|d| d.verdict.after().is_some()));
        let trial = trial.expect("a detection");
        trial.info.armed = Some("restarted".to_owned());
        trial.verdicts[0].verdict = Verdict::Detected { after: std::time::Duration::from_millis(1200) };
        let mut late = trial.verdicts[0].clone();
        late.verdict = Verdict::StartedLate;
        trial.verdicts.push(late);
        let count = trial.verdicts.len();
        let rows = table(&run).expect("a table").rows;
        let results: Vec<_> = rows.iter().filter_map(|row| row.last()).collect();
        assert_eq!(results.len(), count);
        assert!(matches!(results[0], Cell::Toned(_, text) if text == "named after 1.20 s"), "{results:?}");
        let blind = "blind: started after the change";
        assert!(matches!(results[count - 1], Cell::Toned(words::Tone::Note, text) if text == blind), "{results:?}");
    }
}
