//! The matrix: which detector saw which incident, and how fast.
//!
//! Job: one table for a whole run. A row a detector, a column an incident: there are more detectors
//! than a page has room for columns, and a column of an incident reads from its cause to its
//! symptoms. Controls are a row of their own; a false alarm in a control also shows in the cell of
//! the detector that raised it. Invariants: fits the page (more incidents make a second table);
//! detectors that never spoke are named below, not drawn; a skipped column says so and why.
//! Left out: evidence.

use comfy_table::{Attribute, Cell, CellAlignment, Color, LineStyle, Table, TableStyle};

use crate::event::Outcome;
use crate::marks::{self, Mark};
use crate::paint::{self, Page};
use crate::statistics::{self, Group};
use crate::summary::RunSummary;
use crate::words::{self, Tone};

/// Columns of a page whose width is unknown.
const WIDTH: usize = 110;
/// Widest cell; longer words are rare and stay whole.
const CELL: usize = 12;

/// An incident on a backend, with its controls.
#[derive(Debug, Clone)]
pub struct Column<'a> {
    pub incident: Group<'a>,
    pub controls: Vec<Group<'a>>,
}

impl Column<'_> {
    /// What `detector` did here: in the incident, and wrongly in a control.
    #[must_use]
    pub fn marks(&self, detector: &str) -> Vec<Mark> {
        let mut all = marks::marks(&self.incident, detector);
        for control in &self.controls {
            let wrong = marks::marks(control, detector).into_iter().filter(|mark| mark.tone >= Tone::Unsure);
            all.extend(wrong.map(|mark| {
                let name = control.first().info.trial.control.clone().unwrap_or_default();
                Mark { detail: format!("control {name}: {}", mark.detail), ..mark }
            }));
        }
        all
    }

    /// "2 silent", "1/2 silent": how its controls came out.
    #[must_use]
    pub fn controls_text(&self) -> (String, Tone) {
        let outcomes: Vec<Outcome> = self.controls.iter().map(Group::outcome).collect();
        let Some(worst) = outcomes.iter().max().copied() else {
            return ("none".to_owned(), Tone::Muted);
        };
        let silent = outcomes.iter().filter(|outcome| **outcome == Outcome::Pass).count();
        match worst {
            Outcome::Pass => (format!("{silent} silent"), Tone::Good),
            Outcome::Skipped if silent == 0 => ("skipped".to_owned(), Tone::Skipped),
            _ => (format!("{silent}/{} silent", outcomes.len()), words::outcome_tone(worst)),
        }
    }
}

/// The columns of a run: each incident with the controls that belong to it.
#[must_use]
pub fn columns(run: &RunSummary) -> Vec<Column<'_>> {
    let mut columns: Vec<Column<'_>> = Vec::new();
    let (incidents, controls): (Vec<_>, Vec<_>) =
        statistics::groups(run).into_iter().partition(|group| !group.first().is_control());
    columns.extend(incidents.into_iter().map(|incident| Column { incident, controls: Vec::new() }));
    for control in controls {
        let id = &control.first().info.trial;
        let home = columns.iter_mut().find(|column| {
            let other = &column.incident.first().info.trial;
            other.scenario == id.scenario && other.backend == id.backend
        });
        match home {
            Some(column) => column.controls.push(control),
            // Only controls were asked for: one of them stands in its incident's place.
            None => columns.push(Column { incident: control, controls: Vec::new() }),
        }
    }
    columns
}

/// Detectors with a word to say in any column, and those without.
#[must_use]
pub fn speakers<'a>(run: &'a RunSummary, columns: &[Column<'_>]) -> (Vec<&'a str>, Vec<&'a str>) {
    run.detectors().into_iter().partition(|detector| columns.iter().any(|c| !c.marks(detector).is_empty()))
}

/// The matrix of a run as text, with the reasons of what was skipped below it; empty for a run of
/// one trial, which needs no table. With repetitions, the table of times follows.
#[must_use]
pub fn matrix(run: &RunSummary, page: Page) -> String {
    let columns = columns(run);
    let (speakers, silent) = speakers(run, &columns);
    let mut text = String::new();
    if run.trials.len() > 1 {
        for band in bands(run, &columns, &speakers, page) {
            // A detector that is silent in this part is drawn in another.
            let (here, _) = self::speakers(run, band);
            text.push_str(&table(run, band, &here, page));
            text.push('\n');
        }
        text.push_str(&page.paint(
            Tone::Muted,
            "time from t0 until the finding was received; · silent; also, info: said without being asked",
        ));
        text.push('\n');
        let mut below = |tone: Tone, line: &str| {
            for line in paint::wrap(&words::one_line(line), page.width.unwrap_or(usize::MAX)) {
                text.push_str(&page.paint(tone, &line));
                text.push('\n');
            }
        };
        if !silent.is_empty() {
            below(Tone::Muted, &format!("silent throughout: {}", silent.join(", ")));
        }
        for trial in run.trials.iter().filter(|trial| trial.outcome() == Outcome::Skipped) {
            below(Tone::Skipped, &format!("skipped: {}: {}", run.label(trial), trial.reasons().join("; ")));
        }
    }
    if run.is_repeated() {
        text.push('\n');
        text.push_str(&times(run, page));
    }
    text
}

/// The table of times, and how often each trial passed.
#[must_use]
pub fn times(run: &RunSummary, page: Page) -> String {
    let (header, rows) = statistics::times_table(run);
    let mut table = plain_table(page);
    table.set_header(header.into_iter().map(|name| head(name, page)));
    for row in rows {
        table.add_row(row);
    }
    let mut text = table.trim_fmt();
    text.push('\n');
    for group in statistics::groups(run) {
        let tone = words::outcome_tone(group.outcome());
        let line = format!("{}: {}", group.first().name(), statistics::flakes(&group));
        text.push_str(&page.paint(tone, &line));
        text.push('\n');
    }
    text
}

fn plain_table(page: Page) -> Table {
    let mut table = Table::new();
    let rule = LineStyle::none().fill('─').junction('─');
    table.load_style(TableStyle::new().header_separator(rule).bottom_border(rule));
    // Whether there is a terminal was decided before; the table must not ask again.
    if page.color {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table
}

fn head(text: &str, page: Page) -> Cell {
    let cell = Cell::new(text);
    if page.color { cell.add_attribute(Attribute::Bold) } else { cell }
}

/// Splits the columns so that each table fits the page.
fn bands<'a, 'b>(run: &RunSummary, columns: &'b [Column<'a>], speakers: &[&str], page: Page) -> Vec<&'b [Column<'a>]> {
    let names = speakers.iter().map(|name| paint::columns(name)).max().unwrap_or(0).max(8) + 3;
    let room = page.width.unwrap_or(WIDTH).saturating_sub(names);
    let width = |column: &Column<'_>| {
        let cells = speakers.iter().map(|detector| cell_text(&column.marks(detector), column));
        let fixed = [title(run, column), words::label(column.incident.outcome()).to_owned()];
        let controls = paint::wrap(&column.controls_text().0, CELL).join("\n");
        let all = cells.chain(fixed).chain([controls]).collect::<Vec<_>>().join("\n");
        // One blank on each side, and one where a line between columns would be.
        all.lines().map(paint::columns).max().unwrap_or(0) + 3
    };
    let mut bands = Vec::new();
    let (mut from, mut used) = (0, 0);
    for (n, column) in columns.iter().enumerate() {
        let wide = width(column);
        if used + wide > room && n > from {
            bands.push(&columns[from..n]);
            (from, used) = (n, 0);
        }
        used += wide;
    }
    bands.push(&columns[from..]);
    bands
}

fn table(run: &RunSummary, columns: &[Column<'_>], speakers: &[&str], page: Page) -> String {
    let mut table = plain_table(page);
    let mut header = vec![Cell::new("")];
    header.extend(columns.iter().map(|column| head(&title(run, column), page)));
    table.set_header(header);
    let mut outcomes = vec![Cell::new("outcome")];
    outcomes.extend(columns.iter().map(|column| {
        let outcome = column.incident.outcome();
        colored(words::label(outcome), words::outcome_tone(outcome), page)
    }));
    table.add_row(outcomes);
    for detector in speakers {
        let mut row = vec![Cell::new(detector)];
        row.extend(columns.iter().map(|column| {
            let marks = column.marks(detector);
            colored(&cell_text(&marks, column), marks::worst(&marks), page)
        }));
        table.add_row(row);
    }
    let mut controls = vec![Cell::new("controls")];
    controls.extend(columns.iter().map(|column| {
        let (text, tone) = column.controls_text();
        colored(&paint::wrap(&text, CELL).join("\n"), tone, page)
    }));
    table.add_row(controls);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt()
}

fn title(run: &RunSummary, column: &Column<'_>) -> String {
    let trial = column.incident.first();
    let mut lines = vec![trial.info.incident.clone()];
    lines.extend(paint::wrap(&trial.info.trial.scenario, CELL));
    if run.backends().len() > 1 {
        lines.push(trial.info.trial.backend.clone());
    }
    lines.join("\n")
}

fn cell_text(marks: &[Mark], column: &Column<'_>) -> String {
    if marks.is_empty() {
        // Silence is something only a trial that ran can show.
        let ran = column.incident.ran() > 0;
        return if ran { "·" } else { "" }.to_owned();
    }
    let lines = marks.iter().flat_map(|mark| paint::wrap(&mark.text, CELL));
    lines.collect::<Vec<_>>().join("\n")
}

fn colored(text: &str, tone: Tone, page: Page) -> Cell {
    let cell = Cell::new(text);
    if !page.color {
        return cell;
    }
    match tone {
        Tone::Good => cell.fg(Color::DarkGreen),
        Tone::Muted => cell.add_attribute(Attribute::Dim),
        Tone::Note => cell.fg(Color::DarkCyan),
        Tone::Skipped => cell.fg(Color::DarkBlue),
        Tone::Unsure => cell.fg(Color::DarkYellow),
        Tone::Bad => cell.fg(Color::DarkRed).add_attribute(Attribute::Bold),
        Tone::Dirty => cell.fg(Color::DarkMagenta).add_attribute(Attribute::Bold),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::RunEvent;
    use crate::sample;

    fn of(events: &[RunEvent], width: usize) -> String {
        matrix(&RunSummary::of(events), Page { color: false, width: Some(width) })
    }

    #[test]
    fn of_one_run() {
        insta::assert_snapshot!(of(&sample::run(), 110));
    }

    #[test]
    fn of_repetitions() {
        insta::assert_snapshot!(of(&sample::repeated(), 110));
    }

    #[test]
    fn it_fits_the_page() {
        for width in [80, 100, 120] {
            let text = of(&sample::run(), width);
            let table = text.lines().filter(|line| !line.starts_with("time from"));
            for line in table {
                assert!(paint::columns(line) <= width, "{width}: {line}");
            }
        }
    }

    #[test]
    fn one_trial_needs_no_table() {
        let mut run = RunSummary::of(&sample::run());
        run.trials.truncate(1);
        assert_eq!(matrix(&run, Page::PLAIN), "");
    }
}
