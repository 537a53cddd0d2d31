//! Tables in HTML.
//!
//! Job: draws a [`Table`]; trials link to their cards. Left out: headings.

use maud::{Markup, html};

use crate::summary::TrialSummary;
use crate::table::{self, Cell, Kind, Mark, Table};

pub fn table(table: &Table<'_>) -> Markup {
    let class = match table.kind {
        Kind::Matrix => "matrix",
        Kind::Times => "times",
    };
    html! {
        table class=(class) {
            thead { tr { @for name in &table.head { (head(name)) } } }
            tbody {
                @for row in &table.rows {
                    @let control = matches!(row[0], Cell::Trial(trial, _) if trial.is_control());
                    tr class=[control.then_some("control")] {
                        @for (n, cell) in row.iter().enumerate() {
                            @let columns = if n + 1 < row.len() { 1 } else { table.head.len() - n };
                            (draw(cell, columns))
                        }
                    }
                }
            }
        }
        @for note in table.note.iter().flat_map(|note| note.lines()) { p.facts { (note) } }
    }
}

/// A column heading, which the style sheet rotates in a matrix.
pub fn head(name: &str) -> Markup {
    html! { th { span { (name) } } }
}

fn draw(cell: &Cell<'_>, columns: usize) -> Markup {
    match cell {
        Cell::Text(text) => html! { td { (text) } },
        Cell::Name(name) => html! { td { (name) } },
        Cell::Outcome(outcome) => html! { td { (super::badge(*outcome)) } },
        Cell::Trial(trial, outcome) => {
            let name = trial.info.trial.control.clone().unwrap_or_else(|| trial.name());
            html! {
                th { (super::badge(*outcome)) a href={ "#" (anchor(trial)) } { (name) } }
            }
        }
        Cell::Toned(tone, text) => html! { td class={ "reason " (tone.class()) "-bg" } colspan=(columns) { (text) } },
        Cell::Series(times, deadline) => html! { td { (super::series::series(times, *deadline)) } },
        Cell::Marks(marks) => {
            let details: Vec<&str> = marks.iter().map(|mark| mark.detail.as_str()).collect();
            self::marks(marks, &details.join(" — "))
        }
    }
}

/// The marks of a detector, with details as the hover title.
pub fn marks(marks: &[Mark], details: &str) -> Markup {
    html! {
        @if marks.is_empty() {
            td { "·" }
        } @else {
            td class={ (table::worst(marks).class()) "-bg" } title=(details) {
                @for (n, mark) in marks.iter().enumerate() { @if n > 0 { br; } (narrow(&mark.text)) }
            }
        }
    }
}

/// Splits a mark that begins with a word into two lines: columns stay narrow, and times do not break.
fn narrow(text: &str) -> Markup {
    // The hyphen of "pre-existing" stays on the first line.
    let hyphen = || text.find('-').map(|at| text.split_at(at + 1));
    match text.split_once(' ').or_else(hyphen) {
        Some((word, rest)) if word.chars().all(|c| c.is_alphabetic() || c == '-') => {
            html! { (word) br; (rest) }
        }
        _ => html! { (text) },
    }
}

/// The anchor of a trial's card.
pub fn anchor(trial: &TrialSummary) -> String {
    let id = &trial.info.trial;
    let control = id.control.as_deref().unwrap_or("incident");
    plain(&format!("{}-{control}-{}-{}", id.scenario, id.backend, id.repetition))
}

/// Turns a text into an anchor.
pub fn plain(text: &str) -> String {
    text.replace(|c: char| !c.is_ascii_alphanumeric(), "-")
}
