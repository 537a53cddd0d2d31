//! The guardian: the process that writes the limit for a run, and outlives it to restore the limit.
//!
//! It stays in the initial namespaces, in its own process group and with termination signals ignored (see
//! [`client`](super::client)): it ends when the run's end of the pipe closes, which happens however the run dies.
//! Lock, journal, write and restore belong to the guardian; the run only sends requests. It holds a handle to a
//! namespace only while counting its entries.
//!
//! Invariants:
//! - Order: lock, undo what dead guardians left, read, check, sync the journal, write, read back.
//! - A limit below the machine's own is monitored while in force: the entries of all other namespaces are counted every
//!   100 ms, and a count above half of the limit, or five consecutive failures to count, triggers the restore.
//! - It ends only after the restore, or with the journal still in place.
//!
//! Left out: surviving SIGKILL itself. The limit is then restored by the run, or by the next process that gets the
//! lock, or by the next start of relapse.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use relapse_kernel::clock;

use super::identity::Process;
use super::journal::{Entry, Journal, Stored};
use super::lock::{MachineLock, Mode};
use super::protocol::{LimitReply, LimitRequest, LimitWrite, Reply, Request, Restore, number, send};
use super::recover::recover_locked;
use super::restore::undo;
use super::{CONNTRACK_MAX, Error, Result, Site};

mod watch;

use watch::Watch;

/// How often other namespaces are counted while our limit is in force.
const COUNT_EVERY: Duration = Duration::from_millis(100);
/// Attempts to restore at the end, a tenth of a second apart.
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

/// Serves one run until `input` ends.
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
    /// The run ended, in any way.
    Gone,
    Waiting(String),
    Locked(Result<MachineLock>),
}

fn listen(input: impl Read, events: &Sender<Event>) {
    for line in BufReader::new(input).lines() {
        let Ok(line) = line else { break };
        let request = serde_json::from_str(&line).map_err(|error| format!("parse {line:?}: {error}"));
        if events.send(Event::Request(request)).is_err() {
            return;
        }
    }
    let _ = events.send(Event::Gone);
}

/// The value in force, which may have to be undone.
struct InForce {
    journal: Journal,
    /// The machine's own value.
    before: u32,
    /// Set if the limit is below that value.
    watch: Option<Watch>,
}

struct Server<W> {
    site: Site,
    sender: Sender<Event>,
    output: W,
    lock: Option<MachineLock>,
    run: Option<(String, Process)>,
    in_force: Option<InForce>,
    /// The result of the restore after an alarm, for the run's next restore request.
    outcome: Option<Restore>,
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
                Err(RecvTimeoutError::Disconnected) | Ok(Event::Gone) => return,
                Ok(Event::Waiting(holder)) => Some(Ok(Reply::Waiting { holder })),
                Ok(Event::Locked(lock)) => Some(self.locked(lock)),
                Ok(Event::Request(Err(what))) => Some(Err(Error::Guardian { what })),
                Ok(Event::Request(Ok(Request::Acquire { run_id, run }))) => self.acquire(run_id, run).err().map(Err),
                Ok(Event::Request(Ok(Request::Limit { ask, own }))) => {
                    due = Instant::now() + COUNT_EVERY;
                    Some(self.limit(ask, own).map(Reply::Limit))
                }
            };
            if let Some(reply) = reply {
                self.send(&reply.unwrap_or_else(|error| Reply::Error { what: error.to_string() }));
            }
        }
    }

    fn limit(&mut self, ask: LimitRequest, own: Vec<u64>) -> Result<LimitReply> {
        match ask {
            LimitRequest::Write(value) => self.write(value, own).map(LimitReply::Written),
            LimitRequest::Expect(value) => self.expect(value, own).map(LimitReply::Expected),
            LimitRequest::Restore if self.in_force.is_some() => self.restore().map(LimitReply::Restored),
            LimitRequest::Restore => Ok(LimitReply::Restored(self.outcome.take().unwrap_or(Restore::Nothing))),
        }
    }

    /// An error is ignored here: a run that is gone is detected by the end of `input`.
    fn send(&mut self, reply: &Reply) {
        let _ = send(&mut self.output, reply);
    }

    /// Waits in a thread, because the run may die meanwhile.
    fn acquire(&mut self, run_id: String, run: Process) -> Result<()> {
        if self.run.is_some() {
            return Err(Error::Guardian { what: "take the lock: already requested".into() });
        }
        self.run = Some((run_id, run));
        let (sender, places) = (self.sender.clone(), self.site.locks.clone());
        std::thread::spawn(move || {
            let report = |holder| drop(sender.send(Event::Waiting(holder)));
            let lock = MachineLock::acquire(&places, Mode::Exclusive, &report);
            let _ = sender.send(Event::Locked(lock));
        });
        Ok(())
    }

    fn locked(&mut self, lock: Result<MachineLock>) -> Result<Reply> {
        let taken = lock.and_then(|lock| Ok((recover_locked(&self.site, &lock)?, lock)));
        let (recovered, lock) = taken.inspect_err(|_| self.run = None)?;
        self.lock = Some(lock);
        Ok(Reply::Acquired { recovered: recovered.iter().map(ToString::to_string).collect() })
    }

    /// Journals and watches a value that is about to be written; returns the current one.
    fn expect(&mut self, value: u32, own: Vec<u64>) -> Result<u32> {
        let run = self.run.as_ref().filter(|_| self.lock.is_some());
        let (run_id, run) = run.ok_or_else(|| Error::Guardian { what: "write without the lock".into() })?;
        let settings = self.site.settings.clone();
        let before = number(&settings.read(CONNTRACK_MAX)?)?;
        let (mut journal, first) = match &self.in_force {
            Some(older) => (older.journal.clone(), older.before),
            None => (Journal::new(run_id, *run)?, before),
        };
        let mut watch = is_lower(value, first).then(|| Watch::new(value, own));
        if let Some(watch) = &mut watch
            && let Some(why) = watch.harm(&*settings)?
        {
            return Err(Error::Refused { key: CONNTRACK_MAX.into(), value, why });
        }
        let (old, new) = (before.to_string(), value.to_string());
        journal.entries.push(Stored::Known(Entry::Sysctl { key: CONNTRACK_MAX.into(), old, new }));
        journal.save(&self.site.journals)?;
        self.in_force = Some(InForce { journal, before: first, watch });
        self.outcome = None;
        Ok(before)
    }

    fn write(&mut self, value: u32, own: Vec<u64>) -> Result<LimitWrite> {
        let before = self.expect(value, own)?;
        let (settings, new) = (self.site.settings.clone(), value.to_string());
        let write = || {
            let t0 = clock::now();
            settings.write(CONNTRACK_MAX, &new)?;
            let read_back = number(&settings.read(CONNTRACK_MAX)?)?;
            let t1 = clock::now();
            if read_back == value {
                return Ok(LimitWrite { before, t0, t1, read_back });
            }
            let what = format!("write {CONNTRACK_MAX} = {value}");
            Err(Error::Unsafe { what, why: format!("read back {read_back}") })
        };
        // Undo whatever part of it was done; if that fails too, it is repeated at the end.
        write().inspect_err(|_| drop(self.restore()))
    }

    fn restore(&mut self) -> Result<Restore> {
        let Some(in_force) = &self.in_force else { return Ok(Restore::Nothing) };
        let undone = undo(&*self.site.settings, &in_force.journal)?;
        in_force.journal.remove(&self.site.journals)?;
        self.in_force = None;
        Restore::of(undone)
    }

    /// Restores the limit if it would harm another namespace.
    fn count(&mut self) {
        let Some(in_force) = &mut self.in_force else { return };
        let Some(why) = in_force.watch.as_mut().and_then(|watch| watch.check(&*self.site.settings)) else { return };
        let outcome = self.restore();
        let done = match &outcome {
            Ok(Restore::Restored { value }) => format!("the limit was restored to {value}"),
            Ok(Restore::NotOurs { found, .. }) => format!("another process set the limit to {found}; left as it is"),
            Ok(Restore::Nothing) => "nothing was in force".into(),
            Err(error) => format!("the limit could not be restored: {error}"),
        };
        self.outcome = outcome.ok();
        self.send(&Reply::Alarm { why: format!("{why}; {done}") });
    }

    /// The run has ended and may not receive replies, so failures are printed to standard error.
    fn finish(mut self) -> ExitCode {
        for attempt in 1.. {
            let result = self.restore();
            match &result {
                Ok(Restore::NotOurs { found, expected }) => {
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

/// Zero means no limit.
const fn is_lower(value: u32, before: u32) -> bool {
    value != 0 && (before == 0 || value < before)
}

#[cfg(test)]
pub(super) mod stand_in;
#[cfg(test)]
mod tests;
