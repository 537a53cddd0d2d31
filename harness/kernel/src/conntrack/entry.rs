//! An entry of connection tracking, as the kernel tells it.

use std::net::SocketAddr;

/// Bits of an entry's status (`enum ip_conntrack_status`).
pub mod status {
    /// A packet came back.
    pub const SEEN_REPLY: u32 = 1 << 1;
    /// Is not given up early when the table is full.
    pub const ASSURED: u32 = 1 << 2;
    /// Its first packet has left.
    pub const CONFIRMED: u32 = 1 << 3;
}

/// `TCP_CONNTRACK_ESTABLISHED`.
const ESTABLISHED: u8 = 3;

/// A flow. Of a translated one, `reply` is not the reverse of `original`.
///
/// ICMP has no ports: the first address carries the identifier of the echo, the second type (high
/// byte) and code. What an event leaves out (timeout, state, mark) is 0 or `None`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// `IPPROTO_*`.
    pub protocol: u8,
    /// Source and destination of the packet that opened the flow.
    pub original: (SocketAddr, SocketAddr),
    /// Source and destination of the answers.
    pub reply: (SocketAddr, SocketAddr),
    /// Bits of [`status`].
    pub status: u32,
    /// Seconds until it is given up.
    pub timeout: u32,
    /// As connection tracking counts them (`enum tcp_conntrack`: 1 SYN_SENT, 3 ESTABLISHED, 8 CLOSE), which is not how
    /// sockets do.
    pub tcp_state: Option<u8>,
    pub mark: u32,
    /// The kernel's name for this very entry; 0 for one that is yet to be inserted.
    pub id: u32,
}

impl Entry {
    /// A TCP connection in use, which the kernel does not give up early; for [`super::Conntrack::insert`].
    #[must_use]
    pub const fn established(source: SocketAddr, destination: SocketAddr, timeout: u32) -> Self {
        Self {
            protocol: 6,
            original: (source, destination),
            reply: (destination, source),
            status: status::CONFIRMED | status::SEEN_REPLY | status::ASSURED,
            timeout,
            tcp_state: Some(ESTABLISHED),
            mark: 0,
            id: 0,
        }
    }

    /// Whether any of these bits of [`status`] is set.
    #[must_use]
    pub const fn has(&self, bits: u32) -> bool {
        self.status & bits != 0
    }
}
