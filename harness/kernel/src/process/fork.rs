//! Fork, wait and exit.

use std::io;

use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, getpid, getppid, set_parent_process_death_signal, waitpid,
};

use crate::error::{Context, Error, Result};

/// Exit status of a lab whose setup failed; the reason was reported to the parent.
pub(super) const SETUP_FAILED: i32 = 70;

/// Forks a process that is still single-threaded: the child's pid, or `None` in the child.
pub(super) fn fork(what: &str) -> Result<Option<Pid>> {
    // SAFETY: the process has a single thread, so the child is a complete copy.
    match unsafe { libc::fork() } {
        -1 => Err(Error::kernel(format!("fork the lab's {what}"), io::Error::last_os_error())),
        child => Ok(Pid::from_raw(child)),
    }
}

/// Runs `work` in a forked child and returns its exit status (0 to 255), for operations a multithreaded process may
/// not perform: entering or creating user namespaces (user_namespaces(7), setns(2)).
///
/// # Safety
/// The child is a copy of one thread: locks held by other threads, the allocator's included, stay locked
/// forever. `work` may only make system calls on data prepared before the fork.
pub(super) unsafe fn run(what: &str, work: impl FnOnce() -> u8) -> Result<u8> {
    let parent = getpid();
    // SAFETY: the child runs `work`, as promised by the caller, and system calls.
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

/// The exit status as a shell reports it.
pub(super) fn code(status: WaitStatus) -> i32 {
    status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal)).unwrap_or(SETUP_FAILED)
}

/// Exits immediately: buffers and exit handlers belong to the process this one was forked from.
pub(super) fn exit(code: i32) -> ! {
    // SAFETY: a plain system call.
    unsafe { libc::_exit(code) }
}
