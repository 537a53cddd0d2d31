//! The settings of the machine, and the other network namespaces subject to them.
//!
//! `nf_conntrack_max` applies to the entries of *each* network namespace, so a lower value harms
//! any that holds nearly as many. Namespaces are found through processes (`/proc/*/ns/net`, including
//! the host's own) and through mounts that pin them (`ip netns`, container runtimes).
//!
//! The nodes of a lab are anonymous: held by file descriptors of the lab process, with none of its processes in
//! them, so they are not found; the namespace of the lab process itself is idle. If processes do enter them (a
//! shell in a node, a kind node), the run declares these namespaces as its own and they are skipped.
//!
//! Left out: anonymous namespaces of other programs, and threads outside their process's namespace.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use relapse_kernel::error::Context;
use relapse_kernel::host::{self, NsRef};
use relapse_kernel::{NetNs, sysctl};

use super::{CONNTRACK_MAX, Error, Result};

/// Settings by key, and the namespaces that share them.
pub trait Settings: fmt::Debug + Send + Sync {
    /// The current value.
    ///
    /// # Errors
    /// When it cannot be read, or is not one that relapse writes.
    fn read(&self, key: &str) -> Result<String>;

    /// Writes, without reading back.
    ///
    /// # Errors
    /// When the kernel refuses, or the key is not one that relapse writes.
    fn write(&self, key: &str, value: &str) -> Result<()>;

    /// All network namespaces that can be found.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    fn namespaces(&self) -> Result<Vec<Namespace>>;

    /// The number of connection tracking entries in one of them; `None` if it is gone.
    ///
    /// # Errors
    /// When it exists and cannot be read.
    fn entries(&self, namespace: &Namespace) -> Result<Option<u64>>;
}

/// A network namespace and a path to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    pub inode: u64,
    /// A file that refers to it.
    pub path: PathBuf,
    /// A description of its processes or mount.
    pub who: String,
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "network namespace net:[{}] ({})", self.inode, self.who)
    }
}

/// This machine.
#[derive(Debug, Clone, Default)]
pub struct HostSettings {
    /// Settings other than the limit, written by programs that backends start.
    pub also: Vec<&'static str>,
}

impl HostSettings {
    /// Rejects all other settings, since a journal may be replayed by root.
    fn known<'a>(&self, key: &'a str) -> Result<&'a str> {
        if key == CONNTRACK_MAX || self.also.contains(&key) {
            return Ok(key);
        }
        Err(Error::Unsafe { what: format!("access the setting {key}"), why: "relapse does not write it".into() })
    }
}

impl Settings for HostSettings {
    fn read(&self, key: &str) -> Result<String> {
        Ok(sysctl::read_host(self.known(key)?)?)
    }

    fn write(&self, key: &str, value: &str) -> Result<()> {
        const EPERM: i32 = 1;
        const EACCES: i32 = 13;
        sysctl::write_host(self.known(key)?, value).map_err(|source| match source.errno() {
            Some(EPERM | EACCES) => Error::NotAllowed { key: key.into(), source },
            _ => source.into(),
        })
    }

    fn namespaces(&self) -> Result<Vec<Namespace>> {
        let mut seen = BTreeSet::new();
        let mut found = with_processes()?;
        found.extend(mounted());
        found.retain(|namespace| seen.insert(namespace.inode));
        Ok(found)
    }

    fn entries(&self, namespace: &Namespace) -> Result<Option<u64>> {
        const ENOENT: i32 = 2;
        const ESRCH: i32 = 3;
        match NetNs::from_path(&namespace.to_string(), &namespace.path) {
            Ok(ns) if ns.inode() == namespace.inode => Ok(Some(host::conntrack_count(&ns)?)),
            Ok(_) => Ok(None),
            Err(error) if matches!(error.errno(), Some(ENOENT | ESRCH)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// One process for each namespace; those of other users are not visible without root.
fn with_processes() -> Result<Vec<Namespace>> {
    let own = fs::metadata("/proc/self/ns/net").context(|| "stat /proc/self/ns/net".into())?.ino();
    let found = host::network_namespaces()?.into_iter().map(|NsRef { inode, pid }| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let whose = if inode == own { "the host's own, " } else { "" };
        let who = format!("{whose}process {pid} {}", name.trim());
        Namespace { inode, path: format!("/proc/{pid}/ns/net").into(), who }
    });
    Ok(found.collect())
}

fn mounted() -> Vec<Namespace> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().filter_map(mounted_namespace).collect()
}

/// `... 0:4 net:[4026532261] /run/netns/blue rw shared:1 - nsfs nsfs rw`
fn mounted_namespace(line: &str) -> Option<Namespace> {
    let mut fields = line.split(' ').skip(3);
    let inode = fields.next()?.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()?;
    let path = fields.next()?.replace("\\040", " ");
    Some(Namespace { inode, who: format!("mounted at {path}"), path: path.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mounted_namespace_is_found_in_the_mount_table() {
        let line = "97 24 0:4 net:[4026532261] /run/netns/blue rw shared:1 - nsfs nsfs rw";
        let found = mounted_namespace(line).unwrap();
        assert_eq!((found.inode, found.path), (4_026_532_261, "/run/netns/blue".into()));
        assert_eq!(mounted_namespace("24 1 254:0 / / rw,relatime - ext4 /dev/root rw"), None);
    }

    #[test]
    fn only_known_settings_are_reached() {
        let settings = HostSettings { also: vec!["kernel.panic"] };
        assert!(settings.known(CONNTRACK_MAX).is_ok() && settings.known("kernel.panic").is_ok());
        assert!(settings.read("kernel.core_pattern").is_err());
        assert!(HostSettings::default().known("kernel.panic").is_err());
        assert!(settings.write("net/netfilter/nf_conntrack_max", "1").is_err());
    }

    #[test]
    fn the_hosts_own_namespace_is_among_those_found() {
        let own = fs::metadata("/proc/self/ns/net").unwrap().ino();
        let found = HostSettings::default().namespaces().unwrap();
        let this = found.iter().find(|namespace| namespace.inode == own).expect("found");
        assert!(this.who.starts_with("the host's own"), "{this}");
    }
}
