//! Programs inside a namespace, and the terminal for those that are talked to.

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

/// Starts programs inside a network namespace, each in a mount namespace of its own in which
/// `/sys/class/net` shows the interfaces of that namespace.
#[derive(Debug, Clone)]
#[must_use]
pub struct Inside {
    ns: NetNs,
    /// Whose files programs see, where not ours.
    files: Option<Arc<OwnedFd>>,
    binds: Vec<(CString, CString)>,
    carried: Vec<(Arc<OwnedFd>, CString)>,
}

impl Inside {
    pub fn new(ns: &NetNs) -> Self {
        Self { ns: ns.clone(), files: None, binds: Vec::new(), carried: Vec::new() }
    }

    /// Programs see the files of this process (a container's), in a copy of its mount namespace.
    ///
    /// # Errors
    /// When the process is gone or may not be looked at.
    pub fn with_files_of(mut self, pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/ns/mnt");
        let file = File::open(&path).context(|| format!("open {path}"))?;
        self.files = Some(Arc::new(file.into()));
        Ok(self)
    }

    /// Shows this file as it is *here* in its own place there: a setting under `/proc/sys` that only the
    /// initial namespaces have (`open_tree(2)`, `OPEN_TREE_CLONE`).
    ///
    /// # Errors
    /// When the file cannot be taken along.
    pub fn carry(mut self, path: &str) -> Result<Self> {
        let what = || format!("take {path} along");
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = open_tree(CWD, path, flags).context(what)?;
        let to = CString::new(path).context(what)?;
        self.carried.push((Arc::new(tree), to));
        Ok(self)
    }

    /// Shows the file `from` in the place of the existing file `to`, to these programs only: a pod's
    /// `/etc/resolv.conf`.
    ///
    /// # Errors
    /// When a path contains a zero byte.
    pub fn bind(mut self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<Self> {
        let text = |path: &Path| CString::new(path.as_os_str().as_bytes());
        let pair = text(from.as_ref()).and_then(|from| Ok((from, text(to.as_ref())?)));
        self.binds.push(pair.context(|| "show a file in a namespace".into())?);
        Ok(self)
    }

    /// A command that will run `program` there.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        let inside = self.clone();
        // SAFETY: between fork and exec the closure makes system calls on what is prepared here, and
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
        // sysfs shows the network namespace of whoever mounted it. Where that is not allowed (no sysfs
        // in sight, as in some containers), programs see the lab's own; netlink is right in any case.
        let _ = mount(c"sysfs", c"/sys", c"sysfs", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, None);
        for (from, to) in &self.binds {
            mount_bind(from.as_c_str(), to.as_c_str())?;
        }
        Ok(())
    }
}

/// Lets a command have the terminal when it is spawned; for those from [`Inside::command`]. It becomes the terminal's
/// foreground, so that Ctrl-C reaches it and nobody else. When it has ended, the process that should have the terminal
/// again calls [`take_terminal`]. Without a terminal on its input it changes nothing.
pub fn interactive(command: &mut Command) -> &mut Command {
    let foreground = || {
        if !has_terminal() {
            return Ok(());
        }
        rustix::process::setpgid(None, None)?;
        take_foreground()
    };
    // SAFETY: between fork and exec the closure makes system calls and nothing else.
    unsafe { command.pre_exec(foreground) }
}

/// Makes this process's group the foreground of its terminal again: the shell's group is gone, and from
/// inside a pid namespace nobody can name ours. Does nothing without a terminal.
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

/// With SIGTTOU blocked: who is in the background would be stopped by it (tcsetpgrp(3)).
fn take_foreground() -> io::Result<()> {
    // SAFETY: the sets are live, made valid by sigemptyset and by the kernel; the mask is that of this
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
