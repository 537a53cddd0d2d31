//! Undoes what guardians left that were killed before they could.
//!
//! Needs nothing but the journals: no scenario, no run. Each guardian does it when it gets the lock,
//! every start of relapse does it quietly, and `relapse recover` says all it finds.
//!
//! A journal is left alone while its owner lives. The run need not be dead too: only the owner ever
//! writes the setting, and never without the lock, which is ours here; what a dead one left is
//! guarded by nobody. After a reboot there is nothing to undo: the boot reset the settings.
//!
//! Nothing unclear is removed: a file that cannot be read is set aside under another name, one of a
//! newer version stays where it is; both are reported.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use relapse_kernel::error::Context;

use super::identity::{self, Process};
use super::journal::{self, Found, Journal};
use super::lock::{MachineLock, Mode};
use super::restore::Undone;
use super::undo::{out_of_reach, undo};
use super::{Result, Site};

/// A file among the journals and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    pub path: PathBuf,
    pub outcome: JournalOutcome,
}

/// What became of a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JournalOutcome {
    /// Undone, as far as it was ours, and removed. Kinds of entries in `unknown` are not undone; where
    /// there are any the journal stays.
    Replayed { run_id: String, undone: Vec<Undone>, unknown: Vec<String> },
    /// A backend made it that this relapse was built without: nothing is touched, the journal stays. How to clear it.
    Kept { run_id: String, clear: Vec<String> },
    /// Written before the last boot, which reset what it is about; removed.
    Void { run_id: String },
    /// Begun by a process that died before it changed anything; removed.
    NeverMade,
    /// Its owner lives and will undo it itself.
    InUse { run_id: String, pid: u32 },
    /// Somebody else has the lock.
    Locked { run_id: String },
    /// Of a later version of relapse, which can undo it.
    Newer { version: u64 },
    /// Not a journal, or not all of one; set aside.
    Unreadable { why: String, now: PathBuf },
    /// It could not be undone; the journal stays.
    Failed { run_id: String, why: String },
}

impl JournalOutcome {
    /// Something on this machine may still be as a run left it, or is known to be.
    #[must_use]
    pub fn is_open(&self) -> bool {
        match self {
            Self::Replayed { undone, unknown, .. } => {
                !unknown.is_empty() || undone.iter().any(|undone| matches!(undone, Undone::NotOurs { .. }))
            }
            Self::Void { .. } | Self::NeverMade | Self::InUse { .. } => false,
            Self::Kept { .. }
            | Self::Locked { .. }
            | Self::Newer { .. }
            | Self::Unreadable { .. }
            | Self::Failed { .. } => true,
        }
    }
}

/// Replays all journals of dead guardians; waits for the lock where there are any, and tells for whom.
///
/// # Errors
/// When the journals cannot be listed or the lock cannot be opened.
pub fn recover(site: &Site, tell: &dyn Fn(String)) -> Result<Vec<Recovered>> {
    if !has_work(site)? {
        return survey(site, false);
    }
    let _lock = MachineLock::acquire(&site.locks, Mode::Exclusive, tell)?;
    survey(site, true)
}

/// The same for every start of relapse: never waits (who has the lock did this on getting it), and
/// says only what a user must know.
///
/// # Errors
/// When the journals cannot be listed or the lock cannot be opened.
pub fn recover_quietly(site: &Site) -> Result<Vec<Recovered>> {
    let lock = if has_work(site)? { MachineLock::try_acquire(&site.locks, Mode::Exclusive)? } else { None };
    let mut found = survey(site, lock.is_some())?;
    found.retain(|recovered| !matches!(recovered.outcome, JournalOutcome::InUse { .. } | JournalOutcome::NeverMade));
    Ok(found)
}

/// For who has the lock already.
///
/// # Errors
/// When the journals cannot be listed.
pub fn recover_locked(site: &Site, lock: &MachineLock) -> Result<Vec<Recovered>> {
    let mut found = survey(site, lock.is_exclusive())?;
    found.retain(|recovered| !matches!(recovered.outcome, JournalOutcome::InUse { .. }));
    Ok(found)
}

fn has_work(site: &Site) -> Result<bool> {
    let needs_lock = |journal: &Journal| !is_in_use(journal) && !journal.outlasts_boot();
    let dead = |found: &Found| matches!(found, Found::Journal(journal) if needs_lock(journal));
    Ok(journal::list(&site.journals)?.iter().any(|(_, found)| dead(found)))
}

fn is_in_use(journal: &Journal) -> bool {
    let this_boot = identity::boot_id().is_ok_and(|boot| boot == journal.boot_id);
    this_boot && journal.owner.is_alive()
}

/// Goes through all files; without the lock nothing is undone.
fn survey(site: &Site, locked: bool) -> Result<Vec<Recovered>> {
    let mut all = Vec::new();
    for (path, found) in journal::list(&site.journals)? {
        let outcome = match found {
            Found::Journal(journal) => journal_outcome(site, &path, &journal, locked),
            Found::Newer { version } => JournalOutcome::Newer { version },
            Found::Unreadable { why } => set_aside(&path, why),
            Found::Closed { why } => JournalOutcome::Failed { run_id: "unknown".into(), why },
            Found::Draft if draft_is_in_use(&path) => continue,
            Found::Draft => match journal::remove(&path) {
                Ok(()) => JournalOutcome::NeverMade,
                Err(error) => JournalOutcome::Failed { run_id: "unknown".into(), why: error.to_string() },
            },
        };
        all.push(Recovered { path, outcome });
    }
    Ok(all)
}

fn journal_outcome(site: &Site, path: &Path, journal: &Journal, locked: bool) -> JournalOutcome {
    let run_id = journal.run_id.clone();
    if is_in_use(journal) {
        return JournalOutcome::InUse { run_id, pid: journal.owner.pid };
    }
    // A cluster whose run is dead is nobody's: no lock is on it.
    if !locked && !journal.outlasts_boot() {
        return JournalOutcome::Locked { run_id };
    }
    replay(site, path, journal).unwrap_or_else(|error| JournalOutcome::Failed { run_id, why: error.to_string() })
}

fn replay(site: &Site, path: &Path, journal: &Journal) -> Result<JournalOutcome> {
    let run_id = journal.run_id.clone();
    let clear = out_of_reach(site, journal);
    if !clear.is_empty() {
        return Ok(JournalOutcome::Kept { run_id, clear });
    }
    let unknown: Vec<String> = journal.unknown().into_iter().collect();
    // What a later version put down may outlast a boot, unlike a setting.
    if journal.boot_id != identity::boot_id()? && !journal.outlasts_boot() {
        if unknown.is_empty() {
            journal::remove(path)?;
            return Ok(JournalOutcome::Void { run_id });
        }
        return Ok(JournalOutcome::Replayed { run_id, undone: Vec::new(), unknown });
    }
    let undone = undo(site, journal)?;
    if unknown.is_empty() {
        journal::remove(path)?;
    }
    Ok(JournalOutcome::Replayed { run_id, undone, unknown })
}

fn set_aside(path: &Path, why: String) -> JournalOutcome {
    let mut now = path.with_extension("unreadable");
    for number in 2.. {
        if !now.exists() {
            break;
        }
        now = path.with_extension(format!("{number}.unreadable"));
    }
    match fs::rename(path, &now).context(|| format!("set aside {}", path.display())) {
        Ok(()) => JournalOutcome::Unreadable { why, now },
        Err(error) => JournalOutcome::Unreadable { why: format!("{why}; {error}"), now: path.into() },
    }
}

/// A draft bears its owner's pid at the end of its name.
fn draft_is_in_use(path: &Path) -> bool {
    let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let pid = name.rsplit('-').next().and_then(|pid| pid.parse().ok());
    pid.is_some_and(|pid| Process::of(pid).is_some())
}

impl fmt::Display for Recovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.outcome {
            JournalOutcome::Replayed { run_id, undone, unknown } => {
                let mut parts: Vec<String> = undone.iter().map(ToString::to_string).collect();
                if !unknown.is_empty() {
                    parts.push(format!(
                        "not undone, written by a newer version: {} (kept in {path})",
                        unknown.join(", ")
                    ));
                }
                write!(f, "run {run_id} was killed: {}", parts.join("; "))
            }
            JournalOutcome::Kept { run_id, clear } => {
                write!(
                    f,
                    "run {run_id} was killed and left what this version cannot remove: {} (kept in {path})",
                    clear.join("; ")
                )
            }
            JournalOutcome::Void { run_id } => {
                write!(f, "run {run_id} was interrupted by a reboot, which reset what it had changed")
            }
            JournalOutcome::NeverMade => write!(f, "{path} was never used: removed; nothing had been changed"),
            JournalOutcome::InUse { run_id, pid } => write!(f, "run {run_id} is guarded by process {pid}: left alone"),
            JournalOutcome::Locked { run_id } => {
                write!(f, "run {run_id} was killed: not undone yet, another run holds the lock")
            }
            JournalOutcome::Newer { version } => {
                write!(f, "{path} was written by a newer relapse (version {version}): left alone")
            }
            JournalOutcome::Unreadable { why, now } => {
                write!(f, "{path} is not a valid journal ({why}): kept as {}", now.display())
            }
            JournalOutcome::Failed { run_id, why } => {
                write!(f, "run {run_id} was killed and could not be undone: {why}")
            }
        }
    }
}

#[cfg(test)]
mod tests;
