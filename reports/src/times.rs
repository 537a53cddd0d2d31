//! Times to detect as tables.
//!
//! Job: a row per expectation of an incident: its times on a backend ([`times`]; with repetitions p50, p95, max), or on
//! all backends side by side ([`compared`]). Invariants: a cell without a time has the reason; where a cache or kept
//! connections hid a fault, backends and runs are compared by the times from when clients could first see it. Left out:
//! judging the difference; the deadline is the same.

use std::time::Duration;

use crate::event::{Expectation, Outcome};
use crate::statistics::{self, Group, Percentiles, Times};
use crate::summary::RunSummary;
use crate::table::{Cell, Kind, Table};
use crate::units;
use crate::words;

/// The times of all incidents; `None` if nothing was decided.
#[must_use]
pub fn times(run: &RunSummary) -> Option<Table<'static>> {
    let repeated = run.is_repeated();
    let all = statistics::times(run);
    // A column only of runs with faults that a cache or kept connections hid.
    let hidden = all.iter().any(|times| times.from_visible.is_some());
    let mut head = vec!["incident", "detector", "level", "deadline"];
    head.extend_from_slice(if repeated { &["p50", "p95", "max"] } else { &["from t0"] });
    head.extend(hidden.then_some(if repeated { "p50 from visible" } else { "from visible" }));
    head.extend_from_slice(if repeated { &["p50 from t2", "n", "flakes"] } else { &["from t2", "verdict"] });
    let rows = all.iter().map(|times| {
        let mut row = expected(run.name(times.trial), times.expectation);
        let mut from_t0 = times.from_t0.map(ranks).unwrap_or_default();
        from_t0.resize(if repeated { 3 } else { 1 }, Cell::none());
        row.extend(from_t0);
        if hidden {
            row.push(times.from_visible.map_or_else(Cell::none, |t| Cell::Text(units::span(t.p50))));
        }
        row.push(times.from_t2.map_or_else(Cell::none, |t| Cell::text(t.p50.to_string())));
        if repeated {
            row.push(Cell::text(times.decided.to_string()));
            row.push(Cell::text(times.flakes_sentence()));
        } else {
            row.push(times.verdict().map_or_else(Cell::none, |decided| Cell::text(decided.verdict.name())));
        }
        row
    });
    Some(Table::of_times(&head, rows.collect())).filter(|table| !table.rows.is_empty())
}

/// The times on several backends, compared; `None` for a run on one backend.
#[must_use]
pub fn compared(run: &RunSummary) -> Option<Table<'static>> {
    let backends = run.backends();
    let times = statistics::times(run);
    if backends.len() < 2 || times.is_empty() {
        return None;
    }
    let words: Vec<_> = backends.iter().map(|backend| words::backend(backend)).collect();
    let mut head = ["incident", "detector", "level", "deadline"].map(str::to_owned).to_vec();
    for word in &words {
        if run.is_repeated() {
            head.extend(["p50", "p95", "max"].map(|rank| format!("{word} {rank}")));
        } else {
            head.push(word.to_string());
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
        let mut row = expected(first.trial.name(), first.expectation);
        for backend in &backends {
            let here = times.iter().find(|times| {
                let id = &times.trial.info.trial;
                id.scenario == scenario && id.backend == *backend && times.expectation == first.expectation
            });
            let mut cells = here.map_or_else(|| vec![without(run, scenario, backend)], |times| cells(run, times));
            cells.resize(if run.is_repeated() { 3 } else { 1 }, Cell::none());
            row.extend(cells);
        }
        rows.push(row);
    }
    let title = Some(format!("{} compared", words.join(" and ")));
    Some(Table { kind: Kind::Times, title, head, rows, note: None })
}

/// The number of runs shown as columns; the bars show all runs.
const COLUMNS: usize = 6;

/// Times run by run, for a report of several runs of the same trials: a row per expectation with its median in each run
/// and bars for all runs.
#[must_use]
pub fn by_run(run: &RunSummary) -> Option<Table<'static>> {
    let parts = &run.run.as_ref()?.parts;
    let mut rows: Vec<(String, &Expectation, Vec<Vec<Duration>>)> = Vec::new();
    for trial in run.trials.iter().filter(|trial| trial.info.trial.control.is_none()) {
        let Some(part) = trial.info.part else { continue };
        let name = run.name(trial);
        for decided in &trial.verdicts {
            let same = |row: &&mut (String, &Expectation, _)| row.0 == name && *row.1 == decided.expectation;
            let row = match rows.iter_mut().find(same) {
                Some(row) => row,
                None => {
                    rows.push((name.clone(), &decided.expectation, vec![Vec::new(); parts.len()]));
                    rows.last_mut()?
                }
            };
            if let Some(times) = row.2.get_mut(part) {
                times.extend(decided.since_visible());
            }
        }
    }
    // Findings that stood before the fault have no time to compare.
    let timed = |times: &Vec<Duration>| times.iter().any(|time| !time.is_zero());
    rows.retain(|(_, _, times)| times.iter().filter(|times| timed(times)).count() > 1);
    if rows.is_empty() {
        return None;
    }
    let shown = parts.len().saturating_sub(COLUMNS);
    let mut head = ["incident", "detector", "level", "deadline", "run by run"].map(str::to_owned).to_vec();
    // Date and minute: "2026-11-26 05:24" of RFC 3339.
    head.extend(parts[shown..].iter().map(|part| part.started.chars().take(16).collect::<String>().replace('T', "\n")));
    let rows = rows.into_iter().map(|(name, expectation, times)| {
        let medians: Vec<Option<Duration>> = times.into_iter().map(|t| Some(Percentiles::of(t)?.p50)).collect();
        let mut row = expected(name, expectation);
        row.push(Cell::Series(medians.clone(), expectation.within));
        row.extend(medians[shown..].iter().map(|t| t.map_or_else(Cell::none, |t| Cell::Text(units::span(t)))));
        row
    });
    let title = Some("Times run by run".to_owned());
    Some(Table { kind: Kind::Times, title, head, rows: rows.collect(), note: None })
}

fn expected(name: String, expectation: &Expectation) -> Vec<Cell<'static>> {
    vec![
        Cell::Text(name),
        Cell::text(&expectation.detector),
        Cell::text(words::level(expectation.level)),
        Cell::Text(units::limit(expectation.within)),
    ]
}

fn ranks(times: Percentiles<Duration>) -> Vec<Cell<'static>> {
    [times.p50, times.p95, times.max].map(|time| Cell::Text(units::span(time))).to_vec()
}

/// The cells of one backend; missing ones are filled by the caller.
fn cells(run: &RunSummary, times: &Times<'_>) -> Vec<Cell<'static>> {
    if !run.is_repeated() {
        return times.verdict().map(|decided| Cell::Text(words::short(decided))).into_iter().collect();
    }
    match times.from_visible.as_ref().or(times.from_t0.as_ref()) {
        // A standing risk was reported before anything was injected.
        Some(t) if t.max.is_zero() => vec![Cell::text("standing")],
        Some(times) => ranks(*times),
        None if times.flakes.is_empty() => vec![Cell::text("miss (known)")],
        None => vec![Cell::Text(times.flakes_sentence())],
    }
}

/// The cell of a backend without a decision: not selected, skipped, or ended early.
fn without(run: &RunSummary, scenario: &str, backend: &str) -> Cell<'static> {
    let groups = statistics::groups(run);
    let incident = groups.iter().find(|group| {
        let id = &group.first().info.trial;
        id.scenario == scenario && id.control.is_none() && id.backend == backend
    });
    match incident.map(Group::outcome) {
        Some(Outcome::Pass) | None => Cell::none(),
        Some(outcome) => Cell::text(outcome.name()),
    }
}
