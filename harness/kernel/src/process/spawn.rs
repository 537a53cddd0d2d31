//! The parent's side: starts a lab, holds its pipes, kills it.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::enter::{GO_ON, PIPES};
use super::release::UserNs;
use super::restrictions;
use crate::error::{Context, Error, Result};

/// How to start a lab: this program again, with other arguments.
#[derive(Debug)]
#[must_use]
pub struct LabCommand {
    command: Command,
    namespaces: bool,
}

impl LabCommand {
    /// This program with `arguments` that make its `main` call [`super::enter_lab`]. Stdio is inherited.
    pub fn new<A: Into<OsString>>(arguments: impl IntoIterator<Item = A>) -> Self {
        // Resolved by the child before it executes something else, so it is this program even if the
        // file has been replaced by a newer build.
        let mut command = Command::new("/proc/self/exe");
        command.args(arguments.into_iter().map(Into::into));
        if let Some(name) = std::env::args_os().next() {
            command.arg0(name);
        }
        Self { command, namespaces: true }
    }

    /// Starts another program instead of this one, with the same arguments.
    pub fn program(mut self, path: &std::path::Path) -> Self {
        let mut command = Command::new(path);
        command.args(self.command.get_args());
        self.command = command;
        self
    }

    /// Whether the lab runs in its own namespaces (default: true).
    pub const fn user_namespace(mut self, own: bool) -> Self {
        self.namespaces = own;
        self
    }

    /// Starts the lab, waits until [`super::enter_lab`] has succeeded there, and lets it continue once all
    /// handles to it are held here, so that its exit is seen however early it happens. Call it from a thread that
    /// lives as long as the lab should: the kernel kills the lab when that thread ends.
    ///
    /// # Errors
    /// The step that failed in the lab, and if user namespaces are restricted, how to allow them.
    pub fn spawn(mut self) -> Result<LabProcess> {
        let what = || "start the lab process".to_owned();
        let (setup, setup_theirs) = io::pipe().context(what)?;
        let (events, events_theirs) = io::pipe().context(what)?;
        let (control_theirs, control) = io::pipe().context(what)?;
        let theirs = [setup_theirs.as_raw_fd(), events_theirs.as_raw_fd(), control_theirs.as_raw_fd()];
        let [a, b, c] = theirs;
        self.command.env(PIPES, format!("{a},{b},{c},{}", i32::from(self.namespaces)));
        // Its own process group: Ctrl-C reaches only the parent, which then shuts the lab down.
        self.command.process_group(0);
        let parent = rustix::process::getpid();
        // SAFETY: between fork and exec the closure only makes system calls.
        unsafe { self.command.pre_exec(move || prepare(parent, theirs)) };
        let child = self.command.spawn().context(what)?;
        drop((setup_theirs, events_theirs, control_theirs));

        // From here on the child is killed and reaped on every return path.
        let mut lab = LabProcess {
            child,
            init: None,
            user_namespace: None,
            events: Some(OwnedFd::from(events).into()),
            control: Some(OwnedFd::from(control).into()),
        };
        let explain = |error| if self.namespaces { restrictions::explain(error) } else { error };
        let setup = BufReader::new(File::from(OwnedFd::from(setup)));
        if let Some(init) = follow(setup, self.namespaces).map_err(explain)? {
            lab.user_namespace = Some(UserNs::of_process(lab.child.id())?);
            lab.init = Some(pidfd_open(init, PidfdFlags::empty()).context(what)?);
        }
        if let Some(control) = &mut lab.control {
            control.write_all(&[GO_ON]).context(what)?;
        }
        Ok(lab)
    }
}

/// Runs in the child before exec.
fn prepare(parent: Pid, inherited: [RawFd; 3]) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // The parent may have died before that was set.
    if rustix::process::getppid() != Some(parent) {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    for fd in inherited {
        // SAFETY: a plain system call on a descriptor that was open at the fork and still is.
        if unsafe { libc::fcntl(fd, libc::F_SETFD, 0) } == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Reads the setup messages of the lab; returns the pid of its init, if it has one.
fn follow(setup: impl BufRead, namespaces: bool) -> Result<Option<Pid>> {
    let what = || "set up the lab process".to_owned();
    let (mut init, mut ready) = (None, false);
    let mut lines = setup.lines();
    while !ready || (namespaces && init.is_none()) {
        let Some(line) = lines.next() else {
            return Err(Error::Answer {
                what: what(),
                answer: "it exited before it was ready; does its main call enter_lab first?".into(),
            });
        };
        let line = line.context(what)?;
        let mut words = line.splitn(3, ' ');
        match (words.next(), words.next(), words.next()) {
            (Some("init"), Some(pid), None) => init = pid.parse().ok().and_then(Pid::from_raw),
            (Some("ready"), None, None) => ready = true,
            (Some("error"), Some(number), Some(attempt)) => {
                let number = number.parse().unwrap_or(libc::EIO);
                return Err(Error::kernel(attempt, io::Error::from_raw_os_error(number)));
            }
            _ => return Err(Error::Answer { what: what(), answer: line }),
        }
    }
    Ok(init)
}

/// A running lab as seen by its parent.
#[derive(Debug)]
#[must_use = "dropped, the lab is killed"]
pub struct LabProcess {
    child: Child,
    init: Option<OwnedFd>,
    user_namespace: Option<UserNs>,
    events: Option<File>,
    control: Option<File>,
}

impl LabProcess {
    /// The pipe on which the lab reports events until it ends. Can be taken once.
    pub const fn take_events(&mut self) -> Option<File> {
        self.events.take()
    }

    /// The pipe on which the lab is controlled. Can be taken once. **Closing it kills the lab**, which takes it for the
    /// death of its parent.
    pub const fn take_control(&mut self) -> Option<File> {
        self.control.take()
    }

    /// Waits for the lab to end: returns its exit status, or 128 plus the signal that killed it.
    ///
    /// # Errors
    /// When there is no child to wait for.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        // `Child::wait` does not close stdin: it is inherited, never piped.
        self.child.wait().context(|| "wait for the lab process".into())
    }

    /// Kills the lab. With namespaces, every process in it is gone when [`Self::wait`] returns.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill(&mut self) -> Result<()> {
        let what = || "kill the lab process".to_owned();
        match &self.init {
            // Outer then exits on its own, after the kernel has torn down the whole pid namespace.
            Some(init) => match pidfd_send_signal(init, Signal::KILL) {
                Err(rustix::io::Errno::SRCH) => Ok(()),
                result => result.context(what),
            },
            None => self.child.kill().context(what),
        }
    }

    /// Verifies, once the lab has ended, that none of its network namespaces is left, and returns how
    /// long that took. Blocks, at most for `deadline`.
    ///
    /// # Errors
    /// [`Error::NotInForce`] if some are still held at the deadline: by a process that outlived the lab, by a
    /// descriptor that was passed on, or by TCP with unacknowledged data. [`Error::NotFound`] for a lab without
    /// namespaces.
    pub fn proof_of_release(&self, deadline: Duration) -> Result<Duration> {
        let none = || Error::NotFound { what: "prove the end of a lab without namespaces".into() };
        self.user_namespace.as_ref().ok_or_else(none)?.all_released(deadline)
    }
}

impl Drop for LabProcess {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.kill();
            // Without init nothing else waits for it; with it, outer may not have got that far.
            if self.init.is_none() {
                let _ = self.child.kill();
            }
            let _ = self.child.wait();
        }
    }
}
