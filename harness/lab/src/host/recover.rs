//! Undoes what killed guardians left behind.
//!
//! Needs only the journals: no scenario, no run. Each guardian does it when it gets the lock, every start of
//! relapse does it quietly, and `relapse recover` reports everything it finds.
//!
//! A journal is left alone while its owner lives. The run need not be dead too: only the owner ever
//! writes the setting, and only with the lock, which is ours here; what a dead owner left is not
//! monitored by any process. After a reboot there is nothing to undo: the boot reset the settings.
//!
//! Nothing ambiguous is removed: a file that cannot be parsed is renamed, one of a newer version stays where it
//! is; both are reported.

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

/// A file in the journal directory and the outcome for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    pub path: PathBuf,
    pub outcome: JournalOutcome,
}

/// The outcome for a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JournalOutcome {
    /// Undone, as far as the values were ours, and removed. Kinds of entries in `unknown` are not undone; if
    /// there are any the journal is kept.
    Replayed { run_id: String, undone: Vec<Undone>, unknown: Vec<String> },
    /// Has entries of a backend this relapse was built without: nothing is changed, the journal is kept. `clear`:
    /// instructions.
    Kept { run_id: String, clear: Vec<String> },
    /// Written before the last boot, which reset the settings in it; removed.
    Void { run_id: String },
    /// Begun by a process that died before it changed anything; removed.
    NeverMade,
    /// Its owner is alive and will undo it.
    InUse { run_id: String, pid: u32 },
    /// Another process holds the lock.
    Locked { run_id: String },
    /// Written by a later version of relapse, which can undo it.
    Newer { version: u64 },
    /// Not a valid or complete journal; renamed.
    Unreadable { why: String, now: PathBuf },
    /// It could not be undone; the journal is kept.
    Failed { run_id: String, why: String },
}

impl JournalOutcome {
    /// Whether something on this machine is, or may still be, as a run left it.
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

/// Replays all journals of dead guardians; waits for the lock if there are any, and reports its holders.
///
/// # Errors
/// When the journals cannot be listed or the lock cannot be opened.
pub fn recover(site: &Site, report: &dyn Fn(String)) -> Result<Vec<Recovered>> {
    if !has_work(site)? {
        return survey(site, false);
    }
    let _lock = MachineLock::acquire(&site.locks, Mode::Exclusive, report)?;
    survey(site, true)
}

/// The same for every start of relapse: never waits (a process that holds the lock has done this already), and
/// returns only what a user must know.
///
/// # Errors
/// When the journals cannot be listed or the lock cannot be opened.
pub fn recover_quietly(site: &Site) -> Result<Vec<Recovered>> {
    let lock = if has_work(site)? { MachineLock::try_acquire(&site.locks, Mode::Exclusive)? } else { None };
    let mut found = survey(site, lock.is_some())?;
    found.retain(|recovered| !matches!(recovered.outcome, JournalOutcome::InUse { .. } | JournalOutcome::NeverMade));
    Ok(found)
}

/// The same with the lock already held.
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

/// Processes all files; without the lock nothing is undone.
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
    // Objects of backends are not protected by the lock.
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
    // Entries of a later version may survive a reboot, unlike a setting.
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

/// The name of a draft ends with its owner's pid.
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
