//! What detectors find with the operator's facts, without them, and with a wrong copy.
//!
//! Job: a row per detector, a column per set of facts on each backend: how many of its expectations were met, and every
//! other verdict by name. Left out: the matrices of the same runs, one for each column.

use relapse_detectors::operator::Knowledge;

use crate::event::Verdict;
use crate::summary::{self, RunSummary};
use crate::table::{Cell, Kind, Table};
use crate::words::{self, Tone};

/// The table; `None` if all trials of a run had the right facts.
#[must_use]
pub fn table(run: &RunSummary) -> Option<Table<'static>> {
    if run.trials.iter().all(|trial| trial.info.trial.operator.is_right()) {
        return None;
    }
    let mut columns: Vec<(Knowledge, &str)> =
        run.trials.iter().map(|trial| (trial.info.trial.operator, trial.info.trial.backend.as_str())).collect();
    columns.sort_by_key(|(facts, _)| *facts);
    columns.dedup();
    let head = columns.iter().map(|(facts, backend)| match facts {
        Knowledge::Right => words::with_facts(&words::backend(backend), *facts),
        Knowledge::None | Knowledge::Stale => words::backend(backend).into_owned(),
    });
    let head = std::iter::once("detector".to_owned()).chain(head).collect();
    let row = |detector: &str| {
        let cells: Vec<_> = columns.iter().map(|(_, backend)| cell(run, backend, detector)).collect();
        let is_judged = cells.iter().any(|cell| *cell != Cell::none());
        is_judged.then(|| std::iter::once(Cell::text(detector)).chain(cells).collect())
    };
    let rows: Vec<_> = run.detectors().into_iter().filter_map(row).collect();
    let title = Some("with and without the operator's facts".to_owned());
    Some(Table { kind: Kind::Times, title, head, rows, note: None }).filter(|table| !table.rows.is_empty())
}

/// "12 of 13, 1× wrong subject".
fn cell(run: &RunSummary, backend: &str, detector: &str) -> Cell<'static> {
    let trials = run.trials.iter().filter(|trial| trial.info.trial.backend == backend);
    let verdicts: Vec<&Verdict> = trials
        .flat_map(|trial| &trial.verdicts)
        .filter(|decided| decided.expectation.detector == detector && decided.verdict != Verdict::Silent)
        .map(|decided| &decided.verdict)
        .collect();
    if verdicts.is_empty() {
        return Cell::none();
    }
    let met = verdicts.iter().filter(|verdict| matches!(verdict, Verdict::Detected { .. })).count();
    // These answer no expectation.
    let uncalled = |verdict: &&&Verdict| matches!(verdict, Verdict::FalseAlarm { .. } | Verdict::Unexpected { .. });
    let asked = verdicts.len() - verdicts.iter().filter(uncalled).count();
    let other = verdicts.iter().filter(|verdict| !matches!(verdict, Verdict::Detected { .. }));
    let other = summary::tally(other.map(|verdict| verdict.name().replace('-', " ")));
    let mut parts: Vec<String> = (asked > 0).then(|| format!("{met} of {asked}")).into_iter().collect();
    parts.extend(other.into_iter().map(|(name, count)| format!("{count}× {name}")));
    let tone = verdicts.iter().map(|verdict| words::verdict_tone(verdict)).max().unwrap_or(Tone::Muted);
    Cell::Toned(tone, parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::What;
    use crate::merge::merge;
    use crate::sample;

    /// The sample's run as if its detectors had got these facts.
    fn with(facts: Knowledge) -> Vec<crate::event::RunEvent> {
        let mut events = sample::alone("netns");
        for event in &mut events {
            match &mut event.what {
                What::RunStarted(run) => run.trials.iter_mut().for_each(|info| info.trial.operator = facts),
                What::Trial { trial, .. } => trial.operator = facts,
                What::RunEnded { .. } | What::Notice { .. } => {}
            }
        }
        events
    }

    #[test]
    fn three_runs_stand_side_by_side_and_are_no_repetitions() {
        let run = RunSummary::of(&merge([Knowledge::Stale, Knowledge::Right, Knowledge::None].map(with).into()));
        assert!(!run.is_repeated());
        assert_eq!(run.backends(), ["netns, operator stale", "netns", "netns, operator none"]);
        let table = table(&run).expect("a table");
        assert_eq!(table.head, ["detector", "lab, operator right", "lab, operator none", "lab, operator stale"]);
        assert!(table.rows.iter().all(|row| row[1] == row[2] && row[2] == row[3]), "{:?}", table.rows);
        assert!(crate::markdown::markdown(&run).contains("## With and without the operator's facts"));
    }

    #[test]
    fn right_facts_alone_need_no_table() {
        assert_eq!(table(&RunSummary::of(&sample::run())), None);
    }

    #[test]
    fn misses_and_false_alarms_are_counted_by_name() {
        let mut events = sample::run();
        for event in &mut events {
            match &mut event.what {
                What::RunStarted(run) => run.trials.iter_mut().for_each(|info| info.trial.operator = Knowledge::None),
                What::Trial { trial, .. } => trial.operator = Knowledge::None,
                What::RunEnded { .. } | What::Notice { .. } => {}
            }
        }
        let table = table(&RunSummary::of(&events)).expect("a table");
        let text = |name: &str| {
            let row = table.rows.iter().find(|row| row[0] == Cell::text(name)).expect("the detector");
            match &row[1] {
                Cell::Toned(tone, text) => (*tone, text.clone()),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(text("pmtu-blackhole"), (Tone::Bad, "0 of 2, 1× late, 1× false alarm, 1× undecided".to_owned()));
    }
}
