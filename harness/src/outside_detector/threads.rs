//! What runs beside the trial: one thread writes signals, two read, one watches the process.
//!
//! Invariants: only the watcher reports how the program ended, and only if it was not told to; it says
//! so after everything the program printed. A thread that hangs on a pipe which some grandchild holds
//! open is left behind, never waited for.

use std::io::{BufReader, BufWriter, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use relapse_detectors::signal::Signal;
use relapse_detectors::time::Time;
use relapse_kernel::clock;
use tokio::sync::mpsc::UnboundedSender;

use super::Said;
use super::lines::{self, shown};
use super::speech::{Heard, Speech};

/// How often the process is looked at.
const POLL: Duration = Duration::from_millis(20);
/// How long the last of what a program printed is waited for after it is gone.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Whether the program is to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Run,
    End,
    Kill,
}

/// What the threads of one program share.
#[derive(Debug)]
pub(super) struct Shared {
    name: String,
    said: UnboundedSender<Said>,
    wish: Mutex<Wish>,
    wished: Condvar,
    lost: AtomicU64,
    /// The program closed its input while signals were still to come.
    deaf: AtomicBool,
    last_error: Mutex<String>,
}

impl Shared {
    pub(super) fn new(name: String, said: UnboundedSender<Said>) -> Self {
        Self {
            name,
            said,
            wish: Mutex::new(Wish::Run),
            wished: Condvar::new(),
            lost: AtomicU64::new(0),
            deaf: AtomicBool::new(false),
            last_error: Mutex::new(String::new()),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn lose_one(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end(&self, at_once: bool) {
        let mut wish = lock(&self.wish);
        *wish = if at_once { Wish::Kill } else { Wish::End };
        self.wished.notify_all();
    }

    /// Whoever listened may be gone; then nobody needs to know.
    fn say(&self, said: Said) {
        let _ = self.said.send(said);
    }

    fn blind(&self, why: String) {
        self.say(Said::Blind { detector: self.name.clone(), why });
    }

    pub(super) fn read_findings(&self, output: impl Read) {
        let mut reader = BufReader::new(output);
        let mut speech = Speech::new(self.name.clone());
        while let Ok(Some(line)) = lines::next(&mut reader) {
            match speech.hear(Time(clock::now()), &line) {
                Heard::Nothing => {}
                Heard::News(finding) => self.say(Said::Finding(finding)),
                Heard::Nonsense(why) => self.blind(why),
            }
        }
    }

    pub(super) fn read_errors(&self, errors: impl Read) {
        let mut reader = BufReader::new(errors);
        while let Ok(Some(line)) = lines::next(&mut reader) {
            if !line.text.trim().is_empty() {
                *lock(&self.last_error) = shown(&line.text);
            }
        }
    }

    /// Writes until the queue is closed. Flushed whenever nothing waits, so that a signal arrives at
    /// once, and many arrive in few calls.
    pub(super) fn write_signals(&self, input: impl Write, header: &[u8], waiting: &Receiver<Signal>) {
        let mut input = BufWriter::new(input);
        let written = (|| {
            input.write_all(header)?;
            loop {
                let signal = if let Ok(signal) = waiting.try_recv() {
                    signal
                } else {
                    input.flush()?;
                    let Ok(signal) = waiting.recv() else { return Ok(()) };
                    signal
                };
                if self.wish() != Wish::Run {
                    return Ok(());
                }
                serde_json::to_writer(&mut input, &signal)?;
                input.write_all(b"\n")?;
            }
        })();
        let written: std::io::Result<()> = written;
        if written.is_err() && self.wish() == Wish::Run {
            self.deaf.store(true, Ordering::Relaxed);
        }
    }

    fn wish(&self) -> Wish {
        *lock(&self.wish)
    }

    /// Waits until the wish changes or the time is over.
    fn wait(&self, from: Wish, longest: Duration) -> Wish {
        let wish = lock(&self.wish);
        let changed = self.wished.wait_timeout_while(wish, longest, |wish| *wish == from);
        *changed.unwrap_or_else(PoisonError::into_inner).0
    }

    fn last_error(&self) -> String {
        lock(&self.last_error).clone()
    }
}

/// Looks after the process until it is gone, and says what went wrong with it.
pub(super) fn watch(mut child: Child, shared: &Shared, listeners: &Receiver<()>, grace: Duration) {
    let started = Instant::now();
    let (mut said_deaf, mut said_lost) = (false, 0);
    loop {
        // What is known before the process is looked at: deaf and gone is gone.
        let (deaf, lost) = (shared.deaf.load(Ordering::Relaxed), shared.lost.load(Ordering::Relaxed));
        match child.try_wait() {
            Ok(None) => {}
            Ok(Some(status)) => {
                let lived = started.elapsed();
                last_words(listeners);
                if shared.wish() == Wish::Run {
                    shared.blind(ended(status, lived, &shared.last_error()));
                }
                return;
            }
            Err(error) => {
                shared.blind(format!("it cannot be watched: {error}"));
                break;
            }
        }
        if deaf && !std::mem::replace(&mut said_deaf, true) {
            shared.blind("closed its input before the end".to_owned());
        }
        if lost > 0 && said_lost == 0 {
            said_lost = lost;
            shared.blind(format!("did not keep up, {lost} signals lost so far"));
        }
        if shared.wait(Wish::Run, POLL) != Wish::Run {
            break;
        }
    }
    let until = Instant::now() + grace;
    while shared.wish() == Wish::End && Instant::now() < until {
        if !matches!(child.try_wait(), Ok(None)) {
            break;
        }
        shared.wait(Wish::End, POLL);
    }
    // Of a process that is gone already, killing and waiting say so, and that is what is wanted.
    let _ = child.kill();
    let _ = child.wait();
    last_words(listeners);
    let lost = shared.lost.load(Ordering::Relaxed);
    if lost > said_lost {
        shared.blind(format!("did not keep up, {lost} signals lost"));
    }
}

/// Waits until everything the program printed has been passed on, but not for ever.
fn last_words(listeners: &Receiver<()>) {
    // Nothing is ever sent: this ends when the listeners, done, have dropped their ends.
    let _ = listeners.recv_timeout(LAST_WORDS);
}

/// "exited with status 3 after 120 ms: cannot open socket".
fn ended(status: ExitStatus, lived: Duration, last_error: &str) -> String {
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    };
    let after = relapse_reports::units::limit(lived);
    if last_error.is_empty() { format!("{how} after {after}") } else { format!("{how} after {after}: {last_error}") }
}

/// A panic of another thread leaves these values whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
