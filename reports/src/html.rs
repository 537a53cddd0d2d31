//! One HTML page a run, for people.
//!
//! Job: headline, matrix, times, and for each trial its pictures: the *race* between detectors,
//! deadlines and users (logarithmic), and the *story* with phases, flows and findings (linear).
//! Invariants: the page needs nothing but itself: no script, no font, no request; all text from
//! outside is escaped; what did not pass is open, what passed can be opened. Of repetitions that
//! passed only the first is drawn, or a page of a hundred trials would be too heavy to open.
//! Left out: anything that would need a program in the page.

pub mod race;
pub mod story;
pub mod svg;
pub mod times;

use std::fmt::Write as _;

use crate::event::Outcome;
use crate::html::svg::escape;
use crate::marks::{self, Mark};
use crate::parts::{self, Part};
use crate::statistics::{self, Group};
use crate::summary::{RunSummary, TrialSummary};
use crate::units;
use crate::words::{self, Tone};

const STYLE: &str = include_str!("html/style.css");

/// The whole page.
#[must_use]
pub fn html(run: &RunSummary) -> String {
    let id = run.run.as_ref().map_or("unknown run", |run| run.run_id.as_str());
    let title = escape(&format!("relapse {id}: {}", run.outcome().name()));
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
         <title>{title}</title><style>{STYLE}</style></head><body><main>\n"
    );
    hero(run, &mut page);
    for part in parts::parts(run).iter().filter(|part| !part.columns.is_empty()) {
        matrix_table(part, &mut page);
    }
    page.push_str(&times::compared(run));
    page.push_str(&times::times(run));
    trials(run, &mut page);
    page.push_str("</main></body></html>\n");
    page
}

fn hero(run: &RunSummary, page: &mut String) {
    let outcome = run.outcome();
    let tone = words::outcome_tone(outcome).class();
    let headline = format!("{} in {}", units::count(run.trials.len(), "trial"), units::span(run.took()));
    let _ = write!(
        page,
        "<section class=\"card hero {tone}\"><div class=\"word\">{}</div><div><h1>{}</h1><div class=\"chips\">",
        words::label(outcome),
        escape(&headline)
    );
    for (outcome, n) in run.counts() {
        let tone = words::outcome_tone(outcome).class();
        let _ = write!(page, "<span class=\"chip {tone}-bg\">{n} {}</span>", outcome.name());
    }
    page.push_str("</div>");
    let on = run.on().map(|on| format!(" {}", escape(&on))).unwrap_or_default();
    if let Some(run) = &run.run {
        let user = if run.root { "root" } else { "ordinary user" };
        let writes = if run.host_writes { "allowed" } else { "not allowed" };
        let _ = write!(
            page,
            "<p class=\"facts\">run <b>{}</b>{on} · {} · relapse {} · kernel {} · {user} · host writes {writes}</p>",
            escape(&run.run_id),
            escape(&run.started),
            escape(&run.version),
            escape(&run.kernel)
        );
    }
    if run.ended.is_none() {
        page.push_str("<p class=\"facts\"><b>The run did not finish: its events break off.</b></p>");
    }
    for notice in &run.notices {
        let _ = write!(page, "<p class=\"facts\">note: {}</p>", escape(notice));
    }
    page.push_str("</div></section>\n");
}

fn matrix_table(part: &Part<'_>, page: &mut String) {
    let Part { on, columns, speakers, silent } = part;
    let on = on.as_ref().map(|on| format!(" {}", escape(on))).unwrap_or_default();
    let _ = write!(page, "<h2>Matrix{on}</h2><div class=\"card scroll\"><table class=\"matrix\">");
    page.push_str("<thead><tr><th class=\"corner\"><span>hover for evidence</span></th>");
    for detector in speakers {
        let _ = write!(page, "<th><span>{}</span></th>", escape(detector));
    }
    page.push_str("</tr></thead><tbody>");
    for column in columns {
        matrix_row(&column.incident, speakers, page);
        for control in &column.controls {
            matrix_row(control, speakers, page);
        }
    }
    page.push_str("</tbody></table>");
    if !silent.is_empty() {
        let _ = write!(page, "<p class=\"facts\">silent throughout: {}</p>", escape(&silent.join(", ")));
    }
    page.push_str("</div>\n");
}

/// A mark on two lines if it begins with a word: times must not break, columns must stay narrow.
fn narrow(text: &str) -> String {
    // Of "pre-existing" the hyphen stays on the first line.
    let hyphen = || text.find('-').map(|at| text.split_at(at + 1));
    match text.split_once(' ').or_else(hyphen) {
        Some((word, rest)) if word.chars().all(|c| c.is_alphabetic() || c == '-') => {
            format!("{}<br>{}", escape(word), escape(rest))
        }
        _ => escape(text),
    }
}

fn matrix_row(group: &Group<'_>, detectors: &[&str], page: &mut String) {
    let first = group.first();
    let id = &first.info.trial;
    let tone = words::outcome_tone(group.outcome()).class();
    let (class, name) = match &id.control {
        Some(control) => ("control", control.clone()),
        None => ("", first.name()),
    };
    let _ = write!(
        page,
        "<tr class=\"{class}\"><th title=\"{}\"><span class=\"badge {tone}-bg\">{}</span><a href=\"#{}\">{}</a></th>",
        escape(&first.info.title),
        words::label(group.outcome()),
        anchor(first),
        escape(&name)
    );
    if group.ran() == 0 {
        let reason = escape(&format!("skipped: {}", first.reasons().join("; ")));
        let _ = write!(page, "<td class=\"reason skipped-bg\" colspan=\"{}\">{reason}</td></tr>", detectors.len());
        return;
    }
    for detector in detectors {
        let marks = marks::marks(group, detector);
        let text: Vec<String> = marks.iter().map(|mark| narrow(&mark.text)).collect();
        let text = if text.is_empty() { "·".to_owned() } else { text.join("<br>") };
        let hover = |mark: &Mark| format!("{detector}: {}", mark.detail);
        let title = marks.iter().map(hover).collect::<Vec<_>>().join(" — ");
        let tone = marks::worst(&marks).class();
        let _ = write!(page, "<td class=\"{tone}-bg\" title=\"{}\">{text}</td>", escape(&title));
    }
    page.push_str("</tr>");
}

fn trials(run: &RunSummary, page: &mut String) {
    page.push_str("<h2>Trials</h2>\n");
    for group in statistics::groups(run) {
        let mut drawn = false;
        let mut passed_alike = 0;
        for trial in &group.trials {
            let passed = trial.outcome() == Outcome::Pass;
            if passed && drawn {
                passed_alike += 1;
                continue;
            }
            drawn |= passed;
            card(run, trial, page);
        }
        if passed_alike > 0 {
            let _ = write!(
                page,
                "<p class=\"facts\">{} of {} passed alike.</p>",
                units::count(passed_alike, "more repetition"),
                escape(&run.name(group.first()))
            );
        }
    }
}

fn anchor(trial: &TrialSummary) -> String {
    let id = &trial.info.trial;
    let text =
        format!("{}-{}-{}-{}", id.scenario, id.control.as_deref().unwrap_or("incident"), id.backend, id.repetition);
    text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}

fn card(run: &RunSummary, trial: &TrialSummary, page: &mut String) {
    let outcome = trial.outcome();
    let tone = words::outcome_tone(outcome).class();
    // An incident is worth a look even if all went well; a silent control is not.
    let open = if outcome == Outcome::Pass && trial.is_control() { "" } else { " open" };
    let took = trial.took().map_or_else(String::new, units::span);
    let _ = write!(
        page,
        "<details class=\"card\" id=\"{}\"{open}><summary><span class=\"badge {tone}-bg\">{}</span><h3>{}</h3> \
         <span class=\"soft\">{}</span><span class=\"right\">{took}</span></summary>",
        anchor(trial),
        words::label(outcome),
        escape(&run.label(trial)),
        escape(&trial.info.title)
    );
    facts(trial, page);
    let reasons = trial.reasons();
    if !reasons.is_empty() {
        let _ = write!(page, "<ul class=\"reasons {tone}-bg\">");
        for reason in reasons {
            let _ = write!(page, "<li>{}</li>", escape(&reason));
        }
        page.push_str("</ul>");
    }
    if let Some(race) = race::race(trial) {
        page.push_str("<p class=\"caption\">The race: from t0, logarithmic; the tick is the deadline</p>");
        page.push_str(&race);
    }
    verdicts(trial, page);
    if let Some(story) = story::story(trial) {
        page.push_str("<p class=\"caption\">The story: seconds from t0; shaded while in force</p>");
        page.push_str(&story);
    }
    happened(trial, page);
    page.push_str("</details>\n");
}

fn facts(trial: &TrialSummary, page: &mut String) {
    let mut facts = Vec::new();
    for injected in &trial.injected {
        facts.push(format!("<b>{}</b> → {}", escape(&injected.what), escape(&injected.read_back)));
    }
    if let Some(ended) = &trial.ended {
        facts.extend(ended.up.map(|up| format!("up in {}", units::span(up))));
        facts.extend(ended.down.map(|down| format!("gone in {}", units::span(down))));
        facts.extend(ended.peak_memory.map(|bytes| format!("at most {}", units::bytes(bytes))));
        facts.extend(ended.cpu.map(|cpu| format!("{} of processor time", units::span(cpu))));
    }
    if !facts.is_empty() {
        let _ = write!(page, "<p class=\"facts\">{}</p>", facts.join(" · "));
    }
}

fn verdicts(trial: &TrialSummary, page: &mut String) {
    let shown = trial.telling();
    if shown.is_empty() {
        return;
    }
    page.push_str("<div class=\"scroll\"><table><thead><tr><th>detector</th><th>level</th><th>about</th><th>verdict</th><th>deadline</th><th>evidence</th></tr></thead><tbody>");
    for decided in shown {
        let expected = &decided.expectation;
        let about = trial.about(decided);
        let outside = if expected.outside { " <span class=\"soft\">(outside)</span>" } else { "" };
        let lead = trial.felt(&decided.verdict);
        let lead = lead.map_or_else(String::new, |lead| format!("<br><span class=\"lead\">{}</span>", escape(&lead)));
        let _ = write!(
            page,
            "<tr><td>{}{outside}</td><td>{}</td><td>{}</td><td class=\"tone {}\">{} {}{lead}</td><td>{}</td>\
             <td><span class=\"evidence\">{}</span></td></tr>",
            escape(&expected.detector),
            words::level(expected.level),
            escape(&about),
            words::verdict_tone(&decided.verdict).class(),
            words::sign(&decided.verdict),
            escape(&words::sentence(decided)),
            escape(&units::limit(expected.within)),
            escape(&trial.evidence(decided).unwrap_or_default())
        );
    }
    page.push_str("</tbody></table></div>");
}

/// Effects and remarks: what was seen besides verdicts.
fn happened(trial: &TrialSummary, page: &mut String) {
    let effects = trial.effects.iter().map(|effect| {
        let tone = if effect.holds { Tone::Good } else { Tone::Unsure };
        let sign = if effect.holds { "✓" } else { "✗" };
        let text = escape(&format!("{sign} effect: {} ({})", effect.effect, effect.evidence));
        format!("<li class=\"{}\">{text}</li>", tone.class())
    });
    let remarks = trial.remarks().into_iter().map(|remark| format!("<li>{}</li>", escape(&remark)));
    let all: Vec<String> = effects.chain(remarks).collect();
    if !all.is_empty() {
        let _ = write!(page, "<ul class=\"remarks\">{}</ul>", all.join(""));
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
        assert!(page.contains("&lt;img onerror=&#39;x&#39;&gt;"));
    }

    #[test]
    fn every_trial_of_a_run_can_be_reached_from_the_matrix() {
        for events in [sample::run(), sample::on_both()] {
            let run = RunSummary::of(&events);
            let page = html(&run);
            for trial in &run.trials {
                assert_eq!(page.matches(&format!("href=\"#{}\"", anchor(trial))).count(), 1);
                assert_eq!(page.matches(&format!("id=\"{}\"", anchor(trial))).count(), 1);
            }
        }
    }

    #[test]
    fn two_backends_have_a_matrix_each_and_are_compared() {
        let page = html(&RunSummary::of(&sample::on_both()));
        for heading in ["Matrix in the lab", "Matrix on kind", "Lab and kind compared"] {
            assert_eq!(page.matches(&format!("<h2>{heading}</h2>")).count(), 1, "{heading}");
        }
        assert!(page.contains("<h3>I4 policy-route-lost on kind</h3>"));
        assert!(page.contains("<h3>I4 policy-route-lost in the lab</h3>"));
    }

    #[test]
    fn kind_is_said_once() {
        let page = html(&RunSummary::of(&sample::on_kind()));
        assert_eq!(page.matches("on kind").count(), 1);
        assert!(page.contains("7f3a</b> on kind · "));
        assert!(!page.contains("compared"));
    }

    #[test]
    fn every_prefix_of_a_run_makes_a_page() {
        let events = sample::run();
        for length in (0..events.len()).step_by(7) {
            assert!(html(&RunSummary::of(&events[..length])).ends_with("</html>\n"));
        }
    }
}
