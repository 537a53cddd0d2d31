//! The log of the machine's kernel.

use serde::{Deserialize, Serialize};

/// A line of the kernel log (`/dev/kmsg`), without its prefix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelLog {
    pub line: String,
}
