//! What a third party's database reports about itself. No detector uses it: it is recorded for comparison.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// An entry of a slow-query log that begins at 0.1 s. A log at MariaDB's default would begin at 10 s.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlowQuery {
    pub server: SocketAddr,
    /// Time it took, microseconds.
    pub took_us: u64,
    pub rows_examined: u64,
}

/// Memory that a database server has allocated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseMemory {
    pub server: SocketAddr,
    /// Bytes.
    pub used: u64,
}
