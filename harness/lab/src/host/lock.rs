//! Machine-wide locks: `flock` on files any user can open. One protects the connection tracking limit ([`limit`]); the
//! other is shared by every lab ([`neighbours`]).
//!
//! A second file, the gate, is held by one process at a time on the way to a lock: a writer waiting there for readers
//! to finish is not overtaken by new readers, and labs start one after another.
//!
//! Nothing is ever written to these files, so a link planted in a world-writable directory does no damage. The holders
//! of a lock are read from the kernel's list (`/proc/locks`). Locks must be taken outside the lab: pids in that list
//! are meaningless in another pid namespace.
//!
//! If an ordinary user may not create a file in `/run/lock` and root has not done so yet, the two use different files
//! and do not exclude each other.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use relapse_kernel::error::Context;

use super::{Error, Result};

/// How often a waiter checks for new holders and for cancellation; the kernel wakes it when the lock is free.
const LOOK: Duration = Duration::from_millis(50);

/// A command line is shown up to this many characters.
const LONGEST: usize = 60;

/// Possible paths of the lock on the limit; the first usable one is used.
#[must_use]
pub fn limit() -> Vec<PathBuf> {
    places("relapse-conntrack-limit.lock")
}

/// The same for the lock shared by all labs, or held exclusively by one that must run alone.
#[must_use]
pub fn neighbours() -> Vec<PathBuf> {
    places("relapse-neighbours.lock")
}

fn places(name: &str) -> Vec<PathBuf> {
    ["/run/lock", "/tmp"].map(|dir| Path::new(dir).join(name)).into()
}

/// How a lock is held: by any number of holders, or by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    Shared,
    Exclusive,
}

impl Mode {
    /// Whether two holders are compatible.
    #[must_use]
    pub fn beside(self, other: Self) -> bool {
        self.max(other) == Self::Shared
    }
}

/// A held lock, released when dropped or when the process ends in any way.
#[derive(Debug)]
#[must_use = "dropping it lets others in"]
pub struct MachineLock {
    file: File,
    gate: PathBuf,
    mode: Mode,
}

impl MachineLock {
    /// Takes the lock, waiting while others hold it. The holders are passed to `report`, at first and on every change.
    ///
    /// # Errors
    /// When no lock file can be opened or created.
    pub fn acquire(places: &[PathBuf], mode: Mode, report: &dyn Fn(String)) -> Result<Self> {
        Self::enter(places, mode, &|_| true, report, &|| false)
    }

    /// The same, one at a time: the next process waits at the gate until `room` returns true, called repeatedly with
    /// the number of holders.
    ///
    /// # Errors
    /// When no lock file can be opened or created; [`Error::Stopped`] once `stop` returns true.
    pub fn enter(
        places: &[PathBuf],
        mode: Mode,
        room: &dyn Fn(usize) -> bool,
        report: &dyn Fn(String),
        stop: &dyn Fn() -> bool,
    ) -> Result<Self> {
        let mut reported = Vec::new();
        loop {
            let (path, file) = open_first(places)?;
            let gate_path = path.with_extension("gate");
            let gate = open(&gate_path)?;
            let mut poll = || {
                let conflicting = conflicting(&path, mode);
                if !conflicting.is_empty() && conflicting != reported {
                    report(conflicting.join(", "));
                    reported = conflicting;
                }
                if stop() { Err(Error::Stopped) } else { Ok(()) }
            };
            wait(&gate, Mode::Exclusive, &mut poll)?;
            while !room(held(&path).len()) {
                poll()?;
            }
            wait(&file, mode, &mut poll)?;
            if is_still_at(&file, &path) {
                return Ok(Self { file, gate: gate_path, mode });
            }
        }
    }

    /// Takes the lock if that is possible without waiting.
    ///
    /// # Errors
    /// When no lock file can be opened or created.
    pub fn try_acquire(places: &[PathBuf], mode: Mode) -> Result<Option<Self>> {
        let (path, file) = open_first(places)?;
        let gate_path = path.with_extension("gate");
        let gate = open(&gate_path)?;
        let free = try_lock(&gate, Mode::Exclusive)? && try_lock(&file, mode)? && is_still_at(&file, &path);
        Ok(free.then_some(Self { file, gate: gate_path, mode }))
    }

    /// Whether it is held exclusively.
    #[must_use]
    pub const fn is_exclusive(&self) -> bool {
        matches!(self.mode, Mode::Exclusive)
    }

    /// Whether another process is waiting at the gate.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        open(&self.gate).is_ok_and(|gate| matches!(try_lock(&gate, Mode::Exclusive), Ok(false)))
    }
}

impl Drop for MachineLock {
    /// Unlocks explicitly: a child being spawned may still have the file open.
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

/// The current holders of the lock, each with its command line.
#[must_use]
pub fn holders(places: &[PathBuf]) -> Vec<String> {
    places.iter().find(|path| path.exists()).map_or_else(Vec::new, |path| conflicting(path, Mode::Exclusive))
}

/// The holders that conflict with a lock in this mode.
fn conflicting(path: &Path, wanted: Mode) -> Vec<String> {
    let mut pids: Vec<u32> =
        held(path).into_iter().filter(|(_, mode)| !mode.beside(wanted)).map(|(pid, _)| pid).collect();
    pids.sort_unstable();
    pids.dedup();
    let describe = |pid| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).trim_end_matches('\0').replace('\0', " ");
        let start = command.split(' ').next().and_then(|program| program.rfind('/')).map_or(0, |slash| slash + 1);
        let (command, more) = match command[start..].char_indices().nth(LONGEST) {
            Some((end, _)) => (&command[start..start + end], "…"),
            None => (&command[start..], ""),
        };
        if command.is_empty() { format!("process {pid}") } else { format!("process {pid} ({command}{more})") }
    };
    pids.into_iter().map(describe).collect()
}

/// The holders in the kernel's list: process and mode.
fn held(path: &Path) -> Vec<(u32, Mode)> {
    let Ok(file) = fs::symlink_metadata(path) else { return Vec::new() };
    let list = fs::read_to_string("/proc/locks").unwrap_or_default();
    list.lines().filter_map(|line| holder(line, file.ino())).collect()
}

/// `3: FLOCK  ADVISORY  WRITE 3016 fe:00:780006 0 EOF`; a waiter has an arrow before `FLOCK` (proc_locks(5)).
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
            // Do not fall back to another path, which would lock nothing, when this one has been tampered with.
            Err(error @ Error::Unsafe { .. }) => return Err(error),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| Error::Unsafe { what: "lock".into(), why: "no path for a lock file".into() }))
}

/// Read access is enough for locking. Exclusive creation follows no links.
fn open(path: &Path) -> Result<File> {
    loop {
        // The error that means that the file was created or removed in between.
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

/// A thread sleeps in the kernel until the lock is granted; a lock belongs to the open file, so it then belongs to us.
/// If `poll` gives up, a lock granted later is released with the thread.
fn wait(file: &File, mode: Mode, poll: &mut dyn FnMut() -> Result<()>) -> Result<()> {
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
            Err(mpsc::RecvTimeoutError::Timeout) => poll()?,
        }
    }
}

#[cfg(test)]
mod tests;
