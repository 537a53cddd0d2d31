//! Runs in this process; labs and guardian are the built `relapse`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use relapse::config::Config;
use relapse::run::Options;
use relapse_detectors::operator::Knowledge;
use relapse_lab::cluster::backend::Backend;
use relapse_lab::host::Consent;
use relapse_lab::netns::Labs;

use super::skips;

/// Labs run by the built `relapse`.
pub fn labs() -> Labs {
    Labs::of_program(Path::new(env!("CARGO_BIN_EXE_relapse")))
}

/// Options for one trial at a time, with consent and requirements from the environment.
pub fn options(backend: Arc<dyn Backend>) -> Options {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    Options {
        run_id: format!("test-{}-{number}", std::process::id()),
        jobs: 1,
        operator: Knowledge::Right,
        repeat: 1,
        deadline_factor: 1.0,
        consent: Consent::from_environment(false),
        require: skips::required(),
        record: None,
        series: None,
        config: Config::default(),
        sabotage: None,
        only: Vec::new(),
        hold: false,
        backends: vec![backend],
        executable: Some(env!("CARGO_BIN_EXE_relapse").into()),
    }
}
