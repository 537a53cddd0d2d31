//! The live display: a line per running trial, and one for the whole run.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::summary::{self, RunSummary, TrialSummary};

pub(super) struct Live {
    pub all: MultiProgress,
    bars: BTreeMap<usize, ProgressBar>,
    total: ProgressBar,
}

impl Live {
    pub fn new() -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stdout());
        let total = all.add(ProgressBar::new(0));
        total.set_style(style("      {bar:20.green/black.bright}  {pos} of {len}  {clock}  {msg}", "━╸─"));
        Self { all, bars: BTreeMap::new(), total }
    }

    pub fn expect(&mut self, trials: usize) {
        self.total.set_length(trials as u64);
        self.total.enable_steady_tick(Duration::from_millis(200));
    }

    pub fn show(&mut self, place: usize, label: String, text: String) {
        let bar = self.bars.entry(place).or_insert_with(|| {
            let bar = self.all.insert_before(&self.total, ProgressBar::new_spinner());
            bar.set_style(style("{spinner:.cyan}     {prefix} {clock:>7} {wide_msg}", ""));
            bar.set_prefix(label);
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        bar.set_message(text);
    }

    pub fn remove(&mut self, place: usize, printed: usize, run: &RunSummary) {
        if let Some(bar) = self.bars.remove(&place) {
            bar.finish_and_clear();
            self.all.remove(&bar);
        }
        self.total.set_position(printed as u64);
        let ended = run.trials.iter().filter(|trial| !trial.is_unfinished());
        self.total.set_message(summary::sentence(&summary::counts(ended.map(TrialSummary::outcome))));
    }
}

fn style(template: &str, bar: &str) -> ProgressStyle {
    let clock = |state: &ProgressState, to: &mut dyn std::fmt::Write| {
        let _ = write!(to, "{:.1} s", state.elapsed().as_secs_f64());
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner());
    let style = style.with_key("clock", clock);
    if bar.is_empty() { style } else { style.progress_chars(bar) }
}
