//! Times to detect as tables of the page.
//!
//! Job: the times over repetitions, and the backends compared. Invariant: all text is escaped.
//! Left out: one run's times on one backend; they are in its pictures already.

use std::fmt::Write as _;

use crate::compare;
use crate::html::svg::escape;
use crate::statistics;
use crate::summary::RunSummary;
use crate::words;

/// The backends compared; empty for a run on one.
#[must_use]
pub fn compared(run: &RunSummary) -> String {
    let Some(compared) = compare::compared(run) else { return String::new() };
    let header: Vec<&str> = compared.header.iter().map(String::as_str).collect();
    format!("{}</div>\n", table(&words::capital(&compared.title), &header, &compared.rows))
}

/// Times over repetitions, and how often each trial passed; empty for a run without.
#[must_use]
pub fn times(run: &RunSummary) -> String {
    let (header, rows) = statistics::times_table(run);
    if rows.is_empty() || !run.is_repeated() {
        return String::new();
    }
    let mut page = table("Times over repetitions", &header, &rows);
    page.push_str("<ul class=\"remarks\">");
    for group in statistics::groups(run) {
        let line = format!("{}: {}", run.name(group.first()), statistics::flakes(&group));
        let _ = write!(page, "<li>{}</li>", escape(&line));
    }
    page.push_str("</ul></div>\n");
    page
}

/// A heading and a card with a table; the card stays open.
fn table(title: &str, header: &[&str], rows: &[Vec<String>]) -> String {
    let mut page = format!("<h2>{}</h2><div class=\"card scroll\"><table class=\"times\"><thead><tr>", escape(title));
    for name in header {
        let _ = write!(page, "<th>{}</th>", escape(name));
    }
    page.push_str("</tr></thead><tbody>");
    for row in rows {
        page.push_str("<tr>");
        for cell in row {
            let _ = write!(page, "<td>{}</td>", escape(cell));
        }
        page.push_str("</tr>");
    }
    page.push_str("</tbody></table>");
    page
}
