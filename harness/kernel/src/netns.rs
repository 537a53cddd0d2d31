//! Handles to network namespaces.
//!
//! Namespaces are anonymous: held by file descriptors and never named under `/run/netns`, so they end with the
//! last handle, or with the process. A socket belongs to the namespace in which it was created, no matter which
//! thread uses it later. [`NetNs::run`] therefore enters a namespace, creates sockets or accesses settings, and
//! returns, without any suspension point (no `await`): outside of it every thread is in the process's own
//! namespace. This is the only place that calls `setns`.

use std::fmt;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use netlink_sys::protocols::NETLINK_ROUTE;
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use crate::error::{Context, Result};
use crate::netlink::{Listener, Netlink, Read};

/// A handle to a network namespace. Cheap to clone; the namespace exists as long as a handle to it does.
#[derive(Clone)]
pub struct NetNs {
    name: Arc<str>,
    fd: Arc<OwnedFd>,
    inode: u64,
    /// The socket for link and route requests; shared, because there are hundreds of them.
    rtnetlink: Arc<OnceLock<Netlink>>,
}

impl fmt::Debug for NetNs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NetNs({}, net:[{}])", self.name, self.inode)
    }
}

impl NetNs {
    /// Creates a namespace. `name` is used in messages only and does not appear on the machine.
    ///
    /// # Errors
    /// When the kernel refuses (no `CAP_SYS_ADMIN` in the user namespace, `max_net_namespaces`).
    pub fn create(name: &str) -> Result<Self> {
        let home = home()?;
        // SAFETY: CLONE_NEWNET concerns only the calling thread, which returns to its own namespace right away; no
        // other resource is unshared.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
            .context(|| format!("make network namespace {name}"))?;
        let back = Back(home);
        let file = current();
        drop(back);
        Self::from_file(name, file?)
    }

    /// The namespace in which this process was started.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn own(name: &str) -> Result<Self> {
        Self::from_file(name, current()?)
    }

    /// The namespace of another process, such as one created by the container runtime.
    ///
    /// # Errors
    /// When the process is gone or may not be inspected.
    pub fn of_process(name: &str, pid: u32) -> Result<Self> {
        Self::from_path(name, format!("/proc/{pid}/ns/net"))
    }

    /// The namespace a file refers to.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn from_path(name: &str, path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = File::open(path).context(|| format!("open {}", path.display()))?;
        Self::from_file(name, file)
    }

    fn from_file(name: &str, file: File) -> Result<Self> {
        let inode = file.metadata().context(|| format!("stat network namespace {name}"))?.ino();
        Ok(Self { name: name.into(), fd: Arc::new(file.into()), inode, rtnetlink: Arc::default() })
    }

    /// The name used in messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The inode number, as in `net:[4026531840]`.
    #[must_use]
    pub const fn inode(&self) -> u64 {
        self.inode
    }

    /// The namespace's socket for requests about links, addresses, routes, rules and neighbours.
    pub(crate) fn rtnetlink(&self) -> Result<&Netlink> {
        if let Some(socket) = self.rtnetlink.get() {
            return Ok(socket);
        }
        let socket = self.netlink(NETLINK_ROUTE)?;
        // Another thread may have set it first; either socket will do.
        Ok(self.rtnetlink.get_or_init(|| socket))
    }

    /// A socket of this namespace for requests of `protocol` (`netlink_sys::protocols::NETLINK_*`).
    pub(crate) fn netlink(&self, protocol: isize) -> Result<Netlink> {
        self.run(|| Netlink::here(protocol, &self.name))?
    }

    /// A socket of this namespace for the notifications of `protocol`; see [`Listener::here`].
    pub(crate) fn listener<T>(&self, protocol: isize, groups: &[u32], read: Read<T>) -> Result<Listener<T>> {
        self.run(|| Listener::here(protocol, groups, read, &self.name))?
    }

    /// Runs `job` inside this namespace on the calling thread, which is back in its own namespace when this returns.
    /// A job must be short (create a socket, access a setting) and must not enter another namespace itself.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn run<T>(&self, job: impl FnOnce() -> T) -> Result<T> {
        let home = home()?;
        // An ordinary user may not even enter the current namespace.
        if self.inode == home.inode {
            return Ok(job());
        }
        enter(self.as_fd()).context(|| format!("enter network namespace {}", self.name))?;
        let _back = Back(home);
        Ok(job())
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn current() -> Result<File> {
    File::open("/proc/thread-self/ns/net").context(|| "open /proc/thread-self/ns/net".into())
}

fn enter(ns: BorrowedFd<'_>) -> rustix::io::Result<()> {
    rustix::thread::move_into_link_name_space(ns, Some(LinkNameSpaceType::Network))
}

/// The namespace of all threads of this process.
struct Home {
    file: File,
    inode: u64,
}

fn home() -> Result<&'static Home> {
    static HOME: OnceLock<Home> = OnceLock::new();
    if let Some(home) = HOME.get() {
        return Ok(home);
    }
    let file = current()?;
    let inode = file.metadata().context(|| "stat this process's network namespace".into())?.ino();
    Ok(HOME.get_or_init(|| Home { file, inode }))
}

/// Returns the calling thread to its own namespace when dropped, also during a panic.
#[must_use = "dropped, the thread is back in its own namespace"]
struct Back(&'static Home);

impl Drop for Back {
    fn drop(&mut self) {
        if let Err(e) = enter(self.0.file.as_fd()) {
            // Anything this thread did next would happen in the wrong namespace.
            eprintln!("relapse: failed to return to this process's network namespace: {e}");
            std::process::abort();
        }
    }
}
