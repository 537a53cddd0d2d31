//! What a matrix holds, before it is drawn.
//!
//! Job: a part for each backend, and in it a column for each incident with its controls: one cell
//! never mixes what was seen on two backends. A control has no cells of its own here: what a detector
//! did wrong in it stands in the cell of its incident. Invariant: the same in all reports. Left out:
//! tables.

use crate::event::Outcome;
use crate::marks::{self, Mark};
use crate::statistics::{self, Group};
use crate::summary::RunSummary;
use crate::words::{self, Tone};

/// The matrix of one backend.
#[derive(Debug, Clone)]
pub struct Part<'a> {
    /// "on kind"; only where the run has several parts.
    pub on: Option<String>,
    pub columns: Vec<Column<'a>>,
    /// Detectors with a word to say in any column.
    pub speakers: Vec<&'a str>,
    /// Those without, unless nothing ran: silence is something only a trial that ran can show.
    pub silent: Vec<&'a str>,
}

/// An incident on a backend, with its controls.
#[derive(Debug, Clone)]
pub struct Column<'a> {
    pub incident: Group<'a>,
    pub controls: Vec<Group<'a>>,
}

impl Column<'_> {
    /// What `detector` did here: in the incident, and wrongly in a control.
    #[must_use]
    pub fn marks(&self, detector: &str) -> Vec<Mark> {
        let mut all = marks::marks(&self.incident, detector);
        for control in &self.controls {
            all.extend(marks::wrong(control, detector).into_iter().map(|mark| {
                let name = control.first().info.trial.control.clone().unwrap_or_default();
                Mark { detail: format!("control {name}: {}", mark.detail), ..mark }
            }));
        }
        marks::once(all)
    }

    /// "2 silent", "1/2 silent": how its controls came out.
    #[must_use]
    pub fn controls_text(&self) -> (String, Tone) {
        let outcomes: Vec<Outcome> = self.controls.iter().map(Group::outcome).collect();
        let Some(worst) = outcomes.iter().max().copied() else {
            return ("none".to_owned(), Tone::Muted);
        };
        let silent = outcomes.iter().filter(|outcome| **outcome == Outcome::Pass).count();
        match worst {
            Outcome::Pass => (format!("{silent} silent"), Tone::Good),
            Outcome::Skipped if silent == 0 => ("skipped".to_owned(), Tone::Skipped),
            _ => (format!("{silent}/{} silent", outcomes.len()), words::outcome_tone(worst)),
        }
    }

    fn ran(&self) -> bool {
        self.incident.ran() > 0 || self.controls.iter().any(|control| control.ran() > 0)
    }
}

/// The parts of a run, one a backend.
#[must_use]
pub fn parts(run: &RunSummary) -> Vec<Part<'_>> {
    let backends = run.backends();
    let several = backends.len() > 1;
    let part = |backend: &str| {
        let columns = columns(run, backend);
        let (speakers, mut silent) = speakers(run.detectors(), &columns);
        if !columns.iter().any(Column::ran) {
            silent.clear();
        }
        Part { on: several.then(|| words::on(backend)), columns, speakers, silent }
    };
    backends.into_iter().map(part).collect()
}

/// Each incident with the controls that belong to it.
fn columns<'a>(run: &'a RunSummary, backend: &str) -> Vec<Column<'a>> {
    let mut columns: Vec<Column<'a>> = Vec::new();
    let here = statistics::groups(run).into_iter().filter(|group| group.first().info.trial.backend == backend);
    let (incidents, controls): (Vec<_>, Vec<_>) = here.partition(|group| !group.first().is_control());
    columns.extend(incidents.into_iter().map(|incident| Column { incident, controls: Vec::new() }));
    for control in controls {
        let scenario = &control.first().info.trial.scenario;
        match columns.iter_mut().find(|column| column.incident.first().info.trial.scenario == *scenario) {
            Some(column) => column.controls.push(control),
            // Only controls were asked for: one of them stands in its incident's place.
            None => columns.push(Column { incident: control, controls: Vec::new() }),
        }
    }
    columns
}

/// Of these detectors, those with a word to say in any of these columns, and those without.
#[must_use]
pub fn speakers<'a>(detectors: Vec<&'a str>, columns: &[Column<'_>]) -> (Vec<&'a str>, Vec<&'a str>) {
    detectors.into_iter().partition(|detector| columns.iter().any(|c| !c.marks(detector).is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    fn texts(column: &Column<'_>, detector: &str) -> Vec<String> {
        column.marks(detector).into_iter().map(|mark| mark.text).collect()
    }

    #[test]
    fn no_cell_mixes_backends() {
        let run = RunSummary::of(&sample::on_both());
        let parts = parts(&run);
        let on: Vec<_> = parts.iter().map(|part| part.on.as_deref()).collect();
        assert_eq!(on, [Some("in the lab"), Some("on kind")]);
        for part in &parts {
            let scenarios: Vec<_> = part.columns.iter().map(|c| &c.incident.first().info.trial.scenario).collect();
            assert_eq!(scenarios, ["policy-route-lost", "coredns-single-replica-loss", "conntrack-cap-reset"]);
        }
        assert_eq!(texts(&parts[0].columns[0], "wrong-nic"), ["1.02 s"]);
        assert_eq!(texts(&parts[1].columns[0], "wrong-nic"), ["573 ms"]);
    }

    /// A control that proved nothing stands in the row of the controls, and nowhere else.
    #[test]
    fn a_control_without_proof_says_nothing_of_a_detector() {
        for events in [sample::without_proof(), sample::without_proof_repeated()] {
            let run = RunSummary::of(&events);
            let column = &parts(&run)[0].columns[0];
            assert_eq!(column.incident.outcome(), Outcome::Pass);
            assert_eq!(texts(column, "conntrack-limit"), ["3.1 ms"]);
            assert_eq!(texts(column, "pod-nic"), Vec::<String>::new());
            // What could not see is another thing, and a false alarm is one in any control.
            assert_eq!(texts(column, "dns-failing").len(), 1, "{:?}", texts(column, "dns-failing"));
            assert!(texts(column, "dns-failing")[0].contains("blind"));
            assert_eq!(texts(column, "wrong-nic").len(), 1);
            assert!(texts(column, "wrong-nic")[0].to_lowercase().contains("false alarm"));
            assert_eq!(column.controls_text(), ("0/3 silent".to_owned(), Tone::Unsure));
        }
    }

    /// Two expectations of one detector, and none of them decided.
    #[test]
    fn undecided_is_said_once() {
        let run = RunSummary::of(&sample::aborted());
        let column = &parts(&run)[0].columns[0];
        assert_eq!(texts(column, "policy-route"), ["undecided"]);
        let details = &column.marks("policy-route")[0].detail;
        assert_eq!(details.matches("no steady state").count(), 2, "{details}");
        assert_eq!(texts(column, "pod-nic"), Vec::<String>::new());
    }

    #[test]
    fn what_was_skipped_is_not_silent() {
        let mut run = RunSummary::of(&sample::run());
        run.trials.retain(|trial| trial.outcome() == Outcome::Skipped);
        let parts = parts(&run);
        assert_eq!((parts[0].columns.len(), parts[0].silent.len()), (1, 0));
    }
}
