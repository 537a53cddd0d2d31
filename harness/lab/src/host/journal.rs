//! Records changes of this machine and how to undo them, on disk before they are made.
//!
//! One JSON file per owner (the process that makes the changes and restores them). It is written
//! beside its final path, synced, renamed and its directory synced *before* each mutation, and removed,
//! with another sync of the directory, after the restore has been read back. So a file at its final path is complete,
//! and everything in force has a file.
//!
//! Entries of a kind known only to newer versions are kept unchanged and reported, never dropped.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use relapse_kernel::error::Context;
use serde::{Deserialize, Serialize};

use super::identity::{self, Process};
use super::{Error, Result};

/// The format version written here. Files of later versions are reported and left alone.
pub const VERSION: u32 = 1;

/// A mutation outside the lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Entry {
    /// A setting changed from `old` to `new`.
    Sysctl { key: String, old: String, new: String },
}

/// An entry as stored in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Stored {
    Known(Entry),
    /// An object created by a backend, or a kind known only to newer versions.
    Unknown(serde_json::Value),
}

/// The key of the instructions to clear an entry; only entries of backends have it.
const CLEAR: &str = "clear";

/// An entry of a backend: its kind, instructions to clear it by hand, and the data for its remover.
#[must_use]
pub fn entry(kind: &str, clear: &str, mut what: serde_json::Value) -> serde_json::Value {
    what["what"] = kind.into();
    what[CLEAR] = clear.into();
    what
}

/// Instructions to clear an object created by a backend.
pub(super) fn clear(entry: &serde_json::Value) -> Option<&str> {
    entry.get(CLEAR).and_then(serde_json::Value::as_str)
}

/// The journal of one owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    pub version: u32,
    pub run_id: String,
    /// The process that mutates and restores; while it lives, no other process touches the journal.
    pub owner: Process,
    /// The run it does so for, as a process.
    pub run: Process,
    pub boot_id: String,
    pub since: String,
    pub entries: Vec<Stored>,
}

impl Journal {
    /// An empty journal of this process; nothing is on disk before the first [`Self::save`].
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn new(run_id: &str, run: Process) -> Result<Self> {
        Ok(Self {
            version: VERSION,
            run_id: run_id.into(),
            owner: Process::own()?,
            run,
            boot_id: identity::boot_id()?,
            since: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.9fZ").to_string(),
            entries: Vec::new(),
        })
    }

    /// The entries this version understands, oldest first.
    #[must_use]
    pub fn known(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries.iter().filter_map(|entry| match entry {
            Stored::Known(entry) => Some(entry),
            Stored::Unknown(_) => None,
        })
    }

    /// All other entries, as stored in the file.
    pub fn others(&self) -> impl Iterator<Item = &serde_json::Value> {
        self.entries.iter().filter_map(|entry| match entry {
            Stored::Known(_) => None,
            Stored::Unknown(value) => Some(value),
        })
    }

    /// Kinds of entries this version does not understand, except entries of backends.
    #[must_use]
    pub fn unknown(&self) -> BTreeSet<String> {
        let kind =
            |value: &serde_json::Value| value.get("what").and_then(|what| what.as_str()).unwrap_or("?").to_owned();
        self.others().filter(|value| clear(value).is_none()).map(kind).collect()
    }

    /// Whether it contains something that survives a reboot.
    #[must_use]
    pub fn outlasts_boot(&self) -> bool {
        self.others().any(|value| clear(value).is_some())
    }

    /// Its path in `dir`.
    #[must_use]
    pub fn path(&self, dir: &Path) -> PathBuf {
        let safe = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' };
        let run: String = self.run_id.chars().map(safe).take(100).collect();
        dir.join(format!("{run}-{}.json", self.owner.pid))
    }

    /// Writes it to disk; it survives a power failure once this returns.
    ///
    /// # Errors
    /// When it cannot be written. Then nothing may be mutated.
    pub fn save(&self, dir: &Path) -> Result<()> {
        prepare(dir)?;
        let path = self.path(dir);
        let draft = path.with_extension("tmp");
        let write = || {
            // A draft of the same name belongs to a dead process with the same pid.
            let _ = fs::remove_file(&draft);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
            serde_json::to_writer_pretty(&mut file, self)?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            fs::rename(&draft, &path)?;
            sync(dir)
        };
        Ok(write().context(|| format!("write the journal {}", path.display()))?)
    }

    /// Removes it from disk, once everything in it is undone.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self, dir: &Path) -> Result<()> {
        remove(&self.path(dir))
    }
}

/// Removes a file and syncs its directory.
///
/// # Errors
/// When it cannot be removed; a missing file is not an error.
pub fn remove(path: &Path) -> Result<()> {
    let gone = match fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    Ok(gone.and_then(|()| path.parent().map_or(Ok(()), sync)).context(|| format!("remove {}", path.display()))?)
}

/// The content of a file in the journal directory.
#[derive(Debug)]
pub enum Found {
    Journal(Box<Journal>),
    /// Written by a later version of this program.
    Newer {
        version: u64,
    },
    Unreadable {
        why: String,
    },
    /// It could not be read, so that its content is unknown.
    Closed {
        why: String,
    },
    /// Begun and never moved to its final path: nothing was mutated for it.
    Draft,
}

/// All files in the journal directory, newest journal first; empty if there is no directory.
///
/// # Errors
/// When the directory cannot be read, or others may write to it.
pub fn list(dir: &Path) -> Result<Vec<(PathBuf, Found)>> {
    if !dir.exists() {
        return Ok(Vec::new());
    }
    check(dir)?;
    let mut found = Vec::new();
    let read = || format!("list {}", dir.display());
    for entry in fs::read_dir(dir).context(read)? {
        let path = entry.context(read)?.path();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("json") => {
                // Removed by its owner meanwhile.
                let Some(what) = load(&path) else { continue };
                found.push((path, what));
            }
            Some("tmp") => found.push((path, Found::Draft)),
            _ => {}
        }
    }
    let since = |found: &Found| match found {
        Found::Journal(journal) => journal.since.clone(),
        _ => String::new(),
    };
    found.sort_by_key(|(_, what)| std::cmp::Reverse(since(what)));
    Ok(found)
}

fn load(path: &Path) -> Option<Found> {
    let unreadable = |error: serde_json::Error| Some(Found::Unreadable { why: error.to_string() });
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => return Some(Found::Closed { why: error.to_string() }),
    };
    let value: serde_json::Value = match serde_json::from_slice(&text) {
        Ok(value) => value,
        Err(error) => return unreadable(error),
    };
    match value.get("version").and_then(serde_json::Value::as_u64) {
        Some(version) if version > u64::from(VERSION) => Some(Found::Newer { version }),
        _ => match serde_json::from_value(value) {
            Ok(journal) => Some(Found::Journal(Box::new(journal))),
            Err(error) => unreadable(error),
        },
    }
}

fn prepare(dir: &Path) -> Result<()> {
    if !dir.exists() {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).context(|| format!("create {}", dir.display()))?;
        if let Some(parent) = dir.parent() {
            sync(parent).context(|| format!("sync {}", parent.display()))?;
        }
    }
    check(dir)
}

/// Root writes the contents of a journal to the machine, so nobody else may write to the directory.
fn check(dir: &Path) -> Result<()> {
    let metadata = fs::metadata(dir).context(|| format!("stat {}", dir.display()))?;
    let trusted = metadata.uid() == 0 || Some(metadata.uid()) == identity::user();
    if trusted && metadata.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(Error::Unsafe {
        what: format!("use the journals in {}", dir.display()),
        why: "other users can write to it".into(),
    })
}

fn sync(dir: &Path) -> std::io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Journal {
        let mut journal = Journal::new("run/1", Process::own().unwrap()).unwrap();
        let entry = Entry::Sysctl { key: "k".into(), old: "1".into(), new: "2".into() };
        journal.entries.push(Stored::Known(entry));
        journal
    }

    #[test]
    fn what_is_saved_is_found_and_what_is_removed_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("state/journal");
        assert!(list(&dir).unwrap().is_empty());
        let journal = sample();
        journal.save(&dir).unwrap();
        journal.save(&dir).unwrap();
        let found = list(&dir).unwrap();
        assert!(matches!(&found[..], [(_, Found::Journal(read))] if **read == journal), "{found:?}");
        journal.remove(&dir).unwrap();
        journal.remove(&dir).unwrap();
        assert!(list(&dir).unwrap().is_empty());
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_not_trusted() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(sample().save(dir.path()).is_err());
        assert!(list(dir.path()).is_err());
    }
}
