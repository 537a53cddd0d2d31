//! A network namespace as a handle.
//!
//! Namespaces are anonymous: held by file descriptors, never named under `/run/netns`, so the last
//! handle dropped (or the process killed) is the end of them. A socket belongs to the namespace it
//! was made in, whoever drives it later; so [`NetNs::run`] enters a namespace, makes sockets or reads
//! settings there, and comes back, with nothing in between that could wait on something else (no `await`):
//! whatever a thread does outside of it, it does at home. Nobody else calls `setns`.

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

/// A handle to a network namespace. Cheap to clone; the namespace lives while a handle does.
#[derive(Clone)]
pub struct NetNs {
    name: Arc<str>,
    fd: Arc<OwnedFd>,
    inode: u64,
    /// The socket for questions and changes of links and routes, of which there are hundreds.
    rtnetlink: Arc<OnceLock<Netlink>>,
}

impl fmt::Debug for NetNs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NetNs({}, net:[{}])", self.name, self.inode)
    }
}

impl NetNs {
    /// Makes a new namespace. `name` is for messages only; nothing on the machine carries it.
    ///
    /// # Errors
    /// When the kernel refuses (no `CAP_SYS_ADMIN` in the user namespace, `max_net_namespaces`).
    pub fn create(name: &str) -> Result<Self> {
        let home = home()?;
        // SAFETY: CLONE_NEWNET concerns only the calling thread, which returns to its own namespace before it does
        // anything else; no other resource is unshared.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
            .context(|| format!("make network namespace {name}"))?;
        let back = Back(home);
        let file = current();
        drop(back);
        Self::from_file(name, file?)
    }

    /// The namespace this process was started in.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn own(name: &str) -> Result<Self> {
        Self::from_file(name, current()?)
    }

    /// The namespace of another process, as the container runtime made it.
    ///
    /// # Errors
    /// When the process is gone or may not be looked at.
    pub fn of_process(name: &str, pid: u32) -> Result<Self> {
        Self::from_path(name, format!("/proc/{pid}/ns/net"))
    }

    /// The namespace a file stands for.
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

    /// What messages call it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The kernel's number for it, as in `net:[4026531840]`.
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
        // Another thread may have been faster; either socket will do.
        Ok(self.rtnetlink.get_or_init(|| socket))
    }

    /// A socket of this namespace for requests of `protocol` (`netlink_sys::protocols::NETLINK_*`).
    pub(crate) fn netlink(&self, protocol: isize) -> Result<Netlink> {
        self.run(|| Netlink::here(protocol, &self.name))?
    }

    /// A socket of this namespace for the news of `protocol`; see [`Listener::here`].
    pub(crate) fn listener<T>(&self, protocol: isize, groups: &[u32], read: Read<T>) -> Result<Listener<T>> {
        self.run(|| Listener::here(protocol, groups, read, &self.name))?
    }

    /// Runs `job` inside this namespace, on the calling thread, which is back in its own when this returns. Jobs are
    /// short: make a socket, read or write a setting; and never enter another namespace themselves.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn run<T>(&self, job: impl FnOnce() -> T) -> Result<T> {
        let home = home()?;
        // An ordinary user may not even enter the namespace he is in.
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

/// Where all threads of this process live.
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

/// Takes the calling thread back when it is dropped, also by a panic.
#[must_use = "dropped, the thread is back in its own namespace"]
struct Back(&'static Home);

impl Drop for Back {
    fn drop(&mut self) {
        if let Err(e) = enter(self.0.file.as_fd()) {
            // Whatever this thread did next would be done in the wrong place.
            eprintln!("relapse: failed to return to this process's network namespace: {e}");
            std::process::abort();
        }
    }
}
