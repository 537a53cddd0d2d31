//! The same incident on several backends, side by side.
//!
//! Job: for each detector that an incident expects, its time to detect on each backend of a run.
//! Invariants: a row an expectation, a cell (with repetitions: p50, p95, max) a backend; where there
//! is no time, the cell says why. Left out: judging the difference; the deadline is the same.

use crate::event::{Expectation, Outcome};
use crate::statistics::{self, Times};
use crate::summary::RunSummary;
use crate::units;
use crate::words;

/// A table, ready to be drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// "lab and kind compared".
    pub title: String,
    pub header: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

/// What a run on several backends has to compare; `None` of a run on one.
#[must_use]
pub fn compared(run: &RunSummary) -> Option<Comparison> {
    let backends = run.backends();
    let times = statistics::times(run);
    if backends.len() < 2 || times.is_empty() {
        return None;
    }
    let words: Vec<&str> = backends.iter().map(|backend| words::backend(backend)).collect();
    let mut header = ["incident", "detector", "level", "deadline"].map(str::to_owned).to_vec();
    for word in &words {
        if run.is_repeated() {
            header.extend(["p50", "p95", "max"].map(|rank| format!("{word} {rank}")));
        } else {
            header.push((*word).to_owned());
        }
    }
    let mut seen: Vec<(&str, &Expectation)> = Vec::new();
    let mut rows = Vec::new();
    for first in &times {
        let scenario = first.trial.info.trial.scenario.as_str();
        if seen.contains(&(scenario, first.expectation)) {
            continue;
        }
        seen.push((scenario, first.expectation));
        let mut row = vec![
            first.trial.name(),
            first.expectation.detector.clone(),
            words::level(first.expectation.level).to_owned(),
            units::limit(first.expectation.within),
        ];
        for backend in &backends {
            let here = times.iter().find(|times| {
                let id = &times.trial.info.trial;
                id.scenario == scenario && id.backend == *backend && times.expectation == first.expectation
            });
            row.extend(here.map_or_else(|| without(run, scenario, backend), |times| cells(run, times)));
        }
        rows.push(row);
    }
    Some(Comparison { title: format!("{} compared", words.join(" and ")), header, rows })
}

fn cells(run: &RunSummary, times: &Times<'_>) -> Vec<String> {
    if !run.is_repeated() {
        let decided = times.trial.verdicts.iter().find(|d| d.expectation == *times.expectation);
        return vec![decided.map_or_else(none, words::short)];
    }
    match &times.from_t0 {
        // A standing risk was said before anything was injected.
        Some(t) if t.max.is_zero() => vec!["standing".to_owned(), none(), none()],
        Some(t) => [t.p50, t.p95, t.max].map(units::span).to_vec(),
        None if times.flakes.is_empty() => vec!["miss (known)".to_owned(), none(), none()],
        None => vec![times.flakes_sentence(), none(), none()],
    }
}

/// Where nothing was decided: not asked for, skipped, or ended before there was anything to decide.
fn without(run: &RunSummary, scenario: &str, backend: &str) -> Vec<String> {
    let groups = statistics::groups(run);
    let incident = groups.iter().find(|group| {
        let id = &group.first().info.trial;
        id.scenario == scenario && id.control.is_none() && id.backend == backend
    });
    let why = match incident.map(statistics::Group::outcome) {
        Some(Outcome::Pass) | None => none(),
        Some(outcome) => outcome.name().to_owned(),
    };
    let mut cells = vec![why];
    if run.is_repeated() {
        cells.extend([none(), none()]);
    }
    cells
}

fn none() -> String {
    "–".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{TrialEvent, What};
    use crate::sample;

    /// The cells of one detector, from the first backend on.
    fn of(run: &RunSummary, detector: &str) -> Vec<String> {
        let compared = compared(run).expect("two backends");
        assert!(compared.rows.iter().all(|row| row.len() == compared.header.len()));
        let row = compared.rows.iter().find(|row| row[1] == detector).expect("its row");
        row[4..].to_vec()
    }

    #[test]
    fn one_backend_has_nothing_to_compare() {
        for events in [sample::run(), sample::repeated(), sample::on_kind()] {
            assert_eq!(compared(&RunSummary::of(&events)), None);
        }
    }

    #[test]
    fn times_stand_side_by_side_and_a_cell_without_one_says_why() {
        let run = RunSummary::of(&sample::on_both());
        assert_eq!(of(&run, "policy-route"), ["1.9 ms", "23 ms"]);
        assert_eq!(of(&run, "dns-endpoints"), ["standing", "standing"]);
        assert_eq!(of(&run, "dns-failing"), ["1.13 s", "late 3.40 s"]);
        assert_eq!(of(&run, "conntrack-limit"), ["3.1 ms", "skipped"]);
    }

    #[test]
    fn repetitions_have_percentiles() {
        let run = RunSummary::of(&sample::on_both_repeated());
        assert_eq!(of(&run, "policy-route"), ["2.0 ms", "2.2 ms", "2.2 ms", "25 ms", "31 ms", "31 ms"]);
        assert_eq!(of(&run, "dns-failing")[3..], ["4 missed", "–", "–"]);
    }

    /// Killed before kind had its turn.
    #[test]
    fn what_never_ran_has_no_time() {
        let mut events = sample::on_both();
        let kind = |what: &What, event: &TrialEvent| matches!(what, What::Trial { trial, event: e } if trial.backend == "kind" && e == event);
        let cut = events.iter().position(|e| kind(&e.what, &TrialEvent::Started)).expect("kind");
        events.truncate(cut);
        assert_eq!(of(&RunSummary::of(&events), "policy-route"), ["1.9 ms", "inconclusive"]);
    }
}
