//! Threads beside the trial: one writes signals, two read output, one watches the process.
//!
//! Invariants: only the watcher reports how the program ended, and only if it ended on its own; it does so after
//! everything the program printed. A thread blocked on a pipe that a grandchild holds open is abandoned, never waited
//! for.

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

/// Polling interval of the process.
const POLL: Duration = Duration::from_millis(20);
/// Time limit for reading the remaining output after the process has ended.
const DRAIN: Duration = Duration::from_millis(200);

/// A process that is killed on drop.
#[derive(Debug)]
pub(super) struct Program(pub Child);

impl Drop for Program {
    fn drop(&mut self) {
        // Errors mean that the process has already ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Messages to the watcher.
#[derive(Debug)]
pub(super) enum Message {
    /// One of the program's two outputs has ended and was passed on completely.
    OutputEnded,
    /// The program closed its input while signals were pending.
    InputClosed,
    /// End the program within this time.
    End { grace: Duration },
}

/// State shared by the threads of one program.
#[derive(Debug)]
pub(super) struct Shared {
    name: String,
    events: UnboundedSender<OutsideEvent>,
    lost: AtomicU64,
    /// The program has been asked to end.
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

    /// Sends an event. The receiver may already be dropped.
    fn send(&self, event: OutsideEvent) {
        let _ = self.events.send(event);
    }

    fn blind(&self, why: String) {
        self.send(OutsideEvent::Blind { detector: self.name.clone(), why });
    }

    pub(super) fn read_findings(&self, output: impl Read, messages: &Sender<Message>) {
        let mut reader = BufReader::new(output);
        let mut printed = PrintedFindings::new(self.name.clone());
        while let Ok(Some(line)) = lines::next(&mut reader) {
            match printed.read(Time(clock::now()), &line) {
                Parsed::Nothing => {}
                Parsed::Changed(finding) => self.send(OutsideEvent::Finding(finding)),
                Parsed::Malformed(why) => self.blind(why),
            }
        }
        let _ = messages.send(Message::OutputEnded);
    }

    pub(super) fn read_errors(&self, errors: impl Read, messages: &Sender<Message>) {
        let mut reader = BufReader::new(errors);
        while let Ok(Some(line)) = lines::next(&mut reader) {
            if !line.text.trim().is_empty() {
                // The value is valid even if another thread panicked.
                *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = shown(&line.text);
            }
        }
        let _ = messages.send(Message::OutputEnded);
    }

    /// Writes until the queue is closed. Flushes whenever the queue is empty, so that single signals arrive immediately
    /// and many are batched.
    pub(super) fn write_signals(
        &self,
        input: impl Write,
        header: &[u8],
        waiting: &Receiver<Signal>,
        messages: &Sender<Message>,
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
            let _ = messages.send(Message::InputClosed);
        }
    }
}

/// Watches the process until it has ended, and reports what went wrong.
pub(super) fn watch(mut program: Program, shared: &Shared, messages: &Receiver<Message>) {
    let started = Instant::now();
    let (mut ended_outputs, mut input_closed, mut reported_lost) = (0, false, 0);
    let grace = loop {
        match messages.recv_timeout(POLL) {
            Ok(Message::OutputEnded) => ended_outputs += 1,
            Ok(Message::InputClosed) => input_closed = true,
            Ok(Message::End { grace }) => break grace,
            Err(RecvTimeoutError::Disconnected) => break Duration::ZERO,
            Err(RecvTimeoutError::Timeout) => {
                match program.0.try_wait() {
                    Ok(None) => {}
                    Ok(Some(status)) => {
                        let lived = started.elapsed();
                        drain(messages, ended_outputs);
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
                // Only if the process still runs; otherwise its end is reported.
                if std::mem::take(&mut input_closed) {
                    shared.blind("closed its input before the end".to_owned());
                }
                let lost = shared.lost.load(Ordering::Relaxed);
                if lost > 0 && reported_lost == 0 {
                    reported_lost = lost;
                    shared.blind(format!("did not keep up, {lost} signals lost so far"));
                }
            }
        }
    };
    let until = Instant::now() + grace;
    while Instant::now() < until && matches!(program.0.try_wait(), Ok(None)) {
        ended_outputs += u8::from(matches!(messages.recv_timeout(POLL), Ok(Message::OutputEnded)));
    }
    drop(program);
    drain(messages, ended_outputs);
    let lost = shared.lost.load(Ordering::Relaxed);
    if lost > reported_lost {
        shared.blind(format!("did not keep up, {lost} signals lost"));
    }
}

/// Waits, up to a limit, until all output of the program has been passed on.
fn drain(messages: &Receiver<Message>, mut ended_outputs: u8) {
    let until = Instant::now() + DRAIN;
    while ended_outputs < 2
        && let Ok(message) = messages.recv_timeout(until.saturating_duration_since(Instant::now()))
    {
        ended_outputs += u8::from(matches!(message, Message::OutputEnded));
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
