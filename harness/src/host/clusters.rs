//! Real clusters on this machine, and what their nodes write on it: in the journal before they are
//! made, removed with everything that bears exactly their name.

use std::path::Path;

use super::identity::Process;
use super::journal::{self, Entry, Found, Journal, Stored};
use super::restore::Undone;
use super::settings::Settings;
use super::{Result, Site, restore};
use crate::kind::create::{self, Names};

/// What nodes set on their host, and leave there: their kubelet
/// (`pkg/kubelet/cm/container_manager_linux.go`, `setupKernelTunables`), and systemd from the files of their
/// distribution (Debian's `/usr/lib/sysctl.d`).
pub const NODE_WRITES: [(&str, &str); 11] = [
    ("vm.overcommit_memory", "1"),
    ("vm.panic_on_oom", "0"),
    ("kernel.panic", "10"),
    ("kernel.panic_on_oops", "1"),
    ("kernel.keys.root_maxkeys", "1000000"),
    ("kernel.keys.root_maxbytes", "25000000"),
    ("kernel.pid_max", "4194304"),
    ("fs.protected_fifos", "1"),
    ("fs.protected_hardlinks", "1"),
    ("fs.protected_regular", "2"),
    ("fs.protected_symlinks", "1"),
];

/// The journal of one cluster. It stays on disk until the cluster is gone.
pub struct ClusterJournal {
    journal: Journal,
    names: Names,
    site: Site,
}

impl ClusterJournal {
    /// Writes down what is about to be made.
    ///
    /// # Errors
    /// When the journal cannot be written: then nothing may be made.
    pub fn begin(names: &Names) -> Result<Self> {
        let site = Site::host()?;
        // A run may make several, one after the other.
        let mut journal = Journal::new(&names.cluster, Process::own()?)?;
        journal
            .entries
            .push(Stored::Known(Entry::KindCluster { cluster: names.cluster.clone(), folder: names.folder.clone() }));
        for (key, new) in NODE_WRITES {
            // One that this kernel does not have nobody writes.
            let Ok(now) = site.settings.read(key) else { continue };
            // Beside another run's cluster it is a node's already, and whoever ends last sets it back.
            let old = if now == new { before_others(&site, key)?.unwrap_or(now) } else { now };
            if old != new {
                journal.entries.push(Stored::Known(Entry::Sysctl { key: key.into(), old, new: new.into() }));
            }
        }
        journal.save(&site.journals)?;
        Ok(Self { journal, names: names.clone(), site })
    }

    /// Removes the cluster, sets back what its nodes wrote, and closes the journal.
    ///
    /// # Errors
    /// What could not be removed; the journal then stays.
    pub fn remove(&self) -> std::result::Result<(), String> {
        undo(&*self.site.settings, &self.journal).map_err(|e| format!("{}: failed to {e}", self.names.cluster))?;
        self.journal.remove(&self.site.journals).map_err(|e| format!("failed to {e}"))
    }
}

/// Undoes a journal: clusters first, then settings, which stay while another cluster needs them.
///
/// # Errors
/// What could not be removed or set back; the journal must then stay.
pub fn undo(settings: &dyn Settings, journal: &Journal) -> Result<Vec<Undone>> {
    let mut undone = Vec::new();
    let mut shared = false;
    for entry in journal.known() {
        let Entry::KindCluster { cluster, folder } = entry else { continue };
        remove(cluster, folder)?;
        shared |= create::others(cluster).unwrap_or(false);
        undone.push(Undone::Removed { what: format!("kind cluster {cluster}") });
    }
    if !shared {
        undone.extend(restore::undo(settings, journal)?);
    }
    Ok(undone)
}

/// What a setting was before another run's cluster, which is in the journal.
fn before_others(site: &Site, key: &str) -> Result<Option<String>> {
    let found = journal::list(&site.journals)?.into_iter().find_map(|(_, found)| match found {
        Found::Journal(journal) => journal.known().find_map(|entry| match entry {
            Entry::Sysctl { key: known, old, .. } if known == key => Some(old.clone()),
            _ => None,
        }),
        _ => None,
    });
    Ok(found)
}

fn remove(cluster: &str, folder: &Path) -> Result<()> {
    let names = Names { cluster: cluster.to_owned(), folder: folder.to_owned() };
    create::remove(&names)
        .map_err(|why| super::Error::Unsafe { what: format!("remove the kind cluster {cluster}"), why })
}
