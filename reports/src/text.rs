//! Tables as text.
//!
//! Job: draws any [`Table`], and everything below the trials of a run: the matrix, skipped trials, times. Invariants:
//! the matrix fits the page (more incidents make a second table); without colour no control character. Left out: the
//! content of cells.

use std::ops::Range;

use comfy_table::{Attribute, CellAlignment, Color, LineStyle, TableStyle};

use crate::event::Outcome;
use crate::facts;
use crate::paint::{self, Page};
use crate::statistics;
use crate::summary::RunSummary;
use crate::table::{self, Cell, Kind, Table};
use crate::units;
use crate::words::{self, Tone};
use crate::{matrix, times, triage};

/// Columns of a page whose width is unknown.
const WIDTH: usize = 110;
/// Maximum width of a matrix cell; longer words are rare and are not broken.
const CELL: usize = 12;
const LEGEND: &str = "time from t0 until the finding was received; · silent; also, info: not required by the scenario";
/// The same of a run with faults that a cache or kept connections hid.
const HIDDEN_LEGEND: &str = "time from t0, or from when clients could first see the fault, until the finding was received; · silent; also, info: not required by the scenario";

/// The tables of a run: the matrix and the reasons for skipped trials (except for a run of one trial), with a column
/// per scenario if `wide`, otherwise per incident; with several backends their times compared, with repetitions the
/// table of times.
#[must_use]
pub fn tables(run: &RunSummary, wide: bool, page: Page) -> String {
    let mut parts: Vec<String> = Vec::new();
    if run.trials.len() > 1 {
        let matrices = if wide { matrix::by_detector(run) } else { matrix::folded(run) }.into_iter().enumerate();
        let is_hidden = run.trials.iter().flat_map(|trial| &trial.verdicts).any(|decided| decided.visible.is_some());
        let legend = if is_hidden { HIDDEN_LEGEND } else { LEGEND };
        parts.extend(matrices.map(|(n, table)| draw(&table, (n == 0).then_some(legend), page)));
        for trial in run.trials.iter().filter(|trial| trial.outcome() == Outcome::Skipped) {
            let line = format!("skipped: {}: {}", run.label(trial), trial.reasons().join("; "));
            parts.last_mut().expect("a matrix").push_str(&wrapped(Tone::Skipped, &line, page));
        }
    }
    if run.trials.len() > 1 {
        parts.extend(triage::table(run).map(|table| draw(&table, None, page)));
    }
    parts.extend(
        [facts::table(run), times::compared(run), times::by_run(run)]
            .into_iter()
            .flatten()
            .map(|table| draw(&table, None, page)),
    );
    if run.is_repeated() {
        let mut part = times::times(run).map(|table| draw(&table, None, page)).unwrap_or_default();
        for (outcome, name, outcomes) in statistics::repetitions(run) {
            part.push_str(&page.paint(words::outcome_tone(outcome), &format!("{name}: {outcomes}")));
            part.push('\n');
        }
        parts.push(part);
    }
    parts.join("\n")
}

/// The same for a file, which also names the backend.
#[must_use]
pub fn file(run: &RunSummary) -> String {
    let text = tables(run, true, Page::PLAIN);
    match run.on() {
        Some(on) if run.backends().len() == 1 && !text.is_empty() => format!("{on}\n{text}"),
        _ => text,
    }
}

/// A text wrapped to the width of the page.
fn wrapped(tone: Tone, text: &str, page: Page) -> String {
    let lines = paint::wrap(&words::one_line(text), page.width.unwrap_or(usize::MAX));
    lines.iter().map(|line| page.paint(tone, line) + "\n").collect()
}

fn draw(table: &Table<'_>, legend: Option<&str>, page: Page) -> String {
    let mut text: String = table.title.iter().map(|title| page.strong(title) + "\n").collect();
    let matrix = table.kind == Kind::Matrix;
    let mut head = table.head.clone();
    if matrix {
        head = head.iter().map(|name| narrow(name)).collect();
        head[0].clear();
    }
    let row = |cells: &Vec<Cell<'_>>| {
        let blank = std::iter::repeat_n((String::new(), None), head.len().saturating_sub(cells.len()));
        cells.iter().map(content).chain(blank).collect()
    };
    let rows: Vec<Vec<(String, Option<Tone>)>> = table.rows.iter().map(row).collect();
    for band in bands(&head, &rows, if matrix { page.width.unwrap_or(WIDTH) } else { usize::MAX }) {
        let mut drawn = comfy_table::Table::new();
        let rule = LineStyle::none().fill('─').junction('─');
        drawn.load_style(TableStyle::new().header_separator(rule).bottom_border(rule));
        // The page already decides about colours; the table must not.
        if page.color {
            drawn.enforce_styling();
        } else {
            drawn.force_no_tty();
        }
        let name = |name: &str| {
            let cell = comfy_table::Cell::new(name);
            if page.color { cell.add_attribute(Attribute::Bold) } else { cell }
        };
        drawn.set_header(std::iter::once(&head[0]).chain(&head[band.clone()]).map(|text| name(text)));
        for row in &rows {
            // A detector that is silent in this band appears in another one.
            if row[band.clone()].iter().any(|(text, _)| !matches!(text.as_str(), "" | "·")) {
                let cells = std::iter::once(&row[0]).chain(&row[band.clone()]);
                drawn.add_row(cells.map(|(text, tone)| styled(text, tone.filter(|_| page.color))));
            }
        }
        if matrix {
            for column in drawn.column_iter_mut().skip(1) {
                column.set_cell_alignment(CellAlignment::Right);
                column.set_padding((1, 0));
            }
        }
        text.push_str(&(drawn.trim_fmt() + "\n"));
    }
    text.extend(legend.map(|line| wrapped(Tone::Muted, line, page)));
    text.extend(table.note.iter().flat_map(|note| note.lines()).map(|note| wrapped(Tone::Muted, note, page)));
    text
}

/// Splits all columns but the first, so that each table fits the page.
fn bands(head: &[String], rows: &[Vec<(String, Option<Tone>)>], width: usize) -> Vec<Range<usize>> {
    let wide = |n: usize| {
        let cells = std::iter::once(&head[n]).chain(rows.iter().map(|row| &row[n].0));
        // A blank before it and one between columns; the first column also has one after it.
        cells.flat_map(|text| text.lines()).map(paint::columns).max().unwrap_or(0) + if n == 0 { 3 } else { 2 }
    };
    let room = width.saturating_sub(wide(0));
    let mut bands = Vec::new();
    let (mut from, mut used) = (1, 0);
    for n in 1..head.len() {
        if used + wide(n) > room && n > from {
            bands.push(from..n);
            (from, used) = (n, 0);
        }
        used += wide(n);
    }
    bands.push(from..head.len());
    bands
}

fn content(cell: &Cell<'_>) -> (String, Option<Tone>) {
    match cell {
        Cell::Text(text) => (text.clone(), None),
        Cell::Name(name) => ((*name).to_owned(), None),
        Cell::Outcome(outcome) => (words::label(*outcome).to_owned(), Some(words::outcome_tone(*outcome))),
        Cell::Trial(trial, outcome) => {
            (format!("{} {}", words::label(*outcome), trial.name()), Some(words::outcome_tone(*outcome)))
        }
        Cell::Toned(tone, text) => (narrow(text), Some(*tone)),
        Cell::Series(times, _) => (units::bars(times), None),
        Cell::Marks(marks) if marks.is_empty() => ("·".to_owned(), Some(Tone::Muted)),
        Cell::Marks(marks) => {
            let lines: Vec<String> = marks.iter().map(|mark| narrow(&mark.text)).collect();
            (lines.join("\n"), Some(table::worst(marks)))
        }
    }
}

fn narrow(text: &str) -> String {
    text.lines().flat_map(|line| paint::wrap(line, CELL)).collect::<Vec<_>>().join("\n")
}

fn styled(text: &str, tone: Option<Tone>) -> comfy_table::Cell {
    let cell = comfy_table::Cell::new(text);
    let Some(tone) = tone else { return cell };
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
        tables(&RunSummary::of(events), true, Page { color: false, width: Some(width) })
    }

    #[test]
    fn one_run_on_a_narrow_page() {
        let text = of(&sample::run(), 80);
        for line in text.lines() {
            assert!(paint::columns(line) <= 80, "{line}");
        }
        insta::assert_snapshot!(text);
    }

    #[test]
    fn two_backends_repeated() {
        insta::assert_snapshot!(of(&sample::both(|_| true), 140));
    }

    #[test]
    fn one_trial_needs_no_table() {
        let mut run = RunSummary::of(&sample::run());
        run.trials.truncate(1);
        assert_eq!(tables(&run, true, Page::PLAIN), "");
    }
}
