//! Requests and answers on the TCP connections of a node and of its pods.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Time;

/// The end of a connection at which its segments were seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// The client is a pod of the node, or the node itself.
    Client,
    /// The server is.
    Server,
}

/// A request, and how long the first byte of its answer took. Reported when that byte is seen, and before it when there
/// is no answer after 1, 5, 25 and 125 s. Requests that may overlap others of their connection are not reported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    pub client: SocketAddr,
    /// As this end knows it: at the client the address of the Service, where it asks one.
    pub server: SocketAddr,
    pub seen_at: End,
    /// Payload of the request, bytes.
    pub request: u64,
    /// From the last byte of the request to the first byte of the answer, or until now.
    pub took_us: u64,
    /// False while there is no answer.
    pub answered: bool,
    /// From the last byte of the request to its acknowledgment, where that came before the answer.
    pub acked_us: Option<u64>,
    /// For how much of `took_us` the server's pod waited itself, for an answer, a connect, a name or a transfer. Known
    /// only at the server's end.
    pub waited_us: u64,
    /// From the first SYN to the SYN-ACK, in the first exchange of a connection.
    pub connect_us: Option<u64>,
    /// A SYN, or a part of the request or of the answer, was sent again or is missing in between.
    pub sent_again: bool,
    /// The server sent data first, and this is the first data of the client: a login rather than a request.
    pub after_greeting: bool,
    /// HTTP status, if the response begins with an HTTP/1 status line.
    #[serde(default)]
    pub status: Option<u16>,
}

impl Exchange {
    pub(crate) const fn took(&self) -> Duration {
        Duration::from_micros(self.took_us)
    }

    /// When the last byte of the request was seen, for an exchange reported at `at`.
    pub(crate) fn asked(&self, at: Time) -> Time {
        at - self.took()
    }
}
