//! A table before it is drawn.
//!
//! Job: what terminal, Markdown and HTML show alike: names, rows, and what each cell means. [`crate::matrix`] and
//! [`crate::times`] make tables; [`crate::text`], [`crate::markdown`] and [`crate::html`] draw any of them. Left out:
//! how a meaning looks.

use std::time::Duration;

use crate::event::Outcome;
use crate::summary::TrialSummary;
use crate::words::Tone;

/// What a table is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Narrow columns of marks.
    Matrix,
    /// Rows of numbers.
    Times,
}

/// A table, ready to be drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct Table<'a> {
    pub kind: Kind,
    /// Where there are several of the kind.
    pub title: Option<String>,
    /// A name a column; it may have two lines.
    pub head: Vec<String>,
    /// The last cell of a row that is too short takes the room that is left.
    pub rows: Vec<Vec<Cell<'a>>>,
    /// Said below.
    pub note: Option<String>,
}

impl<'a> Table<'a> {
    /// Without title and note.
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
    /// What a row is called that is no detector's.
    Name(&'static str),
    Outcome(Outcome),
    /// Repetitions of a trial, by the first of them, and their worst outcome.
    Trial(&'a TrialSummary, Outcome),
    Toned(Tone, String),
    /// What a detector did; nothing is silence.
    Marks(Vec<Mark>),
    /// One time a run, against a deadline.
    Series(Vec<Option<Duration>>, Duration),
}

impl Cell<'_> {
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// For a number that there is not.
    pub fn none() -> Self {
        Self::text("–")
    }
}

/// One thing that a detector did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    pub text: String,
    pub tone: Tone,
    /// More, for where there is room (hover titles).
    pub detail: String,
}

impl Mark {
    /// Says of whom it is.
    #[must_use]
    pub fn of(self, whom: &str) -> Self {
        Self { detail: format!("{whom}: {}", self.detail), ..self }
    }
}

/// The tone of a whole cell: its worst mark.
#[must_use]
pub fn worst(marks: &[Mark]) -> Tone {
    marks.iter().map(|mark| mark.tone).max().unwrap_or(Tone::Muted)
}
