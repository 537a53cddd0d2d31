//! Who holds the lock: records in the file, checked against the kernel's own list.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Mode, Who, open_existing};
use crate::host::identity::Process;

/// A record in the lock file.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Holder {
    #[serde(flatten)]
    pub(super) process: Process,
    #[serde(flatten)]
    pub(super) who: Who,
    pub(super) mode: Mode,
    pub(super) since: String,
}

pub(super) fn line(holder: &Holder) -> String {
    serde_json::to_string(holder).unwrap_or_default() + "\n"
}

/// Records of those who, by the kernel's list, hold the lock now.
pub(super) fn living(path: &Path) -> Vec<Holder> {
    let mut text = String::new();
    if let Ok(mut file) = open_existing(path) {
        let _ = file.read_to_string(&mut text);
    }
    let pids = holding_pids(path);
    let listed = |pid: u32| pids.as_ref().is_none_or(|pids| pids.contains(&pid));
    text.lines()
        .filter_map(|line| serde_json::from_str::<Holder>(line).ok())
        .filter(|holder| holder.process.is_alive() && listed(holder.process.pid))
        .collect()
}

/// None where the kernel does not say.
pub(super) fn holding_pids(path: &Path) -> Option<Vec<u32>> {
    let inode = fs::symlink_metadata(path).ok()?.ino();
    let list = fs::read_to_string("/proc/locks").ok()?;
    Some(list.lines().filter_map(|line| flock_holder(line, inode)).collect())
}

/// `3: FLOCK  ADVISORY  WRITE 3016 fe:00:780006 0 EOF`; who waits has an arrow before `FLOCK`.
pub(super) fn flock_holder(line: &str, inode: u64) -> Option<u32> {
    let mut fields = line.split_whitespace().skip(1);
    if fields.next()? != "FLOCK" {
        return None;
    }
    let pid = fields.nth(2)?.parse().ok()?;
    (fields.next()?.rsplit(':').next()?.parse() == Ok(inode)).then_some(pid)
}

/// In words, for somebody who wants the lock in this mode; empty where nobody is in the way. Who
/// shares a lock waits for a writer alone.
pub(super) fn holders(path: &Path, wanted: Mode) -> String {
    let mut known = living(path);
    if wanted == Mode::Shared {
        known.retain(|holder| holder.mode == Mode::Exclusive);
        if known.is_empty() {
            return String::new();
        }
    }
    let mut words: Vec<String> = known
        .iter()
        .map(|Holder { process, who, since, .. }| {
            format!("process {} (run {}: {}) since {since}", process.pid, who.run, who.what)
        })
        .collect();
    words.extend(
        holding_pids(path)
            .unwrap_or_default()
            .into_iter()
            .filter(|&pid| known.iter().all(|holder| holder.process.pid != pid))
            .map(|pid| format!("process {pid}")),
    );
    words.join(", ")
}
