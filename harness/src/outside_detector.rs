//! A detector that is the user's program, run next to the built-in ones for one trial.
//!
//! The program prints findings, one JSON object per line:
//! ```json
//! {"incident":"I4","level":"cause","severity":"warning","subject":"node/worker-2","evidence":"table 2 is empty"}
//! {"level":"cause","subject":"node/worker-2","cleared":true}
//! ```
//! It may repeat findings; only changes are passed on. With `signals: true` it reads the signals of the run on its
//! input, in the format of a recording: a header, then one signal per line.
//!
//! Modules: `printed` parses the output, `lines` reads lines of bounded length, `threads` runs beside the trial.
//!
//! Invariants: the run never waits for the program: its input is a bounded queue, and signals that do not fit are
//! dropped, counted and reported. A program with malformed output, lost signals or an early end is *blind*, with the
//! reason, never silent. It runs in a process group of its own, so that Ctrl-C reaches only the run. To end it, its
//! input is closed; it is killed if it still runs after 500 ms, or immediately if it reads no signals.
//!
//! Findings are judged in [`crate::judge`]. Processes that the program leaves behind end with the lab's process
//! namespace.

mod lines;
mod printed;
mod threads;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender, SyncSender, TrySendError};
use std::thread::JoinHandle;
use std::time::Duration;

use relapse_detectors::finding::Finding;
use relapse_detectors::operator::Operator;
use relapse_detectors::record::Recorder;
use relapse_detectors::signal::Signal;
use relapse_detectors::triage::Triaged;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::UnboundedSender;

use threads::{Message, Program, Shared};

/// Capacity of the queue of unread signals; further ones are dropped.
const QUEUE: usize = 10_000;
/// How long a program may run after its input was closed.
const GRACE: Duration = Duration::from_millis(500);

/// How a program is run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSpec {
    /// The detector's name.
    pub name: String,
    /// In an incident, a warning that nothing asked for fails the trial.
    #[serde(default)]
    pub strict: bool,
    /// The program and its arguments. A program with a slash is relative to `directory`, any other is searched in the
    /// PATH.
    pub command: Vec<String>,
    /// Its working directory.
    pub directory: PathBuf,
    /// Environment variables in addition to those of the run.
    pub env: BTreeMap<String, String>,
    /// Whether it reads the signals of the run on its input; otherwise its input is empty.
    pub signals: bool,
}

/// An event of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutsideEvent {
    Finding(Finding),
    /// It may miss signals or findings, and why.
    Blind {
        detector: String,
        why: String,
    },
    /// The verdict of triage changed.
    Triage(Option<Triaged>),
}

/// A program could not be started.
#[derive(Debug, thiserror::Error)]
#[error("run detector {name}: {program}: {source}")]
pub struct SpawnError {
    name: String,
    program: String,
    source: io::Error,
}

/// A running program.
#[derive(Debug)]
#[must_use = "dropping it ends the program without a grace"]
pub struct OutsideDetector {
    shared: Arc<Shared>,
    grace: Duration,
    signals: Option<SyncSender<Signal>>,
    messages: Sender<Message>,
    watcher: Option<JoinHandle<()>>,
}

impl OutsideDetector {
    /// Starts the program; its events go to `events` until [`OutsideDetector::end`]. If it wants signals, it first
    /// reads the operator's configuration: the header of a recording.
    ///
    /// # Errors
    /// If the program does not exist or cannot be run.
    pub fn spawn(
        spec: &ExecSpec,
        operator: &Operator,
        events: UnboundedSender<OutsideEvent>,
    ) -> Result<Self, SpawnError> {
        Self::start(spec, operator, events).map_err(|source| {
            let program = spec.command.first().cloned().unwrap_or_default();
            SpawnError { name: spec.name.clone(), program, source }
        })
    }

    fn start(spec: &ExecSpec, operator: &Operator, events: UnboundedSender<OutsideEvent>) -> io::Result<Self> {
        let header = Recorder::new(Vec::new(), operator, None)?.finish()?;
        let shared = Arc::new(Shared::new(spec.name.clone(), events));
        let (messages, receiver) = mpsc::channel();
        // On failure, dropping it ends the process.
        let mut program = Program(command(spec)?.spawn()?);
        if let Some(output) = program.0.stdout.take() {
            let (shared, messages) = (Arc::clone(&shared), messages.clone());
            thread("findings", move || shared.read_findings(output, &messages))?;
        }
        if let Some(errors) = program.0.stderr.take() {
            let (shared, messages) = (Arc::clone(&shared), messages.clone());
            thread("errors", move || shared.read_errors(errors, &messages))?;
        }
        let signals = match program.0.stdin.take() {
            None => None,
            Some(input) => {
                let (queue, waiting) = mpsc::sync_channel(QUEUE);
                let (shared, messages) = (Arc::clone(&shared), messages.clone());
                thread("signals", move || shared.write_signals(input, &header, &waiting, &messages))?;
                Some(queue)
            }
        };
        let also = Arc::clone(&shared);
        let watcher = thread("watch", move || threads::watch(program, &also, &receiver))?;
        let grace = if spec.signals { GRACE } else { Duration::ZERO };
        Ok(Self { shared, grace, signals, messages, watcher: Some(watcher) })
    }

    /// Queues one signal without waiting. No effect if the program reads no signals.
    pub fn signal(&self, signal: &Signal) {
        if let Some(queue) = &self.signals
            && let Err(TrySendError::Full(_)) = queue.try_send(signal.clone())
        {
            self.shared.lose_one();
        }
    }

    /// Ends the program: closes its input, waits for the grace period, kills it. Blocks up to 700 ms; findings printed
    /// in that time are passed on.
    pub fn end(mut self) {
        self.finish(self.grace);
    }

    fn finish(&mut self, grace: Duration) {
        self.shared.end();
        // A watcher that has ended has reported why.
        let _ = self.messages.send(Message::End { grace });
        self.signals = None;
        if let Some(watcher) = self.watcher.take() {
            // After a panic there is nothing left to end.
            let _ = watcher.join();
        }
    }
}

impl Drop for OutsideDetector {
    fn drop(&mut self) {
        self.finish(Duration::ZERO);
    }
}

fn command(spec: &ExecSpec) -> io::Result<Command> {
    let (program, arguments) = spec.command.split_first().ok_or(io::ErrorKind::NotFound)?;
    // Relative to the working directory of the program, not of the run.
    let program = if program.contains('/') { spec.directory.join(program) } else { Path::new(program).to_owned() };
    let mut command = Command::new(program);
    command.args(arguments).current_dir(&spec.directory).envs(&spec.env).process_group(0);
    command.stdin(if spec.signals { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

fn thread(job: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(format!("outside-{job}")).spawn(run)
}
