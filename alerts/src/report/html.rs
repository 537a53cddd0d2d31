//! A scorecard as a page, with a lane an alert.
//!
//! Job: headline, table of incidents, rules that say nothing, and for each trial with alerts a chart over its phases.
//! Invariants: as the report of a run, it needs no script, font or request; all external text is escaped.

mod lanes;

use maud::{Markup, html};
use relapse_reports::html::page;
use relapse_reports::units::count;

use super::expect::Outcome;
use super::scorecard::{Scorecard, SettledVerdict, Trial};
use super::words::clock;
use super::{rows, text};

/// Renders one page for all scorecards.
#[must_use]
pub fn html(cards: &[Scorecard]) -> String {
    let title = cards.iter().map(text::verdict).collect::<Vec<_>>().join(" ");
    let body = html! {
        (lanes::patterns())
        main { @for card in cards { (one(card)) } }
    };
    page(&format!("relapse alerts: {title}"), lanes::STYLE, &body)
}

fn one(card: &Scorecard) -> Markup {
    let caught = card.caught;
    let tone = match (caught.caught, caught.incidents) {
        (0, _) => "bad",
        (n, of) if n == of => "good",
        _ => "unsure",
    };
    html! {
        section class={ "card hero " (tone) } {
            div.word { (caught.caught) " of " (caught.incidents) }
            div {
                h1 { (text::verdict(card)) }
                p.facts {
                    @if let Some(name) = &card.name { b { (name) } " · " }
                    (text::first_line(&card.input, card.promtool.as_deref()))
                    " · scraped every " (clock(card.scrape)) ", evaluated every " (clock(card.evaluate))
                    " · relapse " (card.relapse) " · " (clock(card.took))
                }
            }
        }
        @if card.promtool.is_some() {
            h2 { "Incidents" }
            div.card.scroll {
                table.times {
                    thead { tr { @for head in rows::HEADS { th { (head) } } } }
                    tbody { @for row in rows::rows(card) {
                        tr {
                            td { (row.incident) }
                            td class={ "tone " (row.tone.class()) } { (row.warning) }
                            td class={ "tone " (row.tone.class()) } { (row.after) }
                            td { (row.level) }
                        }
                    } }
                }
                ul.remarks { @for (_, note) in text::notes(card) { li { (note) } } }
            }
        }
        @if !card.expected.is_empty() {
            h2 { "Expectations" }
            div.card { ul.remarks { @for expected in &card.expected {
                li { (expected.what) @match &expected.outcome {
                    Outcome::Holds => " holds",
                    Outcome::Broken { why } => { ": " b { (why) } }
                } }
            } } }
        }
        (settled(card))
        @let shown = card.trials.iter().filter(|trial| !trial.warnings.is_empty() || !trial.pending.is_empty());
        @if shown.clone().next().is_some() {
            h2 { "Alerts over the incidents" }
            p.soft {
                span.key.pending {} " pending" span.key.firing {} " firing" span.key.false-alarm {} " false alarm"
                span.key.held {} " held: the end of the fault was repeated"
            }
        }
        @for trial in shown { (story(trial)) }
    }
}

/// Rules whose verdict is the same in every trial.
fn settled(card: &Scorecard) -> Markup {
    let all = [
        (SettledVerdict::CannotFire, "Cannot fire"),
        (SettledVerdict::Error, "Errors"),
        (SettledVerdict::AlwaysOn, "Always on"),
        (SettledVerdict::Undecided, "Undecided"),
        (SettledVerdict::NeverTrue, "Never true"),
        (SettledVerdict::NotCovered, "Not covered"),
    ];
    html! {
        @for (verdict, title) in all {
            @let rules: Vec<_> = card.settled(verdict).collect();
            @if !rules.is_empty() {
                h2 { (title) }
                details.card open[verdict == SettledVerdict::CannotFire || verdict == SettledVerdict::Error] {
                    summary { (count(rules.len(), "rule")) }
                    div.scroll { table.times { tbody { @for rule in rules {
                        tr {
                            td { (rule.rule.name) }
                            td.soft { (rule.rule.file) ":" (rule.rule.line) }
                            td { (rule.why) @if !rule.metrics.is_empty() { ": " (rule.metrics.join(", ")) } }
                            td { @if let Some(nearest) = &rule.nearest { "nearest: " code { (nearest) } } }
                        }
                    } } } }
                }
            }
        }
    }
}

fn story(trial: &Trial) -> Markup {
    html! {
        details.card open[trial.base && trial.control.is_none()] {
            summary {
                h3 {
                    (trial.incident) " " (trial.scenario)
                    @if let Some(control) = &trial.control { ", twin " (control) }
                }
                " " span.soft { (trial.title) " · " (trial.backend) }
            }
            div.scroll { (lanes::chart(trial)) }
        }
    }
}
