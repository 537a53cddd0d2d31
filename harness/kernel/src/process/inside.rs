//! Runs programs inside a namespace, interactive ones with the terminal.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rustix::fs::CWD;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount, mount_bind, mount_change, move_mount,
    open_tree,
};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use crate::error::{Context, Result};
use crate::netns::NetNs;

/// Starts programs inside a network namespace, each in its own mount namespace in which
/// `/sys/class/net` shows the interfaces of that network namespace.
#[derive(Debug, Clone)]
#[must_use]
pub struct Inside {
    ns: NetNs,
    /// The mount namespace of another process whose files programs see, if any.
    files: Option<Arc<OwnedFd>>,
    binds: Vec<(CString, CString)>,
    carried: Vec<(Arc<OwnedFd>, CString)>,
}

impl Inside {
    pub fn new(ns: &NetNs) -> Self {
        Self { ns: ns.clone(), files: None, binds: Vec::new(), carried: Vec::new() }
    }

    /// Programs see the files of process `pid` (a container, say), in a copy of its mount namespace.
    ///
    /// # Errors
    /// When the process is gone or may not be inspected.
    pub fn with_files_of(mut self, pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/ns/mnt");
        let file = File::open(&path).context(|| format!("open {path}"))?;
        self.files = Some(Arc::new(file.into()));
        Ok(self)
    }

    /// Shows the file at this path *here* at the same path there: a setting under `/proc/sys` that exists only in the
    /// initial namespaces (`open_tree(2)`, `OPEN_TREE_CLONE`).
    ///
    /// # Errors
    /// When the file cannot be cloned.
    pub fn carry(mut self, path: &str) -> Result<Self> {
        let what = || format!("carry {path} into a namespace");
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = open_tree(CWD, path, flags).context(what)?;
        let to = CString::new(path).context(what)?;
        self.carried.push((Arc::new(tree), to));
        Ok(self)
    }

    /// Bind-mounts the file `from` over the existing file `to`, for these programs only: a pod's
    /// `/etc/resolv.conf`, for instance.
    ///
    /// # Errors
    /// When a path contains a zero byte.
    pub fn bind(mut self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<Self> {
        let text = |path: &Path| CString::new(path.as_os_str().as_bytes());
        let pair = text(from.as_ref()).and_then(|from| Ok((from, text(to.as_ref())?)));
        self.binds.push(pair.context(|| "bind a file in a namespace".into())?);
        Ok(self)
    }

    /// A command that runs `program` in the namespace.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        let inside = self.clone();
        // SAFETY: between fork and exec the closure makes system calls on data prepared here, and
        // does not allocate.
        unsafe { command.pre_exec(move || inside.enter()) };
        command
    }

    fn enter(&self) -> io::Result<()> {
        rustix::thread::move_into_link_name_space(self.ns.as_fd(), Some(LinkNameSpaceType::Network))?;
        if let Some(files) = &self.files {
            rustix::thread::move_into_link_name_space(files.as_fd(), Some(LinkNameSpaceType::Mount))?;
        }
        // SAFETY: a forked child has one thread and shares no descriptors.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?;
        mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        for (tree, to) in &self.carried {
            move_mount(tree, c"", CWD, to.as_c_str(), MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        }
        // sysfs shows the network namespace of the process that mounted it. If that is not allowed (no visible
        // sysfs, as in some containers), programs see the lab's own interfaces; netlink is right in any case.
        let _ = mount(c"sysfs", c"/sys", c"sysfs", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, None);
        for (from, to) in &self.binds {
            mount_bind(from.as_c_str(), to.as_c_str())?;
        }
        Ok(())
    }
}

/// Gives a command from [`Inside::command`] the terminal when it is spawned: it becomes the foreground process group,
/// so that Ctrl-C reaches only that command. Once it has ended, the process that should get the terminal
/// back calls [`take_terminal`]. Has no effect unless stdin is a terminal.
pub fn interactive(command: &mut Command) -> &mut Command {
    let foreground = || {
        if !has_terminal() {
            return Ok(());
        }
        rustix::process::setpgid(None, None)?;
        take_foreground()
    };
    // SAFETY: between fork and exec the closure only makes system calls.
    unsafe { command.pre_exec(foreground) }
}

/// Makes this process's group the foreground group of its terminal again: the shell's group is gone, and no process
/// inside the pid namespace can name ours. Does nothing without a terminal.
///
/// # Errors
/// When the kernel refuses.
pub fn take_terminal() -> Result<()> {
    if has_terminal() { take_foreground().context(|| "take the terminal back".into()) } else { Ok(()) }
}

fn has_terminal() -> bool {
    // SAFETY: a plain system call.
    unsafe { libc::isatty(libc::STDIN_FILENO) == 1 }
}

/// Blocks SIGTTOU, which would stop a background process here (tcsetpgrp(3)).
fn take_foreground() -> io::Result<()> {
    // SAFETY: the sets are live and initialized by sigemptyset and the kernel; the mask is that of this
    // thread, and restored.
    unsafe {
        let mut blocked: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut blocked);
        libc::sigaddset(&raw mut blocked, libc::SIGTTOU);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const blocked, &raw mut before);
        let result = match libc::tcsetpgrp(libc::STDIN_FILENO, libc::getpgrp()) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        };
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
        result
    }
}
