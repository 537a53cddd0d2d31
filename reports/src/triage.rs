//! Where to look: the six steps of triage, of a run as a table and of a trial as lines.
//!
//! Job: a row per incident, per stage of a chain and per twin whose users see something; of each step a mark, of the one
//! that explains what users see also its place. Left out: how both are drawn.

use relapse_detectors::triage::{STEPS, State, StepState, Triaged};

use crate::event::TriageDecided;
use crate::summary::{RunSummary, TrialSummary};
use crate::table::{Cell, Mark, Table};
use crate::units::span;
use crate::words::Tone;

/// The sign of a step.
const fn sign(state: State) -> (&'static str, Tone) {
    match state {
        State::InOrder => ("✓", Tone::Good),
        State::Faulty => ("✗", Tone::Unsure),
        State::NotOnThisWay => ("–", Tone::Muted),
        State::NotSeen => ("?", Tone::Note),
    }
}

/// The incidents of a run and where triage leads in each; `None` if it led nowhere.
#[must_use]
pub fn table(run: &RunSummary) -> Option<Table<'_>> {
    let shown = run.trials.iter().filter(|trial| trial.info.trial.repetition <= 1);
    let rows: Vec<Vec<Cell<'_>>> =
        shown.flat_map(|trial| trial.triage.iter().filter_map(|decided| row(run, trial, decided))).collect();
    if rows.is_empty() {
        return None;
    }
    let head = ["where to look", "1", "2", "3", "4", "5", "6", "first", "", "after"];
    let steps = STEPS.iter().enumerate().map(|(n, name)| format!("{} {name}", n + 1)).collect::<Vec<_>>().join(", ");
    let signs = "✓ in order, ✗ faulty, – not on this way, ? not seen";
    let note = format!(
        "{steps}\n{signs}; first: the first step that explains what users see, and its place; after: since the first complaint"
    );
    Some(Table { note: Some(note), ..Table::of_times(&head, rows) })
}

fn row<'a>(run: &RunSummary, trial: &TrialSummary, decided: &TriageDecided) -> Option<Vec<Cell<'a>>> {
    let triaged = decided.found.as_ref()?;
    if decided.expected.is_none() && decided.wrong.is_none() && triaged.verdict.first.is_none() {
        return None;
    }
    let stage = decided.step.as_ref().map(|step| format!(": {step}")).unwrap_or_default();
    let mut row = vec![Cell::Text(format!("{}{stage}", run.label(trial)))];
    row.extend(triaged.verdict.steps.iter().map(|step| Cell::Marks(vec![mark(triaged, step)])));
    let strong =
        |text: String, detail: &str| Cell::Marks(vec![Mark { text, tone: Tone::Bad, detail: detail.to_owned() }]);
    row.push(match (triaged.verdict.first, &triaged.verdict.at) {
        (Some(first), _) => strong(first.to_string(), &sentence(triaged)),
        _ => Cell::none(),
    });
    row.push(triaged.verdict.at.as_ref().map_or_else(Cell::none, |at| Cell::Text(at.to_string())));
    row.push(match (&decided.wrong, decided.after) {
        (Some(wrong), _) => strong("WRONG".to_owned(), wrong),
        (None, Some(after)) => Cell::Text(span(after)),
        (None, None) => Cell::none(),
    });
    Some(row)
}

fn mark(triaged: &Triaged, step: &StepState) -> Mark {
    let (sign, tone) = sign(step.state);
    let explains = triaged.verdict.first == Some(step.number);
    Mark { text: sign.to_owned(), tone: if explains { Tone::Bad } else { tone }, detail: step.evidence.clone() }
}

/// "step 6, hop by hop: path/192.168.40.0/24".
#[must_use]
pub fn sentence(triaged: &Triaged) -> String {
    let verdict = &triaged.verdict;
    let Some(first) = verdict.first else {
        return format!("no step explains what users of {} see", triaged.flow);
    };
    let name = STEPS.get(usize::from(first).wrapping_sub(1)).copied().unwrap_or_default();
    let at = verdict.at.as_ref().map(|at| format!(": {at}")).unwrap_or_default();
    let also = verdict.contributing.iter().map(|step| format!("step {step}")).collect::<Vec<_>>().join(", ");
    let also = if also.is_empty() { also } else { format!(" (also faulty: {also})") };
    format!("step {first}, {name}{at}{also}")
}

/// Each step with its evidence; the one that explains stands out.
#[must_use]
pub fn lines(triaged: &Triaged) -> Vec<(Tone, String)> {
    let line = |step: &StepState| {
        let (sign, tone) = sign(step.state);
        let tone = if triaged.verdict.first == Some(step.number) { Tone::Bad } else { tone };
        let name = STEPS.get(usize::from(step.number).wrapping_sub(1)).copied().unwrap_or_default();
        let at = step.at.as_ref().map(|at| format!("{at}: ")).unwrap_or_default();
        (tone, format!("{sign} {} {name:<14} {at}{}", step.number, step.evidence))
    };
    triaged.verdict.steps.iter().map(line).collect()
}

/// The heading of these lines: "where to look: step 2, ..., right 0.4 s after the first complaint".
#[must_use]
pub fn heading(decided: &TriageDecided) -> Option<(Tone, String)> {
    let triaged = decided.found.as_ref()?;
    let stage = decided.step.as_ref().map(|step| format!(" ({step})")).unwrap_or_default();
    let after = decided.after.map(|after| format!(", {} after the first complaint", span(after))).unwrap_or_default();
    let tone = match (&decided.wrong, triaged.verdict.first) {
        (Some(_), _) => Tone::Bad,
        (None, Some(_)) if decided.expected.is_some() => Tone::Good,
        (None, _) => Tone::Muted,
    };
    Some((tone, format!("where to look{stage}: {}{after}", sentence(triaged))))
}

/// What is shown of a trial: what was expected of triage, or what it found.
pub fn shown(trial: &TrialSummary) -> impl Iterator<Item = &TriageDecided> {
    let says = |decided: &&TriageDecided| {
        let found = decided.found.as_ref().is_some_and(|triaged| triaged.verdict.first.is_some());
        decided.expected.is_some() || decided.wrong.is_some() || found
    };
    trial.triage.iter().filter(says)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn a_row_for_each_stage() {
        let run = RunSummary::of(&sample::chain::chain());
        let table = table(&run).expect("a table");
        assert_eq!(table.rows.len(), 2);
        let text = |cell: &Cell<'_>| match cell {
            Cell::Text(text) => text.clone(),
            Cell::Marks(marks) => marks.iter().map(|mark| mark.text.clone()).collect(),
            other => format!("{other:?}"),
        };
        let row: Vec<String> = table.rows[0].iter().skip(1).map(text).collect();
        assert_eq!(row, ["✗", "✓", "✗", "?", "–", "✓", "3", "service/kube-dns", "31 ms"]);
        let heading = heading(&run.trials[0].triage[0]).expect("a heading").1;
        assert_eq!(
            heading,
            "where to look (dns): step 3, DNS: service/kube-dns (also faulty: step 1), 31 ms after the first complaint"
        );
    }

    #[test]
    fn what_users_do_not_see_has_no_row() {
        assert!(table(&RunSummary::of(&sample::run())).is_none());
    }
}
