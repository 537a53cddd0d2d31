//! Real clusters on this machine, and what their nodes write on it: in the journal before they are
//! made, removed with everything that bears exactly their name.

use relapse_lab::host::identity::Process;
use relapse_lab::host::journal::{self, Entry, Found, Journal, Stored};
use relapse_lab::host::removers::{Removed, Remover};
use relapse_lab::host::{Error, Result, Site, undo};
use serde::Deserialize;
use serde_json::Value;

use super::create;
use super::created::Names;
use super::failed;

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

/// The kind of entry that names a cluster.
const KIND: &str = "kind-cluster";

/// Removes the clusters of runs that died.
pub const REMOVER: Remover = Remover { kind: KIND, settings: &NODE_WRITES, remove };

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
        // Of its own: who never registered kind removes what it made, too.
        let site = Site::host_with(vec![REMOVER])?;
        // A run may make several, one after the other.
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
        undo::undo(&self.site, &self.journal).map_err(|e| format!("{}: failed to {e}", self.names.cluster))?;
        self.journal.remove(&self.site.journals).map_err(failed)
    }
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

fn remove(entry: &Value) -> Result<Removed> {
    let wrong = |e: serde_json::Error| Error::Unsafe { what: "remove a kind cluster".into(), why: e.to_string() };
    let names = Names::deserialize(entry).map_err(wrong)?;
    let what = || format!("remove the kind cluster {}", names.cluster);
    create::remove(&names).map_err(|why| Error::Unsafe { what: what(), why })?;
    let settings_needed = create::others(&names.cluster).unwrap_or(false);
    Ok(Removed { what: format!("kind cluster {}", names.cluster), settings_needed })
}
