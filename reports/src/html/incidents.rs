//! The incidents of a run as tables of the page: a row an incident, and within an incident a row a variant or twin.
//!
//! Invariant: detectors that never spoke are named below, not drawn. Left out: what an incident comes to
//! ([`crate::incident`]), and what happened in a trial.

use maud::{Markup, html};

use super::table;
use crate::incident::Incident;
use crate::marks;
use crate::statistics::Group;
use crate::summary::RunSummary;
use crate::table::{Cell, Kind, Table};
use crate::words::Tone;

/// A row an incident, a column a detector.
pub fn matrix(run: &RunSummary, incidents: &[Incident<'_>]) -> Markup {
    let (speakers, silent): (Vec<&str>, Vec<&str>) =
        run.detectors().into_iter().partition(|name| incidents.iter().any(|incident| incident.speaks(name)));
    let ran = incidents.iter().any(Incident::ran);
    html! {
        table.matrix {
            thead { tr { @for name in ["incident", "variants", "twins"].iter().chain(&speakers) { (table::head(name)) } } }
            tbody {
                @for incident in incidents {
                    @let (tone, twins) = incident.twins();
                    tr {
                        th { (super::badge(incident.outcome())) a href={ "#" (anchor(incident)) } { (incident.name()) } }
                        td { (incident.variants().count()) }
                        td class={ (tone.class()) "-bg" } { (twins) }
                        @if incident.ran() {
                            @for name in &speakers { (table::marks(&incident.worst(name), &incident.each(name))) }
                        } @else {
                            td class="reason skipped-bg" colspan=(speakers.len()) { "skipped: " (incident.reasons()) }
                        }
                    }
                }
            }
        }
        @if ran {
            p.facts { "the longest time of all variants, from t0 until the finding was received; hover for each" }
            @if !silent.is_empty() { p.facts { "silent throughout: " (silent.join(", ")) } }
        }
    }
}

/// Where it is in the page.
#[must_use]
pub fn anchor(incident: &Incident<'_>) -> String {
    table::plain(&format!("incident-{}-{}", incident.backend, incident.id))
}

/// A row a variant or twin, a column a detector.
#[must_use]
pub fn within<'a>(incident: &Incident<'a>, run: &'a RunSummary) -> Table<'a> {
    let speakers: Vec<&str> = run.detectors().into_iter().filter(|name| incident.speaks(name)).collect();
    let row = |group: &Group<'a>| {
        let mut row = vec![Cell::Trial(group.first(), group.outcome())];
        if group.ran() == 0 {
            row.push(Cell::Toned(Tone::Skipped, format!("skipped: {}", group.first().reasons().join("; "))));
        } else {
            row.extend(speakers.iter().map(|name| Cell::Marks(marks::marks(group, name))));
        }
        row
    };
    let rows = incident.groups.iter().map(row).collect();
    let head = ["hover for evidence"].iter().chain(&speakers).map(|name| (*name).to_owned()).collect();
    Table { kind: Kind::Matrix, title: None, head, rows, note: None }
}
