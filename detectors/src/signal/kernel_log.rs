//! The log of the machine's kernel.

use serde::{Deserialize, Serialize};

/// A line of the kernel log (`/dev/kmsg`), without its prefix. The log is the machine's: on a machine with several
/// nodes, the agent of each reads all lines, and only a line that names a network namespace can be attributed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelLog {
    pub line: String,
    /// Network namespace of the node whose agent reads it: the inode of `/proc/self/ns/net` there.
    #[serde(default)]
    pub netns: Option<u64>,
}
