//! What reaches beyond the lab: one machine-wide number, `nf_conntrack_max`, written and given back.
//!
//! A map of the modules:
//! - [`consent`]: the user's leave to write it, and the sentence that says what will be touched.
//! - [`settings`]: the settings of the machine and the network namespaces they may harm.
//! - [`lock`]: one writer at a time on the whole machine, or several who need the number steady.
//! - [`journal`]: the old value on disk, synced before the write; [`identity`]: whose it is.
//! - [`restore`]: the old value back, only where the present one is still ours.
//! - [`guardian`]: the process that does all of it and outlives the run; [`protocol`]: what is said
//!   to it; [`client`]: the run's end of that.
//! - [`removers`]: what backends made that outlasts a run which is killed.
//! - [`mod@recover`]: the same restore for guardians that were killed themselves.
//!
//! Invariants: nothing is written without the exclusive lock and a synced journal; whoever gets that
//! lock restores first what a dead guardian left, so no run takes a leftover for the machine's own
//! value; a value that somebody else wrote since is reported and left.
//!
//! Left out: who asks for a write and what it proves (faults); how a cluster is made.

pub mod client;
pub mod consent;
pub mod guardian;
pub mod identity;
pub mod journal;
pub mod lock;
pub mod protocol;
pub mod recover;
pub mod removers;
pub mod restore;
pub mod settings;
pub mod undo;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use client::Guardian;
pub use consent::Consent;
pub use guardian::guardian_main;
pub use lock::{MachineLock, Mode};
pub use protocol::{LimitReply, LimitRequest, LimitWrite, Restore};
pub use recover::{JournalOutcome, Recovered, recover, recover_quietly};
use removers::Remover;

/// The setting all of this is about.
pub const CONNTRACK_MAX: &str = "net.netfilter.nf_conntrack_max";

/// Why this process may not write that setting, whatever the user allows; none where it may. Nothing is written.
#[must_use]
pub fn limit_is_closed() -> Option<String> {
    let path = format!("/proc/sys/{}", CONNTRACK_MAX.replace('.', "/"));
    let refused = std::fs::File::options().write(true).open(path).err()?;
    Some(match refused.kind() {
        io::ErrorKind::NotFound => "connection tracking is not loaded (modprobe nf_conntrack)".into(),
        io::ErrorKind::PermissionDenied if !relapse_kernel::host::is_root() => {
            "only root can write it: run as root with --allow-host-writes".into()
        }
        io::ErrorKind::PermissionDenied => "it can be written only in the initial network namespace".into(),
        _ => format!("it cannot be written here ({refused})"),
    })
}

/// Result of this module.
pub type Result<T> = std::result::Result<T, Error>;

/// Fragments that fit after "failed to ...".
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The setting is there and this user may not write it.
    #[error("write {key}: only root in the initial network namespace can ({source})")]
    NotAllowed {
        key: String,
        #[source]
        source: relapse_kernel::Error,
    },
    /// Something is not as it must be to go on safely.
    #[error("{what}: {why}")]
    Unsafe { what: String, why: String },
    /// Writing would harm somebody else on this machine.
    #[error("write {key} = {value}: {why}")]
    Refused { key: String, value: u32, why: String },
    /// The guardian is gone; what it had written waits in its journal.
    #[error("reach the guardian: it has ended ({why})")]
    GuardianGone { why: String },
    /// The guardian says that it failed.
    #[error("{what}")]
    Guardian { what: String },
    /// Somebody who waited wants to wait no longer.
    #[error("wait: stopped")]
    Stopped,
    /// The operating system refused: a setting, a file of ours (journal, lock), a process of ours.
    #[error(transparent)]
    Kernel(#[from] relapse_kernel::Error),
}

/// Everything outside the process that a guardian works on. A value, so that tests have their own.
#[derive(Debug, Clone)]
pub struct Site {
    /// The machine's settings.
    pub settings: Arc<dyn settings::Settings>,
    /// Where the lock file may lie, the first usable one counts.
    pub locks: Vec<PathBuf>,
    /// Where journals lie.
    pub journals: PathBuf,
    /// Who removes what backends made.
    pub removers: Vec<Remover>,
}

impl Site {
    /// This machine: `/proc/sys`, the lock under `/run/lock`, the journal in [`state_dir`].
    ///
    /// # Errors
    /// When no state directory can be named.
    pub fn host() -> Result<Self> {
        Self::host_with(removers::registered())
    }

    /// The same with these removers.
    ///
    /// # Errors
    /// When no state directory can be named.
    pub fn host_with(removers: Vec<Remover>) -> Result<Self> {
        let also = removers.iter().flat_map(|remover| remover.settings).map(|(key, _)| *key).collect();
        Ok(Self {
            settings: Arc::new(settings::HostSettings { also }),
            locks: lock::limit(),
            journals: journal_dir(&state_dir()?),
            removers,
        })
    }
}

/// The journals below a state directory.
#[must_use]
pub fn journal_dir(state: &Path) -> PathBuf {
    state.join("journal")
}

/// Where relapse keeps state: `RELAPSE_STATE_DIR`, else `/var/lib/relapse` for root, else
/// `$XDG_STATE_HOME/relapse`, else `~/.local/state/relapse`.
///
/// # Errors
/// When not one of them can be named.
pub fn state_dir() -> Result<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    choose_state_dir(variable, relapse_kernel::host::is_root()).ok_or_else(|| Error::Unsafe {
        what: "find the state directory".into(),
        why: "RELAPSE_STATE_DIR, XDG_STATE_HOME and HOME are not set".into(),
    })
}

fn choose_state_dir(variable: impl Fn(&str) -> Option<PathBuf>, root: bool) -> Option<PathBuf> {
    if let Some(dir) = variable("RELAPSE_STATE_DIR") {
        return Some(dir);
    }
    if root {
        return Some("/var/lib/relapse".into());
    }
    let base = variable("XDG_STATE_HOME").or_else(|| Some(variable("HOME")?.join(".local/state")))?;
    Some(base.join("relapse"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_directory_is_chosen_in_order() {
        let choose = |set: &[(&str, &str)], root| {
            let variable = |name: &str| set.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
            choose_state_dir(variable, root).map(|dir| dir.display().to_string())
        };
        let (state, xdg, home) = (("RELAPSE_STATE_DIR", "/s"), ("XDG_STATE_HOME", "/x"), ("HOME", "/h"));
        assert_eq!(choose(&[state, xdg, home], true).as_deref(), Some("/s"));
        assert_eq!(choose(&[xdg, home], true).as_deref(), Some("/var/lib/relapse"));
        assert_eq!(choose(&[xdg, home], false).as_deref(), Some("/x/relapse"));
        assert_eq!(choose(&[home], false).as_deref(), Some("/h/.local/state/relapse"));
        assert_eq!(choose(&[], false), None);
    }
}
