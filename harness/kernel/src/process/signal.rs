//! Signals to processes that somebody else started for us, such as a container's.

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::error::{Context, Error, Result};

/// Asks a process to end (SIGTERM). One that is gone has ended.
///
/// # Errors
/// When the kernel refuses.
pub fn ask_to_end(pid: u32) -> Result<()> {
    send(pid, Signal::TERM)
}

/// Ends a process at once (SIGKILL). One that is gone has ended.
///
/// # Errors
/// When the kernel refuses.
pub fn end(pid: u32) -> Result<()> {
    send(pid, Signal::KILL)
}

fn send(pid: u32, signal: Signal) -> Result<()> {
    let what = || format!("end process {pid}");
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(|| Error::NotFound { what: what() })?;
    let sent = pidfd_open(number, PidfdFlags::empty()).and_then(|process| pidfd_send_signal(process, signal));
    match sent {
        Err(Errno::SRCH) => Ok(()),
        result => result.context(what),
    }
}
