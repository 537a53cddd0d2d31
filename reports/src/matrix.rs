//! The matrix: which detector detected which incident, and how fast.
//!
//! Job: a table for each backend of a run, since results of two backends are never mixed in a cell. A column reads from
//! the incident's cause to its symptoms, its controls are a row, and a false alarm in one is shown in the cell of the
//! detector that raised it. Two views: [`by_detector`], a column per scenario, and [`folded`], a column per incident.
//! Invariants: detectors without findings are listed below the table; only a trial that ran can be silent. Left out:
//! evidence.

use crate::incident::{self, Incident};
use crate::marks;
use crate::statistics::{self, Group};
use crate::summary::RunSummary;
use crate::table::{Cell, Kind, Mark, Table};
use crate::words::{self, Tone};

/// A row per detector, a column per incident.
#[must_use]
pub fn by_detector(run: &RunSummary) -> Vec<Table<'_>> {
    parts(run).into_iter().map(detectors).collect()
}

fn detectors(part: Part<'_>) -> Table<'_> {
    let row = |name: Cell<'static>, cell: &dyn Fn(&Column<'_>) -> Cell<'static>| {
        std::iter::once(name).chain(part.columns.iter().map(cell)).collect()
    };
    let mut rows = vec![row(Cell::Name("outcome"), &|column| Cell::Outcome(column.incident.outcome()))];
    rows.extend(part.active.iter().map(|name| row(Cell::text(*name), &|column| column.cell(name))));
    rows.push(row(Cell::Name(SILENT_CONTROLS), &|column| controls(incident::twins(column.controls.iter()))));
    let infos = part.columns.iter().map(|column| &column.incident.first().info);
    let names = infos.map(|info| format!("{}\n{}", info.incident, info.trial.scenario));
    let head = std::iter::once("detector".to_owned()).chain(names).collect();
    Table { kind: Kind::Matrix, title: part.on, head, rows, note: part.silent }
}

/// A row per detector, a column per incident with all its scenarios: the longest times, and one number for its twins.
#[must_use]
pub fn folded(run: &RunSummary) -> Vec<Table<'_>> {
    let parts = parts(run).into_iter().zip(run.backends());
    parts.map(|(part, backend)| fold(part, &incident::incidents(run, backend))).collect()
}

fn fold<'a>(part: Part<'a>, incidents: &[Incident<'_>]) -> Table<'a> {
    let row = |name: Cell<'static>, cell: &dyn Fn(&Incident<'_>) -> Cell<'static>| {
        std::iter::once(name).chain(incidents.iter().map(cell)).collect()
    };
    // Twins have a separate row.
    let outcome = |incident: &Incident<'_>| incident.variants().map(Group::outcome).max();
    let mut rows = vec![row(Cell::Name("outcome"), &|incident| {
        Cell::Outcome(outcome(incident).unwrap_or_else(|| incident.outcome()))
    })];
    for name in &part.active {
        rows.push(row(Cell::text(*name), &|incident| match incident.worst(name) {
            marks if marks.is_empty() && !incident.ran() => Cell::text(""),
            marks => Cell::Marks(marks),
        }));
    }
    rows.push(row(Cell::Name(SILENT_CONTROLS), &|incident| controls(incident.twins())));
    let head = std::iter::once("detector").chain(incidents.iter().map(|incident| incident.id));
    // Names of scenarios are wider than times: they stand below.
    let names = incidents.iter().map(|incident| match incident.variants().count() {
        0 | 1 => incident.name(),
        count => format!("{} ({count} scenarios)", incident.name()),
    });
    let names = names.collect::<Vec<_>>().join(", ");
    let note = part.silent.into_iter().fold(names, |names, silent| format!("{names}\n{silent}"));
    Table { kind: Kind::Matrix, title: part.on, head: head.map(str::to_owned).collect(), rows, note: Some(note) }
}

/// The row of benign twins.
const SILENT_CONTROLS: &str = "silent controls";

/// "2", "1/2": how many controls were silent.
fn controls((tone, text): (Tone, String)) -> Cell<'static> {
    Cell::Toned(tone, text.trim_end_matches(" silent").to_owned())
}

/// The results on one backend.
struct Part<'a> {
    /// "on kind"; only for a run on several backends.
    on: Option<String>,
    columns: Vec<Column<'a>>,
    /// Detectors with a mark in any column.
    active: Vec<&'a str>,
    /// Lists the others, unless nothing ran.
    silent: Option<String>,
}

/// An incident with its controls.
struct Column<'a> {
    incident: Group<'a>,
    controls: Vec<Group<'a>>,
}

impl Column<'_> {
    /// The marks of `detector` in the incident, and its wrong marks in controls.
    fn marks(&self, detector: &str) -> Vec<Mark> {
        let mut all = marks::marks(&self.incident, detector);
        for control in &self.controls {
            let name = format!("control {}", control.first().info.trial.control.as_deref().unwrap_or_default());
            all.extend(marks::wrong(control, detector).into_iter().map(|mark| mark.of(&name)));
        }
        marks::merged(all)
    }

    fn cell(&self, detector: &str) -> Cell<'static> {
        let marks = self.marks(detector);
        if marks.is_empty() && self.incident.ran() == 0 { Cell::text("") } else { Cell::Marks(marks) }
    }

    fn ran(&self) -> bool {
        std::iter::once(&self.incident).chain(&self.controls).any(|group| group.ran() > 0)
    }
}

fn parts(run: &RunSummary) -> Vec<Part<'_>> {
    let backends = run.backends();
    let several = backends.len() > 1;
    let part = |backend: &str| {
        let columns = columns(run, backend);
        let (active, silent): (Vec<&str>, Vec<&str>) =
            run.detectors().into_iter().partition(|name| columns.iter().any(|column| !column.marks(name).is_empty()));
        let shown = !silent.is_empty() && columns.iter().any(Column::ran);
        let silent = shown.then(|| format!("silent throughout: {}", silent.join(", ")));
        Part { on: several.then(|| words::on(backend)), columns, active, silent }
    };
    backends.into_iter().map(part).collect()
}

/// Each incident with the controls that belong to it.
fn columns<'a>(run: &'a RunSummary, backend: &str) -> Vec<Column<'a>> {
    let here = statistics::groups(run).into_iter().filter(|group| group.first().info.trial.backend == backend);
    let (incidents, controls): (Vec<_>, Vec<_>) = here.partition(|group| !group.first().is_control());
    let mut columns: Vec<Column<'a>> =
        incidents.into_iter().map(|incident| Column { incident, controls: Vec::new() }).collect();
    for control in controls {
        let scenario = &control.first().info.trial.scenario;
        match columns.iter_mut().find(|column| column.incident.first().info.trial.scenario == *scenario) {
            Some(column) => column.controls.push(control),
            // Only controls were selected: the first one takes the place of its incident.
            None => columns.push(Column { incident: control, controls: Vec::new() }),
        }
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Outcome;
    use crate::sample;

    /// Two undecided expectations of one detector.
    #[test]
    fn undecided_is_reported_once() {
        let run = RunSummary::of(&sample::run());
        let part = &parts(&run)[0];
        let slow = part.columns.iter().flat_map(|column| column.marks("slow-server")).collect::<Vec<_>>();
        assert_eq!((slow.len(), slow[0].text.as_str()), (1, "undecided"));
        assert_eq!(slow[0].detail.matches("the effect was not seen").count(), 2, "{}", slow[0].detail);
    }

    #[test]
    fn what_was_skipped_is_not_silent() {
        let mut run = RunSummary::of(&sample::run());
        let tables = folded(&run);
        let skipped = tables[0].head.iter().position(|id| id == "I2").expect("a skipped incident");
        let silent = |row: &Vec<Cell<'_>>| row[skipped] == Cell::Marks(Vec::new());
        assert!(!tables[0].rows.iter().any(silent));
        run.trials.retain(|trial| trial.outcome() == Outcome::Skipped);
        let tables = by_detector(&run);
        assert_eq!((tables[0].head.len(), &tables[0].note), (2, &None));
    }
}
