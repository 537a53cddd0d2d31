//! Reading TCP segments: what opens a connection, what answers, serial numbers that wrap.
//!
//! Left out: any state; that is `proven` (sizes) and `tuples` (translated connections).

use std::net::{IpAddr, SocketAddr};

use crate::signal::{Direction, Segment, Socket};

/// Bytes the timestamps option takes in every segment of a connection that uses it (RFC 7323 3.2, padded).
pub(crate) const TIMESTAMPS: u32 = 12;

/// Whether serial number `a` lies after `b`, modulo 2^32 (RFC 9293 3.4, RFC 7323 5.2).
pub(crate) const fn after(a: u32, b: u32) -> bool {
    a != b && a.wrapping_sub(b) < 1 << 31
}

/// Bytes of IP and TCP headers without options.
pub(crate) const fn headers(peer: IpAddr) -> u32 {
    match peer {
        IpAddr::V4(_) => 40,
        IpAddr::V6(_) => 60,
    }
}

/// The packet size that every path carries (RFC 791 3.2, RFC 8200 5).
pub(crate) const fn always_fits(peer: IpAddr) -> u32 {
    match peer {
        IpAddr::V4(_) => 576,
        IpAddr::V6(_) => 1280,
    }
}

impl Segment {
    /// A SYN that asks for a connection.
    pub(crate) const fn opens(&self) -> bool {
        self.flags.syn && !self.flags.ack && !self.flags.rst
    }

    /// A SYN-ACK.
    pub(crate) const fn accepts(&self) -> bool {
        self.flags.syn && self.flags.ack
    }

    pub(crate) fn goes_out(&self) -> bool {
        self.direction == Direction::Out
    }

    pub(crate) fn comes_in(&self) -> bool {
        self.direction == Direction::In
    }

    /// The sequence number after this segment: SYN and FIN count one each.
    pub(crate) const fn end(&self) -> u32 {
        self.sequence.wrapping_add(self.payload).wrapping_add(self.flags.syn as u32).wrapping_add(self.flags.fin as u32)
    }

    /// Size of the IP packet that carries it, of a GSO packet each one on the wire.
    pub(crate) const fn packet_size(&self) -> u32 {
        let options = if self.timestamp.is_some() { TIMESTAMPS } else { 0 };
        self.payload.saturating_add(headers(self.destination.ip())).saturating_add(options)
    }
}

impl Socket {
    /// What tells this socket from all others of its node.
    pub(crate) fn key(&self) -> (Option<String>, SocketAddr, SocketAddr) {
        (self.pod.clone(), self.local, self.remote)
    }
}

#[cfg(test)]
mod tests {
    use super::after;

    #[test]
    fn serial_numbers_wrap() {
        assert!(after(1, 0));
        assert!(!after(0, 0));
        assert!(!after(0, 1));
        assert!(after(5, u32::MAX - 5));
        assert!(!after(u32::MAX - 5, 5));
    }
}
