//! Forks, waits and ends of a process that has a single thread still.

use std::io;

use rustix::process::{Pid, WaitOptions, WaitStatus, waitpid};

use crate::error::{Error, Result};

/// Exit status of a lab that could not be set up; why, it has told its parent.
pub(super) const SETUP_FAILED: i32 = 70;

/// The child's pid, or none in the child.
pub(super) fn fork(what: &str) -> Result<Option<Pid>> {
    // SAFETY: there is a single thread, so the child is a complete process.
    match unsafe { libc::fork() } {
        -1 => Err(Error::kernel(format!("fork the lab's {what}"), io::Error::last_os_error())),
        child => Ok(Pid::from_raw(child)),
    }
}

pub(super) fn wait_for(child: Pid) -> i32 {
    loop {
        match waitpid(Some(child), WaitOptions::empty()) {
            Ok(Some((_, status))) => return code(status),
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return SETUP_FAILED,
        }
    }
}

/// As a shell tells it.
pub(super) fn code(status: WaitStatus) -> i32 {
    status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal)).unwrap_or(SETUP_FAILED)
}

pub(super) fn exit(code: i32) -> ! {
    // SAFETY: ends this process at once; buffers and handlers belong to the process it was forked from.
    unsafe { libc::_exit(code) }
}
