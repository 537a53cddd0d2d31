//! What reaches beyond the lab: one machine-wide setting, `nf_conntrack_max`, written and restored.
//!
//! Modules:
//! - [`consent`]: the user's permission to write it, and the description of what will be changed.
//! - [`settings`]: the settings of the machine and the network namespaces they may harm.
//! - [`lock`]: one writer at a time on the whole machine, or several users who need a stable value.
//! - [`journal`]: the old value on disk, synced before the write; [`identity`]: the process that owns it.
//! - [`restore`]: restores the old value, unless another process has changed it since.
//! - [`guardian`]: the process that does all of this and outlives the run; [`protocol`]: the messages
//!   exchanged with it; [`client`]: the run's end.
//! - [`removers`]: removal of objects created by backends that outlast a killed run.
//! - [`mod@recover`]: the same restore for guardians that were themselves killed.
//!
//! Invariants: nothing is written without the exclusive lock and a synced journal; whichever process gets the lock
//! first restores what a dead guardian left, so that no run takes a leftover for the machine's own
//! value; a value changed by another process since is reported and left.
//!
//! Left out: the purpose of a write (faults); how a cluster is created.

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

/// The setting this module writes.
pub const CONNTRACK_MAX: &str = "net.netfilter.nf_conntrack_max";

/// Why this process cannot write that setting even with consent; `None` if it can. Writes nothing.
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

/// Messages are fragments that follow "failed to ...".
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The setting exists but this user may not write it.
    #[error("write {key}: only root in the initial network namespace can ({source})")]
    NotAllowed {
        key: String,
        #[source]
        source: relapse_kernel::Error,
    },
    /// A precondition for continuing safely is not met.
    #[error("{what}: {why}")]
    Unsafe { what: String, why: String },
    /// Writing would harm another network namespace on this machine.
    #[error("write {key} = {value}: {why}")]
    Refused { key: String, value: u32, why: String },
    /// The guardian is gone; its changes are recorded in its journal.
    #[error("reach the guardian: it has ended ({why})")]
    GuardianGone { why: String },
    /// The guardian reported a failure.
    #[error("{what}")]
    Guardian { what: String },
    /// A wait was cancelled.
    #[error("wait: stopped")]
    Stopped,
    /// An operating system error on a setting, one of our files (journal, lock) or one of our processes.
    #[error(transparent)]
    Kernel(#[from] relapse_kernel::Error),
}

/// Everything outside the process that a guardian works on. A value, so that tests can substitute their own.
#[derive(Debug, Clone)]
pub struct Site {
    /// The machine's settings.
    pub settings: Arc<dyn settings::Settings>,
    /// Possible paths of the lock file; the first usable one is used.
    pub locks: Vec<PathBuf>,
    /// The directory of the journals.
    pub journals: PathBuf,
    /// Removers for objects created by backends.
    pub removers: Vec<Remover>,
}

impl Site {
    /// This machine: `/proc/sys`, the lock under `/run/lock`, the journal in [`state_dir`].
    ///
    /// # Errors
    /// When there is no state directory.
    pub fn host() -> Result<Self> {
        Self::host_with(removers::registered())
    }

    /// This machine with these removers.
    ///
    /// # Errors
    /// When there is no state directory.
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

/// The directory of the journals in a state directory.
#[must_use]
pub fn journal_dir(state: &Path) -> PathBuf {
    state.join("journal")
}

/// The state directory: `RELAPSE_STATE_DIR`, else `/var/lib/relapse` for root, else
/// `$XDG_STATE_HOME/relapse`, else `~/.local/state/relapse`.
///
/// # Errors
/// When none of them can be determined.
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
