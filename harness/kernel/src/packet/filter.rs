//! Filters for a capture, and the classic BPF programs they become.
//!
//! A filter is a list of terms; a frame passes when one of them holds. Each term becomes one block
//! for IPv4 and one for IPv6; the program is all blocks one after the other, and "drop".
//!
//! Left out: fragments after the first (they carry no ports), IPv6 extension headers.

use std::net::IpAddr;

use super::bpf::{
    A_TO_X, ADD_X, AND, Block, IF_ANY_BIT, IF_AT_LEAST, IF_EQUAL, LOAD_BYTE, LOAD_BYTE_AT_X, LOAD_HALF, LOAD_HALF_AT_X,
    LOAD_X_HEADER_LENGTH, RETURN, SET_X, SHIFT_RIGHT, SUBTRACT_X, To,
};
use super::parse::{ICMP_BODY, UDP_PAYLOAD};

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;

/// Room for an Ethernet header with two VLAN tags; longer link headers do not occur here.
const LINK_HEADER: u32 = 22;
/// The longest IPv4 and TCP header.
const TCP_HEADERS: u32 = 60 + 60;

/// Which frames a capture delivers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    terms: Vec<Term>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    what: What,
    /// Source or destination lies in here: network address and length.
    prefix: Option<(IpAddr, u8)>,
    outgoing: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    TcpAll,
    TcpFlags(u8),
    TcpPayloadFrom(u16),
    TcpNoPayload,
    UdpPort(u16),
    Icmp,
}

impl Filter {
    /// SYN and SYN-ACK.
    #[must_use]
    pub fn syn() -> Self {
        What::TcpFlags(SYN).into()
    }

    /// Segments that open or end a connection: SYN, FIN, RST.
    #[must_use]
    pub fn control() -> Self {
        What::TcpFlags(SYN | FIN | RST).into()
    }

    /// Everything needed to tell which sizes pass on a path: SYN, FIN, RST, segments with at least
    /// `min_payload` bytes, and bare acknowledgements. Left out are only small segments with data;
    /// an acknowledgement may ride on one of those, so who must see every one takes 1.
    #[must_use]
    pub fn tcp_control_and_data(min_payload: u16) -> Self {
        Self::any_of([Self::control(), What::TcpPayloadFrom(min_payload.max(1)).into(), What::TcpNoPayload.into()])
    }

    /// All TCP.
    #[must_use]
    pub fn tcp() -> Self {
        What::TcpAll.into()
    }

    /// DNS over UDP, queries and answers.
    #[must_use]
    pub fn dns() -> Self {
        What::UdpPort(53).into()
    }

    /// ICMP and ICMPv6, neighbour discovery included.
    #[must_use]
    pub fn icmp() -> Self {
        What::Icmp.into()
    }

    /// What passes one of `filters`.
    #[must_use]
    pub fn any_of(filters: impl IntoIterator<Item = Self>) -> Self {
        Self { terms: filters.into_iter().flat_map(|filter| filter.terms).collect() }
    }

    /// Only with this address as source or destination.
    #[must_use]
    pub fn host(self, address: IpAddr) -> Self {
        self.prefix(address, 128)
    }

    /// Only with source or destination in this prefix. Said twice, the last one counts.
    #[must_use]
    pub fn prefix(mut self, network: IpAddr, length: u8) -> Self {
        let length = length.min(if network.is_ipv4() { 32 } else { 128 });
        for term in &mut self.terms {
            term.prefix = Some((network, length));
        }
        self
    }

    /// Only what is sent: a forwarded packet then counts once.
    #[must_use]
    pub fn outgoing(self) -> Self {
        self.direction(true)
    }

    /// Only what is received.
    #[must_use]
    pub fn incoming(self) -> Self {
        self.direction(false)
    }

    fn direction(mut self, outgoing: bool) -> Self {
        for term in &mut self.terms {
            term.outgoing = Some(outgoing);
        }
        self
    }

    /// Bytes of a frame that are kept, from the link header on: the most any term asks for.
    pub(super) fn snap(&self) -> u32 {
        self.terms.iter().map(|term| term.what.snap()).max().unwrap_or(LINK_HEADER)
    }

    pub(super) fn program(&self) -> Vec<libc::sock_filter> {
        let mut program = Vec::new();
        for term in &self.terms {
            for version in [Version::Four, Version::Six] {
                if term.prefix.is_none_or(|(network, _)| network.is_ipv4() == (version == Version::Four)) {
                    program.extend(term.block(version));
                }
            }
        }
        program.push(libc::sock_filter { code: RETURN, jt: 0, jf: 0, k: 0 });
        program
    }
}

impl From<What> for Filter {
    fn from(what: What) -> Self {
        Self { terms: vec![Term { what, prefix: None, outgoing: None }] }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    Four,
    Six,
}

impl What {
    const fn snap(self) -> u32 {
        LINK_HEADER
            + match self {
                Self::UdpPort(_) => 60 + 8 + UDP_PAYLOAD as u32,
                Self::Icmp => 60 + 4 + ICMP_BODY as u32,
                _ => TCP_HEADERS,
            }
    }
}

impl Term {
    fn block(&self, version: Version) -> Vec<libc::sock_filter> {
        let mut block = Block::default();
        let four = version == Version::Four;
        block.load(LOAD_HALF, libc::SKF_AD_OFF + libc::SKF_AD_PROTOCOL);
        block.require(IF_EQUAL, if four { 0x0800 } else { 0x86dd });
        if let Some(outgoing) = self.outgoing {
            block.load(LOAD_BYTE, libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE);
            let (yes, no) = if outgoing { (To::Next, To::Fail) } else { (To::Fail, To::Next) };
            block.jump(IF_EQUAL, u32::from(libc::PACKET_OUTGOING), yes, no);
        }
        let protocol = match self.what {
            What::UdpPort(_) => 17,
            What::Icmp if four => 1,
            What::Icmp => 58,
            _ => 6,
        };
        block.network(LOAD_BYTE, if four { 9 } else { 6 });
        block.require(IF_EQUAL, protocol);
        if four {
            block.network(LOAD_HALF, 6);
            block.jump(IF_ANY_BIT, 0x1fff, To::Fail, To::Next);
        }
        if let Some((network, length)) = self.prefix {
            block.prefix(network, length);
        }
        // From here on X is the length of the IP header.
        if four {
            block.network(LOAD_X_HEADER_LENGTH, 0);
        } else {
            block.statement(SET_X, 40);
        }
        self.what.condition(&mut block, four);
        block.finish(self.what.snap())
    }
}

impl What {
    fn condition(self, block: &mut Block, four: bool) {
        match self {
            Self::TcpAll | Self::Icmp => {}
            Self::TcpFlags(mask) => {
                block.network(LOAD_BYTE_AT_X, 13);
                block.require(IF_ANY_BIT, u32::from(mask));
            }
            Self::UdpPort(port) => {
                block.network(LOAD_HALF_AT_X, 0);
                block.jump(IF_EQUAL, u32::from(port), To::Accept, To::Next);
                block.network(LOAD_HALF_AT_X, 2);
                block.require(IF_EQUAL, u32::from(port));
            }
            Self::TcpPayloadFrom(_) | Self::TcpNoPayload => {
                block.network(LOAD_BYTE_AT_X, 12);
                block.statement(SHIFT_RIGHT, 2);
                block.statement(AND, 0x3c);
                // IPv4 counts its own header in the length, IPv6 does not.
                if four {
                    block.statement(ADD_X, 0);
                }
                block.statement(A_TO_X, 0);
                block.network(LOAD_HALF, if four { 2 } else { 4 });
                match self {
                    Self::TcpPayloadFrom(least) => {
                        // Zero stands for more than 64 kB.
                        block.jump(IF_EQUAL, 0, To::Accept, To::Next);
                        block.statement(SUBTRACT_X, 0);
                        block.require(IF_AT_LEAST, u32::from(least));
                    }
                    _ => {
                        block.statement(SUBTRACT_X, 0);
                        block.require(IF_EQUAL, 0);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every jump of every filter stays inside its program, and the program inside the kernel's limit.
    #[test]
    fn jumps_stay_inside() {
        let six = "fd00:1:2:3:4:5:6:7".parse().expect("an address");
        let filters = [
            Filter::syn(),
            Filter::tcp_control_and_data(1200).host(six).outgoing(),
            Filter::any_of([
                Filter::dns(),
                Filter::icmp().prefix(six, 48),
                Filter::control().prefix("10.0.0.0".parse().expect("an address"), 8),
            ]),
            Filter::tcp().prefix(six, 0),
        ];
        for filter in filters {
            let program = filter.program();
            assert!(program.len() < 4096);
            for (at, step) in program.iter().enumerate() {
                assert!(
                    at + 1 + usize::from(step.jt.max(step.jf)) < program.len() || step.code == RETURN,
                    "{filter:?}: {at}"
                );
            }
        }
    }
}
