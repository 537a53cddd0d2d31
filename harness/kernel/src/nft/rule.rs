//! A rule and its matches: interfaces, addresses, ports, ICMP, TCP flags, chance.
//!
//! Matches are evaluated in the order in which they are written. The protocol a match depends on is
//! checked before it, once per rule. (The IP version is never checked: the `nft` command 1.0.6 aborts on such a
//! check in a table of one family, and with it everything that relies on its output.)

use std::net::IpAddr;

use netlink_packet_netfilter::nftables::{Expressions, MetaKey, Operator, Register};

use super::expression::{
    self, NETWORK_HEADER, TRANSPORT_HEADER, compare, load, mask, meta, number, payload, raw, register,
};
use super::queue;

const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
const UDP: u8 = 17;

// Bits of the flags byte of TCP.
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

const NFTA_META_KEY: u16 = 2;
const NFTA_META_SREG: u16 = 3;
const NFT_META_MARK: u32 = 3;
const NFTA_NG_DREG: u16 = 1;
const NFTA_NG_MODULUS: u16 = 2;
const NFTA_NG_TYPE: u16 = 3;
const NFT_NG_RANDOM: u32 = 1;

/// One rule of a chain: matches, then statements. An address comes with its prefix length.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Rule {
    expressions: Vec<Expressions>,
    pub(super) comment: Option<String>,
    transport: Option<u8>,
    /// Contains an address that is not IPv4.
    pub(super) foreign: bool,
}

impl Rule {
    /// A rule that matches everything and does nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The purpose of the rule, by which its counter is found. At most 127 bytes.
    pub fn comment(mut self, comment: impl Into<String>) -> Self {
        self.comment = Some(comment.into());
        self
    }

    /// The incoming interface, by name: compared for each packet, so the interface may come and go.
    pub fn iifname(self, name: &str) -> Self {
        self.is(meta(MetaKey::Iifname), Operator::Equal, &interface_name(name))
    }

    /// The outgoing interface, by name.
    pub fn oifname(self, name: &str) -> Self {
        self.is(meta(MetaKey::Oifname), Operator::Equal, &interface_name(name))
    }

    /// The incoming interface, by index.
    pub fn iif(self, index: u32) -> Self {
        self.is(meta(MetaKey::Iif), Operator::Equal, &index.to_ne_bytes())
    }

    /// Any outgoing interface but this one.
    pub fn not_oif(self, index: u32) -> Self {
        self.is(meta(MetaKey::Oif), Operator::NotEqual, &index.to_ne_bytes())
    }

    /// The packet has this mark.
    pub fn mark(self, mark: u32) -> Self {
        self.is(meta(MetaKey::Mark), Operator::Equal, &mark.to_ne_bytes())
    }

    /// Marks the packet until it leaves the namespace.
    pub fn mark_set(self, mark: u32) -> Self {
        let set = vec![number(NFTA_META_KEY, NFT_META_MARK), register(NFTA_META_SREG, Register::Reg1)];
        self.then([load(Register::Reg1, &mark.to_ne_bytes()), raw("meta", set)])
    }

    /// The source address lies in a prefix.
    pub fn ip_saddr(self, (address, length): (impl Into<IpAddr>, u8)) -> Self {
        self.address(12, address.into(), length, Operator::Equal)
    }

    /// The destination address lies in a prefix.
    pub fn ip_daddr(self, (address, length): (impl Into<IpAddr>, u8)) -> Self {
        self.address(16, address.into(), length, Operator::Equal)
    }

    /// The destination address lies outside a prefix.
    pub fn not_ip_daddr(self, (address, length): (impl Into<IpAddr>, u8)) -> Self {
        self.address(16, address.into(), length, Operator::NotEqual)
    }

    /// The transport protocol (`IPPROTO_*`).
    pub fn l4proto(mut self, protocol: u8) -> Self {
        if self.transport != Some(protocol) {
            self.transport = Some(protocol);
            self = self.is(meta(MetaKey::L4Proto), Operator::Equal, &[protocol]);
        }
        self
    }

    /// TCP with this destination port.
    pub fn tcp_dport(self, port: u16) -> Self {
        self.l4proto(TCP).is(payload(TRANSPORT_HEADER, 2, 2), Operator::Equal, &port.to_be_bytes())
    }

    /// UDP with this destination port.
    pub fn udp_dport(self, port: u16) -> Self {
        self.l4proto(UDP).is(payload(TRANSPORT_HEADER, 2, 2), Operator::Equal, &port.to_be_bytes())
    }

    /// ICMP of this type (8: echo request, 0: echo reply, 3: destination unreachable).
    pub fn icmp_type(self, kind: u8) -> Self {
        self.l4proto(ICMP).is(payload(TRANSPORT_HEADER, 0, 1), Operator::Equal, &[kind])
    }

    /// ICMP of this code (of type 3, 4: fragmentation needed).
    pub fn icmp_code(self, code: u8) -> Self {
        self.l4proto(ICMP).is(payload(TRANSPORT_HEADER, 1, 1), Operator::Equal, &[code])
    }

    /// TCP whose flags (FIN 1, SYN 2, RST 4, ACK 16), masked with `which`, equal `value`.
    pub fn tcp_flags(self, which: u8, value: u8) -> Self {
        self.l4proto(TCP).then([payload(TRANSPORT_HEADER, 13, 1)]).is(mask(&[which]), Operator::Equal, &[value])
    }

    /// The second segment of a handshake: SYN and ACK.
    pub fn tcp_flags_syn_ack(self) -> Self {
        self.tcp_flags(FIN | SYN | RST | ACK, SYN | ACK)
    }

    /// A random number below `modulus` equals `k`: one packet in `modulus` (expression `numgen`).
    pub fn numgen_random(self, modulus: u32, k: u32) -> Self {
        let attributes = vec![
            register(NFTA_NG_DREG, Register::Reg1),
            number(NFTA_NG_MODULUS, modulus),
            number(NFTA_NG_TYPE, NFT_NG_RANDOM),
        ];
        self.is(raw("numgen", attributes), Operator::Equal, &k.to_ne_bytes())
    }

    /// Loads something into register 1 and compares it.
    pub(super) fn is(self, loaded: Expressions, operator: Operator, data: &[u8]) -> Self {
        self.then([loaded, compare(operator, data)])
    }

    pub(super) fn then(mut self, expressions: impl IntoIterator<Item = Expressions>) -> Self {
        self.expressions.extend(expressions);
        self
    }

    /// The expressions of the rule; `None` if no packet seen by the table could match.
    pub(super) fn expressions(&self) -> Option<&[Expressions]> {
        (!self.foreign).then_some(&self.expressions)
    }

    pub(super) fn queues(&self) -> bool {
        self.expressions.iter().any(|expression| queue::by_target(expression).is_some())
    }

    /// The rule with the xt target in place of `queue`.
    pub(super) fn by_target(&self) -> Self {
        let other = |expression: &Expressions| queue::by_target(expression).unwrap_or_else(|| expression.clone());
        Self { expressions: self.expressions.iter().map(other).collect(), ..self.clone() }
    }

    /// The names of its expressions, in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.expressions.iter().map(expression::name)
    }

    fn address(mut self, offset: u32, address: IpAddr, length: u8, operator: Operator) -> Self {
        let IpAddr::V4(address) = address else {
            self.foreign = true;
            return self;
        };
        let network = u32::MAX.checked_shl(32_u32.saturating_sub(length.into())).unwrap_or(0);
        let whole = (network != u32::MAX).then(|| mask(&network.to_be_bytes()));
        let wanted = address.to_bits() & network;
        self.then([payload(NETWORK_HEADER, offset, 4)]).then(whole).then([compare(operator, &wanted.to_be_bytes())])
    }
}

/// A name as stored by the kernel: 16 bytes, padded with zeros (`IFNAMSIZ`).
fn interface_name(name: &str) -> [u8; 16] {
    let mut padded = [0; 16];
    let length = name.len().min(15);
    padded[..length].copy_from_slice(&name.as_bytes()[..length]);
    padded
}
