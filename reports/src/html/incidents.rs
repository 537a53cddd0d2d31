//! The incidents of a run as tables: a row per incident, and within an incident a row per variant or twin.
//!
//! Invariant: detectors without findings are listed below the table. Left out: the result of an incident
//! ([`crate::incident`]), and the events of a trial.

use maud::{Markup, html};

use super::table;
use crate::incident::Incident;
use crate::marks;
use crate::statistics::Group;
use crate::summary::RunSummary;
use crate::table::{Cell, Kind, Table};
use crate::words::Tone;

/// A row per incident, a column per detector.
pub fn matrix(run: &RunSummary, incidents: &[Incident<'_>]) -> Markup {
    let (active, silent): (Vec<&str>, Vec<&str>) =
        run.detectors().into_iter().partition(|name| incidents.iter().any(|incident| incident.has_marks(name)));
    let ran = incidents.iter().any(Incident::ran);
    html! {
        table.matrix {
            thead { tr { @for name in ["incident", "variants", "twins"].iter().chain(&active) { (table::head(name)) } } }
            tbody {
                @for incident in incidents {
                    @let (tone, twins) = incident.twins();
                    tr {
                        th { (super::badge(incident.outcome())) a href={ "#" (anchor(incident)) } { (incident.name()) } }
                        td { (incident.variants().count()) }
                        td class={ (tone.class()) "-bg" } { (twins) }
                        @if incident.ran() {
                            @for name in &active { (table::marks(&incident.worst(name), &incident.each(name))) }
                        } @else {
                            td class="reason skipped-bg" colspan=(active.len()) { "skipped: " (incident.reasons()) }
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

/// The incident's anchor in the page.
#[must_use]
pub fn anchor(incident: &Incident<'_>) -> String {
    table::plain(&format!("incident-{}-{}", incident.backend, incident.id))
}

/// A row per variant or twin, a column per detector.
#[must_use]
pub fn within<'a>(incident: &Incident<'a>, run: &'a RunSummary) -> Table<'a> {
    let active: Vec<&str> = run.detectors().into_iter().filter(|name| incident.has_marks(name)).collect();
    let row = |group: &Group<'a>| {
        let mut row = vec![Cell::Trial(group.first(), group.outcome())];
        if group.ran() == 0 {
            row.push(Cell::Toned(Tone::Skipped, format!("skipped: {}", group.first().reasons().join("; "))));
        } else {
            row.extend(active.iter().map(|name| Cell::Marks(marks::marks(group, name))));
        }
        row
    };
    let rows = incident.groups.iter().map(row).collect();
    let head = ["hover for evidence"].iter().chain(&active).map(|name| (*name).to_owned()).collect();
    Table { kind: Kind::Matrix, title: None, head, rows, note: None }
}
