//! The run's end of the conversation with its guardian.
//!
//! Blocking, and used from outside the lab. The guardian is started through a shell that ignores the
//! signals which ask a process to end (terminal, service manager) and then becomes the guardian:
//! ignored signals stay ignored across an exec. Its own process group keeps the terminal's away.
//!
//! When the guardian itself was killed, the run restores in its place from the journal.

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

/// The hidden command of relapse that [`guardian_main`](super::guardian_main) stands for.
pub const COMMAND: &str = "__guardian";

/// How often a wish to stop is looked for.
const LOOK: Duration = Duration::from_millis(50);
/// A write takes milliseconds; past this the guardian is as good as gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// A guardian at work for this run.
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
    /// Starts `exe __guardian` for a run; `what` it is for stands in its command line, for who waits for it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(exe: &Path, run_id: &str, what: &str) -> Result<Self> {
        Self::over(deaf(exe, [COMMAND, run_id, what]), Site::host()?, run_id)
    }

    /// Starts a guardian by another command line; `site` is where that one works.
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

    /// Takes the machine-wide lock, waiting as long as others hold it; `tell` hears who. Returns, in words, what dead
    /// guardians had left and was undone.
    ///
    /// # Errors
    /// When there can be no lock, or the guardian is gone; [`Error::Stopped`] once `stop` says so.
    pub fn acquire(&mut self, tell: &dyn Fn(String), stop: &dyn Fn() -> bool) -> Result<Vec<String>> {
        self.send(&Request::Acquire { run_id: self.run_id.clone(), run: Process::own()? })?;
        loop {
            match self.hear(LOOK)? {
                None if stop() => return Err(Error::Stopped),
                None => {}
                Some(Reply::Waiting { holder }) => tell(holder),
                Some(Reply::Acquired { recovered }) => return Ok(recovered),
                Some(other) => return Err(unexpected(other)),
            }
        }
    }

    /// Names network namespaces of the run itself, by inode: they are not protected from what it
    /// writes. Needed only for those in which processes live.
    pub fn declare_own(&mut self, inodes: impl IntoIterator<Item = u64>) {
        self.own.extend(inodes);
    }

    /// Asks for something of the limit.
    ///
    /// # Errors
    /// When it would harm another namespace, or cannot be written or set back; the journal then still says what to do.
    pub fn ask(&mut self, ask: LimitRequest) -> Result<LimitReply> {
        let is_restore = ask == LimitRequest::Restore;
        self.may_be_in_force |= !is_restore;
        let request = Request::Limit { ask, own: self.own.clone() };
        let reply = self.send(&request).and_then(|()| self.hear(PATIENCE));
        let reply = match reply {
            Ok(Some(Reply::Limit(reply))) => reply,
            Ok(Some(other)) => return Err(unexpected(other)),
            Ok(None) => {
                return Err(Error::Guardian { what: format!("get an answer from the guardian within {PATIENCE:?}") });
            }
            Err(Error::GuardianGone { .. }) if is_restore => LimitReply::Restored(self.restore_in_its_place()?),
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

    /// Sets the limit back; the lock is kept until this is dropped.
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

    /// Lets the guardian end, and waits until it has: then the lock is free.
    ///
    /// # Errors
    /// When its end cannot be waited for.
    pub fn finish(mut self) -> Result<ExitStatus> {
        self.close()
    }

    fn close(&mut self) -> Result<ExitStatus> {
        drop(self.requests.take());
        Ok(self.child.wait().context(|| "wait for the guardian".into())?)
    }

    /// It is dead, so its journal is anyone's who gets the lock.
    fn restore_in_its_place(&mut self) -> Result<Restore> {
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

    /// The next reply that is no alarm; none where there is none in time.
    fn hear(&mut self, patience: Duration) -> Result<Option<Reply>> {
        loop {
            match self.replies.recv_timeout(patience) {
                Ok(Ok(Reply::Alarm { why })) => self.alarms.push(why),
                Ok(Ok(reply)) => return Ok(Some(reply)),
                Ok(Err(why)) => return Err(Error::Guardian { what: format!("understand the guardian: {why}") }),
                Err(RecvTimeoutError::Timeout) => return Ok(None),
                Err(RecvTimeoutError::Disconnected) => return Err(self.gone("it closed its output")),
            }
        }
    }

    /// A guardian that could not start says why before it ends.
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
            // Whoever has the lock did this on getting it; and there is the next start.
            let _ = recover::recover_quietly(&self.site);
        }
    }
}

/// The program, deaf to signals that ask it to end.
pub fn deaf(program: &Path, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "trap '' HUP INT QUIT TERM; exec \"$@\"", "relapse"]).arg(program).args(arguments);
    command
}

fn unexpected(reply: Reply) -> Error {
    match reply {
        Reply::Error { what } => Error::Guardian { what },
        other => Error::Guardian { what: format!("understand the guardian: unexpected answer {other:?}") },
    }
}
