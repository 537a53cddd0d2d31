//! A scorecard in Markdown, for a CI job or a page of documentation.

use relapse_reports::markdown::{escape, table};
use relapse_reports::table::{Cell, Table};
use relapse_reports::units::count;

use super::expect::Outcome;
use super::scorecard::{Scorecard, Settled, SettledVerdict};
use super::words::clock;
use super::{rows, text};

/// Renders the page.
#[must_use]
pub fn markdown(card: &Scorecard) -> String {
    let name = card.name.as_ref().map(|name| format!(" {}", escape(name))).unwrap_or_default();
    let mut page = format!("# Alerts{name}: {}\n\n", text::verdict(card).trim_end_matches('.'));
    page.push_str(&escape(&text::first_line(&card.input, card.promtool.as_deref())));
    page.push_str(&format!(
        "; scraped every {}, evaluated every {}; relapse {}.\n\n",
        clock(card.scrape),
        clock(card.evaluate),
        card.relapse
    ));
    if card.promtool.is_some() {
        let rows = rows::rows(card).into_iter();
        let rows = rows.map(|row| [row.incident, row.warning, row.after, row.level].map(Cell::Text).to_vec());
        page.push_str(&table(&Table::of_times(&rows::HEADS, rows.collect())));
        for (_, note) in text::notes(card) {
            page.push_str(&format!("- {}\n", escape(&note)));
        }
        page.push('\n');
    }
    if !card.expected.is_empty() {
        page.push_str("## Expectations\n\n");
        for expected in &card.expected {
            let (sign, why) = match &expected.outcome {
                Outcome::Holds => ("✅", String::new()),
                Outcome::Broken { why } => ("❌", format!(": {}", escape(why))),
            };
            page.push_str(&format!("- {sign} {}{why}\n", escape(&expected.what)));
        }
        page.push('\n');
    }
    let all = [
        (SettledVerdict::CannotFire, "Cannot fire"),
        (SettledVerdict::Error, "Errors"),
        (SettledVerdict::AlwaysOn, "Always on"),
        (SettledVerdict::Undecided, "Undecided"),
    ];
    for (verdict, title) in all {
        let row = |rule: &Settled| {
            let nearest = rule.nearest.clone().unwrap_or_default();
            let place = format!("{}:{}", rule.rule.file, rule.rule.line);
            [rule.rule.name.clone(), place, rule.why.clone(), nearest].map(Cell::Text).to_vec()
        };
        let rows: Vec<_> = card.settled(verdict).map(row).collect();
        if !rows.is_empty() {
            let head = ["rule", "place", "why", "nearest"];
            page.push_str(&format!("## {title}\n\n{}", table(&Table::of_times(&head, rows))));
        }
    }
    let uncovered: Vec<&str> = card.settled(SettledVerdict::NotCovered).map(|rule| rule.rule.name.as_str()).collect();
    if !uncovered.is_empty() {
        let n = count(uncovered.len(), "rule");
        page.push_str(&format!("## Not covered\n\nNo exporter was recorded for {n}: "));
        page.push_str(&format!("{}.\n", escape(&uncovered.join(", "))));
    }
    page
}
