//! Machine-wide locks: `flock` on files any user can open. One is on the connection tracking limit ([`limit`]); the
//! other is shared by every lab ([`neighbours`]).
//!
//! A second file, the gate, is passed one at a time on the way to a lock: a writer waiting there for readers to
//! finish is not overtaken by new readers, and labs start one after the other.
//!
//! Nothing is ever written to these files, so nothing is lost where somebody plants a link in an open directory. Who
//! holds a lock is told by the kernel's own list (`/proc/locks`). It is to be taken outside the lab: the pids in it mean
//! nothing in another pid namespace.
//!
//! Where an ordinary user may not create a file in `/run/lock` and root has not yet, the two use different files and do
//! not see each other.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use relapse_kernel::error::Context;

use super::{Error, Result};

/// The kernel wakes a waiter; this is only how often it looks for whom it waits by now, and whether to stop.
const LOOK: Duration = Duration::from_millis(50);

/// Where the lock on the limit may lie; the first usable place counts.
#[must_use]
pub fn limit() -> Vec<PathBuf> {
    places("relapse-conntrack-limit.lock")
}

/// The same for the lock that every lab shares, but for one that must be alone.
#[must_use]
pub fn neighbours() -> Vec<PathBuf> {
    places("relapse-neighbours.lock")
}

fn places(name: &str) -> Vec<PathBuf> {
    ["/run/lock", "/tmp"].map(|dir| Path::new(dir).join(name)).into()
}

/// Nobody else, or any number of those who share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    Shared,
    Exclusive,
}

impl Mode {
    /// Whether two may hold it so at a time.
    #[must_use]
    pub fn beside(self, other: Self) -> bool {
        self.max(other) == Self::Shared
    }
}

/// The lock, held until dropped or the process ends, however it ends.
#[derive(Debug)]
#[must_use = "dropping it lets others in"]
pub struct MachineLock {
    file: File,
    gate: PathBuf,
    mode: Mode,
}

impl MachineLock {
    /// Takes the lock, waiting as long as others hold it. `tell` hears who they are, at first and whenever that changes.
    ///
    /// # Errors
    /// When no lock file can be opened or made.
    pub fn acquire(places: &[PathBuf], mode: Mode, tell: &dyn Fn(String)) -> Result<Self> {
        Self::enter(places, mode, &|_| true, tell, &|| false)
    }

    /// The same, one after the other: who is next waits at the gate until `room` agrees, asked again and again with the
    /// number of those inside. Nobody is told of that wait.
    ///
    /// # Errors
    /// When no lock file can be opened or made, and [`Error::Stopped`] once `stop` says so.
    pub fn enter(
        places: &[PathBuf],
        mode: Mode,
        room: &dyn Fn(usize) -> bool,
        tell: &dyn Fn(String),
        stop: &dyn Fn() -> bool,
    ) -> Result<Self> {
        let mut said = Vec::new();
        loop {
            let (path, file) = open_first(places)?;
            let gate_path = path.with_extension("gate");
            let gate = open(&gate_path)?;
            let mut look = || {
                let in_the_way = in_the_way(&path, mode);
                if !in_the_way.is_empty() && in_the_way != said {
                    tell(in_the_way.join(", "));
                    said = in_the_way;
                }
                if stop() { Err(Error::Stopped) } else { Ok(()) }
            };
            wait(&gate, Mode::Exclusive, &mut look)?;
            while !room(held(&path).len()) {
                look()?;
            }
            wait(&file, mode, &mut look)?;
            if is_still_at(&file, &path) {
                return Ok(Self { file, gate: gate_path, mode });
            }
        }
    }

    /// Takes the lock only where nobody is in the way.
    ///
    /// # Errors
    /// When no lock file can be opened or made.
    pub fn try_acquire(places: &[PathBuf], mode: Mode) -> Result<Option<Self>> {
        let (path, file) = open_first(places)?;
        let gate_path = path.with_extension("gate");
        let gate = open(&gate_path)?;
        let free = try_lock(&gate, Mode::Exclusive)? && try_lock(&file, mode)? && is_still_at(&file, &path);
        Ok(free.then_some(Self { file, gate: gate_path, mode }))
    }

    /// Nobody else holds it.
    #[must_use]
    pub const fn is_exclusive(&self) -> bool {
        matches!(self.mode, Mode::Exclusive)
    }

    /// Somebody is at the gate.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        open(&self.gate).is_ok_and(|gate| matches!(try_lock(&gate, Mode::Exclusive), Ok(false)))
    }
}

impl Drop for MachineLock {
    /// Not left to the file's end: a process that is just being started may have it open, too.
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

/// Who holds the lock now, each process with what was typed to start it.
#[must_use]
pub fn holders(places: &[PathBuf]) -> Vec<String> {
    places.iter().find(|path| path.exists()).map_or_else(Vec::new, |path| in_the_way(path, Mode::Exclusive))
}

/// Those of them for whom somebody waits who wants it in this mode.
fn in_the_way(path: &Path, wanted: Mode) -> Vec<String> {
    let mut pids: Vec<u32> =
        held(path).into_iter().filter(|(_, mode)| !mode.beside(wanted)).map(|(pid, _)| pid).collect();
    pids.sort_unstable();
    pids.dedup();
    let words = |pid| {
        let typed = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let typed = String::from_utf8_lossy(&typed).trim_end_matches('\0').replace('\0', " ");
        let folder = typed.split(' ').next().and_then(|program| program.rfind('/')).map_or(0, |slash| slash + 1);
        if typed.is_empty() { format!("process {pid}") } else { format!("process {pid} ({})", &typed[folder..]) }
    };
    pids.into_iter().map(words).collect()
}

/// By the kernel's list: the process and the mode of everybody inside.
fn held(path: &Path) -> Vec<(u32, Mode)> {
    let Ok(file) = fs::symlink_metadata(path) else { return Vec::new() };
    let list = fs::read_to_string("/proc/locks").unwrap_or_default();
    list.lines().filter_map(|line| holder(line, file.ino())).collect()
}

/// `3: FLOCK  ADVISORY  WRITE 3016 fe:00:780006 0 EOF`; who waits has an arrow before `FLOCK` (proc_locks(5)).
fn holder(line: &str, inode: u64) -> Option<(u32, Mode)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, "FLOCK", _, kind, pid, file, ..] = fields[..] else { return None };
    let mode = if kind == "WRITE" { Mode::Exclusive } else { Mode::Shared };
    (file.rsplit(':').next()?.parse() == Ok(inode)).then_some((pid.parse().ok()?, mode))
}

fn open_first(places: &[PathBuf]) -> Result<(PathBuf, File)> {
    let mut last = None;
    for path in places {
        match open(path) {
            Ok(file) => return Ok((path.clone(), file)),
            // An attempt to trick us is no reason to go elsewhere, alone.
            Err(error @ Error::Unsafe { .. }) => return Err(error),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| Error::Unsafe { what: "lock".into(), why: "no place for a lock file".into() }))
}

/// To read is enough to lock it. Exclusive creation follows no link.
fn open(path: &Path) -> Result<File> {
    loop {
        // What says that somebody made or removed it in between.
        let (opened, in_between) = match fs::symlink_metadata(path) {
            Ok(named) if !named.is_file() => {
                let what = format!("open {}", path.display());
                return Err(Error::Unsafe { what, why: "it is not a regular file".into() });
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let made = OpenOptions::new().read(true).write(true).create_new(true).open(path);
                let for_all = |file: File| file.set_permissions(Permissions::from_mode(0o666)).map(|()| file);
                (made.and_then(for_all), ErrorKind::AlreadyExists)
            }
            _ => (File::open(path), ErrorKind::NotFound),
        };
        match opened {
            Err(error) if error.kind() == in_between => {}
            other => return Ok(other.context(|| format!("open {}", path.display()))?),
        }
    }
}

fn is_still_at(file: &File, path: &Path) -> bool {
    let id = |metadata: io::Result<fs::Metadata>| metadata.ok().map(|metadata| (metadata.dev(), metadata.ino()));
    let ours = id(file.metadata());
    ours.is_some() && ours == id(fs::symlink_metadata(path))
}

fn try_lock(file: &File, mode: Mode) -> Result<bool> {
    let attempt = match mode {
        Mode::Shared => file.try_lock_shared(),
        Mode::Exclusive => file.try_lock(),
    };
    match attempt {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error).context(|| "lock a file".into())?,
    }
}

/// A thread sleeps in the kernel until the lock is granted; a lock belongs to the open file, so what it gets is ours.
/// Given up by `look`, what it still gets goes with the thread.
fn wait(file: &File, mode: Mode, look: &mut dyn FnMut() -> Result<()>) -> Result<()> {
    if try_lock(file, mode)? {
        return Ok(());
    }
    let what = || "wait for a lock".to_owned();
    let same = file.try_clone().context(what)?;
    let (sender, receiver) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let take = || if mode == Mode::Shared { same.lock_shared() } else { same.lock() };
        let granted = loop {
            match take() {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        drop(same);
        let _ = sender.send(granted);
    });
    loop {
        match receiver.recv_timeout(LOOK) {
            Ok(granted) => return Ok(granted.context(what)?),
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err(Error::Guardian { what: what() }),
            Err(mpsc::RecvTimeoutError::Timeout) => look()?,
        }
    }
}

#[cfg(test)]
mod tests;
