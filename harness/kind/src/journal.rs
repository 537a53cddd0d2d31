//! Journal entries for real clusters and the settings their nodes write on the host: recorded before a cluster is
//! created, undone by removing everything with exactly its name.

use relapse_lab::host::identity::Process;
use relapse_lab::host::journal::{self, Entry, Found, Journal, Stored};
use relapse_lab::host::removers::{Removed, Remover};
use relapse_lab::host::{Error, Result, Site, undo};
use serde::Deserialize;
use serde_json::Value;

use super::create;
use super::created::Names;
use super::failed;

/// Settings that nodes write on their host and leave there: the kubelet (`pkg/kubelet/cm/container_manager_linux.go`,
/// `setupKernelTunables`), and systemd from the files of the distribution (Debian's `/usr/lib/sysctl.d`).
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

/// The kind of entry that names a cluster.
const KIND: &str = "kind-cluster";

/// Removes the clusters of runs that were killed.
pub const REMOVER: Remover = Remover { kind: KIND, settings: &NODE_WRITES, remove };

/// The journal of one cluster. It stays on disk until the cluster is gone.
pub struct ClusterJournal {
    journal: Journal,
    names: Names,
    site: Site,
}

impl ClusterJournal {
    /// Records a cluster that is about to be created.
    ///
    /// # Errors
    /// If the journal cannot be written; nothing may be created then.
    pub fn begin(names: &Names) -> Result<Self> {
        // A site of its own, so that the cluster is removed even if the backend was never registered.
        let site = Site::host_with(vec![REMOVER])?;
        // A run may create several clusters, one after the other.
        let mut journal = Journal::new(&names.cluster, Process::own()?)?;
        let clear = format!(
            "a relapse with the backend kind removes it (relapse recover), or: kind delete cluster --name {0}; \
             docker network rm {0}",
            names.cluster
        );
        let not_text = |e: serde_json::Error| Error::Unsafe {
            what: format!("name the folder {} in a journal", names.folder.display()),
            why: e.to_string(),
        };
        let what = serde_json::to_value(names).map_err(not_text)?;
        journal.entries.push(Stored::Unknown(journal::entry(KIND, &clear, what)));
        for (key, new) in NODE_WRITES {
            // The nodes skip settings that this kernel does not have.
            let Ok(now) = site.settings.read(key) else { continue };
            // If another run's cluster has already written it, use the old value in that journal; the last run to end
            // restores it.
            let old = if now == new { before_others(&site, key)?.unwrap_or(now) } else { now };
            if old != new {
                journal.entries.push(Stored::Known(Entry::Sysctl { key: key.into(), old, new: new.into() }));
            }
        }
        journal.save(&site.journals)?;
        Ok(Self { journal, names: names.clone(), site })
    }

    /// Removes the cluster, restores the settings its nodes wrote, and deletes the journal.
    ///
    /// # Errors
    /// What could not be removed. The journal is then kept.
    pub fn remove(&self) -> std::result::Result<(), String> {
        undo::undo(&self.site, &self.journal).map_err(|e| format!("{}: failed to {e}", self.names.cluster))?;
        self.journal.remove(&self.site.journals).map_err(failed)
    }
}

/// The value of a setting before another run's cluster, from that run's journal.
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

fn remove(entry: &Value) -> Result<Removed> {
    let wrong = |e: serde_json::Error| Error::Unsafe { what: "remove a kind cluster".into(), why: e.to_string() };
    let names = Names::deserialize(entry).map_err(wrong)?;
    let what = || format!("remove the kind cluster {}", names.cluster);
    create::remove(&names).map_err(|why| Error::Unsafe { what: what(), why })?;
    let settings_needed = create::others(&names.cluster).unwrap_or(false);
    Ok(Removed { what: format!("kind cluster {}", names.cluster), settings_needed })
}
