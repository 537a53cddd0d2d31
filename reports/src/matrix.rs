//! The matrix: which detector saw which incident, and how fast.
//!
//! Job: one table for a whole run, or one for each backend of it. A row a detector, a column an incident: there are more detectors
//! than a page has room for columns, and a column of an incident reads from its cause to its
//! symptoms. Controls are a row of their own; a false alarm in a control also shows in the cell of
//! the detector that raised it. Invariants: fits the page (more incidents make a second table);
//! detectors that never spoke are named below, not drawn; a skipped column says so and why.
//! Left out: evidence.

use comfy_table::{Attribute, Cell, CellAlignment, Color};

use crate::event::Outcome;
use crate::marks::{self, Mark};
use crate::paint::{self, Page};
use crate::parts::{self, Column, Part};
use crate::summary::RunSummary;
use crate::tables::{head, plain_table};
use crate::times;
use crate::words::{self, Tone};

/// Columns of a page whose width is unknown.
const WIDTH: usize = 110;
/// Widest cell; longer words are rare and stay whole.
const CELL: usize = 12;

/// The matrix of a run as text, with the reasons of what was skipped below it; empty for a run of
/// one trial, which needs no table. With several backends the comparison of their times follows, with
/// repetitions the table of times.
#[must_use]
pub fn matrix(run: &RunSummary, page: Page) -> String {
    let mut text = String::new();
    if run.trials.len() > 1 {
        for (n, part) in parts::parts(run).iter().enumerate() {
            if let Some(on) = &part.on {
                text.push_str(if n > 0 { "\n" } else { "" });
                text.push_str(&format!("{}\n", page.strong(on)));
            }
            draw(part, n == 0, page, &mut text);
        }
        for trial in run.trials.iter().filter(|trial| trial.outcome() == Outcome::Skipped) {
            let line = format!("skipped: {}: {}", run.label(trial), trial.reasons().join("; "));
            below(Tone::Skipped, &line, page, &mut text);
        }
    }
    let compared = times::compared(run, page);
    if !compared.is_empty() {
        text.push_str(&format!("\n{compared}"));
    }
    if run.is_repeated() {
        text.push_str(&format!("\n{}", times::times(run, page)));
    }
    text
}

/// The same as a file, which has no other line to say what the run was on.
#[must_use]
pub fn file(run: &RunSummary) -> String {
    let text = matrix(run, Page::PLAIN);
    match run.on() {
        Some(on) if run.backends().len() == 1 && !text.is_empty() => format!("{on}\n{text}"),
        _ => text,
    }
}

/// One part: its tables, and who said nothing.
fn draw(part: &Part<'_>, explain: bool, page: Page, text: &mut String) {
    for band in bands(part, page) {
        // A detector that is silent in this band is drawn in another.
        let (here, _) = parts::speakers(part.speakers.clone(), band);
        text.push_str(&table(band, &here, page));
        text.push('\n');
    }
    if explain {
        let line = "time from t0 until the finding was received; · silent; also, info: said without being asked";
        text.push_str(&page.paint(Tone::Muted, line));
        text.push('\n');
    }
    if !part.silent.is_empty() {
        below(Tone::Muted, &format!("silent throughout: {}", part.silent.join(", ")), page, text);
    }
}

/// A line below the tables, as wide as the page.
fn below(tone: Tone, line: &str, page: Page, text: &mut String) {
    for line in paint::wrap(&words::one_line(line), page.width.unwrap_or(usize::MAX)) {
        text.push_str(&page.paint(tone, &line));
        text.push('\n');
    }
}

/// Splits the columns so that each table fits the page.
fn bands<'a, 'b>(part: &'b Part<'a>, page: Page) -> Vec<&'b [Column<'a>]> {
    let Part { columns, speakers, .. } = part;
    let names = speakers.iter().map(|name| paint::columns(name)).max().unwrap_or(0).max(8) + 3;
    let room = page.width.unwrap_or(WIDTH).saturating_sub(names);
    let width = |column: &Column<'_>| {
        let cells = speakers.iter().map(|detector| cell_text(&column.marks(detector), column));
        let fixed = [title(column), words::label(column.incident.outcome()).to_owned()];
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

fn table(columns: &[Column<'_>], speakers: &[&str], page: Page) -> String {
    let mut table = plain_table(page);
    let mut header = vec![Cell::new("")];
    header.extend(columns.iter().map(|column| head(&title(column), page)));
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

fn title(column: &Column<'_>) -> String {
    let trial = column.incident.first();
    let mut lines = vec![trial.info.incident.clone()];
    lines.extend(paint::wrap(&trial.info.trial.scenario, CELL));
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
    fn of_two_backends() {
        insta::assert_snapshot!(of(&sample::on_both(), 110));
    }

    #[test]
    fn of_two_backends_repeated() {
        insta::assert_snapshot!(of(&sample::on_both_repeated(), 140));
    }

    /// Of a run on kind alone the matrix is as ever, and the file says once what it was on.
    #[test]
    fn of_kind_alone() {
        let kind = RunSummary::of(&sample::on_kind());
        let lab = RunSummary::of(&sample::in_the_lab());
        assert_eq!(matrix(&kind, Page::PLAIN), matrix(&lab, Page::PLAIN));
        assert_eq!(file(&kind), format!("on kind\n{}", file(&lab)));
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
