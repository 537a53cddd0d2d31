//! A piece of work in a child process of its own, for what a process with threads may not do:
//! enter or make user namespaces (user_namespaces(7), setns(2)).

use std::io;

use rustix::process::{Pid, Signal, WaitOptions, getpid, getppid, set_parent_process_death_signal, waitpid};

use crate::error::{Context, Error, Result};

/// Runs `work` in a forked child and returns the number (0 to 255) it ended with.
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
            let code = if getppid() == Some(parent) { work() } else { 255 };
            // SAFETY: ends this process at once, without the handlers that belong to the parent.
            unsafe { libc::_exit(i32::from(code)) }
        }
        child => child,
    };
    let child = Pid::from_raw(child);
    loop {
        match waitpid(child, WaitOptions::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            result => {
                let status = result.context(|| what.to_owned())?;
                let code = status.and_then(|(_, status)| status.exit_status());
                let killed = || Error::Answer { what: what.to_owned(), answer: "the helper was killed".into() };
                return code.and_then(|code| u8::try_from(code).ok()).ok_or_else(killed);
            }
        }
    }
}
