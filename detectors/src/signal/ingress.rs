//! The access log of ingress controllers.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// A request that an ingress controller answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngressLog {
    pub pod: String,
    /// HTTP status of its answer.
    pub status: u16,
    /// The back end that it asked.
    pub upstream: Option<SocketAddr>,
    /// The back end's own status.
    pub upstream_status: Option<u16>,
    /// Microseconds.
    pub took_us: u64,
}
