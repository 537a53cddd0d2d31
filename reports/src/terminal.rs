//! Terminal output during a run.
//!
//! Job: prints each finished trial (one line if it passed, otherwise everything), shows running trials (on a terminal),
//! and ends with the matrix. Two modes: *live* draws one line per running trial below the finished ones; *plain*, for
//! pipes and CI logs, prints lines only, without control characters. Invariants: uses events alone; never fails and
//! never panics (a closed pipe must not end a run that has faults to heal).
//! Left out: files; see [`crate::folder`].

mod live;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IsTerminal, Write};
use std::path::Path;

use crate::block;
use crate::event::{Outcome, Phase, RunEvent, TrialEvent, What};
use crate::paint::{self, Page};
use crate::summary::{RunSummary, TrialSummary};
use crate::text;
use crate::units;
use crate::words::{self, Tone};
use live::Live;

/// How to show a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// On a terminal: running trials are drawn.
    Live { color: bool },
    /// Anywhere else: lines.
    Plain,
}

impl Mode {
    /// Detects the mode of standard output. A non-empty `NO_COLOR` turns off colours, not the live display.
    #[must_use]
    pub fn detect() -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        if !io::stdout().is_terminal() || dumb {
            return Self::Plain;
        }
        Self::Live { color: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) }
    }

    /// The current page: windows may be resized.
    #[must_use]
    pub fn page(self) -> Page {
        match self {
            Self::Plain => Page::PLAIN,
            Self::Live { color } => Page { color, width: Some(screen_width()) },
        }
    }
}

/// Shows a run as its events arrive.
pub struct Terminal {
    mode: Mode,
    out: Box<dyn Write + Send>,
    /// Show everything of every trial.
    verbose: bool,
    /// A column per scenario.
    wide: bool,
    run: RunSummary,
    /// The printed outcome, by index of the trial.
    printed: BTreeMap<usize, Outcome>,
    live: Option<Live>,
}

impl Terminal {
    /// Shows the run on standard output.
    #[must_use]
    pub fn new(mode: Mode) -> Self {
        Self::to(mode, Box::new(io::stdout()))
    }

    /// Shows the run on another writer; the live display still uses standard output.
    #[must_use]
    pub fn to(mode: Mode, out: Box<dyn Write + Send>) -> Self {
        let live = matches!(mode, Mode::Live { .. }).then(Live::new);
        Self { mode, out, verbose: false, wide: false, run: RunSummary::default(), printed: BTreeMap::new(), live }
    }

    /// Shows everything of every trial, which is the default for a single scenario.
    #[must_use]
    pub fn verbose(self, verbose: bool) -> Self {
        Self { verbose, ..self }
    }

    /// Uses a matrix column per scenario instead of per incident.
    #[must_use]
    pub fn wide(self, wide: bool) -> Self {
        Self { wide, ..self }
    }

    fn block(&self, trial: &TrialSummary) -> Vec<String> {
        let scenario = |trial: &TrialSummary| trial.info.trial.scenario.clone();
        let one = self.run.trials.iter().all(|other| scenario(other) == scenario(trial));
        let block = if self.verbose || one { block::lines } else { block::brief };
        block(&self.run, trial, self.page())
    }

    /// The run so far.
    #[must_use]
    pub const fn run(&self) -> &RunSummary {
        &self.run
    }

    fn page(&self) -> Page {
        self.mode.page()
    }

    pub fn on_event(&mut self, event: &RunEvent) {
        let place = self.run.push(event);
        match (&event.what, place) {
            (What::RunStarted(run), _) => {
                let on = self.run.on().map(|on| format!(" {on}")).unwrap_or_default();
                let trials = format!("{}{on}", units::count(run.trials.len(), "trial"));
                let detectors = units::count(run.detectors.len(), "detector");
                let user = words::user(run.root);
                let slower = match run.deadline_factor {
                    1.0 => String::new(),
                    factor => format!(", deadlines x {factor}"),
                };
                let line = format!("run {}: {trials}, {detectors}, kernel {}, {user}{slower}", run.run_id, run.kernel);
                self.print(&[self.page().paint(Tone::Muted, &line)]);
                if let Some(live) = &mut self.live {
                    live.expect(run.trials.len());
                }
            }
            (What::Notice { text }, _) => {
                self.print(&[self.page().paint(Tone::Note, &format!("note  {text}"))]);
            }
            (What::Trial { event, .. }, Some(place)) => self.on_trial(place, event),
            _ => {}
        }
    }

    fn on_trial(&mut self, place: usize, event: &TrialEvent) {
        let trial = &self.run.trials[place];
        match event {
            TrialEvent::Ended(_) | TrialEvent::Skipped { .. } => {
                let outcome = trial.outcome();
                // A skip may be followed by its end, which is printed only if the outcome differs.
                if self.printed.insert(place, outcome) != Some(outcome) {
                    let lines = self.block(trial);
                    self.print(&lines);
                }
                if let Some(live) = &mut self.live {
                    live.remove(place, self.printed.len(), &self.run);
                }
            }
            TrialEvent::Waiting { reason } if self.live.is_none() => {
                let line = format!("WAIT  {}  {}", self.run.label(trial), words::one_line(reason));
                self.print(&[line]);
            }
            TrialEvent::Flow(_)
            | TrialEvent::Database { .. }
            | TrialEvent::Triage(_)
            | TrialEvent::TriageDecided(_) => {}
            _ => {
                let page = self.page();
                if let Some(live) = &mut self.live {
                    live.show(place, live_label(&self.run, trial), running(trial, page));
                }
            }
        }
    }

    fn print(&mut self, lines: &[String]) {
        let mut write = || {
            for line in lines {
                // A closed pipe must not end the run.
                let _ = writeln!(self.out, "{line}");
            }
            let _ = self.out.flush();
        };
        match &self.live {
            Some(live) => live.all.suspend(write),
            None => write(),
        }
    }

    /// Ends the display: unfinished trials, the matrix, the headline, and the path of the report.
    pub fn finish(&mut self, folder: Option<&Path>) {
        if let Some(live) = self.live.take() {
            let _ = live.all.clear();
        }
        let page = self.page();
        for place in 0..self.run.trials.len() {
            if !self.printed.contains_key(&place) {
                let lines = self.block(&self.run.trials[place]);
                self.print(&lines);
            }
        }
        let lines = closing(&self.run, folder, self.wide, page);
        self.print(&lines);
    }
}

/// The lines below the trials: the matrix, the headline, and the path of the report.
#[must_use]
pub fn closing(run: &RunSummary, folder: Option<&Path>, wide: bool, page: Page) -> Vec<String> {
    let matrix = text::tables(run, wide, page);
    let mut lines = host_changes(run, page);
    if !matrix.is_empty() {
        lines.push(String::new());
        lines.extend(matrix.lines().map(str::to_owned));
    }
    let outcome = run.outcome();
    let label = page.label(words::outcome_tone(outcome), words::label(outcome));
    lines.extend([String::new(), format!("{label}  {}", page.strong(&run.headline()))]);
    if let Some(folder) = folder {
        lines.push(page.paint(Tone::Muted, &format!("      {}", folder.join("report.html").display())));
    }
    lines
}

/// Changes made to the machine by other processes during trials: distinct ones, and only the first few.
fn host_changes(run: &RunSummary, page: Page) -> Vec<String> {
    const SHOWN: usize = 3;
    let changes: BTreeSet<&str> = run.trials.iter().flat_map(|trial| &trial.host_changed).map(String::as_str).collect();
    if changes.is_empty() {
        return Vec::new();
    }
    let shown: Vec<&str> = changes.iter().copied().take(SHOWN).collect();
    let more = match changes.len().saturating_sub(SHOWN) {
        0 => String::new(),
        n => format!("; {n} more in the reports"),
    };
    let text = format!("note  other processes changed this machine during the run: {}{more}", shown.join("; "));
    vec![String::new(), page.paint(Tone::Note, &text)]
}

/// The label of a running trial, padded to a column. A long name is cut, its backend is not.
fn live_label(run: &RunSummary, trial: &TrialSummary) -> String {
    const WIDTH: usize = 36;
    let (name, label) = (trial.name(), run.label(trial));
    let end = label.strip_prefix(&name).unwrap_or_default();
    let name = paint::cut(&name, WIDTH.saturating_sub(paint::columns(end)));
    format!("{:<WIDTH$}", name + end)
}

/// The state of a running trial: its progress, and its expectations.
fn running(trial: &TrialSummary, page: Page) -> String {
    let Some(phase) = trial.phases.last().map(|span| span.phase) else {
        let waits = trial.waited.last().map(|reason| words::one_line(reason));
        return page.paint(Tone::Unsure, &waits.unwrap_or_default());
    };
    let tone = if matches!(phase, Phase::Inject | Phase::Detect) { Tone::Bad } else { Tone::Good };
    let done = Phase::ALL.iter().filter(|other| **other < phase).count();
    let mut text = page.paint(Tone::Good, &"━".repeat(done));
    text.push_str(&page.paint(tone, "╸"));
    text.push_str(&page.paint(Tone::Muted, &"─".repeat(Phase::ALL.len() - done - 1)));
    text.push_str(&page.paint(tone, &format!(" {:<8} ", phase.as_str())));
    let step = trial.phases.last().and_then(|span| span.step.as_ref());
    text.push_str(&page.paint(tone, &step.map(|step| format!("{step} ")).unwrap_or_default()));
    for expected in &trial.info.expectations {
        let decided = trial.verdicts.iter().find(|decided| decided.expectation == *expected);
        let (tone, part) = match decided {
            Some(d) => (
                words::verdict_tone(&d.verdict),
                format!(" {} {} {}", words::sign(&d.verdict), expected.detector, words::short(d)),
            ),
            None => (Tone::Muted, format!(" ◇ {}", expected.detector)),
        };
        text.push_str(&page.paint(tone, &part));
    }
    text
}

fn screen_width() -> usize {
    // The table library already queries the terminal.
    comfy_table::Table::new().width().map_or(100, usize::from).clamp(40, 200)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::sample;

    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("one writer").extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn shown(mode: Mode, events: &[RunEvent]) -> String {
        let paper = Paper::default();
        let mut terminal = Terminal::to(mode, Box::new(paper.clone()));
        for event in events {
            terminal.on_event(event);
        }
        terminal.finish(Some(Path::new("reports/runs/20261121-114200-7f3a")));
        let bytes = paper.0.lock().expect("one reader").clone();
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn plain_output() {
        let text = shown(Mode::Plain, &sample::run());
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "a control character");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn plain_output_of_chains() {
        let [chain, broken] = [sample::chain::chain(), sample::chain::broken()].map(|run| shown(Mode::Plain, &run));
        insta::assert_snapshot!(format!("{chain}\n{broken}"));
    }

    #[test]
    fn plain_output_of_a_fault_that_a_cache_hid() {
        insta::assert_snapshot!(shown(Mode::Plain, &sample::cached::cached(&[4_200])));
    }

    #[test]
    fn plain_output_of_two_backends() {
        insta::assert_snapshot!(shown(Mode::Plain, &sample::both(|id| id.repetition == 1)));
    }

    #[test]
    fn kind_is_reported_once_at_the_top() {
        let [lab, kind] = ["netns", "kind"].map(|backend| shown(Mode::Plain, &sample::alone(backend)));
        assert_eq!(kind, lab.replacen("trials,", "trials on kind,", 1));
    }

    #[test]
    fn the_name_of_a_running_trial_says_its_backend() {
        let run = RunSummary::of(&sample::both(|id| id.repetition == 1));
        let labels: Vec<String> = run.trials.iter().map(|trial| live_label(&run, trial)).collect();
        assert!(labels.contains(&"I4 policy-route-lost in the lab     ".to_owned()), "{labels:?}");
        assert!(labels.contains(&"I4 policy-route-lost / tabl… on kind".to_owned()), "{labels:?}");
    }

    #[test]
    fn a_killed_run_shows_what_did_not_finish() {
        let events = sample::run();
        let is_it = |event: &RunEvent| match &event.what {
            What::Trial { trial, event: TrialEvent::Phase { phase: Phase::Detect, .. } } => {
                trial.scenario == "snat-port-collision"
            }
            _ => false,
        };
        let cut = events.iter().position(is_it).expect("the event");
        let text = shown(Mode::Plain, &events[..=cut]);
        assert!(text.contains("INCONCLUSIVE  I7 snat-port-collision"), "{text}");
        assert!(text.contains("not finished: the events end in phase detect"), "{text}");
        assert!(text.contains("not finished: it was never started"), "{text}");
        assert!(text.contains("the run did not finish"), "{text}");
    }

    /// Tests have no terminal: nothing is drawn live, but every finished trial is printed, in colour.
    #[test]
    fn live_output_prints_finished_trials() {
        let text = shown(Mode::Live { color: true }, &sample::run());
        assert!(text.contains("\u{1b}["));
        assert!(text.contains("pmtu-blackhole"));
        let text = shown(Mode::Live { color: false }, &sample::run());
        assert!(!text.contains('\u{1b}'));
        assert!(text.lines().all(|line| paint::columns(line) <= screen_width()), "{text}");
    }

    #[test]
    fn a_closed_pipe_ends_nothing() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
        let mut terminal = Terminal::to(Mode::Plain, Box::new(Closed));
        for event in &sample::run() {
            terminal.on_event(event);
        }
        terminal.finish(None);
    }
}
