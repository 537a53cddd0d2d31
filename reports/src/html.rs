//! The HTML report of a run.
//!
//! Job: headline, incidents with their matrix, times; for each incident its variants and twins, and for each trial two
//! charts: times to detect with deadlines (logarithmic), and a timeline of phases, flows and findings (linear).
//! Invariants: the page is self-contained: no script, no font, no request; all external text is escaped (by maud);
//! failures are expanded, passed trials can be expanded. Only the first of several passed repetitions is drawn, which
//! keeps a full run under 400 kB.
//! Left out: anything that needs a script.

mod detection;
mod incidents;
mod series;
pub mod svg;
mod table;
mod timeline;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::databases;
use crate::event::Outcome;
use crate::facts;
use crate::incident::{self, Incident};
use crate::late;
use crate::stages;
use crate::statistics::{self, Group};
use crate::summary::{RunSummary, TrialSummary};
use crate::times;
use crate::triage;
use crate::units;
use crate::words::{self, Tone};

const STYLE: &str = include_str!("html/style.css");

/// Renders the page.
#[must_use]
pub fn html(run: &RunSummary) -> String {
    let id = run.run.as_ref().map_or("unknown run", |run| run.run_id.as_str());
    let backends = run.backends();
    let parts: Vec<(&str, Vec<Incident<'_>>)> =
        backends.iter().map(|backend| (*backend, incident::incidents(run, backend))).collect();
    let only = parts.iter().map(|(_, incidents)| incidents.len()).sum::<usize>() == 1;
    let body = html! { main {
        (hero(run))
        @for (backend, incidents) in &parts {
            h2 { "Incidents" @if parts.len() > 1 { " " (words::on(backend)) } }
            div.card.scroll { (incidents::matrix(run, incidents)) }
        }
        @if let Some(table) = late::table(run) {
            h2 { "Late and restarted detectors" }
            div.card.scroll { (table::table(&table)) }
        }
        @if let Some(table) = triage::table(run) {
            h2 { "Where to look" }
            div.card.scroll { (table::table(&table)) }
        }
        @for table in [facts::table(run), times::compared(run), times::by_run(run)].into_iter().flatten() {
            h2 { (words::capital(table.title.as_deref().unwrap_or_default())) }
            div.card.scroll { (table::table(&table)) }
        }
        @if let Some(table) = times::times(run).filter(|_| run.is_repeated()) {
            h2 { "Times over repetitions" }
            div.card.scroll {
                (table::table(&table))
                ul.remarks {
                    @for (_, name, outcomes) in statistics::repetitions(run) { li { (name) ": " (outcomes) } }
                }
            }
        }
        h2 { "Variants and twins" }
        @for (backend, incidents) in &parts { @for incident in incidents {
            details.card open[only || incident.outcome() > Outcome::Skipped] {
                summary {
                    (badge(incident.outcome())) h3 { (incident.name()) @if parts.len() > 1 { " " (words::on(backend)) } }
                    " " span.soft { (incident.size()) }
                }
                div id=(incidents::anchor(incident)) {
                    div.scroll { (table::table(&incidents::within(incident, run))) }
                    @for group in &incident.groups { (trials(run, group, incident)) }
                }
            }
        } }
    } };
    page(&format!("relapse {id}: {}", run.outcome().name()), "", &body)
}

/// A page of its own: nothing is loaded from elsewhere. `style` is added to the common style sheet.
#[must_use]
pub fn page(title: &str, style: &str, body: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'";
                title { (title) }
                style { (PreEscaped(STYLE)) (PreEscaped(style)) }
            }
            body { (body) }
        }
    };
    // Control characters are not allowed in a page.
    page.into_string().replace(char::is_control, " ") + "\n"
}

/// An outcome as a badge.
fn badge(outcome: Outcome) -> Markup {
    html! { span class={ "badge " (words::outcome_tone(outcome).class()) "-bg" } { (words::label(outcome)) } }
}

fn hero(run: &RunSummary) -> Markup {
    let outcome = run.outcome();
    html! {
        section class={ "card hero " (words::outcome_tone(outcome).class()) } {
            div.word { (words::label(outcome)) }
            div {
                h1 { (units::count(run.trials.len(), "trial")) " in " (units::span(run.took())) }
                div.chips {
                    @for (outcome, n) in run.counts() {
                        span class={ "chip " (words::outcome_tone(outcome).class()) "-bg" } { (n) " " (outcome.name()) }
                    }
                }
                @if let Some(started) = &run.run {
                    p.facts {
                        "run " b { (started.run_id) } @if let Some(on) = run.on() { " " (on) }
                        " · " (started.started) " · relapse " (started.version) " · kernel " (started.kernel)
                        " · " (words::user(started.root)) " · " (words::host_writes(started.host_writes))
                    }
                }
                @if run.ended.is_none() {
                    p.facts { b { "The run did not finish: its events end early." } }
                }
                @for notice in &run.notices { p.facts { "note: " (notice) } }
            }
        }
    }
}

/// Cards of all repetitions that did not pass, and of the first that did.
fn trials(run: &RunSummary, group: &Group<'_>, incident: &Incident<'_>) -> Markup {
    let passed = |trial: &TrialSummary| trial.outcome() == Outcome::Pass;
    let first = group.trials.iter().position(|trial| passed(trial));
    let alike = group.passed().saturating_sub(1);
    // A single variant is expanded.
    let open = !group.first().is_control() && incident.variants().count() == 1;
    html! {
        @for (n, trial) in group.trials.iter().enumerate() {
            @if !passed(trial) || Some(n) == first { (card(run, trial, open || !passed(trial))) }
        }
        @if alike > 0 {
            p.facts { (units::count(alike, "more repetition")) " of " (run.name(group.first())) " also passed." }
        }
    }
}

fn card(run: &RunSummary, trial: &TrialSummary, open: bool) -> Markup {
    let outcome = trial.outcome();
    // Passed twins stay collapsed in print.
    let class = if trial.is_control() && outcome == Outcome::Pass { "trial twin" } else { "trial" };
    html! {
        details class=(class) open[open] {
            summary {
                // Comes first so that it stays on the first line.
                span.right { (trial.took().map(units::span).unwrap_or_default()) }
                (badge(outcome)) h4 { (run.label(trial)) } " "
                span.soft { (trial.info.title) }
            }
            div.scroll id=(table::anchor(trial)) { (contents(trial)) }
        }
    }
}

fn contents(trial: &TrialSummary) -> Markup {
    let reasons = trial.reasons();
    let tone = words::outcome_tone(trial.outcome()).class();
    html! {
        (facts(trial))
        @if !reasons.is_empty() {
            ul class={ "reasons " (tone) "-bg" } { @for reason in reasons { li { (reason) } } }
        }
        @if let Some(stages) = stages::table(trial) {
            (table::table(&stages))
        }
        @if let Some(chart) = detection::chart(trial) {
            @let from = if trial.is_chain() { "from the injection or healing that each counts from" } else { "from t0" };
            p.caption { "Time to detect " (from) ", logarithmic; the tick is the deadline" }
            (chart)
        }
        (verdicts(trial))
        (steps(trial))
        (databases(trial))
        @if let Some(chart) = timeline::chart(trial) {
            p.caption { "Timeline in seconds from t0; shaded while the fault is in force" }
            (chart)
        }
        (observations(trial))
    }
}

fn facts(trial: &TrialSummary) -> Markup {
    let injected = trial.injected.iter().map(|made| html! { b { (made.what) } " → " (made.read_back) });
    let mut facts: Vec<Markup> = injected.collect();
    facts.extend(trial.seen().into_iter().map(|seen| html! { (seen) }));
    if let Some(ended) = &trial.ended {
        facts.extend(ended.up.map(|up| html! { "up in " (units::span(up)) }));
        facts.extend(ended.down.map(|down| html! { "gone in " (units::span(down)) }));
        facts.extend(ended.peak_memory.map(|bytes| html! { "at most " (units::bytes(bytes)) }));
        facts.extend(ended.cpu.map(|cpu| html! { (units::span(cpu)) " of processor time" }));
    }
    html! {
        @if !facts.is_empty() {
            p.facts { @for (n, fact) in facts.iter().enumerate() { @if n > 0 { " · " } (fact) } }
        }
    }
}

fn verdicts(trial: &TrialSummary) -> Markup {
    let shown = trial.shown_verdicts();
    html! {
        @if !shown.is_empty() {
            table {
                thead { tr {
                    @for name in ["detector", "level", "about", "verdict", "deadline", "evidence"] { th { (name) } }
                } }
                tbody { @for decided in shown {
                    @let expected = &decided.expectation;
                    tr {
                        td { (expected.detector) @if expected.outside { " " span.soft { "(outside)" } } }
                        td { (words::level(expected.level)) }
                        td { (trial.about(decided)) }
                        td class={ "tone " (words::verdict_tone(&decided.verdict).class()) } {
                            (words::sign(&decided.verdict)) " " (words::sentence(decided))
                            @if let Some(lead) = trial.lead_text(decided) { br; span.lead { (lead) } }
                        }
                        td { (words::deadline(expected)) }
                        td { span.evidence { (trial.evidence(decided).unwrap_or_default()) } }
                    }
                } }
            }
        }
    }
}

/// Where triage led, step by step.
fn steps(trial: &TrialSummary) -> Markup {
    html! {
        @for decided in triage::shown(trial) {
            @if let Some((tone, heading)) = triage::heading(decided) {
                p class=(tone.class()) { b { (heading) } }
                ul.remarks {
                    @for (tone, line) in decided.found.iter().flat_map(triage::lines) {
                        li class=(tone.class()) { @if tone == Tone::Bad { b { (line) } } @else { (line) } }
                    }
                }
            }
        }
    }
}

/// What databases reported about themselves.
fn databases(trial: &TrialSummary) -> Markup {
    let rows = databases::rows(trial);
    html! {
        @if !rows.is_empty() {
            p.caption { "What databases reported about themselves, for comparison; not judged" }
            table {
                thead { tr { @for name in ["database", "its report", "contents"] { th { (name) } } } }
                tbody { @for row in rows {
                    tr { td { (row.server) } td { (row.report) } td { (row.shown) } }
                } }
            }
        }
    }
}

/// Effects and remarks.
fn observations(trial: &TrialSummary) -> Markup {
    let remarks = trial.remarks();
    html! {
        @if !trial.effects.is_empty() || !remarks.is_empty() {
            ul.remarks {
                @for effect in &trial.effects {
                    @let (sign, tone) = if effect.holds { ("✓", Tone::Good) } else { ("✗", Tone::Unsure) };
                    li class=(tone.class()) { (sign) " effect: " (effect.effect) " (" (effect.evidence) ")" }
                }
                @for remark in remarks { li { (remark) } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{RunEvent, TrialEvent, What};
    use crate::sample;

    #[test]
    fn nothing_is_fetched_and_nothing_runs() {
        let page = html(&RunSummary::of(&sample::run()));
        for word in ["http://", "https://", "<script", "url(", "@import", "src="] {
            assert!(!page.contains(word), "{word}");
        }
    }

    #[test]
    fn a_chain_is_told_stage_by_stage() {
        let run = RunSummary::of(&sample::chain::chain());
        let page = html(&run);
        for text in ["all in force", "dns healed", "wrong-nic 580 ms", "heal dns", "app-database fails: timeout"] {
            assert!(page.contains(text), "{text}");
        }
        let stages =
            stages::table(&run.trials[0]).map(|table| table::table(&table).into_string().replace("<tr>", "\n<tr>"));
        insta::assert_snapshot!(stages.unwrap_or_default());
    }

    #[test]
    fn a_fault_that_a_cache_hid_counts_from_when_clients_saw_it() {
        let page = html(&RunSummary::of(&sample::cached::cached(&[4_200])));
        for text in [
            "oss.example.com visible after 4.20 s",
            "healing of oss.example.com visible after 3.30 s",
            "detected after 17 ms (visible after 4.20 s)",
            "visible to clients after 4.20 s; the deadline counts from then",
        ] {
            assert!(page.contains(text), "{text}");
        }
    }

    #[test]
    fn text_from_outside_is_escaped() {
        let mut events = sample::run();
        let evil = "<img onerror='x'> \"quoted\" \u{1b}[31m";
        for RunEvent { what, .. } in &mut events {
            if let What::Trial { event, trial } = what {
                match event {
                    TrialEvent::Finding(received) => evil.clone_into(&mut received.finding.evidence),
                    TrialEvent::Ended(ended) => ended.reasons.push(evil.to_owned()),
                    TrialEvent::Skipped { reason } => evil.clone_into(reason),
                    TrialEvent::Flow(sample) => evil.clone_into(&mut sample.flow),
                    _ => {}
                }
                trial.scenario.push_str(evil);
            }
        }
        let page = html(&RunSummary::of(&events));
        assert!(!page.contains("<img"));
        assert!(!page.contains('\u{1b}'));
        assert!(page.contains("&lt;img onerror='x'&gt; &quot;quoted&quot;"));
    }

    #[test]
    fn every_trial_of_a_run_can_be_reached_from_the_matrix() {
        for events in [sample::run(), sample::both(|id| id.repetition == 1)] {
            let run = RunSummary::of(&events);
            let page = html(&run);
            for trial in &run.trials {
                let anchor = table::anchor(trial);
                assert_eq!(page.matches(&format!("href=\"#{anchor}\"")).count(), 1);
                assert_eq!(page.matches(&format!("id=\"{anchor}\"")).count(), 1);
            }
        }
    }

    #[test]
    fn two_backends_have_a_matrix_each_and_are_compared() {
        let page = html(&RunSummary::of(&sample::both(|id| id.repetition == 1)));
        for heading in ["Incidents in the lab", "Incidents on kind", "Lab and kind compared"] {
            assert_eq!(page.matches(&format!("<h2>{heading}</h2>")).count(), 1, "{heading}");
        }
        assert!(page.contains("<h4>I4 policy-route-lost on kind</h4>"));
        assert!(page.contains("<h4>I4 policy-route-lost in the lab</h4>"));
    }

    #[test]
    fn every_prefix_of_a_run_makes_a_page() {
        let events = sample::run();
        for length in (0..events.len()).step_by(7) {
            assert!(html(&RunSummary::of(&events[..length])).ends_with("</html>\n"));
        }
    }
}
