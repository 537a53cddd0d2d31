//! Encodes messages that insert and delete entries, many in one send.
//!
//! Writes the bytes directly instead of using `netlink-packet-netfilter`, whose nested vectors cost more
//! than the kernel's own work when a table is filled with a quarter of a million entries. Attributes
//! as numbered in `linux/netfilter/nfnetlink_conntrack.h`.

use std::net::{IpAddr, SocketAddr};

use netlink_packet_core::{NLA_F_NESTED, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST};

use super::entry::{Entry, status};
use super::numbers::*;

const IPPROTO_ICMP: u8 = 1;
const IPPROTO_ICMPV6: u8 = 58;

/// A sequence of messages; the buffer is reused from one send to the next.
#[derive(Default)]
pub(super) struct Messages {
    bytes: Vec<u8>,
    count: usize,
    last: usize,
}

impl Messages {
    pub(super) const fn count(&self) -> usize {
        self.count
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.count = 0;
    }

    /// The bytes. Only the last message requests an acknowledgement; refusals are sent in any case.
    pub(super) fn finish(&mut self) -> &[u8] {
        let at = self.last + 6;
        let flags = u16::from_ne_bytes([self.bytes[at], self.bytes[at + 1]]) | NLM_F_ACK;
        self.bytes[at..at + 2].copy_from_slice(&flags.to_ne_bytes());
        &self.bytes
    }

    pub(super) fn insert(&mut self, entry: &Entry) {
        self.message(IPCTNL_MSG_CT_NEW, NLM_F_CREATE | NLM_F_EXCL, entry, |m| {
            m.tuple(CTA_TUPLE_REPLY, entry.reply, entry.protocol);
            // The other bits are set by the kernel.
            let bits = entry.status & (status::SEEN_REPLY | status::ASSURED) | status::CONFIRMED;
            m.attribute(CTA_STATUS, &bits.to_be_bytes());
            m.attribute(CTA_TIMEOUT, &entry.timeout.to_be_bytes());
            if entry.mark != 0 {
                m.attribute(CTA_MARK, &entry.mark.to_be_bytes());
            }
            if let Some(state) = entry.tcp_state {
                m.nest(CTA_PROTOINFO, |m| {
                    m.nest(CTA_PROTOINFO_TCP, |m| m.attribute(CTA_PROTOINFO_TCP_STATE, &[state]));
                });
            }
        });
    }

    pub(super) fn delete(&mut self, entry: &Entry) {
        self.message(IPCTNL_MSG_CT_DELETE, 0, entry, |m| {
            if entry.id != 0 {
                m.attribute(CTA_ID, &entry.id.to_be_bytes());
            }
        });
    }

    fn message(&mut self, kind: u16, flags: u16, entry: &Entry, rest: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.last = start;
        self.bytes.extend(0u32.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        self.bytes.extend(u32::try_from(self.count).unwrap_or(0).to_ne_bytes());
        self.bytes.extend(0u32.to_ne_bytes());
        // struct nfgenmsg: family, version, resource.
        let family = if entry.original.0.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        self.bytes.extend([u8::try_from(family).unwrap_or(0), 0, 0, 0]);
        self.tuple(CTA_TUPLE_ORIG, entry.original, entry.protocol);
        rest(self);
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(0);
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        self.count += 1;
    }

    fn tuple(&mut self, kind: u16, (source, destination): (SocketAddr, SocketAddr), protocol: u8) {
        self.nest(kind, |m| {
            m.nest(CTA_TUPLE_IP, |m| {
                m.address(source.ip(), CTA_IP_V4_SRC, CTA_IP_V6_SRC);
                m.address(destination.ip(), CTA_IP_V4_DST, CTA_IP_V6_DST);
            });
            m.nest(CTA_TUPLE_PROTO, |m| {
                m.attribute(CTA_PROTO_NUM, &[protocol]);
                let (low, high) = (source.port().to_be_bytes(), destination.port().to_be_bytes());
                match protocol {
                    IPPROTO_ICMP => {
                        m.attribute(CTA_PROTO_ICMP_ID, &low);
                        m.attribute(CTA_PROTO_ICMP_TYPE, &high[..1]);
                        m.attribute(CTA_PROTO_ICMP_CODE, &high[1..]);
                    }
                    IPPROTO_ICMPV6 => {
                        m.attribute(CTA_PROTO_ICMPV6_ID, &low);
                        m.attribute(CTA_PROTO_ICMPV6_TYPE, &high[..1]);
                        m.attribute(CTA_PROTO_ICMPV6_CODE, &high[1..]);
                    }
                    _ => {
                        m.attribute(CTA_PROTO_SRC_PORT, &low);
                        m.attribute(CTA_PROTO_DST_PORT, &high);
                    }
                }
            });
        });
    }

    fn address(&mut self, address: IpAddr, v4: u16, v6: u16) {
        match address {
            IpAddr::V4(a) => self.attribute(v4, &a.octets()),
            IpAddr::V6(a) => self.attribute(v6, &a.octets()),
        }
    }

    fn nest(&mut self, kind: u16, inside: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend([0; 2]);
        self.bytes.extend((kind | NLA_F_NESTED).to_ne_bytes());
        inside(self);
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::NetlinkBuffer;

    use super::super::decode;
    use super::*;

    fn parsed(bytes: &[u8]) -> Entry {
        decode::entry(NetlinkBuffer::new_checked(bytes).expect("well formed").payload())
    }

    #[test]
    fn what_is_written_reads_back_as_the_same_entry() {
        let at = |s: &str| s.parse::<SocketAddr>().expect("an address");
        let mut tcp = Entry::established(at("10.0.0.1:40000"), at("10.0.0.2:80"), 600);
        tcp.mark = 7;
        let mut six = Entry::established(at("[fd00::1]:40000"), at("[fd00::2]:80"), 600);
        six.reply.1 = at("[fd00::9]:1024");
        let mut icmp = Entry::established(at("10.0.0.1:77"), at("10.0.0.2:2048"), 30);
        (icmp.protocol, icmp.tcp_state) = (1, None);
        for entry in [tcp, six, icmp] {
            let mut messages = Messages::default();
            messages.insert(&entry);
            assert_eq!(parsed(messages.finish()), entry);
        }
    }

    #[test]
    fn a_message_names_the_very_entry_to_delete() {
        let at = |s: &str| s.parse::<SocketAddr>().expect("an address");
        let mut entry = Entry::established(at("10.0.0.1:40000"), at("10.0.0.2:80"), 600);
        entry.id = 0xdead_beef;
        let mut messages = Messages::default();
        messages.delete(&entry);
        messages.delete(&entry);
        assert_eq!(messages.count(), 2);
        let found = parsed(messages.finish());
        assert_eq!((found.id, found.original), (entry.id, entry.original));
    }
}
