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

use super::identity::Process;
use super::lock::Who;
use super::protocol::{Reply, Request, send};
use super::recover::{self, Outcome};
use super::restore::Undone;
use super::{CONNTRACK_MAX, Context, Error, Result, Site};

/// The hidden command of relapse that [`guardian_main`](super::guardian_main) stands for.
pub const COMMAND: &str = "__guardian";

/// A write takes milliseconds; past this the guardian is as good as gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// The limit as written and in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    pub before: u32,
    /// Right before the write, `CLOCK_MONOTONIC` in nanoseconds.
    pub t0: u64,
    /// After it was read back.
    pub t1: u64,
    pub read_back: u32,
}

/// What became of the limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Restore {
    Restored {
        value: u32,
    },
    /// Somebody else wrote it since; left as it is.
    NotOurs {
        found: String,
        expected: String,
    },
    /// Nothing was in force, or who got the lock after a dead guardian restored it already.
    Nothing,
}

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
    /// Starts `exe __guardian` for a run.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(exe: &Path, run_id: &str) -> Result<Self> {
        Self::over(deaf(exe, [COMMAND]), Site::host()?, run_id)
    }

    /// Starts a guardian by another command line; `site` is where that one works.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn over(mut command: Command, site: Site, run_id: &str) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut child = command.spawn().context(|| "start the guardian".into())?;
        let requests = child.stdin.take();
        let output = child.stdout.take().ok_or_else(|| Error::Guardian { what: "hear the guardian".into() })?;
        let (sender, replies) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                let reply = line
                    .map_err(|error| error.to_string())
                    .and_then(|line| serde_json::from_str(&line).map_err(|error| format!("it said {line:?}: {error}")));
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

    /// Takes the machine-wide lock for `what`, waiting as long as others hold it; `on_wait` is told
    /// who. Returns, in words, what dead guardians had left and was undone.
    ///
    /// # Errors
    /// When there can be no lock, or the guardian is gone.
    pub fn acquire(&mut self, what: &str, on_wait: &mut dyn FnMut(&str)) -> Result<Vec<String>> {
        let who = Who { run: self.run_id.clone(), what: what.into() };
        self.send(&Request::Acquire { who, run: Process::own()? })?;
        loop {
            match self.hear(None)? {
                Reply::Waiting { holder } => on_wait(&holder),
                Reply::Acquired { recovered } => return Ok(recovered),
                other => return Err(unexpected(other)),
            }
        }
    }

    /// Names network namespaces of the run itself, by inode: they are not protected from what it
    /// writes. Needed only for those in which processes live.
    pub fn declare_own(&mut self, inodes: impl IntoIterator<Item = u64>) {
        self.own.extend(inodes);
    }

    /// Writes the limit and reads it back.
    ///
    /// # Errors
    /// [`Error::Refused`] when it would harm another namespace; when it cannot be written.
    pub fn write_limit(&mut self, value: u32) -> Result<Written> {
        self.may_be_in_force = true;
        self.send(&Request::Write { value, own: self.own.clone() })?;
        match self.hear(Some(PATIENCE))? {
            Reply::Written { before, t0, t1, read_back } => Ok(Written { before, t0, t1, read_back }),
            Reply::Refused { why } => Err(Error::Refused { key: CONNTRACK_MAX.into(), value, why }),
            other => Err(unexpected(other)),
        }
    }

    /// Says what somebody else is about to write for the run; what it is until then.
    ///
    /// # Errors
    /// [`Error::Refused`] when it would harm another namespace.
    pub fn expect_limit(&mut self, value: u32) -> Result<u32> {
        self.may_be_in_force = true;
        self.send(&Request::Expect { value, own: self.own.clone() })?;
        match self.hear(Some(PATIENCE))? {
            Reply::Expected { before } => Ok(before),
            Reply::Refused { why } => Err(Error::Refused { key: CONNTRACK_MAX.into(), value, why }),
            other => Err(unexpected(other)),
        }
    }

    /// Why the guardian restored the limit on its own, if it did. Does not wait.
    pub fn alarm(&mut self) -> Option<String> {
        while let Ok(Ok(Reply::Alarm { why })) = self.replies.try_recv() {
            self.alarms.push(why);
        }
        (!self.alarms.is_empty()).then(|| self.alarms.remove(0))
    }

    /// The guardian's process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The guardian has not ended. Does not wait.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sets the limit back; the lock is kept until this is dropped.
    ///
    /// # Errors
    /// When it could not be set back; the journal then still says what to do.
    pub fn restore(&mut self) -> Result<Restore> {
        let reply = self.send(&Request::Restore).and_then(|()| self.hear(Some(PATIENCE)));
        let restored = match reply {
            Ok(Reply::Restored { value }) => Restore::Restored { value },
            Ok(Reply::NotOurs { found, expected }) => Restore::NotOurs { found, expected },
            Ok(Reply::Nothing) => Restore::Nothing,
            Ok(other) => return Err(unexpected(other)),
            Err(Error::GuardianGone { .. }) => self.restore_in_its_place()?,
            Err(error) => return Err(error),
        };
        self.may_be_in_force = false;
        Ok(restored)
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
        self.child.wait().context(|| "wait for the guardian".into())
    }

    /// It is dead, so its journal is anyone's who gets the lock.
    fn restore_in_its_place(&mut self) -> Result<Restore> {
        self.close()?;
        for recovered in recover::recover(&self.site, &mut |_| ())? {
            match recovered.outcome {
                Outcome::Replayed { run_id, undone, .. } if run_id == self.run_id => {
                    return undone.into_iter().next().map_or(Ok(Restore::Nothing), restored);
                }
                Outcome::Failed { run_id, why } if run_id == self.run_id => return Err(Error::Guardian { what: why }),
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

    /// The next reply that is no alarm.
    fn hear(&mut self, patience: Option<Duration>) -> Result<Reply> {
        loop {
            let heard = match patience {
                Some(patience) => self.replies.recv_timeout(patience),
                None => self.replies.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match heard {
                Ok(Ok(Reply::Alarm { why })) => self.alarms.push(why),
                Ok(Ok(reply)) => return Ok(reply),
                Ok(Err(why)) => return Err(Error::Guardian { what: format!("understand the guardian: {why}") }),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(Error::Guardian { what: format!("hear from the guardian within {PATIENCE:?}") });
                }
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

fn restored(undone: Undone) -> Result<Restore> {
    Ok(match undone {
        Undone::Restored { value, .. } | Undone::Already { value, .. } => Restore::Restored {
            value: value.parse().map_err(|_| Error::Guardian { what: format!("read {value:?} as a limit") })?,
        },
        Undone::NotOurs { found, expected, .. } => Restore::NotOurs { found, expected },
        Undone::Removed { .. } => Restore::Nothing,
    })
}

fn unexpected(reply: Reply) -> Error {
    match reply {
        Reply::Error { what } => Error::Guardian { what },
        other => Error::Guardian { what: format!("understand the guardian: out of turn, {other:?}") },
    }
}
