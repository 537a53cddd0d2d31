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
//! Job: start, feed, listen, end. A map of the modules: `speech` is what it prints, `lines` reads
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
mod speech;
mod threads;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
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

use threads::Shared;

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
pub enum Said {
    Finding(Finding),
    /// It cannot be relied on to see, and why.
    Blind {
        detector: String,
        why: String,
    },
}

/// A program was not started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    #[error("run detector {name}: its command is empty")]
    Empty { name: String },
    #[error("run detector {name}: {program}")]
    Spawn {
        name: String,
        program: String,
        #[source]
        source: io::Error,
    },
    #[error("write the header of the signals for detector {name}")]
    Header {
        name: String,
        #[source]
        source: io::Error,
    },
    #[error("start a thread for detector {name}")]
    Thread {
        name: String,
        #[source]
        source: io::Error,
    },
}

/// A running program.
#[derive(Debug)]
#[must_use = "dropping it ends the program without a grace"]
pub struct OutsideDetector {
    shared: Arc<Shared>,
    signals: Option<SyncSender<Signal>>,
    watcher: Option<JoinHandle<()>>,
}

impl OutsideDetector {
    /// Starts the program; what it says goes to `said` until [`OutsideDetector::end`]. Where it wants
    /// signals, it first reads what the operator tells every detector: the header of a recording.
    ///
    /// # Errors
    /// There is no such program, or it cannot be run.
    pub fn spawn(spec: &ExecSpec, operator: &Operator, said: UnboundedSender<Said>) -> Result<Self, SpawnError> {
        let header = Recorder::new(Vec::new(), operator, None).and_then(Recorder::finish);
        let header = header.map_err(|source| SpawnError::Header { name: spec.name.clone(), source })?;
        let mut command = command(spec)?;
        let no_thread = |source| SpawnError::Thread { name: spec.name.clone(), source };
        let shared = Arc::new(Shared::new(spec.name.clone(), said));
        let grace = if spec.signals { GRACE } else { Duration::ZERO };
        let (done, listeners) = mpsc::channel();
        // The watcher is there before the program: nothing runs that nobody would end.
        let (hand_over, handed) = mpsc::channel();
        let also = Arc::clone(&shared);
        let watch = move || handed.recv().map_or((), |child| threads::watch(child, &also, &listeners, grace));
        let watcher = thread("watch", watch).map_err(no_thread)?;
        let mut child = command.spawn().map_err(|source| SpawnError::Spawn {
            name: spec.name.clone(),
            program: spec.command.first().cloned().unwrap_or_default(),
            source,
        })?;
        let signals = start(&mut child, &shared, done, header);
        let mut detector = Self { shared, signals: None, watcher: Some(watcher) };
        // The watcher waits for nothing else.
        let _ = hand_over.send(child);
        // Dropped on failure, it ends the program.
        detector.signals = signals.map_err(no_thread)?;
        Ok(detector)
    }

    /// The detector's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.shared.name()
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
        self.finish(false);
    }

    fn finish(&mut self, at_once: bool) {
        self.shared.end(at_once);
        self.signals = None;
        if let Some(watcher) = self.watcher.take() {
            // A watcher that panicked has nothing left to end.
            let _ = watcher.join();
        }
    }
}

impl Drop for OutsideDetector {
    fn drop(&mut self) {
        self.finish(true);
    }
}

fn command(spec: &ExecSpec) -> Result<Command, SpawnError> {
    let Some((program, arguments)) = spec.command.split_first() else {
        return Err(SpawnError::Empty { name: spec.name.clone() });
    };
    // Relative to the working directory of the program, not of the run.
    let program = if program.contains('/') { spec.directory.join(program) } else { Path::new(program).to_owned() };
    let mut command = Command::new(program);
    command.args(arguments).current_dir(&spec.directory).envs(&spec.env).process_group(0);
    command.stdin(if spec.signals { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

/// Starts the threads that write to and read from the program. Each listener drops its `done` when
/// it has heard the last.
fn start(
    child: &mut Child,
    shared: &Arc<Shared>,
    done: Sender<()>,
    header: Vec<u8>,
) -> io::Result<Option<SyncSender<Signal>>> {
    if let Some(output) = child.stdout.take() {
        let (shared, done) = (Arc::clone(shared), done.clone());
        thread("findings", move || {
            shared.read_findings(output);
            drop(done);
        })?;
    }
    if let Some(errors) = child.stderr.take() {
        let shared = Arc::clone(shared);
        thread("errors", move || {
            shared.read_errors(errors);
            drop(done);
        })?;
    }
    let Some(input) = child.stdin.take() else { return Ok(None) };
    let (queue, waiting) = mpsc::sync_channel(QUEUE);
    let shared = Arc::clone(shared);
    thread("signals", move || shared.write_signals(input, &header, &waiting))?;
    Ok(Some(queue))
}

fn thread(job: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(format!("outside-{job}")).spawn(run)
}
