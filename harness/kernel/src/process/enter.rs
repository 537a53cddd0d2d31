//! The lab's side: from a fresh process to one in namespaces of its own.
//!
//! Everything here runs before the program has a second thread; forks are therefore harmless. Whoever watches its
//! parent starts one, as the last thing.

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

/// Where the parent tells the lab which descriptors it inherits: `setup,events,control,namespaces`.
pub(super) const PIPES: &str = "RELAPSE_LAB_PIPES";
/// What the parent says first on the control pipe: it holds the lab's handles.
pub(super) const GO_ON: u8 = b'\n';

/// What the lab has of its parent.
#[derive(Debug)]
pub struct LabSide {
    /// To tell the parent.
    pub events: File,
    /// To be told. Its end means that the parent is gone; the lab is killed then in any case.
    pub control: File,
}

/// The other half of [`super::LabCommand::spawn`]: makes the namespaces and returns inside them, in the
/// lab process. To be called at the very start of `main`, while there is only one thread; the other
/// processes that it forks never return from it. What fails is told to the parent, and ends the process.
///
/// # Errors
/// When this process was not started by [`super::LabCommand`].
pub fn enter_lab() -> Result<LabSide> {
    let (mut setup, side, namespaces) = inherited()?;
    let entered = if namespaces { into_namespaces(&mut setup, &side) } else { tie_to_parent(&side) };
    let told = match &entered {
        Ok(()) => tell(&mut setup, "ready"),
        Err(error) => {
            let errno = error.errno().unwrap_or(libc::EIO);
            let what = match error {
                Error::Kernel { what, .. } => what.clone(),
                other => other.to_string(),
            };
            tell(&mut setup, &format!("error {errno} {what}"))
        }
    };
    // Nobody listens when the parent is gone: then there is nothing to be set up for.
    if entered.is_err() || told.is_err() || !may_go_on(&side.control) {
        exit(SETUP_FAILED);
    }
    Ok(side)
}

/// Waits until the parent holds what names this process, and takes exactly what it says then.
fn may_go_on(mut control: &File) -> bool {
    let mut word = [0];
    control.read_exact(&mut word).is_ok() && word == [GO_ON]
}

/// In one piece: outer and the lab write to the same pipe, in no particular order (pipe(7), `PIPE_BUF`).
fn tell(setup: &mut File, line: &str) -> io::Result<()> {
    setup.write_all(format!("{line}\n").as_bytes())
}

/// Takes over the descriptors the parent has left open.
fn inherited() -> Result<(File, LabSide, bool)> {
    let none = || Error::NotFound { what: format!("enter the lab: {PIPES}") };
    let value = std::env::var(PIPES).map_err(|_| none())?;
    // SAFETY: this process has a single thread, so nobody reads the environment meanwhile.
    unsafe { std::env::remove_var(PIPES) };
    let numbers: Vec<i32> = value.split(',').map_while(|number| number.parse().ok()).collect();
    let &[setup, events, control, namespaces] = &numbers[..] else { return Err(none()) };
    let mut files = [setup, events, control].into_iter().map(|number| {
        // SAFETY: plain system calls; the number names a descriptor that the parent left open for
        // this process, which nothing else here knows of.
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

/// Without namespaces: this process ends when the parent has gone.
fn tie_to_parent(side: &LabSide) -> Result<()> {
    let control = side.control.try_clone().context(|| "duplicate the control pipe".into())?;
    end_with(vec![control.into()])
}

/// A thread that ends this process when the other end of one of these pipes is closed.
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
    // A change of credentials clears it (commit_creds in kernel/cred.c).
    die_with_parent()?;
    let (outer_lives, outers) = io::pipe().context(|| "make a pipe".into())?;
    if let Some(init) = fork("init")? {
        drop(outer_lives);
        let told = tell(setup, &format!("init {}", init.as_raw_nonzero()));
        close_inherited(setup, side);
        if told.is_err() {
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

/// Namespaces made from here get a table of their own for TCP connections. Without it they share the
/// machine's, and each look at one namespace's sockets walks all of that: 0.28 ms for its 262144 rows,
/// 7 us for 1024 (ip-sysctl.rst, `tcp_child_ehash_entries`, since 6.1; older kernels are only slower).
fn small_socket_tables() {
    let _ = std::fs::write("/proc/sys/net/ipv4/tcp_child_ehash_entries", "1024");
}

/// Pid 1: forks the lab, in which alone it returns, collects what ends, and goes with the first of
/// lab, parent and outer.
fn init(setup: &File, side: &LabSide, outer_lives: OwnedFd) -> Result<()> {
    // It stays open: only its reading end can be watched.
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

/// Inheritable and ambient, so that programs executed by an ordinary user keep what the namespace
/// gives (capabilities(7), "Transformation of capabilities during execve").
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

/// For a process that never returns and so never drops what it owns.
fn close(fd: BorrowedFd<'_>) {
    use std::os::fd::AsRawFd;
    // SAFETY: this process does not use the descriptor again: it ends with `_exit`.
    unsafe { libc::close(fd.as_raw_fd()) };
}
