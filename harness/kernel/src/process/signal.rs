//! Signals to processes started by others on our behalf, such as those of a container.

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::error::{Context, Error, Result};

/// Requests termination of a process (SIGTERM). A process that no longer exists is not an error.
///
/// # Errors
/// When the kernel refuses.
pub fn ask_to_end(pid: u32) -> Result<()> {
    send(pid, Signal::TERM)
}

/// Kills a process (SIGKILL). A process that no longer exists is not an error.
///
/// # Errors
/// When the kernel refuses.
pub fn end(pid: u32) -> Result<()> {
    send(pid, Signal::KILL)
}

/// Suspends a process (SIGSTOP) until [`resume`]. A process that no longer exists is not an error.
///
/// # Errors
/// When the kernel refuses.
pub fn suspend(pid: u32) -> Result<()> {
    send(pid, Signal::STOP)
}

/// Lets a suspended process continue (SIGCONT). A process that no longer exists is not an error.
///
/// # Errors
/// When the kernel refuses.
pub fn resume(pid: u32) -> Result<()> {
    send(pid, Signal::CONT)
}

/// Requests that a process reads its configuration again (SIGHUP). A process that no longer exists is not an error.
///
/// # Errors
/// When the kernel refuses.
pub fn reload(pid: u32) -> Result<()> {
    send(pid, Signal::HUP)
}

fn send(pid: u32, signal: Signal) -> Result<()> {
    let what = || format!("send {signal:?} to process {pid}");
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(|| Error::NotFound { what: what() })?;
    let sent = pidfd_open(number, PidfdFlags::empty()).and_then(|process| pidfd_send_signal(process, signal));
    match sent {
        Err(Errno::SRCH) => Ok(()),
        result => result.context(what),
    }
}
