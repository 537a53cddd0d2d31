//! Runs in this process: labs and guardian are the built `relapse`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use relapse::config::Config;
use relapse::event::{Outcome, RunEvent};
use relapse::plan::Plan;
use relapse::run::{self, Interrupt, Options};
use relapse_lab::cluster::backend::Backend;
use relapse_lab::host::Consent;
use relapse_lab::netns::Labs;
use relapse_reports::block;
use relapse_reports::paint::Page;
use relapse_reports::summary::{RunSummary, TrialSummary};

use super::skips;

/// Labs that the built `relapse` becomes.
pub fn labs() -> Labs {
    Labs::of_program(Path::new(env!("CARGO_BIN_EXE_relapse")))
}

/// One trial at a time there, with the consent and the demands of the environment.
pub fn options(backend: Arc<dyn Backend>) -> Options {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    Options {
        run_id: format!("test-{}-{number}", std::process::id()),
        jobs: 1,
        repeat: 1,
        deadline_factor: 1.0,
        consent: Consent::from_environment(false),
        require: skips::required(),
        record: None,
        config: Config::default(),
        sabotage: None,
        only: Vec::new(),
        hold: false,
        backends: vec![backend],
        executable: Some(env!("CARGO_BIN_EXE_relapse").into()),
    }
}

/// What one trial came to.
pub struct Ran {
    pub outcome: Outcome,
    pub summary: RunSummary,
}

impl Ran {
    /// The only trial.
    pub fn trial(&self) -> &TrialSummary {
        self.summary.trials.first().expect("one trial")
    }

    /// The trial as the terminal shows it: verdicts, and why it is not a pass.
    pub fn lines(&self) -> String {
        block::lines(&self.summary, self.trial(), Page::PLAIN).join("\n")
    }
}

/// Runs one trial; `on_event` hears of everything while it happens.
pub fn run_one(plan: &Plan, control: Option<&str>, mut options: Options, on_event: &mut dyn FnMut(&RunEvent)) -> Ran {
    options.only = vec![(plan.name.clone(), control.map(str::to_owned))];
    let mut summary = RunSummary::default();
    let outcome = run::run(std::slice::from_ref(plan), &options, &Interrupt::default(), &mut |event| {
        summary.push(event);
        on_event(event);
    });
    Ran { outcome, summary }
}
