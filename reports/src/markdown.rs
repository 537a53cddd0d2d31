//! A summary in GitHub-flavoured Markdown, for the page of a CI job.
//!
//! Job: outcome and counts, failures first with their evidence, the matrix, the stages of chains, times to detect, skipped
//! trials with reasons. Invariant: external text (evidence, reasons) never becomes markup: special characters are escaped
//! and newlines removed. Left out: timelines; the HTML report has them.

use crate::event::{Decided, Outcome};
use crate::statistics;
use crate::summary::{RunSummary, TrialSummary};
use crate::table::{self, Cell, Table};
use crate::units;
use crate::words::{self, Tone};
use crate::{databases, facts, late, matrix, stages, times, triage};

/// Renders the summary.
#[must_use]
pub fn markdown(run: &RunSummary) -> String {
    let outcome = run.outcome();
    let mut text = format!("# {} relapse: {}\n\n", sign(outcome), outcome.name());
    text.push_str(&format!("{}\n\n", escape(&run.headline())));
    let on = run.on().map(|on| format!(" {}", escape(&on))).unwrap_or_default();
    if let Some(run) = &run.run {
        text.push_str(&format!(
            "Run `{}`{on} of {}, relapse {}, kernel {}, {}, {}.\n\n",
            run.run_id.replace('`', "'"),
            escape(&run.started),
            escape(&run.version),
            escape(&run.kernel),
            words::user(run.root),
            words::host_writes(run.host_writes)
        ));
    }
    for notice in &run.notices {
        text.push_str(&format!("> {}\n", escape(notice)));
    }
    if !run.notices.is_empty() {
        text.push('\n');
    }
    failures(run, &mut text);
    if run.trials.len() > 1 {
        for part in matrix::folded(run) {
            let on = part.title.as_ref().map(|on| format!(" {}", escape(on))).unwrap_or_default();
            text.push_str(&format!("## Matrix{on}\n\n{}", table(&part)));
        }
    }
    if let Some(late) = late::table(run) {
        text.push_str(&format!("## Late and restarted detectors\n\n{}", table(&late)));
    }
    if let Some(table_of) = triage::table(run) {
        text.push_str(&format!("## Where to look\n\n{}", table(&table_of)));
        for trial in run.trials.iter().filter(|trial| trial.info.trial.repetition <= 1) {
            for decided in triage::shown(trial) {
                let Some((_, heading)) = triage::heading(decided) else { continue };
                text.push_str(&format!("{}: {}\n\n", escape(&run.label(trial)), escape(&heading)));
                for (_, line) in decided.found.iter().flat_map(triage::lines) {
                    text.push_str(&format!("- {}\n", escape(&line)));
                }
                text.push('\n');
            }
        }
    }
    for trial in &run.trials {
        if let Some(stages) = stages::table(trial) {
            text.push_str(&format!("## {}, stage by stage\n\n{}", escape(&run.label(trial)), table(&stages)));
        }
    }
    for titled in [facts::table(run), times::compared(run), times::by_run(run)].into_iter().flatten() {
        let title = words::capital(titled.title.as_deref().unwrap_or_default());
        text.push_str(&format!("## {}\n\n{}", escape(&title), table(&titled)));
    }
    if let Some(times) = times::times(run) {
        text.push_str(&format!("## Time to detect\n\n{}", table(&times)));
    }
    if let Some(databases) = databases::table(run) {
        text.push_str(&format!("## Databases about themselves\n\n{}", table(&databases)));
    }
    let repetitions = statistics::repetitions(run);
    if !repetitions.is_empty() {
        let rows = repetitions.into_iter().map(|(_, name, outcomes)| vec![Cell::Text(name), Cell::Text(outcomes)]);
        text.push_str(&table(&Table::of_times(&["trial", "repetitions"], rows.collect())));
    }
    let skipped: Vec<&TrialSummary> = run.trials.iter().filter(|t| t.outcome() == Outcome::Skipped).collect();
    if !skipped.is_empty() {
        text.push_str("## Skipped\n\n");
        for trial in skipped {
            text.push_str(&format!("- {}: {}\n", escape(&run.label(trial)), escape(&trial.reasons().join("; "))));
        }
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

const fn sign(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Pass => "✅",
        Outcome::Skipped => "⏭️",
        Outcome::Fail => "❌",
        Outcome::Inconclusive => "❔",
        Outcome::Dirty => "🧹",
        Outcome::InternalError => "💥",
    }
}

/// Trials that did not pass, worst first, with reasons and evidence.
fn failures(run: &RunSummary, text: &mut String) {
    let mut wrong: Vec<&TrialSummary> =
        run.trials.iter().filter(|t| !matches!(t.outcome(), Outcome::Pass | Outcome::Skipped)).collect();
    if wrong.is_empty() {
        return;
    }
    wrong.sort_by_key(|trial| std::cmp::Reverse(trial.outcome()));
    text.push_str("## Not passed\n\n");
    for trial in wrong {
        let outcome = trial.outcome();
        text.push_str(&format!("### {} {}: {}\n\n", sign(outcome), escape(&run.label(trial)), outcome.name()));
        for reason in trial.reasons() {
            text.push_str(&format!("- **{}**\n", escape(&reason)));
        }
        for remark in trial.remarks().into_iter().chain(trial.seen()) {
            text.push_str(&format!("- {}\n", escape(&remark)));
        }
        let rows: Vec<Vec<Cell<'_>>> = trial.shown_verdicts().into_iter().map(|d| row(trial, d)).collect();
        text.push('\n');
        if !rows.is_empty() {
            let head = ["", "detector", "level", "about", "verdict", "deadline", "evidence"];
            text.push_str(&table(&Table::of_times(&head, rows)));
        }
    }
}

fn row(trial: &TrialSummary, decided: &Decided) -> Vec<Cell<'static>> {
    let expected = &decided.expectation;
    let verdict = std::iter::once(words::sentence(decided)).chain(trial.lead_text(decided));
    vec![
        Cell::text(words::sign(&decided.verdict)),
        Cell::text(&expected.detector),
        Cell::text(words::level(expected.level)),
        Cell::Text(trial.about(decided)),
        Cell::Text(verdict.collect::<Vec<_>>().join(", ")),
        Cell::Text(words::deadline(expected)),
        Cell::Text(trial.evidence(decided).unwrap_or_default()),
    ]
}

/// A table and its note.
#[must_use]
pub fn table(table: &Table<'_>) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(table.head.iter().map(|name| lines(name.lines())).collect());
    text.push_str(&format!("|{}\n", " --- |".repeat(table.head.len())));
    text.extend(table.rows.iter().map(|row| line(row.iter().map(cell).collect())));
    text.extend(
        table.note.iter().flat_map(|note| note.lines()).map(|note| format!("\n{}.\n", escape(&words::capital(note)))),
    );
    text.push('\n');
    text
}

fn cell(cell: &Cell<'_>) -> String {
    match cell {
        Cell::Text(text) | Cell::Toned(_, text) => escape(text),
        Cell::Name(name) => format!("*{name}*"),
        Cell::Outcome(outcome) => format!("{} {}", sign(*outcome), outcome.name()),
        Cell::Trial(trial, outcome) => format!("{} {}", sign(*outcome), escape(&trial.name())),
        Cell::Series(times, _) => units::bars(times),
        Cell::Marks(marks) if marks.is_empty() => "·".to_owned(),
        Cell::Marks(marks) => {
            let all = lines(marks.iter().map(|mark| mark.text.as_str()));
            if table::worst(marks) >= Tone::Bad { format!("**{all}**") } else { all }
        }
    }
}

fn lines<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    lines.map(escape).collect::<Vec<_>>().join("<br>")
}

/// Escapes a text so that it contains no markup and stays on one line.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in words::one_line(text).chars() {
        match c {
            // A bare entity is safe inside tables, where a backslash before a pipe is not in all renderers.
            '|' => safe.push_str("&#124;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '~' | '#' => {
                safe.push('\\');
                safe.push(c);
            }
            // Evidence must not mention users.
            '@' => safe.push_str("&#64;"),
            c if c.is_control() => {}
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn summary_of_a_run() {
        insta::assert_snapshot!(markdown(&RunSummary::of(&sample::run())));
    }

    #[test]
    fn summary_of_a_chain() {
        insta::assert_snapshot!(markdown(&RunSummary::of(&sample::chain::chain())));
    }

    #[test]
    fn summary_of_a_fault_that_a_cache_hid() {
        insta::assert_snapshot!(markdown(&RunSummary::of(&sample::cached::cached(&[4_200, 1_800]))));
    }

    #[test]
    fn summary_of_two_backends_repeated() {
        insta::assert_snapshot!(markdown(&RunSummary::of(&sample::both(|_| true))));
    }

    #[test]
    fn summary_of_repetitions() {
        insta::assert_snapshot!(markdown(&RunSummary::of(&sample::both(|id| id.backend == "netns"))));
    }

    #[test]
    fn evidence_is_never_markup() {
        assert_eq!(escape("a | b\n<img> *x* `y` @z"), "a &#124; b &lt;img&gt; \\*x\\* \\`y\\` &#64;z");
    }
}
