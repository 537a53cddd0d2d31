//! The run's end of the connection to its guardian.
//!
//! Blocking, and used from outside the lab. The guardian is started through a shell that ignores
//! termination signals (from the terminal or a service manager) and then executes the guardian:
//! ignored signals stay ignored across an exec. Its own process group keeps the terminal's signals away.
//!
//! If the guardian itself is killed, the run restores the limit from the journal.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};
use std::time::Duration;

use relapse_kernel::error::Context;

use super::identity::Process;
use super::protocol::{LimitReply, LimitRequest, LimitWrite, Reply, Request, Restore, send};
use super::recover::{self, JournalOutcome};
use super::{Error, Result, Site};

/// The hidden command of relapse implemented by [`guardian_main`](super::guardian_main).
pub const COMMAND: &str = "__guardian";

/// How often a wait checks for cancellation.
const LOOK: Duration = Duration::from_millis(50);
/// Timeout for a reply. A write takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running guardian of this run.
#[derive(Debug)]
#[must_use = "when dropped, the limit is restored and the lock released"]
pub struct Guardian {
    child: Child,
    requests: Option<ChildStdin>,
    replies: Receiver<std::result::Result<Reply, String>>,
    alarms: Vec<String>,
    run_id: String,
    site: Site,
    own: Vec<u64>,
    may_be_in_force: bool,
}

impl Guardian {
    /// Starts `exe __guardian` for a run; its command line includes `what`, shown to processes that wait for it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(exe: &Path, run_id: &str, what: &str) -> Result<Self> {
        Self::over(ignoring_signals(exe, [COMMAND, run_id, what]), Site::host()?, run_id)
    }

    /// Starts a guardian with another command; `site` must be the one it works on.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn over(mut command: Command, site: Site, run_id: &str) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut child = command.spawn().context(|| "start the guardian".into())?;
        let requests = child.stdin.take();
        let output =
            child.stdout.take().ok_or_else(|| Error::Guardian { what: "read the guardian's output".into() })?;
        let (sender, replies) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                let reply = line.map_err(|error| error.to_string()).and_then(|line| {
                    serde_json::from_str(&line).map_err(|error| format!("unexpected output {line:?}: {error}"))
                });
                if sender.send(reply).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            child,
            requests,
            replies,
            alarms: Vec::new(),
            run_id: run_id.into(),
            site,
            own: Vec::new(),
            may_be_in_force: false,
        })
    }

    /// Takes the machine-wide lock, waiting while others hold it; the holders are passed to `report`. Returns
    /// descriptions of what dead guardians had left and was undone.
    ///
    /// # Errors
    /// When the lock cannot be taken, or the guardian is gone; [`Error::Stopped`] once `stop` returns true.
    pub fn acquire(&mut self, report: &dyn Fn(String), stop: &dyn Fn() -> bool) -> Result<Vec<String>> {
        self.send(&Request::Acquire { run_id: self.run_id.clone(), run: Process::own()? })?;
        loop {
            match self.receive(LOOK)? {
                None if stop() => return Err(Error::Stopped),
                None => {}
                Some(Reply::Waiting { holder }) => report(holder),
                Some(Reply::Acquired { recovered }) => return Ok(recovered),
                Some(other) => return Err(unexpected(other)),
            }
        }
    }

    /// Declares network namespaces of the run itself, by inode: they are not protected from its
    /// writes. Needed only for namespaces with processes in them.
    pub fn declare_own(&mut self, inodes: impl IntoIterator<Item = u64>) {
        self.own.extend(inodes);
    }

    /// Sends a request about the limit.
    ///
    /// # Errors
    /// When it would harm another namespace, or cannot be written or restored; the journal is then kept.
    pub fn ask(&mut self, ask: LimitRequest) -> Result<LimitReply> {
        let is_restore = ask == LimitRequest::Restore;
        self.may_be_in_force |= !is_restore;
        let request = Request::Limit { ask, own: self.own.clone() };
        let reply = self.send(&request).and_then(|()| self.receive(PATIENCE));
        let reply = match reply {
            Ok(Some(Reply::Limit(reply))) => reply,
            Ok(Some(other)) => return Err(unexpected(other)),
            Ok(None) => {
                return Err(Error::Guardian { what: format!("get an answer from the guardian within {PATIENCE:?}") });
            }
            Err(Error::GuardianGone { .. }) if is_restore => LimitReply::Restored(self.restore_from_journal()?),
            Err(error) => return Err(error),
        };
        self.may_be_in_force &= !is_restore;
        Ok(reply)
    }

    /// Writes the limit and reads it back.
    ///
    /// # Errors
    /// See [`Self::ask`].
    pub fn write_limit(&mut self, value: u32) -> Result<LimitWrite> {
        match self.ask(LimitRequest::Write(value))? {
            LimitReply::Written(written) => Ok(written),
            other => Err(unexpected(Reply::Limit(other))),
        }
    }

    /// Restores the limit; the lock is kept until this is dropped.
    ///
    /// # Errors
    /// See [`Self::ask`].
    pub fn restore(&mut self) -> Result<Restore> {
        match self.ask(LimitRequest::Restore)? {
            LimitReply::Restored(restore) => Ok(restore),
            other => Err(unexpected(Reply::Limit(other))),
        }
    }

    /// Why the guardian restored the limit on its own, if it did. Does not wait.
    pub fn alarm(&mut self) -> Option<String> {
        while let Ok(Ok(Reply::Alarm { why })) = self.replies.try_recv() {
            self.alarms.push(why);
        }
        (!self.alarms.is_empty()).then(|| self.alarms.remove(0))
    }

    /// Closes the pipe and waits until the guardian has exited; the lock is then free.
    ///
    /// # Errors
    /// When waiting fails.
    pub fn finish(mut self) -> Result<ExitStatus> {
        self.close()
    }

    fn close(&mut self) -> Result<ExitStatus> {
        drop(self.requests.take());
        Ok(self.child.wait().context(|| "wait for the guardian".into())?)
    }

    /// The guardian is dead, so that any process with the lock may replay its journal.
    fn restore_from_journal(&mut self) -> Result<Restore> {
        self.close()?;
        for recovered in recover::recover(&self.site, &|_| ())? {
            match recovered.outcome {
                JournalOutcome::Replayed { run_id, undone, .. } if run_id == self.run_id => {
                    return Restore::of(undone);
                }
                JournalOutcome::Failed { run_id, why } if run_id == self.run_id => {
                    return Err(Error::Guardian { what: why });
                }
                _ => {}
            }
        }
        Ok(Restore::Nothing)
    }

    fn send(&mut self, request: &Request) -> Result<()> {
        let sent = match &mut self.requests {
            Some(pipe) => send(pipe, request).map_err(|error| error.to_string()),
            None => Err("its pipe was closed".into()),
        };
        sent.map_err(|why| self.gone(&why))
    }

    /// The next reply other than an alarm; `None` on timeout.
    fn receive(&mut self, timeout: Duration) -> Result<Option<Reply>> {
        loop {
            match self.replies.recv_timeout(timeout) {
                Ok(Ok(Reply::Alarm { why })) => self.alarms.push(why),
                Ok(Ok(reply)) => return Ok(Some(reply)),
                Ok(Err(why)) => return Err(Error::Guardian { what: format!("read the guardian's reply: {why}") }),
                Err(RecvTimeoutError::Timeout) => return Ok(None),
                Err(RecvTimeoutError::Disconnected) => return Err(self.gone("it closed its output")),
            }
        }
    }

    /// A guardian that could not start reports why before it exits.
    fn gone(&self, how: &str) -> Error {
        let last = match self.replies.try_recv() {
            Ok(Ok(Reply::Error { what })) => what,
            Ok(_) | Err(TryRecvError::Empty | TryRecvError::Disconnected) => how.into(),
        };
        Error::GuardianGone { why: last }
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        let ended_well = self.close().is_ok_and(|status| status.success());
        if self.may_be_in_force && !ended_well {
            // A process that holds the lock has done this already; otherwise the next start of relapse does.
            let _ = recover::recover_quietly(&self.site);
        }
    }
}

/// A command that runs the program with termination signals ignored.
pub fn ignoring_signals(program: &Path, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "trap '' HUP INT QUIT TERM; exec \"$@\"", "relapse"]).arg(program).args(arguments);
    command
}

fn unexpected(reply: Reply) -> Error {
    match reply {
        Reply::Error { what } => Error::Guardian { what },
        other => Error::Guardian { what: format!("read the guardian's reply: unexpected {other:?}") },
    }
}
