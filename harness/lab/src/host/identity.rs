//! Identifies a process and a boot, because pids are reused.

use std::fs;
use std::os::unix::fs::MetadataExt;

use relapse_kernel::error::Context;
use serde::{Deserialize, Serialize};

use super::{Error, Result};

/// A process, distinguished from a later one with the same pid by its start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: u32,
    /// Field 22 of `/proc/PID/stat`: clock ticks after boot.
    pub start: u64,
}

impl Process {
    /// This process.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn own() -> Result<Self> {
        Self::of(std::process::id())
            .ok_or_else(|| Error::Unsafe { what: "read /proc/self/stat".into(), why: "no start time".into() })
    }

    /// The live process with this pid. A zombie counts as gone.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        let start = start_of_living(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
        Some(Self { pid, start })
    }

    /// Whether it is alive and its pid has not been reused.
    #[must_use]
    pub fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }
}

/// Parses a stat line. The command's name is in parentheses and may contain spaces and parentheses itself.
fn start_of_living(stat: &str) -> Option<u64> {
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_whitespace();
    if matches!(fields.next()?, "Z" | "X" | "x") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Differs after each boot. Settings written before a boot were reset by it.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    Ok(fs::read_to_string(path).context(|| format!("read {path}"))?.trim().to_owned())
}

/// The effective user of this process.
#[must_use]
pub fn user() -> Option<u32> {
    fs::metadata("/proc/self").ok().map(|metadata| metadata.uid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 9 9";
        assert_eq!(start_of_living(stat), Some(4711));
        assert_eq!(start_of_living(&stat.replace(" S ", " Z ")), None);
        assert_eq!(start_of_living("7 (cut"), None);
    }

    #[test]
    fn this_process_lives_and_one_that_started_at_another_time_does_not() {
        let own = Process::own().unwrap();
        assert!(own.is_alive());
        assert!(!Process { start: own.start + 1, ..own }.is_alive());
        assert!(!boot_id().unwrap().is_empty());
    }
}
