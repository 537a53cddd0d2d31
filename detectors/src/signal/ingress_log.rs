//! The log of an ingress controller.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// A request that an ingress controller answered, from its access log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngressLog {
    pub pod: String,
    /// HTTP status that the client got.
    pub status: u16,
    /// Address of the back end; `None` if its name was not resolved.
    pub upstream: Option<SocketAddr>,
    /// HTTP status of the back end's response; `None` if there was none.
    pub upstream_status: Option<u16>,
    /// From the request to the end of the response, microseconds.
    pub took_us: u64,
}
