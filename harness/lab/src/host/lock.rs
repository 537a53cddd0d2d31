//! Machine-wide locks: `flock` on files any user can open. One is on the connection tracking limit; the
//! other is shared by every lab, and labs start one after the other at its gate ([`neighbours`]).
//!
//! *Exclusive* for a guardian that writes the limit, *shared* for trials that only need it to stay as
//! it is. Whoever holds it is written into the file, so that a waiter can say for whom it waits; the
//! kernel's own list (`/proc/locks`) tells which of those records are still true. A second file, the
//! gate, is passed one at a time on the way to the lock: a writer waiting there for readers to finish
//! is not overtaken by new readers.
//!
//! The directory may be sticky and open to everyone. So: nothing is created through a symbolic link,
//! an existing file is opened without following one, must be a regular file with one name only, and
//! is never truncated before that is known.
//!
//! To be taken outside the lab: the pids in it mean nothing in another pid namespace. Where an
//! ordinary user may not create a file in `/run/lock` and root has not yet, the two use different
//! files and do not see each other.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::identity::Process;
use super::{Context, Error, Result};

mod record;

use record::{Holder, holders, holding_pids, line, living};

const NAME: &str = "relapse-conntrack-limit.lock";
const NEIGHBOURS: &str = "relapse-neighbours.lock";

/// How often whoever is next asks for room: nothing tells when a machine comes to rest.
const ROOM: Duration = Duration::from_millis(10);

/// The kernel wakes a waiter; this is only how often it looks for whom it waits by now.
const LOOK: Duration = Duration::from_millis(200);

/// `O_NOFOLLOW`; where its number is another, the comparison after opening has to do.
const NO_FOLLOW: i32 = match () {
    () if cfg!(any(target_arch = "x86_64", target_arch = "x86", target_arch = "riscv64")) => 0o400_000,
    () if cfg!(any(target_arch = "aarch64", target_arch = "arm")) => 0o100_000,
    () => 0,
};

/// Where the lock file may lie; the first usable place counts.
#[must_use]
pub fn places() -> Vec<PathBuf> {
    ["/run/lock", "/tmp"].map(|dir| Path::new(dir).join(NAME)).into()
}

/// The same for a lock that every trial shares, but for one that writes so low a limit that it wants
/// no neighbours.
#[must_use]
pub fn neighbours() -> Vec<PathBuf> {
    places().iter().map(|path| path.with_file_name(NEIGHBOURS)).collect()
}

/// One writer, or any number of those who need the limit to stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    Shared,
    Exclusive,
}

/// Who takes the lock and what for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    pub run: String,
    /// The scenario, say.
    pub what: String,
}

/// The lock, held until dropped or the process ends, however it ends.
#[derive(Debug)]
#[must_use = "dropping it lets others in"]
pub struct MachineLock {
    file: File,
    path: PathBuf,
    mode: Mode,
    /// Our line in the file.
    record: String,
}

impl MachineLock {
    /// Takes the lock of this machine, waiting as long as others hold it. `on_wait` is told who they
    /// are, at first and whenever that changes.
    ///
    /// # Errors
    /// When no lock file can be opened or made.
    pub fn acquire(mode: Mode, who: &Who, on_wait: &mut dyn FnMut(&str)) -> Result<Self> {
        Self::acquire_at(&places(), mode, who, on_wait)
    }

    /// The same for a lock that lies elsewhere.
    ///
    /// # Errors
    /// When no lock file can be opened or made.
    pub fn acquire_at(places: &[PathBuf], mode: Mode, who: &Who, on_wait: &mut dyn FnMut(&str)) -> Result<Self> {
        Self::enter(places, mode, who, &mut |_| true, on_wait)
    }

    /// The same, one after the other: who is next waits at the gate until `room` agrees, asked again and
    /// again with the number of those inside. Nobody is told of that wait.
    ///
    /// # Errors
    /// When no lock file can be opened or made.
    pub fn enter(
        places: &[PathBuf],
        mode: Mode,
        who: &Who,
        room: &mut dyn FnMut(usize) -> bool,
        on_wait: &mut dyn FnMut(&str),
    ) -> Result<Self> {
        loop {
            let (path, file) = open_first(places)?;
            let gate = open(&path.with_extension("gate"))?;
            let mut said = String::new();
            let mut look = || {
                let holders = holders(&path, mode);
                if !holders.is_empty() && holders != said {
                    on_wait(&holders);
                    said = holders;
                }
            };
            let what = || format!("lock {}", path.display());
            wait(&gate, Mode::Exclusive, &mut look).context(what)?;
            while !room(holding_pids(&path).map_or(0, |pids| pids.len())) {
                std::thread::sleep(ROOM);
            }
            wait(&file, mode, &mut look).context(what)?;
            if is_still_at(&file, &path) {
                return Self::recorded(file, path, mode, who);
            }
        }
    }

    /// Takes the lock only where nobody is in the way.
    ///
    /// # Errors
    /// When no lock file can be opened or made.
    pub fn try_acquire_at(places: &[PathBuf], mode: Mode, who: &Who) -> Result<Option<Self>> {
        let (path, file) = open_first(places)?;
        let gate = open(&path.with_extension("gate"))?;
        let free = try_lock(&gate, Mode::Exclusive).and_then(|free| Ok(free && try_lock(&file, mode)?));
        if free.context(|| format!("lock {}", path.display()))? && is_still_at(&file, &path) {
            return Self::recorded(file, path, mode, who).map(Some);
        }
        Ok(None)
    }

    /// Nobody else holds it.
    #[must_use]
    pub const fn is_exclusive(&self) -> bool {
        matches!(self.mode, Mode::Exclusive)
    }

    /// Somebody is at the gate.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        let gate = open(&self.path.with_extension("gate"));
        gate.is_ok_and(|gate| matches!(try_lock(&gate, Mode::Exclusive), Ok(false)))
    }

    /// Called inside the gate, so nobody else writes. A file of another user that this one may only
    /// read is locked all the same, without a record.
    fn recorded(file: File, path: PathBuf, mode: Mode, who: &Who) -> Result<Self> {
        let own = Holder {
            process: Process::own()?,
            who: who.clone(),
            mode,
            since: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        };
        let others = if mode == Mode::Shared { living(&path) } else { Vec::new() };
        let mut lock = Self { file, path, mode, record: line(&own) };
        let records: Vec<String> = others.iter().map(line).chain([lock.record.clone()]).collect();
        let _ = lock.rewrite(&records);
        Ok(lock)
    }

    fn rewrite(&mut self, records: &[String]) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(records.concat().as_bytes())
    }

    /// Where somebody is at the gate our record stays: it does no harm once we are off the kernel's list.
    fn strike_out(&mut self) -> Result<()> {
        if self.mode == Mode::Exclusive {
            let _ = self.file.set_len(0);
            return Ok(());
        }
        let gate = open(&self.path.with_extension("gate"))?;
        if matches!(try_lock(&gate, Mode::Exclusive), Ok(true)) {
            let mut others: Vec<String> = living(&self.path).iter().map(line).collect();
            if let Some(own) = others.iter().position(|record| *record == self.record) {
                others.remove(own);
            }
            let _ = self.rewrite(&others);
        }
        Ok(())
    }
}

impl Drop for MachineLock {
    fn drop(&mut self) {
        let _ = self.strike_out();
        let _ = self.file.unlock();
    }
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

fn open(path: &Path) -> Result<File> {
    loop {
        let opened = match open_existing(path) {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => create(path),
            other => return other,
        };
        match opened {
            // Somebody was faster.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            other => return other.context(|| format!("create {}", path.display())),
        }
    }
}

/// Exclusive creation follows no link, and finds a file that another user owns without opening it.
fn create(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o666).open(path)?;
    file.set_permissions(Permissions::from_mode(0o666))?;
    Ok(file)
}

fn open_existing(path: &Path) -> Result<File> {
    let what = || format!("open {}", path.display());
    let trick = |why: &str| Error::Unsafe { what: what(), why: why.into() };
    let named = fs::symlink_metadata(path).context(what)?;
    if !named.is_file() {
        return Err(trick("it is not a regular file"));
    }
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(NO_FOLLOW);
    let file = match options.write(true).open(path) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => options.write(false).open(path),
        other => other,
    }
    .context(what)?;
    let opened = file.metadata().context(what)?;
    if !opened.is_file() {
        return Err(trick("it is not a regular file"));
    }
    match opened.nlink() {
        1 => Ok(file),
        0 => Err(Error::Io { what: what(), source: ErrorKind::NotFound.into() }),
        _ => Err(trick("the file has a second name elsewhere")),
    }
}

fn is_still_at(file: &File, path: &Path) -> bool {
    let id = |metadata: io::Result<fs::Metadata>| metadata.ok().map(|metadata| (metadata.dev(), metadata.ino()));
    let ours = id(file.metadata());
    ours.is_some() && ours == id(fs::symlink_metadata(path))
}

fn try_lock(file: &File, mode: Mode) -> io::Result<bool> {
    let attempt = match mode {
        Mode::Shared => file.try_lock_shared(),
        Mode::Exclusive => file.try_lock(),
    };
    match attempt {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// A thread sleeps in the kernel until the lock is granted; a lock belongs to the open file, so what
/// it gets is ours.
fn wait(file: &File, mode: Mode, tell: &mut dyn FnMut()) -> io::Result<()> {
    if try_lock(file, mode)? {
        return Ok(());
    }
    let same = file.try_clone()?;
    let (sender, receiver) = mpsc::sync_channel(1);
    std::thread::Builder::new().name("lock".into()).spawn(move || {
        let take = || if mode == Mode::Shared { same.lock_shared() } else { same.lock() };
        let granted = loop {
            match take() {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        drop(same);
        let _ = sender.send(granted);
    })?;
    // Who only passes through the gate is no one to wait for.
    let mut pause = Duration::from_millis(20);
    loop {
        match receiver.recv_timeout(pause) {
            Ok(granted) => return granted,
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err(io::Error::other("the waiting thread ended")),
            Err(mpsc::RecvTimeoutError::Timeout) => tell(),
        }
        pause = LOOK;
    }
}

#[cfg(test)]
mod tests;
