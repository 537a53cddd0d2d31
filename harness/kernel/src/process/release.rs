//! Verifies that no network namespace of a lab is left.
//!
//! A namespace held by no process and no file is not listed anywhere. But the kernel counts namespaces for each
//! user namespace, from creation until the last device is cleaned up (`cleanup_net` in
//! net/core/net_namespace.c ends with `dec_net_namespaces`), and refuses to create another one above the
//! limit in `/proc/sys/user/max_net_namespaces`, a setting that each user namespace has for itself.
//! So: enter the lab's user namespace, set its limit to 1, and create one. That succeeds once the count
//! is 0, and not before.
//!
//! The file shows the setting of the user namespace of the process that opens it, whichever `/proc` it is in
//! (`set_lookup` in kernel/ucount.c). The count is per user: namespaces created by another uid
//! inside the lab are not covered.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use super::fork;
use crate::error::{Context, Error, Result};

const RELEASED: u8 = 0;
const STILL_HELD: u8 = 255;

/// A lab's user namespace, held from outside. The handle keeps nothing else alive.
#[derive(Debug)]
pub struct UserNs(OwnedFd);

impl UserNs {
    /// The user namespace of a lab's outer process or init.
    ///
    /// # Errors
    /// When the process is gone or belongs to another user.
    pub fn of_process(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/ns/user");
        File::open(&path).context(|| format!("open {path}")).map(|file| Self(file.into()))
    }

    /// Waits until the network namespaces created in this user namespace are gone, and returns how long that took.
    /// Only for a lab that has ended: afterwards its limit is one network namespace.
    ///
    /// # Errors
    /// [`Error::NotInForce`] if some are left at the deadline.
    pub fn all_released(&self, deadline: Duration) -> Result<Duration> {
        let what = "prove that the lab's network namespaces are released";
        let started = Instant::now();
        // SAFETY: `probe` makes system calls only; none of them allocates or takes a lock.
        let code = unsafe { fork::run(what, || probe(self.0.as_fd(), started + deadline)) }?;
        match code {
            RELEASED => Ok(started.elapsed()),
            STILL_HELD => Err(Error::NotInForce {
                what: what.into(),
                read_back: format!("some are still held after {:.1} s", started.elapsed().as_secs_f64()),
            }),
            errno => Err(Error::kernel(what, Errno::from_raw_os_error(i32::from(errno)))),
        }
    }
}

fn probe(user_namespace: BorrowedFd<'_>, deadline: Instant) -> u8 {
    if let Err(errno) = limit_to_one(user_namespace) {
        return code(errno);
    }
    loop {
        // SAFETY: this process has one thread and shares nothing.
        match unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) } {
            Ok(()) => return RELEASED,
            Err(Errno::NOSPC) if Instant::now() >= deadline => return STILL_HELD,
            Err(Errno::NOSPC) => std::thread::sleep(Duration::from_millis(2)),
            Err(errno) => return code(errno),
        }
    }
}

fn limit_to_one(user_namespace: BorrowedFd<'_>) -> rustix::io::Result<()> {
    rustix::thread::move_into_link_name_space(user_namespace, Some(LinkNameSpaceType::User))?;
    let path = c"/proc/sys/user/max_net_namespaces";
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, b"1").map(drop)
}

fn code(errno: Errno) -> u8 {
    // All errno values of Linux are below 134 (include/uapi/asm-generic/errno.h).
    u8::try_from(errno.raw_os_error()).unwrap_or(libc::EIO as u8)
}
