//! A summary in GitHub-flavoured Markdown, for the page of a CI job.
//!
//! Job: outcome and counts, failures first with their evidence, the matrix, times to detect, what
//! was skipped and why. Invariant: text from outside (evidence, reasons) never becomes markup: every
//! character that could is escaped, newlines are gone. Left out: timelines; the HTML report has them.

use crate::compare;
use crate::event::Outcome;
use crate::marks;
use crate::parts::{self, Part};
use crate::statistics;
use crate::summary::{RunSummary, TrialSummary};
use crate::units;
use crate::words::{self, Tone};

/// The whole summary.
#[must_use]
pub fn markdown(run: &RunSummary) -> String {
    let outcome = run.outcome();
    let mut text = format!("# {} relapse: {}\n\n", sign(outcome), outcome.name());
    text.push_str(&format!("{}\n\n", escape(&run.headline())));
    let on = run.on().map(|on| format!(" {}", escape(&on))).unwrap_or_default();
    if let Some(run) = &run.run {
        let user = if run.root { "root" } else { "ordinary user" };
        let writes = if run.host_writes { "allowed" } else { "not allowed" };
        text.push_str(&format!(
            "Run `{}`{on} of {}, relapse {}, kernel {}, {user}, host writes {writes}.\n\n",
            run.run_id.replace('`', "'"),
            escape(&run.started),
            escape(&run.version),
            escape(&run.kernel)
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
        parts::parts(run).iter().for_each(|part| matrix_table(part, &mut text));
    }
    if let Some(compared) = compare::compared(run) {
        text.push_str(&format!("## {}\n\n", escape(&words::capital(&compared.title))));
        let header: Vec<&str> = compared.header.iter().map(String::as_str).collect();
        table(&mut text, &header, &compared.rows);
    }
    let (header, rows) = statistics::times_table(run);
    if !rows.is_empty() {
        text.push_str("## Time to detect\n\n");
        table(&mut text, &header, &rows);
    }
    if run.is_repeated() {
        let groups = statistics::groups(run);
        let rows: Vec<Vec<String>> =
            groups.iter().map(|group| vec![escape(&run.name(group.first())), statistics::flakes(group)]).collect();
        table(&mut text, &["trial", "repetitions"], &rows);
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

/// Worst first, each with what a person needs to begin with.
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
        for remark in trial.remarks() {
            text.push_str(&format!("- {}\n", escape(&remark)));
        }
        let rows: Vec<Vec<String>> = trial.telling().into_iter().map(|d| row(trial, d)).collect();
        text.push('\n');
        if !rows.is_empty() {
            table(text, &["", "detector", "level", "about", "verdict", "deadline", "evidence"], &rows);
        }
    }
}

fn row(trial: &TrialSummary, decided: &crate::event::Decided) -> Vec<String> {
    let expected = &decided.expectation;
    let verdict = words::sentence(decided);
    let felt = trial.felt(&decided.verdict).map(|lead| format!(", {lead}")).unwrap_or_default();
    vec![
        words::sign(&decided.verdict).to_string(),
        escape(&expected.detector),
        words::level(expected.level).to_owned(),
        escape(&trial.about(decided)),
        escape(&format!("{verdict}{felt}")),
        escape(&units::limit(expected.within)),
        trial.evidence(decided).map(|text| escape(&text)).unwrap_or_default(),
    ]
}

fn matrix_table(part: &Part<'_>, text: &mut String) {
    let Part { on, columns, speakers, silent } = part;
    let on = on.as_ref().map(|on| format!(" {}", escape(on))).unwrap_or_default();
    text.push_str(&format!("## Matrix{on}\n\n"));
    let mut header = vec!["detector".to_owned()];
    header.extend(columns.iter().map(|column| {
        let trial = column.incident.first();
        format!("{}<br>{}", escape(&trial.info.incident), escape(&trial.info.trial.scenario))
    }));
    let mut outcomes = vec!["*outcome*".to_owned()];
    outcomes.extend(columns.iter().map(|column| {
        let outcome = column.incident.outcome();
        format!("{} {}", sign(outcome), outcome.name())
    }));
    let mut rows = vec![outcomes];
    for detector in speakers {
        let mut row = vec![escape(detector)];
        row.extend(columns.iter().map(|column| {
            let marks = column.marks(detector);
            if marks.is_empty() {
                return if column.incident.ran() > 0 { "·" } else { "" }.to_owned();
            }
            let strong = marks::worst(&marks) >= Tone::Bad;
            let all: Vec<String> = marks.iter().map(|mark| escape(&mark.text)).collect();
            let all = all.join("<br>");
            if strong { format!("**{all}**") } else { all }
        }));
        rows.push(row);
    }
    let mut controls = vec!["*controls*".to_owned()];
    controls.extend(columns.iter().map(|column| column.controls_text().0));
    rows.push(controls);
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    table(text, &header, &rows);
    if !silent.is_empty() {
        text.push_str(&format!("Silent throughout: {}.\n\n", escape(&silent.join(", "))));
    }
}

/// Cells must be escaped already.
fn table(text: &mut String, header: &[&str], rows: &[Vec<String>]) {
    text.push_str(&format!("| {} |\n|{}\n", header.join(" | "), " --- |".repeat(header.len())));
    for row in rows {
        text.push_str(&format!("| {} |\n", row.join(" | ")));
    }
    text.push('\n');
}

/// Text as text: nothing in it is markup, and it stays on one line.
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
            // No mention of users that an address in evidence happens to spell.
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
    fn summary_of_repetitions() {
        insta::assert_snapshot!(markdown(&RunSummary::of(&sample::repeated())));
    }

    #[test]
    fn summary_of_two_backends() {
        insta::assert_snapshot!(markdown(&RunSummary::of(&sample::on_both())));
    }

    #[test]
    fn summary_of_two_backends_repeated() {
        insta::assert_snapshot!(markdown(&RunSummary::of(&sample::on_both_repeated())));
    }

    /// Of a run on kind alone one line differs: the one that says so.
    #[test]
    fn kind_is_said_once() {
        let lab = markdown(&RunSummary::of(&sample::in_the_lab()));
        let kind = markdown(&RunSummary::of(&sample::on_kind()));
        assert_eq!(kind, lab.replace("7f3a` of", "7f3a` on kind of"));
        assert_ne!(kind, lab);
    }

    #[test]
    fn evidence_is_never_markup() {
        assert_eq!(escape("a | b\n<img> *x* `y` @z"), "a &#124; b &lt;img&gt; \\*x\\* \\`y\\` &#64;z");
    }

    #[test]
    fn every_row_of_a_table_has_the_cells_of_its_header() {
        let mut cells = 0;
        let texts = [sample::run(), sample::on_both()].map(|events| markdown(&RunSummary::of(&events)));
        for line in texts.iter().flat_map(|text| text.lines()) {
            let here = line.matches('|').count();
            if here > 0 {
                assert!(cells == 0 || cells == here, "{line}");
                cells = here;
            } else {
                cells = 0;
            }
        }
    }
}
