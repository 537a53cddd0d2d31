//! What runs beside the trial: one thread writes signals, two read, one watches the process.
//!
//! Invariants: only the watcher reports how the program ended, and only if it was not told to; it says
//! so after everything the program printed. A thread that hangs on a pipe which some grandchild holds
//! open is left behind, never waited for.

use std::io::{BufReader, BufWriter, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use relapse_detectors::signal::Signal;
use relapse_detectors::time::Time;
use relapse_kernel::clock;
use tokio::sync::mpsc::UnboundedSender;

use super::OutsideEvent;
use super::lines::{self, shown};
use super::printed::{Parsed, PrintedFindings};

/// How often the process is looked at.
const POLL: Duration = Duration::from_millis(20);
/// How long the last of what a program printed is waited for after it is gone.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// A process that does not outlive this.
#[derive(Debug)]
pub(super) struct Program(pub Child);

impl Drop for Program {
    fn drop(&mut self) {
        // Of one that is gone already, killing and waiting say so, and that is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the watcher hears.
#[derive(Debug)]
pub(super) enum News {
    /// One of the program's two outputs has ended, and all of it was passed on.
    Silent,
    /// The program closed its input while signals were still to come.
    Deaf,
    /// It is to end within this time.
    End { grace: Duration },
}

/// What the threads of one program share.
#[derive(Debug)]
pub(super) struct Shared {
    name: String,
    events: UnboundedSender<OutsideEvent>,
    lost: AtomicU64,
    /// The program is to end.
    ending: AtomicBool,
    last_error: Mutex<String>,
}

impl Shared {
    pub(super) fn new(name: String, events: UnboundedSender<OutsideEvent>) -> Self {
        let (lost, ending, last_error) = (AtomicU64::new(0), AtomicBool::new(false), Mutex::default());
        Self { name, events, lost, ending, last_error }
    }

    pub(super) fn lose_one(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    /// Whoever listened may be gone; then nobody needs to know.
    fn send(&self, event: OutsideEvent) {
        let _ = self.events.send(event);
    }

    fn blind(&self, why: String) {
        self.send(OutsideEvent::Blind { detector: self.name.clone(), why });
    }

    pub(super) fn read_findings(&self, output: impl Read, news: &Sender<News>) {
        let mut reader = BufReader::new(output);
        let mut printed = PrintedFindings::new(self.name.clone());
        while let Ok(Some(line)) = lines::next(&mut reader) {
            match printed.read(Time(clock::now()), &line) {
                Parsed::Nothing => {}
                Parsed::News(finding) => self.send(OutsideEvent::Finding(finding)),
                Parsed::Malformed(why) => self.blind(why),
            }
        }
        let _ = news.send(News::Silent);
    }

    pub(super) fn read_errors(&self, errors: impl Read, news: &Sender<News>) {
        let mut reader = BufReader::new(errors);
        while let Ok(Some(line)) = lines::next(&mut reader) {
            if !line.text.trim().is_empty() {
                // A panic of another thread leaves it whole.
                *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = shown(&line.text);
            }
        }
        let _ = news.send(News::Silent);
    }

    /// Writes until the queue is closed. Flushed whenever nothing waits, so that a signal arrives at
    /// once, and many arrive in few calls.
    pub(super) fn write_signals(
        &self,
        input: impl Write,
        header: &[u8],
        waiting: &Receiver<Signal>,
        news: &Sender<News>,
    ) {
        let mut input = BufWriter::new(input);
        let mut write = || -> std::io::Result<()> {
            input.write_all(header)?;
            loop {
                let signal = if let Ok(signal) = waiting.try_recv() {
                    signal
                } else {
                    input.flush()?;
                    let Ok(signal) = waiting.recv() else { return Ok(()) };
                    signal
                };
                if self.is_ending() {
                    return Ok(());
                }
                serde_json::to_writer(&mut input, &signal)?;
                input.write_all(b"\n")?;
            }
        };
        if write().is_err() && !self.is_ending() {
            let _ = news.send(News::Deaf);
        }
    }
}

/// Looks after the process until it is gone, and says what went wrong with it.
pub(super) fn watch(mut program: Program, shared: &Shared, news: &Receiver<News>) {
    let started = Instant::now();
    let (mut silent, mut deaf, mut said_lost) = (0, false, 0);
    let grace = loop {
        match news.recv_timeout(POLL) {
            Ok(News::Silent) => silent += 1,
            Ok(News::Deaf) => deaf = true,
            Ok(News::End { grace }) => break grace,
            Err(RecvTimeoutError::Disconnected) => break Duration::ZERO,
            Err(RecvTimeoutError::Timeout) => {
                match program.0.try_wait() {
                    Ok(None) => {}
                    Ok(Some(status)) => {
                        let lived = started.elapsed();
                        last_words(news, silent);
                        if !shared.is_ending() {
                            let error = shared.last_error.lock().unwrap_or_else(PoisonError::into_inner);
                            shared.blind(ended(status, lived, &error));
                        }
                        return;
                    }
                    Err(error) => {
                        shared.blind(format!("it cannot be watched: {error}"));
                        break Duration::ZERO;
                    }
                }
                // Of one that is gone, its end is the news.
                if std::mem::take(&mut deaf) {
                    shared.blind("closed its input before the end".to_owned());
                }
                let lost = shared.lost.load(Ordering::Relaxed);
                if lost > 0 && said_lost == 0 {
                    said_lost = lost;
                    shared.blind(format!("did not keep up, {lost} signals lost so far"));
                }
            }
        }
    };
    let until = Instant::now() + grace;
    while Instant::now() < until && matches!(program.0.try_wait(), Ok(None)) {
        silent += u8::from(matches!(news.recv_timeout(POLL), Ok(News::Silent)));
    }
    drop(program);
    last_words(news, silent);
    let lost = shared.lost.load(Ordering::Relaxed);
    if lost > said_lost {
        shared.blind(format!("did not keep up, {lost} signals lost"));
    }
}

/// Waits until everything the program printed has been passed on, but not for ever.
fn last_words(news: &Receiver<News>, mut silent: u8) {
    let until = Instant::now() + LAST_WORDS;
    while silent < 2
        && let Ok(heard) = news.recv_timeout(until.saturating_duration_since(Instant::now()))
    {
        silent += u8::from(matches!(heard, News::Silent));
    }
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
