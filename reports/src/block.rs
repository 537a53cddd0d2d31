//! A finished trial in a few lines of text.
//!
//! Job: a head line, the timeline from t0 to the last detection, a line per verdict, in a chain stage by stage, and the
//! reasons if it did not pass.
//! Invariants: the same lines with and without colour; a page without a width loses nothing, a narrow one only evidence
//! of passed verdicts. Left out: where lines are written.

use crate::databases;
use crate::event::{Decided, Outcome, Verdict};
use crate::paint::{self, Line, Page};
use crate::stages::Stage;
use crate::summary::{RunSummary, TrialSummary};
use crate::triage;
use crate::units::span;
use crate::words::{self, Tone};

const INDENT: usize = 6;
/// Columns of how long a trial took and whether its control was silent.
const TOOK: usize = 19;
/// Width of the gauge that shows the used share of a deadline.
const GAUGE: usize = 8;
/// Width of the longest level name, plus a gap.
const LEVEL: usize = 9;
/// Minimum room for evidence on a line.
const LEAST_EVIDENCE: usize = 24;

/// The lines of one trial.
#[must_use]
pub fn lines(run: &RunSummary, trial: &TrialSummary, page: Page) -> Vec<String> {
    let head = head(run, trial, page);
    if trial.outcome() == Outcome::Skipped {
        let reason = words::one_line(&trial.reasons().join("; "));
        if paint::columns(&reason) + 2 <= head.room() {
            return vec![head.cell(Some(Tone::Skipped), &format!("  {reason}"), 0).end()];
        }
        let mut lines = vec![head.end()];
        lines.extend(long(page, Tone::Skipped, INDENT, &reason));
        return lines;
    }
    let mut lines = vec![head.end()];
    let stages = trial.stages();
    if stages.is_empty() {
        let shown = trial.shown_verdicts();
        lines.extend(timeline(trial, &shown, page));
        lines.extend(verdicts(trial, &shown, page).into_iter().flatten());
    } else {
        lines.extend(chain(trial, &stages, page));
    }
    for decided in triage::shown(trial) {
        let Some((tone, heading)) = triage::heading(decided) else { continue };
        lines.extend(long(page, tone, INDENT, &heading));
        let steps = decided.found.iter().flat_map(triage::lines);
        lines.extend(steps.flat_map(|(tone, text)| long(page, tone, INDENT + 2, &text)));
    }
    lines.extend(databases(trial, page));
    if !trial.is_control() {
        let seen = trial.seen().join("; ");
        lines.extend((!seen.is_empty()).then(|| long(page, Tone::Muted, INDENT, &seen)).into_iter().flatten());
    }
    let outcome = trial.outcome();
    if outcome != Outcome::Pass {
        let tone = words::outcome_tone(outcome);
        for reason in trial.reasons() {
            lines.extend(long(page, tone, INDENT, &format!("because {reason}")));
        }
    }
    for remark in trial.remarks() {
        lines.extend(long(page, Tone::Note, INDENT, &remark));
    }
    lines
}

/// One line for a passed trial, with its times and remarks; all lines for any other trial.
#[must_use]
pub fn brief(run: &RunSummary, trial: &TrialSummary, page: Page) -> Vec<String> {
    if trial.outcome() != Outcome::Pass {
        return lines(run, trial, page);
    }
    let mut line = head(run, trial, page);
    if !trial.is_control() {
        for decided in trial.shown_verdicts() {
            let text = format!("  {} {}", decided.expectation.detector, words::short(decided));
            if paint::columns(&text) <= line.room() {
                line = line.cell(Some(Tone::Muted), &text, 0);
            }
        }
    }
    let mut lines = vec![line.end()];
    for remark in trial.own_remarks() {
        lines.extend(long(page, Tone::Note, INDENT, &remark));
    }
    lines
}

fn head(run: &RunSummary, trial: &TrialSummary, page: Page) -> Line {
    let outcome = trial.outcome();
    // Trial names share one column, unless the page is too narrow for it.
    let longest = run.trials.iter().map(|trial| paint::columns(&run.label(trial))).max().unwrap_or(0);
    // Names that end with their backend are slightly longer.
    let most = if run.backends().len() > 1 { 80 } else { 64 };
    let column = page.width.map_or(longest, |width| longest.min(width / 2)).min(most);
    let label = format!("{:<4}  ", words::label(outcome));
    // A long label takes its room from the name, so that times stay aligned.
    let column = column.saturating_sub(paint::columns(&label) - 6);
    let mut name = paint::wrap(&run.label(trial), page.width.map_or(usize::MAX, |width| width - INDENT)).into_iter();
    let mut line = Line::new(page, 0).label(words::outcome_tone(outcome), &label);
    line = line.cell(None, &name.next().unwrap_or_default(), column);
    for rest in name {
        line = line.below(INDENT).cell(None, &rest, 0);
    }
    if outcome == Outcome::Skipped {
        return line;
    }
    let took = trial.took().map_or_else(|| "not finished".to_owned(), span);
    if line.room() < TOOK {
        line = line.below(INDENT);
    }
    line = line.cell(Some(Tone::Muted), &format!("  {took:>8}"), 0);
    if trial.is_control() && !trial.verdicts.is_empty() && trial.verdicts.iter().all(|d| d.verdict == Verdict::Silent) {
        line = line.cell(Some(Tone::Good), "   silent", 0);
        let mut below: Vec<&str> = trial.findings.iter().map(|f| f.finding.detector.as_str()).collect();
        below.dedup();
        if !below.is_empty() {
            let text = format!("  (below warning: {})", below.join(", "));
            let room = line.room();
            line = line.cell(Some(Tone::Muted), &paint::cut(&text, room), 0);
        }
    }
    line
}

/// Each stage: what users see, new findings, standing and cleared ones.
fn chain(trial: &TrialSummary, stages: &[Stage<'_>], page: Page) -> Vec<String> {
    let all: Vec<&Decided> = stages.iter().flat_map(|stage| stage.verdicts.iter().copied()).collect();
    let mut rows = verdicts(trial, &all, page).into_iter();
    let mut lines = Vec::new();
    for stage in stages {
        lines.push(format!("{}{}", " ".repeat(INDENT), page.strong(&stage.name())));
        let also = |what: &str, text: String| {
            let text = if text.is_empty() {
                Vec::new()
            } else {
                long(page, Tone::Muted, INDENT + 2, &format!("{what}: {text}"))
            };
            text.into_iter()
        };
        lines.extend(also("users see", stage.seen()));
        if stage.healed.is_none() {
            lines.extend(timeline(trial, &stage.verdicts, page));
        }
        lines.extend(rows.by_ref().take(stage.verdicts.len()).flatten());
        lines.extend(also("standing", stage.standing()));
        lines.extend(also("cleared", stage.clearing()));
    }
    lines
}

/// What databases reported about themselves, for comparison.
fn databases(trial: &TrialSummary, page: Page) -> Vec<String> {
    let rows = databases::rows(trial);
    let report = rows.iter().map(|row| paint::columns(row.report)).max().unwrap_or(0);
    let mut lines = Vec::new();
    let mut server = None;
    for row in rows {
        if server.replace(row.server) != Some(row.server) {
            let title = format!("{} about itself, not judged:", row.server);
            lines.extend(long(page, Tone::Muted, INDENT, &title));
        }
        let line = Line::new(page, INDENT + 2).cell(None, row.report, report);
        lines.push(line.cell(Some(Tone::Muted), &format!("  {}", row.shown), 0).end());
    }
    lines
}

/// "t0 ─0.4 ms─ in force ──12 ms── first effect": events in order, with the time between them.
fn timeline(trial: &TrialSummary, shown: &[&Decided], page: Page) -> Option<String> {
    let t0 = trial.t0()?;
    if trial.is_control() {
        return None;
    }
    let mut stops = vec![(t0, "t0".to_owned(), None)];
    stops.extend(trial.t1().map(|t1| (t1, "in force".to_owned(), None)));
    stops.extend(trial.t2().map(|t2| (t2, "first effect".to_owned(), Some(Tone::Unsure))));
    let visible = trial.visible.iter().filter(|seen| !seen.healing).map(|seen| seen.at).min();
    stops.extend(visible.map(|at| (at, "visible".to_owned(), None)));
    for decided in shown {
        if let Verdict::Detected { after } | Verdict::Late { after } = decided.verdict
            && !after.is_zero()
        {
            let tone = words::verdict_tone(&decided.verdict);
            stops.push((decided.from.unwrap_or(t0) + after, format!("◆ {}", decided.expectation.detector), Some(tone)));
        }
    }
    stops.sort_by_key(|stop| stop.0);
    let draw = |named: bool| {
        let mut line = Line::new(page, INDENT);
        let mut before = t0;
        for (n, (at, name, tone)) in stops.iter().enumerate() {
            if n > 0 {
                let gap = at.since(before);
                let dash = "─".repeat(dashes(gap.as_secs_f64()));
                line = line.cell(Some(Tone::Muted), &format!(" {dash} {} {dash} ", span(gap)), 0);
            }
            let name = if !named && name.starts_with('◆') { "◆" } else { name.as_str() };
            line = line.cell(*tone, name, 0);
            before = *at;
        }
        line
    };
    let named = draw(true);
    // Without names, order and distances remain; the rows below have the names.
    Some(if named.room() > 0 { named.end() } else { draw(false).end() })
}

/// Longer gaps get more dashes: one more for each factor of ten above 1 ms.
fn dashes(seconds: f64) -> usize {
    match seconds {
        s if s < 0.001 => 1,
        s if s < 0.01 => 2,
        s if s < 0.1 => 3,
        s if s < 1.0 => 4,
        _ => 5,
    }
}

/// The cells of a row without its sign and evidence.
type Cells = [(Option<Tone>, String); 7];
/// Cells that shrink or disappear on a narrow page.
const ABOUT: usize = 2;
const OF_DEADLINE: usize = 4;

fn cells(trial: &TrialSummary, decided: &Decided, terse: bool) -> Cells {
    let tone = Some(words::verdict_tone(&decided.verdict));
    let mut sentence = words::sentence(decided);
    let mut lead = trial.lead_text(decided).unwrap_or_default();
    if terse {
        // The tick at the start of the row already means "detected".
        sentence = sentence.replace("detected after", "after");
        lead = lead.replace(" first effect", "");
    }
    let within = words::deadline(&decided.expectation);
    let within = if within.is_empty() { within } else { format!("of {within}") };
    let timed = |text: String| if trial.is_control() { String::new() } else { text };
    [
        (tone.filter(|_| !decided.verdict.passes()), decided.expectation.detector.clone()),
        (Some(Tone::Muted), words::level(decided.expectation.level).to_owned()),
        (None, trial.about(decided)),
        (tone, sentence),
        (tone, timed(gauge(decided))),
        (Some(Tone::Muted), timed(within)),
        (Some(if lead.contains("before") { Tone::Good } else { Tone::Muted }), timed(lead)),
    ]
}

/// The width of each column, including the gap after it.
fn widths(rows: &[Cells]) -> [usize; 7] {
    std::array::from_fn(|n| match rows.iter().map(|row| paint::columns(&row[n].1)).max() {
        Some(0) | None => 0,
        Some(_) if n == 1 => LEVEL,
        Some(wide) => wide + if n == OF_DEADLINE { 1 } else { 2 },
    })
}

/// The lines of each verdict, aligned.
fn verdicts(trial: &TrialSummary, shown: &[&Decided], page: Page) -> Vec<Vec<String>> {
    let rows_of = |terse| shown.iter().map(|decided| cells(trial, decided, terse)).collect::<Vec<_>>();
    let mut rows = rows_of(false);
    let mut widths_now = widths(&rows);
    if let Some(width) = page.width {
        let too_wide = |widths: &[usize; 7]| INDENT + 2 + widths.iter().sum::<usize>() > width;
        // Cut first what other reports show in full.
        if too_wide(&widths_now) {
            rows = rows_of(true);
            widths_now = widths(&rows);
        }
        if too_wide(&widths_now) {
            widths_now[ABOUT] = widths_now[ABOUT].min(20);
        }
        if too_wide(&widths_now) {
            widths_now[OF_DEADLINE] = 0;
        }
    }
    let mut all = Vec::new();
    for (decided, mut cells) in shown.iter().zip(rows) {
        let mut lines = Vec::new();
        let sign = format!("{} ", words::sign(&decided.verdict));
        let mut line = Line::new(page, INDENT).cell(Some(words::verdict_tone(&decided.verdict)), &sign, 2);
        cells[ABOUT].1 = paint::cut(&cells[ABOUT].1, widths_now[ABOUT].saturating_sub(2));
        for ((tone, text), width) in cells.iter().zip(widths_now).filter(|(_, width)| *width > 0) {
            line = line.cell(*tone, text, width);
        }
        let evidence = trial.evidence(decided).map(|text| words::one_line(&text));
        match evidence {
            Some(text) if paint::columns(&text) <= line.room() => {
                lines.push(line.cell(Some(Tone::Muted), &text, 0).end());
            }
            // Failures keep all of their evidence, passes as much as fits.
            Some(text) if !decided.verdict.passes() => {
                lines.push(line.end());
                lines.extend(long(page, Tone::Muted, INDENT + 2, &text));
            }
            Some(text) if line.room() >= LEAST_EVIDENCE => {
                let room = line.room();
                lines.push(line.cell(Some(Tone::Muted), &paint::cut(&text, room), 0).end());
            }
            _ => lines.push(line.end()),
        }
        all.push(lines);
    }
    all
}

/// The used share of the deadline, in eighths of a cell.
fn gauge(decided: &Decided) -> String {
    const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    if decided.expectation.within.is_zero() {
        return String::new();
    }
    let after = match decided.verdict {
        Verdict::Detected { .. } => decided.since_visible().unwrap_or_default(),
        Verdict::Late { .. } => return format!("{}▶", "█".repeat(GAUGE - 1)),
        _ => return "·".repeat(GAUGE),
    };
    let within = decided.expectation.within.as_secs_f64().max(1e-9);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 64")]
    // At least one eighth, so that every detection is visible.
    let eighths = ((after.as_secs_f64() / within).clamp(0.0, 1.0) * 8.0 * GAUGE as f64).ceil().max(1.0) as usize;
    let bar = format!("{}{}", "█".repeat(eighths / 8), PARTS[eighths % 8]);
    let rest = GAUGE - paint::columns(&bar).min(GAUGE);
    format!("{bar}{}", "·".repeat(rest))
}

/// Wraps a text over several lines.
fn long(page: Page, tone: Tone, indent: usize, text: &str) -> Vec<String> {
    let text = words::one_line(text);
    let room = page.width.map_or(usize::MAX, |width| width.saturating_sub(indent).max(20));
    let parts = paint::wrap(&text, room);
    parts.iter().map(|part| Line::new(page, indent).cell(Some(tone), part, 0).end()).collect()
}
