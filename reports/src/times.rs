//! Tables of times as text.
//!
//! Job: p50, p95 and max over repetitions, how often each trial passed, and the backends compared.
//! Invariant: without colour no control character. Left out: the numbers; see [`crate::statistics`]
//! and [`crate::compare`].

use crate::compare;
use crate::paint::Page;
use crate::statistics;
use crate::summary::RunSummary;
use crate::tables::{head, plain_table};
use crate::words;

/// The table of times, and how often each trial passed.
#[must_use]
pub fn times(run: &RunSummary, page: Page) -> String {
    let (header, rows) = statistics::times_table(run);
    let mut text = table(&header, rows, page);
    for group in statistics::groups(run) {
        let tone = words::outcome_tone(group.outcome());
        let line = format!("{}: {}", run.name(group.first()), statistics::flakes(&group));
        text.push_str(&page.paint(tone, &line));
        text.push('\n');
    }
    text
}

/// The backends compared, under its title; empty for a run on one.
#[must_use]
pub fn compared(run: &RunSummary, page: Page) -> String {
    let Some(compared) = compare::compared(run) else { return String::new() };
    let header: Vec<&str> = compared.header.iter().map(String::as_str).collect();
    format!("{}\n{}", page.strong(&compared.title), table(&header, compared.rows, page))
}

fn table(header: &[&str], rows: Vec<Vec<String>>, page: Page) -> String {
    let mut table = plain_table(page);
    table.set_header(header.iter().map(|name| head(name, page)));
    for row in rows {
        table.add_row(row);
    }
    table.trim_fmt() + "\n"
}
