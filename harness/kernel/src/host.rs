//! The state of the machine before and after a run, and what else runs on it.
//!
//! A [`Snapshot`] holds everything a run could leave behind, as text under stable keys, so that two
//! snapshots can be compared. It excludes what changes on its own: counters, ages, neighbours, carrier.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::{fs, io};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::error::{Context, Error, Result};
use crate::netns::NetNs;
use crate::route::{Action, LOCAL, Route, Rule};
use crate::{link, route, sysctl};

/// The machine as seen by the calling process: its network namespace and some settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Object (`link eth0`) to state (`up, mtu 1500, ...`).
    pub facts: BTreeMap<String, String>,
}

/// A difference between two snapshots.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    pub what: String,
    /// `None`: it did not exist.
    pub before: Option<String>,
    /// `None`: it is gone.
    pub after: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => write!(f, "{} changed from \"{before}\" to \"{after}\"", self.what),
            (None, Some(after)) => write!(f, "{} appeared: {after}", self.what),
            (Some(before), None) => write!(f, "{} is gone; it was: {before}", self.what),
            (None, None) => write!(f, "{} is unchanged", self.what),
        }
    }
}

/// Settings that a run, or a kubelet started by a run, may change.
const SETTINGS: &[&str] = &[
    "kernel.panic",
    "kernel.panic_on_oops",
    "net.bridge.bridge-nf-call-iptables",
    "net.ipv4.ip_forward",
    "net.ipv4.ip_local_port_range",
    "net.ipv6.conf.all.forwarding",
    "net.netfilter.nf_conntrack_max",
    "net.netfilter.nf_conntrack_buckets",
    "net.netfilter.nf_conntrack_tcp_be_liberal",
    "net.netfilter.nf_conntrack_tcp_timeout_close_wait",
    "net.netfilter.nf_conntrack_tcp_timeout_established",
    "vm.overcommit_memory",
    "vm.panic_on_oom",
];

impl Snapshot {
    /// Takes a snapshot of the current namespace. `nft_tables` are the names of its nft tables.
    ///
    /// # Errors
    /// When the request to the kernel fails.
    pub fn take(nft_tables: Vec<String>) -> Result<Self> {
        let mut snapshot = Self::of_namespace(&NetNs::own("this machine")?, nft_tables)?;
        let all = fs::read_dir("/proc/sys/net/ipv4/conf/all").context(|| "list settings".into())?;
        let all = all.filter_map(|entry| Some(format!("net.ipv4.conf.all.{}", entry.ok()?.file_name().to_str()?)));
        for key in SETTINGS.iter().map(|key| (*key).to_owned()).chain(all) {
            // Absent or not readable by this user: a run cannot change it either.
            if let Ok(value) = sysctl::read_host(&key) {
                snapshot.add(format!("setting {key}"), value);
            }
        }
        Ok(snapshot)
    }

    /// Adds settings to the snapshot.
    #[must_use]
    pub fn with_settings(mut self, settings: Vec<(String, String)>) -> Self {
        settings.into_iter().for_each(|(key, value)| self.add(format!("setting {key}"), value));
        self
    }

    /// Takes a snapshot of a namespace, without settings.
    ///
    /// # Errors
    /// When the request to the kernel fails.
    pub fn of_namespace(ns: &NetNs, nft_tables: Vec<String>) -> Result<Self> {
        let mut snapshot = Self { facts: BTreeMap::new() };
        let links = link::list(ns)?;
        let name = |index: u32| {
            links.iter().find(|l| l.index == index).map_or_else(|| format!("link {index}"), |l| l.name.clone())
        };
        for l in &links {
            let up = if l.up { "up" } else { "down" };
            snapshot.add(format!("link {}", l.name), format!("{up}, mtu {}, mac {}", l.mtu, mac(l.mac)));
        }
        for a in link::addresses(ns)? {
            snapshot.add(format!("address {}/{} on {}", a.address, a.prefix_len, name(a.index)), "present".into());
        }
        for r in route::rules(ns)? {
            snapshot.add(format!("rule {}", r.priority), rule_text(&r));
        }
        for r in route::routes(ns, None)?.iter().filter(|r| r.table != LOCAL) {
            let (address, prefix_len) = r.destination;
            let what = format!("route {address}/{prefix_len} metric {} in table {}", r.metric, r.table);
            snapshot.add(what, route_text(r, name));
        }
        for table in nft_tables {
            snapshot.add(format!("nft table {table}"), "present".into());
        }
        Ok(snapshot)
    }

    /// Facts with the same key (two rules of one priority) are joined.
    fn add(&mut self, what: String, how: String) {
        self.facts
            .entry(what)
            .and_modify(|there| {
                there.push_str("; ");
                there.push_str(&how);
            })
            .or_insert(how);
    }
}

/// The differences, sorted by name.
#[must_use]
pub fn diff(before: &Snapshot, after: &Snapshot) -> Vec<Difference> {
    let keys: BTreeSet<&String> = before.facts.keys().chain(after.facts.keys()).collect();
    keys.into_iter()
        .map(|what| Difference {
            what: what.clone(),
            before: before.facts.get(what).cloned(),
            after: after.facts.get(what).cloned(),
        })
        .filter(|d| d.before != d.after)
        .collect()
}

/// A network namespace with at least one process in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NsRef {
    pub inode: u64,
    /// One of its processes.
    pub pid: u32,
}

impl NsRef {
    /// Opens a handle to the namespace.
    ///
    /// # Errors
    /// When the process is gone or has moved to another namespace.
    pub fn open(&self) -> Result<NetNs> {
        let ns = NetNs::of_process(&format!("the namespace of process {}", self.pid), self.pid)?;
        if ns.inode() == self.inode {
            Ok(ns)
        } else {
            Err(Error::NotFound { what: format!("net:[{}] through process {}", self.inode, self.pid) })
        }
    }
}

/// The network namespaces of all processes this user may inspect, each once. A namespace kept alive only by a file
/// or a socket is not found.
///
/// # Errors
/// When `/proc` cannot be listed.
pub fn network_namespaces() -> Result<Vec<NsRef>> {
    let mut found: BTreeMap<u64, u32> = BTreeMap::new();
    for entry in fs::read_dir("/proc").context(|| "list processes".into())? {
        let entry = entry.context(|| "list processes".into())?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // Processes may end while the list is read, and those of other users may not be readable.
        let Ok(target) = fs::read_link(entry.path().join("ns/net")) else { continue };
        let Some(inode) = target.to_str().and_then(inode) else { continue };
        found.entry(inode).and_modify(|known| *known = pid.min(*known)).or_insert(pid);
    }
    Ok(found.into_iter().map(|(inode, pid)| NsRef { inode, pid }).collect())
}

/// The number of connections tracked in a namespace; 0 if connection tracking is not loaded.
///
/// # Errors
/// When the setting cannot be read.
pub fn conntrack_count(ns: &NetNs) -> Result<u64> {
    match sysctl::read(ns, "net.netfilter.nf_conntrack_count") {
        Err(e) if e.errno() == Some(libc::ENOENT) => Ok(0),
        result => number("net.netfilter.nf_conntrack_count", &result?),
    }
}

/// The limit of tracked connections: one value for the machine, applied to each namespace separately.
///
/// # Errors
/// `ENOENT` when connection tracking is not loaded.
pub fn conntrack_max() -> Result<u64> {
    let key = "net.netfilter.nf_conntrack_max";
    number(key, &sysctl::read_host(key)?)
}

/// Limits of the number of open files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    pub soft: u64,
    /// The highest value the process may set as its soft limit.
    pub hard: u64,
}

/// The open file limits of this process; unlimited is `u64::MAX`.
#[must_use]
pub fn nofile() -> Limit {
    let now = getrlimit(Resource::Nofile);
    Limit { soft: now.current.unwrap_or(u64::MAX), hard: now.maximum.unwrap_or(u64::MAX) }
}

/// Raises the limit of open files of this process to at least `min`, and returns the limit in force.
///
/// # Errors
/// When the hard limit is lower and may not be raised.
pub fn raise_nofile(min: u64) -> Result<u64> {
    let Limit { soft, hard } = nofile();
    if soft >= min {
        return Ok(soft);
    }
    let wanted = Rlimit { current: Some(min), maximum: Some(hard.max(min)).filter(|hard| *hard != u64::MAX) };
    setrlimit(Resource::Nofile, wanted).map(|()| min).map_err(|source| {
        let what = format!("raise the limit of open files from {soft} to {min} (hard limit {hard}; see ulimit -Hn)");
        Error::kernel(what, io::Error::from(source))
    })
}

fn number(key: &str, text: &str) -> Result<u64> {
    text.parse().map_err(|_| Error::Answer { what: format!("read {key}"), answer: text.into() })
}

fn inode(target: &str) -> Option<u64> {
    target.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

fn mac(mac: Option<[u8; 6]>) -> String {
    mac.map_or_else(|| "none".into(), |bytes| bytes.map(|byte| format!("{byte:02x}")).join(":"))
}

fn prefix((address, length): (IpAddr, u8)) -> String {
    if length == 0 { "all".into() } else { format!("{address}/{length}") }
}

fn rule_text(rule: &Rule) -> String {
    let family = if rule.from.0.is_ipv4() { "ipv4" } else { "ipv6" };
    let parts = [
        rule.to.map(|to| format!(" to {}", prefix(to))),
        rule.mark.map(|(mark, mask)| format!(" fwmark {mark:#x}/{mask:#x}")),
        rule.iif.as_ref().map(|iif| format!(" iif {iif}")),
        Some(match rule.action {
            Action::Table(table) => format!(" lookup {table}"),
            Action::Other(other) => format!(" {other:?}").to_lowercase(),
        }),
    ];
    format!("{family} from {}{}", prefix(rule.from), parts.into_iter().flatten().collect::<String>())
}

fn route_text(route: &Route, name: impl Fn(u32) -> String) -> String {
    let parts = [
        route.gateway.map(|gateway| format!(" via {gateway}")),
        route.oif.map(|oif| format!(" dev {}", name(oif))),
        route.source.map(|source| format!(" src {source}")),
        route.mtu.map(|mtu| format!(" mtu {mtu}")),
        route.onlink.then(|| " onlink".to_owned()),
        Some(format!(" proto {}", route.protocol)),
    ];
    format!("{:?}", route.kind).to_lowercase() + &parts.into_iter().flatten().collect::<String>()
}

/// Whether this process has uid 0 in its user namespace.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::{Snapshot, diff};

    #[test]
    fn differences_are_told_in_order() {
        let snapshot = |facts: &[(&str, &str)]| Snapshot {
            facts: facts.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        };
        let before = snapshot(&[("link a", "up"), ("link b", "up"), ("link c", "up")]);
        let after = snapshot(&[("link a", "down"), ("link c", "up"), ("link d", "up")]);
        let changes: Vec<String> = diff(&before, &after).iter().map(ToString::to_string).collect();
        assert_eq!(
            changes,
            ["link a changed from \"up\" to \"down\"", "link b is gone; it was: up", "link d appeared: up"]
        );
        assert_eq!(diff(&before, &before), []);
    }
}
