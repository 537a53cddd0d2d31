//! A connection tracking entry as reported by the kernel.

use std::net::SocketAddr;

/// Bits of an entry's status (`enum ip_conntrack_status`).
pub mod status {
    /// A reply was seen.
    pub const SEEN_REPLY: u32 = 1 << 1;
    /// Not evicted early when the table is full.
    pub const ASSURED: u32 = 1 << 2;
    /// Its first packet has left.
    pub const CONFIRMED: u32 = 1 << 3;
}

/// `TCP_CONNTRACK_ESTABLISHED`.
const ESTABLISHED: u8 = 3;

/// A flow. If it is translated, `reply` is not the reverse of `original`.
///
/// ICMP has no ports: the first port holds the identifier of the echo, the second type (high byte) and code.
/// Fields missing from an event (timeout, state, mark) are 0 or `None`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// `IPPROTO_*`.
    pub protocol: u8,
    /// Source and destination of the packet that opened the flow.
    pub original: (SocketAddr, SocketAddr),
    /// Source and destination of the replies.
    pub reply: (SocketAddr, SocketAddr),
    /// Bits of [`status`].
    pub status: u32,
    /// Seconds until it expires.
    pub timeout: u32,
    /// As numbered by connection tracking (`enum tcp_conntrack`: 1 SYN_SENT, 3 ESTABLISHED, 8 CLOSE), which differs
    /// from the numbers of socket states.
    pub tcp_state: Option<u8>,
    pub mark: u32,
    /// The kernel's identifier of the entry; 0 for an entry yet to be inserted.
    pub id: u32,
}

impl Entry {
    /// An established TCP connection, which the kernel does not evict early; for [`super::Conntrack::insert`].
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
