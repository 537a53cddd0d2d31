//! TCP segments and DNS messages on the interfaces of a node.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::wire::{TIMESTAMPS, headers};

/// Which way a segment crossed the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    In,
    Out,
}

/// A TCP segment seen by AF_PACKET: SYNs, and segments that end a connection or carry data if requested. A forwarded
/// SYN is seen twice (in by one interface, out by another): count `Out` on uplinks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    pub link: String,
    pub direction: Direction,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub flags: TcpFlags,
    pub sequence: u32,
    pub acknowledgment: u32,
    /// Bytes of payload in this segment (for a GSO packet, of each packet on the wire).
    pub payload: u32,
    /// MSS option, SYNs only (RFC 9293 3.7.1).
    pub mss: Option<u16>,
    /// TSval of the timestamps option (RFC 7323 3.2).
    pub timestamp: Option<u32>,
}

impl Segment {
    /// A SYN that opens a connection.
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

    /// Size of the IP packet that carries it; for a GSO packet, of each packet on the wire.
    pub(crate) const fn packet_size(&self) -> u32 {
        let options = if self.timestamp.is_some() { TIMESTAMPS } else { 0 };
        self.payload.saturating_add(headers(self.destination.ip())).saturating_add(options)
    }
}

/// The TCP flags used here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct TcpFlags {
    pub syn: bool,
    pub ack: bool,
    pub fin: bool,
    pub rst: bool,
}

/// A DNS message seen on the wire (RFC 1035).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// The stub resolver or forwarder that sends the query.
    pub client: SocketAddr,
    /// The server queried.
    pub server: SocketAddr,
    pub id: u16,
    pub name: String,
    /// A, AAAA, ...
    pub record: String,
    /// `None` for a query; the response code of an answer ("NOERROR", "NXDOMAIN", "SERVFAIL").
    pub response: Option<String>,
    pub answers: Vec<IpAddr>,
    /// Smallest time to live of these answers, seconds.
    #[serde(default)]
    pub ttl: Option<u32>,
}
