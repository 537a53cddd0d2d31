//! A detector that is a program of the user, run beside the built-in ones for one trial.
//!
//! The program prints findings, one JSON object a line:
//! ```json
//! {"incident":"I4","level":"cause","severity":"warning","subject":"node/worker-2","evidence":"table 2 is empty"}
//! {"level":"cause","subject":"node/worker-2","cleared":true}
//! ```
//! It may print what it holds true again and again; only news are passed on. With `signals: true` it
//! reads the signals of the run on its input, in the format of a recording: a header, then one signal
//! a line.
//!
//! Job: start, feed, listen, end. A map of the modules: `printed` is what it prints, `lines` reads
//! without trusting lengths, `threads` are what runs beside the trial.
//!
//! Invariants: the run never waits for the program: its input is a bounded queue, and what does not
//! fit is lost, counted and said. A program that cannot be understood, loses signals or ends early is
//! *blind*, with the reason, never silent. It runs in a process group of its own, so that the keyboard's
//! interrupt is the run's affair. When it is told to end, its input is closed; it is killed if it is
//! still there after 500 ms, or at once where it had no input to see closed.
//!
//! Left out: which findings decide what ([`crate::judge`]); processes that the program itself leaves
//! behind, which end with the lab's process namespace.

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
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::UnboundedSender;

use threads::{News, Program, Shared};

/// Signals that wait for a program to read them; more are lost.
const QUEUE: usize = 10_000;
/// How long a program may go on after its input was closed.
const GRACE: Duration = Duration::from_millis(500);

/// How a program is run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSpec {
    /// The detector's name.
    pub name: String,
    /// The program and its arguments. A program with a slash in it is looked for in `directory`,
    /// another one in the PATH.
    pub command: Vec<String>,
    /// Where it runs.
    pub directory: PathBuf,
    /// Variables it gets beside those of the run.
    pub env: BTreeMap<String, String>,
    /// It reads the signals of the run on its input; else its input is empty.
    pub signals: bool,
}

/// What became known of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutsideEvent {
    Finding(Finding),
    /// It cannot be relied on to see, and why.
    Blind {
        detector: String,
        why: String,
    },
}

/// A program was not started.
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
    news: Sender<News>,
    watcher: Option<JoinHandle<()>>,
}

impl OutsideDetector {
    /// Starts the program; what it says goes to `said` until [`OutsideDetector::end`]. Where it wants
    /// signals, it first reads what the operator tells every detector: the header of a recording.
    ///
    /// # Errors
    /// There is no such program, or it cannot be run.
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
        let (news, heard) = mpsc::channel();
        // Dropped on failure, it ends.
        let mut program = Program(command(spec)?.spawn()?);
        if let Some(output) = program.0.stdout.take() {
            let (shared, news) = (Arc::clone(&shared), news.clone());
            thread("findings", move || shared.read_findings(output, &news))?;
        }
        if let Some(errors) = program.0.stderr.take() {
            let (shared, news) = (Arc::clone(&shared), news.clone());
            thread("errors", move || shared.read_errors(errors, &news))?;
        }
        let signals = match program.0.stdin.take() {
            None => None,
            Some(input) => {
                let (queue, waiting) = mpsc::sync_channel(QUEUE);
                let (shared, news) = (Arc::clone(&shared), news.clone());
                thread("signals", move || shared.write_signals(input, &header, &waiting, &news))?;
                Some(queue)
            }
        };
        let also = Arc::clone(&shared);
        let watcher = thread("watch", move || threads::watch(program, &also, &heard))?;
        let grace = if spec.signals { GRACE } else { Duration::ZERO };
        Ok(Self { shared, grace, signals, news, watcher: Some(watcher) })
    }

    /// Offers one signal. Never waits; of no effect where the program wants none.
    pub fn signal(&self, signal: &Signal) {
        if let Some(queue) = &self.signals
            && let Err(TrySendError::Full(_)) = queue.try_send(signal.clone())
        {
            self.shared.lose_one();
        }
    }

    /// Ends the program: closes its input, waits for its grace, kills it. Blocks up to 700 ms; what it
    /// still says in that time is passed on.
    pub fn end(mut self) {
        self.finish(self.grace);
    }

    fn finish(&mut self, grace: Duration) {
        self.shared.end();
        // A watcher that is gone has told why.
        let _ = self.news.send(News::End { grace });
        self.signals = None;
        if let Some(watcher) = self.watcher.take() {
            // One that panicked has nothing left to end.
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
