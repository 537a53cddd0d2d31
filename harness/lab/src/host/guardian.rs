//! The guardian: the process that writes the limit for a run, and outlives it to set it back.
//!
//! It stays in the initial namespaces, in a process group of its own and deaf to signals that ask it
//! to end (see [`client`](super::client)): it ends when the run says so or its end of the pipe closes,
//! which no way of dying can prevent. Lock, journal, write and restore are all its own; the run only
//! asks. It holds no handle to any namespace for longer than it takes to count.
//!
//! Invariants:
//! - Order: lock, undo what dead guardians left, read, refuse, journal synced, write, read back.
//! - A limit below the machine's own is watched while in force: all other namespaces are counted every
//!   100 ms, and one above half of the limit, or five failures in a row to count, restores at once.
//! - It ends only after the restore, or with the journal still in place.
//!
//! Left out: surviving SIGKILL itself. The run then restores in its place, else the next who gets the
//! lock, else the next start.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use relapse_kernel::clock;

use super::identity::Process;
use super::journal::{Entry, Journal, Stored};
use super::lock::{MachineLock, Mode, Who};
use super::protocol::{Reply, Request, send};
use super::recover::recover_locked;
use super::restore::{Undone, undo};
use super::{CONNTRACK_MAX, Error, Result, Site};

mod watch;

use watch::Watch;

/// How often other namespaces are counted while the limit is ours.
const COUNT_EVERY: Duration = Duration::from_millis(100);
/// At the end a restore that fails is tried again this often, a tenth of a second apart.
const ATTEMPTS: u32 = 5;
const INTERNAL_ERROR: u8 = 70;

/// The hidden command: serves the run at the other end of standard input and output.
#[must_use]
pub fn guardian_main() -> ExitCode {
    match Site::host() {
        Ok(site) => serve(site, io::stdin(), io::stdout()),
        Err(error) => {
            let _ = send(&mut io::stdout(), &Reply::Error { what: error.to_string() });
            ExitCode::from(INTERNAL_ERROR)
        }
    }
}

/// Serves one run until its end of `input` closes or it says so.
pub fn serve(site: Site, input: impl Read + Send + 'static, output: impl Write) -> ExitCode {
    let (sender, events) = mpsc::channel();
    let requests = sender.clone();
    std::thread::spawn(move || listen(input, &requests));
    let mut guardian = Server { site, sender, output, lock: None, run: None, in_force: None, outcome: None };
    guardian.serve(&events);
    guardian.finish()
}

enum Event {
    Request(std::result::Result<Request, String>),
    /// The run ended, in whatever way.
    Gone,
    Waiting(String),
    Locked(Result<MachineLock>),
}

fn listen(input: impl Read, events: &Sender<Event>) {
    for line in BufReader::new(input).lines() {
        let Ok(line) = line else { break };
        let request = serde_json::from_str(&line).map_err(|error| format!("understand {line:?}: {error}"));
        if events.send(Event::Request(request)).is_err() {
            return;
        }
    }
    let _ = events.send(Event::Gone);
}

/// What is written now, and may have to be undone.
struct InForce {
    journal: Journal,
    /// The machine's own value.
    before: u32,
    /// A limit above that harms nobody.
    watch: Option<Watch>,
}

struct Server<W> {
    site: Site,
    sender: Sender<Event>,
    output: W,
    lock: Option<MachineLock>,
    run: Option<(Who, Process)>,
    in_force: Option<InForce>,
    /// What an alarm did, for the run to hear when it asks to restore.
    outcome: Option<Reply>,
}

impl<W: Write> Server<W> {
    fn serve(&mut self, events: &Receiver<Event>) {
        let mut due = Instant::now();
        loop {
            let event = if self.in_force.is_some() {
                let now = Instant::now();
                if now >= due {
                    self.count();
                    due = Instant::now() + COUNT_EVERY;
                }
                events.recv_timeout(due.saturating_duration_since(Instant::now()))
            } else {
                events.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            let reply = match event {
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) | Ok(Event::Gone | Event::Request(Ok(Request::Bye))) => return,
                Ok(Event::Waiting(holder)) => Some(Reply::Waiting { holder }),
                Ok(Event::Locked(lock)) => Some(self.locked(lock).unwrap_or_else(|error| said(&error))),
                Ok(Event::Request(Err(what))) => Some(Reply::Error { what }),
                Ok(Event::Request(Ok(Request::Acquire { who, run }))) => self.acquire(who, run),
                Ok(Event::Request(Ok(Request::Write { value, own }))) => {
                    due = Instant::now() + COUNT_EVERY;
                    Some(self.write(value, own).unwrap_or_else(|error| said(&error)))
                }
                Ok(Event::Request(Ok(Request::Expect { value, own }))) => {
                    due = Instant::now() + COUNT_EVERY;
                    let expected = self.expect(value, own).map(|expected| match expected {
                        Ok(before) => Reply::Expected { before },
                        Err(why) => Reply::Refused { why },
                    });
                    Some(expected.unwrap_or_else(|error| said(&error)))
                }
                Ok(Event::Request(Ok(Request::Restore))) => {
                    Some(self.restore_for_run().unwrap_or_else(|error| said(&error)))
                }
            };
            if let Some(reply) = reply {
                self.tell(&reply);
            }
        }
    }

    /// A run that no longer listens is noticed by its end of the other pipe.
    fn tell(&mut self, reply: &Reply) {
        let _ = send(&mut self.output, reply);
    }

    /// Waits in a thread: the run may die while it does.
    fn acquire(&mut self, who: Who, run: Process) -> Option<Reply> {
        if self.run.is_some() {
            return Some(Reply::Error { what: "take the lock: asked for already".into() });
        }
        self.run = Some((who.clone(), run));
        let (sender, places) = (self.sender.clone(), self.site.locks.clone());
        std::thread::spawn(move || {
            let mut waiting = |holder: &str| {
                let _ = sender.send(Event::Waiting(holder.into()));
            };
            let lock = MachineLock::acquire_at(&places, Mode::Exclusive, &who, &mut waiting);
            let _ = sender.send(Event::Locked(lock));
        });
        None
    }

    fn locked(&mut self, lock: Result<MachineLock>) -> Result<Reply> {
        let taken = lock.and_then(|lock| Ok((recover_locked(&self.site, &lock)?, lock)));
        let (recovered, lock) = taken.inspect_err(|_| self.run = None)?;
        self.lock = Some(lock);
        Ok(Reply::Acquired { recovered: recovered.iter().map(ToString::to_string).collect() })
    }

    /// Journals and watches a value that is about to be written; the one before, or why it must not be.
    fn expect(&mut self, value: u32, own: Vec<u64>) -> Result<std::result::Result<u32, String>> {
        let run = self.run.as_ref().filter(|_| self.lock.is_some());
        let (who, run) = run.ok_or_else(|| Error::Guardian { what: "write without the lock".into() })?;
        let settings = self.site.settings.clone();
        let before = number(&settings.read(CONNTRACK_MAX)?)?;
        let (mut journal, first) = match &self.in_force {
            Some(older) => (older.journal.clone(), older.before),
            None => (Journal::new(&who.run, *run)?, before),
        };
        let mut watch = is_lower(value, first).then(|| Watch::new(value, own));
        if let Some(watch) = &mut watch
            && let Some(why) = watch.harm(&*settings)?
        {
            return Ok(Err(why));
        }
        let (old, new) = (before.to_string(), value.to_string());
        journal.entries.push(Stored::Known(Entry::Sysctl { key: CONNTRACK_MAX.into(), old, new }));
        journal.save(&self.site.journals)?;
        self.in_force = Some(InForce { journal, before: first, watch });
        self.outcome = None;
        Ok(Ok(before))
    }

    fn write(&mut self, value: u32, own: Vec<u64>) -> Result<Reply> {
        let before = match self.expect(value, own)? {
            Ok(before) => before,
            Err(why) => return Ok(Reply::Refused { why }),
        };
        let (settings, new) = (self.site.settings.clone(), value.to_string());
        let write = || {
            let t0 = clock::now();
            settings.write(CONNTRACK_MAX, &new)?;
            let read_back = number(&settings.read(CONNTRACK_MAX)?)?;
            let t1 = clock::now();
            if read_back == value {
                return Ok(Reply::Written { before, t0, t1, read_back });
            }
            Err(Error::Unsafe {
                what: format!("write {CONNTRACK_MAX} = {value}"),
                why: format!("read back {read_back}"),
            })
        };
        let written = write();
        // Whatever part of it was done is undone at once; where that fails too, at the end.
        if written.is_err() {
            let _ = self.restore();
        }
        written
    }

    fn restore_for_run(&mut self) -> Result<Reply> {
        if self.in_force.is_some() {
            return self.restore();
        }
        Ok(self.outcome.take().unwrap_or(Reply::Nothing))
    }

    fn restore(&mut self) -> Result<Reply> {
        let Some(in_force) = &self.in_force else { return Ok(Reply::Nothing) };
        let undone = undo(&*self.site.settings, &in_force.journal)?;
        in_force.journal.remove(&self.site.journals)?;
        self.in_force = None;
        undone.into_iter().next().map_or(Ok(Reply::Nothing), |undone| {
            Ok(match undone {
                Undone::Restored { value, .. } | Undone::Already { value, .. } => {
                    Reply::Restored { value: number(&value)? }
                }
                Undone::NotOurs { found, expected, .. } => Reply::NotOurs { found, expected },
                Undone::Removed { .. } => Reply::Nothing,
            })
        })
    }

    /// Restores where going on would harm somebody.
    fn count(&mut self) {
        let Some(in_force) = &mut self.in_force else { return };
        let Some(why) = in_force.watch.as_mut().and_then(|watch| watch.look(&*self.site.settings)) else { return };
        let outcome = self.restore().unwrap_or_else(|error| said(&error));
        let done = match &outcome {
            Reply::Restored { value } => format!("the limit is {value} again"),
            Reply::NotOurs { found, .. } => format!("the limit is {found}, by somebody else, and was left"),
            other => format!("the limit could not be restored: {other:?}"),
        };
        self.outcome = Some(outcome);
        self.tell(&Reply::Alarm { why: format!("{why}; {done}") });
    }

    /// The run is over. There may be nobody left to tell, so a failure goes to standard error too.
    fn finish(mut self) -> ExitCode {
        for attempt in 1.. {
            let result = self.restore();
            match &result {
                Ok(Reply::NotOurs { found, expected }) => {
                    let _ = writeln!(
                        io::stderr(),
                        "relapse: {CONNTRACK_MAX} is {found}, not the {expected} that was written: left as it is"
                    );
                    return ExitCode::SUCCESS;
                }
                Ok(_) => return ExitCode::SUCCESS,
                Err(_) if attempt < ATTEMPTS => std::thread::sleep(COUNT_EVERY),
                Err(error) => {
                    let _ = writeln!(io::stderr(), "relapse: failed to {error}; `relapse recover` tries again");
                    return ExitCode::from(INTERNAL_ERROR);
                }
            }
        }
        ExitCode::SUCCESS
    }
}

fn said(error: &Error) -> Reply {
    Reply::Error { what: error.to_string() }
}

/// Zero means no limit at all.
const fn is_lower(value: u32, before: u32) -> bool {
    value != 0 && (before == 0 || value < before)
}

fn number(text: &str) -> Result<u32> {
    text.parse()
        .map_err(|_| Error::Unsafe { what: format!("read {CONNTRACK_MAX}"), why: format!("{text:?} is no number") })
}

#[cfg(test)]
pub(super) mod stand_in;
#[cfg(test)]
mod tests;
