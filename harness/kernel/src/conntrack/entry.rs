//! An entry of connection tracking, as the kernel tells it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use netlink_packet_core::{DefaultNla, Nla};
use netlink_packet_netfilter::conntrack::{ConntrackAttribute, IPTuple, ProtoInfo, ProtoInfoTCP, ProtoTuple, Tuple};

const CTA_ID: u16 = 12;
pub(super) const CTA_PROTO_ICMP_ID: u16 = 4;
pub(super) const CTA_PROTO_ICMP_TYPE: u16 = 5;
pub(super) const CTA_PROTO_ICMP_CODE: u16 = 6;
pub(super) const CTA_PROTO_ICMPV6_ID: u16 = 7;
pub(super) const CTA_PROTO_ICMPV6_TYPE: u16 = 8;
pub(super) const CTA_PROTO_ICMPV6_CODE: u16 = 9;

/// Bits of an entry's status (`enum ip_conntrack_status`).
pub mod status {
    /// A packet came back.
    pub const SEEN_REPLY: u32 = 1 << 1;
    /// Is not given up early when the table is full.
    pub const ASSURED: u32 = 1 << 2;
    /// Its first packet has left.
    pub const CONFIRMED: u32 = 1 << 3;
    /// Its source is translated.
    pub const SNAT: u32 = 1 << 4;
    /// Its destination is translated.
    pub const DNAT: u32 = 1 << 5;
    /// Is being removed.
    pub const DYING: u32 = 1 << 9;
}

/// States of TCP as connection tracking counts them (`enum tcp_conntrack`), which is not how sockets do.
pub mod tcp_state {
    pub const SYN_SENT: u8 = 1;
    pub const SYN_RECV: u8 = 2;
    pub const ESTABLISHED: u8 = 3;
    pub const FIN_WAIT: u8 = 4;
    pub const CLOSE_WAIT: u8 = 5;
    pub const LAST_ACK: u8 = 6;
    pub const TIME_WAIT: u8 = 7;
    pub const CLOSE: u8 = 8;
    pub const SYN_SENT2: u8 = 9;
}

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
    /// One of [`tcp_state`].
    pub tcp_state: Option<u8>,
    pub mark: u32,
    /// The kernel's name for this very entry; 0 for one that is yet to be inserted.
    pub id: u32,
}

impl Entry {
    /// A TCP connection in use, which the kernel does not give up early; for [`super::insert`].
    #[must_use]
    pub const fn established(source: SocketAddr, destination: SocketAddr, timeout: u32) -> Self {
        Self {
            protocol: 6,
            original: (source, destination),
            reply: (destination, source),
            status: status::CONFIRMED | status::SEEN_REPLY | status::ASSURED,
            timeout,
            tcp_state: Some(tcp_state::ESTABLISHED),
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

/// Reads an entry; attributes that are missing leave their field empty.
pub(super) fn parse(attributes: &[ConntrackAttribute]) -> Entry {
    let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let mut entry = Entry::established(nowhere, nowhere, 0);
    (entry.status, entry.tcp_state) = (0, None);
    for attribute in attributes {
        match attribute {
            ConntrackAttribute::CtaTupleOrig(parts) => (entry.original, entry.protocol) = tuple(parts),
            ConntrackAttribute::CtaTupleReply(parts) => entry.reply = tuple(parts).0,
            ConntrackAttribute::CtaStatus(status) => entry.status = status.bits(),
            ConntrackAttribute::CtaTimeout(seconds) => entry.timeout = *seconds,
            ConntrackAttribute::CtaMark(mark) => entry.mark = *mark,
            ConntrackAttribute::CtaProtoInfo(infos) => entry.tcp_state = infos.iter().find_map(state),
            ConntrackAttribute::Other(other) if other.kind() == CTA_ID => {
                entry.id = u32::from_be_bytes(bytes(other));
            }
            _ => {}
        }
    }
    entry
}

/// The value of an attribute that should have `N` bytes.
pub(super) fn bytes<const N: usize>(attribute: &DefaultNla) -> [u8; N] {
    let mut value = [0; N];
    if attribute.value_len() == N {
        attribute.emit_value(&mut value);
    }
    value
}

fn state(info: &ProtoInfo) -> Option<u8> {
    let ProtoInfo::TCP(parts) = info else { return None };
    parts.iter().find_map(|part| match part {
        ProtoInfoTCP::State(state) => Some(*state),
        _ => None,
    })
}

fn tuple(parts: &[Tuple]) -> ((SocketAddr, SocketAddr), u8) {
    let unspecified = IpAddr::from(Ipv4Addr::UNSPECIFIED);
    let (mut source, mut destination, mut protocol) = (unspecified, unspecified, 0);
    let (mut low, mut high) = (0, 0);
    for part in parts {
        match part {
            Tuple::Ip(addresses) => {
                for address in addresses {
                    match address {
                        IPTuple::SourceAddress(a) => source = *a,
                        IPTuple::DestinationAddress(a) => destination = *a,
                        _ => {}
                    }
                }
            }
            Tuple::Proto(fields) => {
                for field in fields {
                    match field {
                        ProtoTuple::Protocol(number) => protocol = (*number).into(),
                        ProtoTuple::SourcePort(port) => low = *port,
                        ProtoTuple::DestinationPort(port) => high = *port,
                        ProtoTuple::Other(other) => match other.kind() {
                            CTA_PROTO_ICMP_ID | CTA_PROTO_ICMPV6_ID => low = u16::from_be_bytes(bytes(other)),
                            CTA_PROTO_ICMP_TYPE | CTA_PROTO_ICMPV6_TYPE => high |= u16::from(bytes::<1>(other)[0]) << 8,
                            CTA_PROTO_ICMP_CODE | CTA_PROTO_ICMPV6_CODE => high |= u16::from(bytes::<1>(other)[0]),
                            _ => {}
                        },
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    ((SocketAddr::new(source, low), SocketAddr::new(destination, high)), protocol)
}
