//! A rule, and what it can match in a packet: interfaces, addresses, ports, ICMP, TCP flags.
//!
//! Matches are evaluated in the order in which they are written. What a match depends on is checked
//! first, once a rule: that the packet is TCP, and, in a table of family `inet` alone, that it is
//! IPv4. (The command `nft` 1.0.6 aborts over that check in a table of family `ip`, and with it
//! whoever relies on its lists.) So the same rule is right in either.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use netlink_packet_netfilter::nftables::{Expressions, MetaKey, Operator};

use super::expression::{NETWORK_HEADER, TRANSPORT_HEADER, compare, mask, meta, payload};

const NFPROTO_INET: u8 = 1;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
pub(super) const TCP: u8 = 6;
const UDP: u8 = 17;

/// FIN, SYN, RST, PSH, ACK: bits of the flags byte of TCP.
pub mod tcp_flags {
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const PSH: u8 = 0x08;
    pub const ACK: u8 = 0x10;
}

/// An address with the number of its leading bits that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

impl Prefix {
    /// # Panics
    /// When the length exceeds that of the address.
    #[must_use]
    pub fn new(address: impl Into<IpAddr>, length: u8) -> Self {
        let address = address.into();
        let most = if address.is_ipv4() { 32 } else { 128 };
        assert!(length <= most, "a prefix of {length} bits of {address}");
        Self { address, length }
    }

    fn bytes(self) -> Vec<u8> {
        match self.address {
            IpAddr::V4(a) => a.octets().to_vec(),
            IpAddr::V6(a) => a.octets().to_vec(),
        }
    }

    fn mask(self) -> Vec<u8> {
        let width = self.bytes().len();
        (0..width).map(|i| (!0u8).checked_shl(8u32.saturating_sub(self.bits_in(i))).unwrap_or(0)).collect()
    }

    /// How many bits of byte `i` count, 0 to 8.
    fn bits_in(self, i: usize) -> u32 {
        u32::from(self.length).saturating_sub(8 * u32::try_from(i).unwrap_or(0)).min(8)
    }
}

impl<A: Into<IpAddr>> From<(A, u8)> for Prefix {
    fn from((address, length): (A, u8)) -> Self {
        Self::new(address, length)
    }
}

impl From<IpAddr> for Prefix {
    fn from(address: IpAddr) -> Self {
        Self { address, length: if address.is_ipv4() { 32 } else { 128 } }
    }
}

impl From<Ipv4Addr> for Prefix {
    fn from(address: Ipv4Addr) -> Self {
        IpAddr::from(address).into()
    }
}

impl From<Ipv6Addr> for Prefix {
    fn from(address: Ipv6Addr) -> Self {
        IpAddr::from(address).into()
    }
}

/// One port, or a range of them with both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    low: u16,
    high: u16,
}

impl From<u16> for Ports {
    fn from(port: u16) -> Self {
        Self { low: port, high: port }
    }
}

impl From<RangeInclusive<u16>> for Ports {
    fn from(range: RangeInclusive<u16>) -> Self {
        Self { low: *range.start(), high: *range.end() }
    }
}

/// One rule of a chain: matches, then statements.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    expressions: Vec<Expressions>,
    pub(super) comment: Option<String>,
    /// Before which expressions the packet must be known to be of which IP version.
    versions: Vec<(usize, u8)>,
    transport: Option<u8>,
}

impl Rule {
    /// A rule that matches everything and does nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Why the rule is there; the name by which its counter is found. At most 127 bytes.
    #[must_use]
    pub fn comment(mut self, comment: impl Into<String>) -> Self {
        self.comment = Some(comment.into());
        self
    }

    /// The interface a packet came in by, by name: looked at for each packet, so it may come and go.
    #[must_use]
    pub fn iifname(self, name: &str) -> Self {
        self.is(meta(MetaKey::Iifname), Operator::Equal, &interface_name(name))
    }

    /// Any interface but this one.
    #[must_use]
    pub fn not_iifname(self, name: &str) -> Self {
        self.is(meta(MetaKey::Iifname), Operator::NotEqual, &interface_name(name))
    }

    /// The interface a packet leaves by.
    #[must_use]
    pub fn oifname(self, name: &str) -> Self {
        self.is(meta(MetaKey::Oifname), Operator::Equal, &interface_name(name))
    }

    /// Any interface but this one.
    #[must_use]
    pub fn not_oifname(self, name: &str) -> Self {
        self.is(meta(MetaKey::Oifname), Operator::NotEqual, &interface_name(name))
    }

    /// The interface a packet came in by, by index.
    #[must_use]
    pub fn iif(self, index: u32) -> Self {
        self.is(meta(MetaKey::Iif), Operator::Equal, &index.to_ne_bytes())
    }

    /// Any interface but this one.
    #[must_use]
    pub fn not_iif(self, index: u32) -> Self {
        self.is(meta(MetaKey::Iif), Operator::NotEqual, &index.to_ne_bytes())
    }

    /// The interface a packet leaves by, by index.
    #[must_use]
    pub fn oif(self, index: u32) -> Self {
        self.is(meta(MetaKey::Oif), Operator::Equal, &index.to_ne_bytes())
    }

    /// Any interface but this one.
    #[must_use]
    pub fn not_oif(self, index: u32) -> Self {
        self.is(meta(MetaKey::Oif), Operator::NotEqual, &index.to_ne_bytes())
    }

    /// The mark of the packet.
    #[must_use]
    pub fn mark(self, mark: u32) -> Self {
        self.is(meta(MetaKey::Mark), Operator::Equal, &mark.to_ne_bytes())
    }

    /// The source address lies in a prefix.
    #[must_use]
    pub fn ip_saddr(self, prefix: impl Into<Prefix>) -> Self {
        self.address(prefix.into(), Operator::Equal, false)
    }

    /// The source address lies outside a prefix (of the same IP version).
    #[must_use]
    pub fn not_ip_saddr(self, prefix: impl Into<Prefix>) -> Self {
        self.address(prefix.into(), Operator::NotEqual, false)
    }

    /// The destination address lies in a prefix.
    #[must_use]
    pub fn ip_daddr(self, prefix: impl Into<Prefix>) -> Self {
        self.address(prefix.into(), Operator::Equal, true)
    }

    /// The destination address lies outside a prefix (of the same IP version).
    #[must_use]
    pub fn not_ip_daddr(self, prefix: impl Into<Prefix>) -> Self {
        self.address(prefix.into(), Operator::NotEqual, true)
    }

    /// The protocol above IP (`IPPROTO_*`).
    #[must_use]
    pub fn l4proto(mut self, protocol: u8) -> Self {
        if self.transport != Some(protocol) {
            self.transport = Some(protocol);
            self = self.is(meta(MetaKey::L4Proto), Operator::Equal, &[protocol]);
        }
        self
    }

    /// IPv4 only; for a table of family `inet`.
    #[must_use]
    pub fn ipv4(self) -> Self {
        self.nfproto(NFPROTO_IPV4)
    }

    /// IPv6 only; for a table of family `inet`.
    #[must_use]
    pub fn ipv6(self) -> Self {
        self.nfproto(NFPROTO_IPV6)
    }

    /// TCP, and its source port.
    #[must_use]
    pub fn tcp_sport(self, ports: impl Into<Ports>) -> Self {
        self.l4proto(TCP).ports(0, ports.into())
    }

    /// TCP, and its destination port.
    #[must_use]
    pub fn tcp_dport(self, ports: impl Into<Ports>) -> Self {
        self.l4proto(TCP).ports(2, ports.into())
    }

    /// UDP, and its source port.
    #[must_use]
    pub fn udp_sport(self, ports: impl Into<Ports>) -> Self {
        self.l4proto(UDP).ports(0, ports.into())
    }

    /// UDP, and its destination port.
    #[must_use]
    pub fn udp_dport(self, ports: impl Into<Ports>) -> Self {
        self.l4proto(UDP).ports(2, ports.into())
    }

    /// ICMP of a type (8: echo request, 0: echo reply, 3: destination unreachable).
    #[must_use]
    pub fn icmp_type(self, kind: u8) -> Self {
        self.l4proto(ICMP).is(payload(TRANSPORT_HEADER, 0, 1), Operator::Equal, &[kind])
    }

    /// ICMP of a code (of type 3, 4: fragmentation needed).
    #[must_use]
    pub fn icmp_code(self, code: u8) -> Self {
        self.l4proto(ICMP).is(payload(TRANSPORT_HEADER, 1, 1), Operator::Equal, &[code])
    }

    /// `ICMPv6` of a type (128: echo request, 2: packet too big).
    #[must_use]
    pub fn icmpv6_type(self, kind: u8) -> Self {
        self.l4proto(ICMPV6).is(payload(TRANSPORT_HEADER, 0, 1), Operator::Equal, &[kind])
    }

    /// TCP, of whose flags (see [`tcp_flags`]) those in `which` are as in `value`.
    #[must_use]
    pub fn tcp_flags(self, which: u8, value: u8) -> Self {
        let mut rule = self.l4proto(TCP);
        rule.expressions.push(payload(TRANSPORT_HEADER, 13, 1));
        rule.is(mask(&[which]), Operator::Equal, &[value])
    }

    /// The first segment of a connection: SYN without ACK.
    #[must_use]
    pub fn tcp_flags_syn(self) -> Self {
        use tcp_flags::{ACK, FIN, RST, SYN};
        self.tcp_flags(FIN | SYN | RST | ACK, SYN)
    }

    /// The answer to it: SYN and ACK.
    #[must_use]
    pub fn tcp_flags_syn_ack(self) -> Self {
        use tcp_flags::{ACK, FIN, RST, SYN};
        self.tcp_flags(FIN | SYN | RST | ACK, SYN | ACK)
    }

    /// A reset, with or without ACK.
    #[must_use]
    pub fn tcp_flags_rst(self) -> Self {
        self.tcp_flags(tcp_flags::RST, tcp_flags::RST)
    }

    /// Loads something into register 1 and compares it.
    pub(super) fn is(mut self, loaded: Expressions, operator: Operator, data: &[u8]) -> Self {
        self.expressions.push(loaded);
        self.expressions.push(compare(operator, data));
        self
    }

    pub(super) fn then(mut self, expressions: impl IntoIterator<Item = Expressions>) -> Self {
        self.expressions.extend(expressions);
        self
    }

    /// The expressions in a table of `family`; `None` where none of its packets could match.
    pub(super) fn expressions(&self, family: u8) -> Option<Vec<Expressions>> {
        if family != NFPROTO_INET {
            return self.versions.iter().all(|(_, version)| *version == family).then(|| self.expressions.clone());
        }
        let mut expressions = self.expressions.clone();
        for &(before, version) in self.versions.iter().rev() {
            let check = [meta(MetaKey::Nfproto), compare(Operator::Equal, &[version])];
            expressions.splice(before..before, check);
        }
        Some(expressions)
    }

    fn nfproto(mut self, version: u8) -> Self {
        if !self.versions.iter().any(|(_, known)| *known == version) {
            self.versions.push((self.expressions.len(), version));
        }
        self
    }

    fn address(self, prefix: Prefix, operator: Operator, destination: bool) -> Self {
        let bytes = prefix.bytes();
        let width = u32::try_from(bytes.len()).unwrap_or(0);
        let (family, source) = if width == 4 { (NFPROTO_IPV4, 12) } else { (NFPROTO_IPV6, 8) };
        let mut rule = self.nfproto(family);
        let network = prefix.mask();
        rule.expressions.push(payload(NETWORK_HEADER, source + u32::from(destination) * width, width));
        let wanted: Vec<u8> = bytes.iter().zip(&network).map(|(byte, mask)| byte & mask).collect();
        if network.iter().any(|byte| *byte != 0xff) {
            rule.expressions.push(mask(&network));
        }
        rule.then([compare(operator, &wanted)])
    }

    fn ports(mut self, offset: u32, ports: Ports) -> Self {
        let (low, high) = (ports.low.to_be_bytes(), ports.high.to_be_bytes());
        self.expressions.push(payload(TRANSPORT_HEADER, offset, 2));
        if low == high {
            return self.then([compare(Operator::Equal, &low)]);
        }
        self.then([compare(Operator::GreatherThanEqual, &low), compare(Operator::LessThanEqual, &high)])
    }
}

/// A name as the kernel holds it: 16 bytes, filled up with zeros (`IFNAMSIZ`).
fn interface_name(name: &str) -> [u8; 16] {
    let mut padded = [0; 16];
    let length = name.len().min(15);
    padded[..length].copy_from_slice(&name.as_bytes()[..length]);
    padded
}
