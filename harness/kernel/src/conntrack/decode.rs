//! Decodes entries and counters in place.
//!
//! Reads the bytes directly instead of using `netlink-packet-netfilter`, whose typed attributes take some thirty
//! allocations per entry: on a busy node, where every new flow is reported, that would be most of the cost.
//! Attributes as numbered in `linux/netfilter/nfnetlink_conntrack.h`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use netlink_packet_core::{DecodeError, NetlinkDeserializable, NetlinkHeader, NlasIterator};

use super::entry::Entry;
use super::numbers::*;

/// `struct nfgenmsg` precedes the attributes: family, version, resource id.
const GENERIC_HEADER: usize = 4;

/// The attributes of a message or nested in an attribute: number and value of each.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(Result::ok).map(|attribute| {
        let kind = attribute.kind();
        let bytes = attribute.into_inner();
        let length = usize::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
        (kind, bytes.get(4..length).unwrap_or_default())
    })
}

/// The attributes of a whole ctnetlink message.
pub(super) fn of_message(payload: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    attributes(payload.get(GENERIC_HEADER..).unwrap_or_default())
}

/// The first attribute with this number.
fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// A number of `N` bytes; zeros if the value has another length.
pub(super) fn number<const N: usize>(value: &[u8]) -> [u8; N] {
    value.try_into().unwrap_or([0; N])
}

impl NetlinkDeserializable for Entry {
    type Error = DecodeError;

    fn deserialize(_: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        Ok(entry(payload))
    }
}

/// Decodes an entry; fields of missing attributes stay empty.
pub(super) fn entry(payload: &[u8]) -> Entry {
    let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let mut entry = Entry::established(nowhere, nowhere, 0);
    (entry.status, entry.tcp_state) = (0, None);
    for (kind, value) in of_message(payload) {
        match kind {
            CTA_TUPLE_ORIG => (entry.original, entry.protocol) = tuple(value),
            CTA_TUPLE_REPLY => entry.reply = tuple(value).0,
            CTA_STATUS => entry.status = u32::from_be_bytes(number(value)),
            CTA_TIMEOUT => entry.timeout = u32::from_be_bytes(number(value)),
            CTA_MARK => entry.mark = u32::from_be_bytes(number(value)),
            CTA_ID => entry.id = u32::from_be_bytes(number(value)),
            CTA_PROTOINFO => {
                let tcp = find(value, CTA_PROTOINFO_TCP);
                entry.tcp_state = tcp.and_then(|tcp| find(tcp, CTA_PROTOINFO_TCP_STATE)?.first().copied());
            }
            _ => {}
        }
    }
    entry
}

fn tuple(bytes: &[u8]) -> ((SocketAddr, SocketAddr), u8) {
    let unspecified = IpAddr::from(Ipv4Addr::UNSPECIFIED);
    let (mut source, mut destination, mut protocol) = (unspecified, unspecified, 0);
    let (mut low, mut high) = (0, 0);
    for (kind, value) in attributes(find(bytes, CTA_TUPLE_IP).unwrap_or_default()) {
        match kind {
            CTA_IP_V4_SRC => source = Ipv4Addr::from(number::<4>(value)).into(),
            CTA_IP_V4_DST => destination = Ipv4Addr::from(number::<4>(value)).into(),
            CTA_IP_V6_SRC => source = Ipv6Addr::from(number::<16>(value)).into(),
            CTA_IP_V6_DST => destination = Ipv6Addr::from(number::<16>(value)).into(),
            _ => {}
        }
    }
    for (kind, value) in attributes(find(bytes, CTA_TUPLE_PROTO).unwrap_or_default()) {
        match kind {
            CTA_PROTO_NUM => [protocol] = number(value),
            CTA_PROTO_SRC_PORT | CTA_PROTO_ICMP_ID | CTA_PROTO_ICMPV6_ID => low = u16::from_be_bytes(number(value)),
            CTA_PROTO_DST_PORT => high = u16::from_be_bytes(number(value)),
            CTA_PROTO_ICMP_TYPE | CTA_PROTO_ICMPV6_TYPE => high |= u16::from(number::<1>(value)[0]) << 8,
            CTA_PROTO_ICMP_CODE | CTA_PROTO_ICMPV6_CODE => high |= u16::from(number::<1>(value)[0]),
            _ => {}
        }
    }
    ((SocketAddr::new(source, low), SocketAddr::new(destination, high)), protocol)
}
