//! A network namespace as a handle.
//!
//! Namespaces are anonymous: held by file descriptors, never named under `/run/netns`, so the last
//! handle dropped (or the process killed) is the end of them. A socket belongs to the namespace it
//! was made in, whoever drives it later; so one dedicated thread, the *opener*, enters a namespace,
//! makes sockets or reads settings there, and comes back. No other thread ever calls `setns`.

use std::fmt;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, OnceLock, mpsc};

use netlink_sys::protocols::NETLINK_ROUTE;
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use crate::error::{Context, Error, Result};
use crate::netlink::Netlink;

/// A handle to a network namespace. Cheap to clone; the namespace lives while a handle does.
#[derive(Clone)]
pub struct NetNs {
    name: Arc<str>,
    fd: Arc<OwnedFd>,
    inode: u64,
    /// The socket for links and routes, which building a lab uses hundreds of times.
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
        let label = name.to_owned();
        let file = opener().run(move |home| {
            // SAFETY: CLONE_NEWNET concerns only the calling thread, which is the opener; no other
            // resource is unshared, and it returns to its own namespace before the next job.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
                .context(|| format!("make network namespace {label}"))?;
            let made = current();
            enter(home.file.as_fd()).expect("the opener can return to its own namespace");
            made
        })?;
        Self::from_file(name, file)
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
        let socket = Netlink::open(self, NETLINK_ROUTE)?;
        // Another thread may have been faster; either socket will do.
        Ok(self.rtnetlink.get_or_init(|| socket))
    }

    /// Runs `job` on the opener thread inside this namespace and waits for it. Jobs are short: make
    /// a socket, read or write a setting. They run one at a time.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let target = self.clone();
        opener().run(move |home| {
            // An ordinary user may not even enter the namespace he is in.
            let away = target.inode != home.inode;
            if away {
                enter(target.as_fd()).context(|| format!("enter network namespace {}", target.name))?;
            }
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
            if away {
                enter(home.file.as_fd()).expect("the opener can return to its own namespace");
            }
            result.map_err(|_| Error::Answer {
                what: format!("work in network namespace {}", target.name),
                answer: "the job panicked".into(),
            })
        })
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

/// Where the opener lives, and returns to after each job.
struct Home {
    file: File,
    inode: u64,
}

type Job = Box<dyn FnOnce(&Home) + Send>;

/// The one thread that enters namespaces.
struct Opener {
    jobs: mpsc::Sender<Job>,
}

impl Opener {
    fn run<T: Send + 'static>(&self, job: impl FnOnce(&Home) -> Result<T> + Send + 'static) -> Result<T> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let job: Job = Box::new(move |home| {
            let _ = sender.send(job(home));
        });
        let gone = || Error::Answer { what: "use the opener thread".into(), answer: "it has ended".into() };
        self.jobs.send(job).map_err(|_| gone())?;
        receiver.recv().map_err(|_| gone())?
    }
}

fn opener() -> &'static Opener {
    static OPENER: OnceLock<Opener> = OnceLock::new();
    OPENER.get_or_init(|| {
        let (jobs, queue) = mpsc::channel::<Job>();
        let work = move || {
            // Without /proc there is nothing to return to: the thread ends, and every job says so.
            let Ok(file) = current() else { return };
            let Ok(inode) = file.metadata().map(|meta| meta.ino()) else { return };
            let home = Home { file, inode };
            queue.into_iter().for_each(|job| job(&home));
        };
        std::thread::Builder::new().name("opener".into()).spawn(work).expect("a thread can be started");
        Opener { jobs }
    })
}
