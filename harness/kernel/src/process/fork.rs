//! Forks, waits and ends.

use std::io;

use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, getpid, getppid, set_parent_process_death_signal, waitpid,
};

use crate::error::{Context, Error, Result};

/// Exit status of a lab that could not be set up; why, it has told its parent.
pub(super) const SETUP_FAILED: i32 = 70;

/// In a process that has a single thread still: the child's pid, or none in the child.
pub(super) fn fork(what: &str) -> Result<Option<Pid>> {
    // SAFETY: there is a single thread, so the child is a complete process.
    match unsafe { libc::fork() } {
        -1 => Err(Error::kernel(format!("fork the lab's {what}"), io::Error::last_os_error())),
        child => Ok(Pid::from_raw(child)),
    }
}

/// Runs `work` in a forked child and returns the number (0 to 255) it ended with, for what a process with threads may
/// not do: enter or make user namespaces (user_namespaces(7), setns(2)).
///
/// # Safety
/// The child is a copy of one thread: locks that other threads hold, the allocator's too, stay locked
/// in it for ever. `work` makes system calls on what was prepared before, and nothing else.
pub(super) unsafe fn run(what: &str, work: impl FnOnce() -> u8) -> Result<u8> {
    let parent = getpid();
    // SAFETY: the child runs `work`, as the caller promises, and system calls.
    let child = match unsafe { libc::fork() } {
        -1 => return Err(Error::kernel(what, io::Error::last_os_error())),
        0 => {
            let _ = set_parent_process_death_signal(Some(Signal::KILL));
            exit(if getppid() == Some(parent) { work().into() } else { 255 })
        }
        child => child,
    };
    let status = ended(Pid::from_raw(child)).context(|| what.to_owned())?;
    let number = status.and_then(WaitStatus::exit_status).and_then(|number| u8::try_from(number).ok());
    number.ok_or_else(|| Error::Answer { what: what.to_owned(), answer: "the helper was killed".into() })
}

pub(super) fn wait_for(child: Pid) -> i32 {
    ended(Some(child)).ok().flatten().map_or(SETUP_FAILED, code)
}

/// Waits for the end of a child.
fn ended(child: Option<Pid>) -> rustix::io::Result<Option<WaitStatus>> {
    loop {
        match waitpid(child, WaitOptions::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            result => return Ok(result?.map(|(_, status)| status)),
        }
    }
}

/// As a shell tells it.
pub(super) fn code(status: WaitStatus) -> i32 {
    status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal)).unwrap_or(SETUP_FAILED)
}

/// Ends this process at once; buffers and handlers belong to the process it was forked from.
pub(super) fn exit(code: i32) -> ! {
    // SAFETY: a plain system call.
    unsafe { libc::_exit(code) }
}
