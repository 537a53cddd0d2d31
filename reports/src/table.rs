//! A table before it is drawn.
//!
//! Job: what terminal, Markdown and HTML have in common: names, rows, and the meaning of each cell. [`crate::matrix`]
//! and [`crate::times`] make tables; [`crate::text`], [`crate::markdown`] and [`crate::html`] draw any of them. Left
//! out: appearance.

use std::time::Duration;

use crate::event::Outcome;
use crate::summary::TrialSummary;
use crate::words::Tone;

/// The kind of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Narrow columns of marks.
    Matrix,
    /// Rows of numbers.
    Times,
}

/// A table to be drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct Table<'a> {
    pub kind: Kind,
    /// Set if there are several tables of the kind.
    pub title: Option<String>,
    /// Column names, of one or two lines.
    pub head: Vec<String>,
    /// In a row with fewer cells, the last one spans the remaining columns.
    pub rows: Vec<Vec<Cell<'a>>>,
    /// Shown below the table.
    pub note: Option<String>,
}

impl<'a> Table<'a> {
    /// A table of times without title and note.
    #[must_use]
    pub fn of_times(head: &[&str], rows: Vec<Vec<Cell<'a>>>) -> Self {
        let head = head.iter().map(|&name| name.to_owned()).collect();
        Self { kind: Kind::Times, title: None, head, rows, note: None }
    }
}

/// A cell, by what it means.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell<'a> {
    Text(String),
    /// The name of a row that is not a detector's.
    Name(&'static str),
    Outcome(Outcome),
    /// The first repetition of a trial, and the worst outcome of all.
    Trial(&'a TrialSummary, Outcome),
    Toned(Tone, String),
    /// The result of a detector; empty if silent.
    Marks(Vec<Mark>),
    /// One time a run, against a deadline.
    Series(Vec<Option<Duration>>, Duration),
}

impl Cell<'_> {
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// A missing number.
    pub fn none() -> Self {
        Self::text("–")
    }
}

/// One result of a detector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    pub text: String,
    pub tone: Tone,
    /// Details, for hover titles.
    pub detail: String,
}

impl Mark {
    /// Prefixes the details with a name.
    #[must_use]
    pub fn of(self, name: &str) -> Self {
        Self { detail: format!("{name}: {}", self.detail), ..self }
    }
}

/// The tone of a cell, which is that of its worst mark.
#[must_use]
pub fn worst(marks: &[Mark]) -> Tone {
    marks.iter().map(|mark| mark.tone).max().unwrap_or(Tone::Muted)
}
