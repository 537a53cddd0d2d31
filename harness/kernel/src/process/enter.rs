//! The lab's side: turns a fresh process into one in its own namespaces.
//!
//! Everything here runs while the program is single-threaded, so forking is safe. The thread that watches the
//! parent is started last.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{Signal, WaitOptions, set_parent_process_death_signal};
use rustix::thread::CapabilitySet;

use super::fork::{SETUP_FAILED, code, exit, fork, wait_for};
use super::namespaces;
use crate::error::{Context, Error, Result};

/// The environment variable that names the inherited descriptors: `setup,events,control,namespaces`.
pub(super) const PIPES: &str = "RELAPSE_LAB_PIPES";
/// The first byte on the control pipe: the parent now holds the lab's handles.
pub(super) const GO_ON: u8 = b'\n';

/// The lab's ends of the pipes to its parent.
#[derive(Debug)]
pub struct LabSide {
    /// Messages to the parent.
    pub events: File,
    /// Messages from the parent. End of file means that the parent is gone; the lab is then killed in any case.
    pub control: File,
}

/// The counterpart of [`super::LabCommand::spawn`]: creates the namespaces and returns inside them, in the
/// lab process. Call it at the very start of `main`, while there is only one thread; it never returns in the other
/// processes it forks. A failure is reported to the parent and ends the process.
///
/// # Errors
/// When this process was not started by [`super::LabCommand`].
pub fn enter_lab() -> Result<LabSide> {
    let (mut setup, side, namespaces) = inherited()?;
    let entered = if namespaces { into_namespaces(&mut setup, &side) } else { tie_to_parent(&side) };
    let reported = match &entered {
        Ok(()) => report(&mut setup, "ready"),
        Err(error) => {
            let errno = error.errno().unwrap_or(libc::EIO);
            let what = match error {
                Error::Kernel { what, .. } => what.clone(),
                other => other.to_string(),
            };
            report(&mut setup, &format!("error {errno} {what}"))
        }
    };
    // A failed write means that the parent is gone.
    if entered.is_err() || reported.is_err() || !may_go_on(&side.control) {
        exit(SETUP_FAILED);
    }
    Ok(side)
}

/// Waits until the parent holds this process's handles; consumes exactly the byte that reports it.
fn may_go_on(mut control: &File) -> bool {
    let mut byte = [0];
    control.read_exact(&mut byte).is_ok() && byte == [GO_ON]
}

/// A single write: outer and the lab write to the same pipe, in no particular order (pipe(7), `PIPE_BUF`).
fn report(setup: &mut File, line: &str) -> io::Result<()> {
    setup.write_all(format!("{line}\n").as_bytes())
}

/// Takes over the descriptors left open by the parent.
fn inherited() -> Result<(File, LabSide, bool)> {
    let none = || Error::NotFound { what: format!("enter the lab: {PIPES}") };
    let value = std::env::var(PIPES).map_err(|_| none())?;
    // SAFETY: this process has a single thread, so nothing reads the environment concurrently.
    unsafe { std::env::remove_var(PIPES) };
    let numbers: Vec<i32> = value.split(',').map_while(|number| number.parse().ok()).collect();
    let &[setup, events, control, namespaces] = &numbers[..] else { return Err(none()) };
    let mut files = [setup, events, control].into_iter().map(|number| {
        // SAFETY: plain system calls; the number names a descriptor that the parent left open for
        // this process and that nothing else here uses.
        let fd = unsafe {
            if libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) == -1 {
                return Err(none());
            }
            OwnedFd::from_raw_fd(number)
        };
        Ok(File::from(fd))
    });
    let mut next = || files.next().unwrap_or_else(|| Err(none()));
    Ok((next()?, LabSide { events: next()?, control: next()? }, namespaces == 1))
}

/// Without namespaces: this process ends when the parent is gone.
fn tie_to_parent(side: &LabSide) -> Result<()> {
    let control = side.control.try_clone().context(|| "duplicate the control pipe".into())?;
    end_with(vec![control.into()])
}

/// A thread that ends this process once the other end of one of these pipes is closed.
fn end_with(pipes: Vec<OwnedFd>) -> Result<()> {
    let watch = move || {
        let mut watched: Vec<_> = pipes.iter().map(|pipe| PollFd::new(pipe, PollFlags::empty())).collect();
        while poll(&mut watched, None).is_err() {}
        exit(128 + libc::SIGKILL)
    };
    std::thread::Builder::new().name("parent".into()).spawn(watch).context(|| "start a thread".into()).map(drop)
}

/// Returns in the lab process only.
fn into_namespaces(setup: &mut File, side: &LabSide) -> Result<()> {
    namespaces::make()?;
    keep_capabilities().context(|| "keep capabilities for children".into())?;
    // A change of credentials clears the death signal (commit_creds in kernel/cred.c).
    die_with_parent()?;
    let (outer_lives, outers) = io::pipe().context(|| "make a pipe".into())?;
    if let Some(init) = fork("init")? {
        drop(outer_lives);
        let reported = report(setup, &format!("init {}", init.as_raw_nonzero()));
        close_inherited(setup, side);
        if reported.is_err() {
            exit(SETUP_FAILED);
        }
        let status = wait_for(init);
        drop(outers);
        exit(status);
    }
    drop(outers);
    die_with_parent()?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .context(|| "make mounts private".into())?;
    mount("proc", "/proc", "proc", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, None)
        .context(|| "mount /proc (a container runtime that masks parts of it forbids that; allow it by docker run --privileged, or \
             --security-opt systempaths=unconfined beside seccomp=unconfined)".into())?;
    small_socket_tables();
    init(setup, side, outer_lives.into())
}

/// Namespaces created from here get their own table of TCP connections. Otherwise they share the
/// machine's, and each listing of one namespace's sockets walks all of it: 0.28 ms for its 262144 rows,
/// 7 us for 1024 (ip-sysctl.rst, `tcp_child_ehash_entries`, since 6.1; older kernels are only slower).
fn small_socket_tables() {
    let _ = std::fs::write("/proc/sys/net/ipv4/tcp_child_ehash_entries", "1024");
}

/// Pid 1: forks the lab, the only process in which it returns, reaps children, and exits with the first of
/// lab, parent and outer.
fn init(setup: &File, side: &LabSide, outer_lives: OwnedFd) -> Result<()> {
    // Stays open: only its reading end can be watched.
    let control = side.control.try_clone().context(|| "duplicate the control pipe".into())?;
    let Some(lab) = fork("lab")? else { return Ok(()) };
    close(setup.as_fd());
    close(side.events.as_fd());
    if end_with(vec![control.into(), outer_lives]).is_err() {
        exit(SETUP_FAILED);
    }
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((child, status))) if child == lab => exit(code(status)),
            _ => {}
        }
    }
}

/// Inheritable and ambient, so that programs executed by an ordinary user keep the capabilities of the namespace
/// (capabilities(7), "Transformation of capabilities during execve").
fn keep_capabilities() -> rustix::io::Result<()> {
    let mut sets = rustix::thread::capabilities(None)?;
    sets.inheritable = sets.permitted;
    rustix::thread::set_capabilities(None, sets)?;
    for capability in (0..64).filter_map(|bit| CapabilitySet::from_bits(1 << bit)) {
        if sets.permitted.contains(capability) {
            rustix::thread::configure_capability_in_ambient_set(capability, true)?;
        }
    }
    Ok(())
}

fn die_with_parent() -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).context(|| "tie the lab to its parent".into())
}

fn close_inherited(setup: &File, side: &LabSide) {
    for fd in [setup, &side.events, &side.control] {
        close(fd.as_fd());
    }
}

/// Closes a descriptor in a process that never returns and therefore never drops what it owns.
fn close(fd: BorrowedFd<'_>) {
    use std::os::fd::AsRawFd;
    // SAFETY: this process does not use the descriptor again: it ends with `_exit`.
    unsafe { libc::close(fd.as_raw_fd()) };
}
