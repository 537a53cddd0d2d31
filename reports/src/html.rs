//! One HTML page a run, for people.
//!
//! Job: headline, incidents with their matrix, times; within each incident its variants and twins, and for each trial
//! its pictures: the *race* between detectors, deadlines and users (logarithmic), and the *story* with phases, flows
//! and findings (linear).
//! Invariants: the page needs nothing but itself: no script, no font, no request; all text from
//! outside is escaped (maud does that); what did not pass is open, what passed can be opened. Of repetitions that
//! passed only the first is drawn, or a page of a hundred trials would be too heavy to open: a full run stays under
//! 400 kB.
//! Left out: anything that would need a program in the page.

mod incidents;
mod race;
mod story;
mod svg;
mod table;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::event::Outcome;
use crate::incident::{self, Incident};
use crate::stages;
use crate::statistics::{self, Group};
use crate::summary::{RunSummary, TrialSummary};
use crate::times;
use crate::units;
use crate::words::{self, Tone};

const STYLE: &str = include_str!("html/style.css");

/// The whole page.
#[must_use]
pub fn html(run: &RunSummary) -> String {
    let id = run.run.as_ref().map_or("unknown run", |run| run.run_id.as_str());
    let backends = run.backends();
    let parts: Vec<(&str, Vec<Incident<'_>>)> =
        backends.iter().map(|backend| (*backend, incident::incidents(run, backend))).collect();
    let only = parts.iter().map(|(_, incidents)| incidents.len()).sum::<usize>() == 1;
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'";
                title { "relapse " (id) ": " (run.outcome().name()) }
                style { (PreEscaped(STYLE)) }
            }
            body { main {
                (hero(run))
                @for (backend, incidents) in &parts {
                    h2 { "Incidents" @if parts.len() > 1 { " " (words::on(backend)) } }
                    div.card.scroll { (incidents::matrix(run, incidents)) }
                }
                @for table in [times::compared(run), times::by_run(run)].into_iter().flatten() {
                    h2 { (words::capital(table.title.as_deref().unwrap_or_default())) }
                    div.card.scroll { (table::table(&table)) }
                }
                @if let Some(table) = times::times(run).filter(|_| run.is_repeated()) {
                    h2 { "Times over repetitions" }
                    div.card.scroll {
                        (table::table(&table))
                        ul.remarks {
                            @for (_, name, came_out) in statistics::repetitions(run) { li { (name) ": " (came_out) } }
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
            } }
        }
    };
    // No control character is allowed in a page, and none means anything here.
    page.into_string().replace(char::is_control, " ") + "\n"
}

/// An outcome as a round label.
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

/// Cards of all repetitions that have something to tell.
fn trials(run: &RunSummary, group: &Group<'_>, incident: &Incident<'_>) -> Markup {
    let passed = |trial: &TrialSummary| trial.outcome() == Outcome::Pass;
    let first = group.trials.iter().position(|trial| passed(trial));
    let alike = group.passed().saturating_sub(1);
    // An incident of one variant has nothing to choose from.
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
    // On paper, where nothing can be opened, twins that passed stay a line.
    let class = if trial.is_control() && outcome == Outcome::Pass { "trial twin" } else { "trial" };
    html! {
        details class=(class) open[open] {
            summary {
                // First, so that it stays on the first line.
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
        @if let Some(race) = race::race(trial) {
            @let from = if trial.is_chain() { "each from its own injection or healing" } else { "from t0" };
            p.caption { "The race: " (from) ", logarithmic; the tick is the deadline" }
            (race)
        }
        (verdicts(trial))
        @if let Some(story) = story::story(trial) {
            p.caption { "The story: seconds from t0; shaded while in force" }
            (story)
        }
        (happened(trial))
    }
}

fn facts(trial: &TrialSummary) -> Markup {
    let injected = trial.injected.iter().map(|made| html! { b { (made.what) } " → " (made.read_back) });
    let mut facts: Vec<Markup> = injected.collect();
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
    let shown = trial.telling();
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
                            @if let Some(felt) = trial.felt(decided) { br; span.lead { (felt) } }
                        }
                        td { (units::limit(expected.within)) }
                        td { span.evidence { (trial.evidence(decided).unwrap_or_default()) } }
                    }
                } }
            }
        }
    }
}

/// Effects and remarks: what was seen besides verdicts.
fn happened(trial: &TrialSummary) -> Markup {
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
    fn text_from_outside_is_escaped() {
        let mut events = sample::run();
        let evil = "<img onerror='x'> \"quoted\" \u{1b}[31m";
        for RunEvent { what, .. } in &mut events {
            if let What::Trial { event, trial } = what {
                match event {
                    TrialEvent::Finding(said) => evil.clone_into(&mut said.finding.evidence),
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
