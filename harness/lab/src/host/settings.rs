//! The settings of the machine, and who else is subject to them.
//!
//! `nf_conntrack_max` is compared with the entries of *each* network namespace, so a lower one harms
//! any that holds nearly as many. Namespaces are found where processes live (`/proc/*/ns/net`, the
//! host's own among them) and where they are pinned by a mount (`ip netns`, container runtimes).
//!
//! The nodes of a lab are anonymous: file descriptors of the lab process hold them and none of its
//! processes live there, so they do not show; the namespace the lab process itself lives in is idle.
//! Where processes do enter them (a shell in a node, a kind node), the run names those namespaces as
//! its own and they are passed over.
//!
//! Left out: anonymous namespaces of other programs, and threads outside their process' namespace.

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
    /// The present value.
    ///
    /// # Errors
    /// When it cannot be read, or is none that relapse ever writes.
    fn read(&self, key: &str) -> Result<String>;

    /// Writes, without reading back.
    ///
    /// # Errors
    /// When the kernel refuses, or the key is none that relapse ever writes.
    fn write(&self, key: &str, value: &str) -> Result<()>;

    /// All network namespaces that can be found.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    fn namespaces(&self) -> Result<Vec<Namespace>>;

    /// Connection tracking entries in one of them; none where it is gone by now.
    ///
    /// # Errors
    /// When it is there and cannot be looked into.
    fn entries(&self, namespace: &Namespace) -> Result<Option<u64>>;
}

/// A network namespace and a way to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    pub inode: u64,
    /// A file that stands for it.
    pub path: PathBuf,
    /// Who is there, in words.
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
    /// Besides the limit: what backends make others write.
    pub also: Vec<&'static str>,
}

impl HostSettings {
    /// A journal can name nothing else: what replays it may be root.
    fn known<'a>(&self, key: &'a str) -> Result<&'a str> {
        if key == CONNTRACK_MAX || self.also.contains(&key) {
            return Ok(key);
        }
        Err(Error::Unsafe { what: format!("reach the setting {key}"), why: "relapse does not write it".into() })
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

/// One process stands for each namespace; those of other users do not show when not root.
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
