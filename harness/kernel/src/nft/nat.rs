//! Address translation: `nat`, `masq` and `redir` (`linux/netfilter/nf_tables.h`, `nf_nat.h`).
//!
//! Valid in chains of type nat only. The first packet of a flow decides; the others follow the entry
//! of connection tracking without passing the chain, so a counter there counts flows. Addresses and
//! ports go into registers in network order.

use std::net::IpAddr;
use std::ops::BitOr;

use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{Expressions, Register};

use super::expression::{load, number, raw, register};
use super::rule::Rule;

const NFTA_NAT_TYPE: u16 = 1;
const NFTA_NAT_FAMILY: u16 = 2;
const NFTA_NAT_REG_ADDR_MIN: u16 = 3;
const NFTA_NAT_REG_PROTO_MIN: u16 = 5;
const NFTA_NAT_REG_PROTO_MAX: u16 = 6;
const NFTA_NAT_FLAGS: u16 = 7;
const NFT_NAT_SNAT: u32 = 0;
const NFT_NAT_DNAT: u32 = 1;
const NFTA_MASQ_FLAGS: u16 = 1;
const NFTA_MASQ_REG_PROTO_MIN: u16 = 2;
const NFTA_MASQ_REG_PROTO_MAX: u16 = 3;
const NFTA_REDIR_REG_PROTO_MIN: u16 = 1;

/// How a port is chosen where several are free (`NF_NAT_RANGE_*`). Without any, the flow keeps its
/// own port when that is in the range and free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NatFlags(u32);

impl NatFlags {
    pub const NONE: Self = Self(0);
    /// A range of ports is given. `nat` and `redir` see that by themselves, `masq` ignores the range
    /// without it.
    const PORTS: Self = Self(1 << 1);
    /// A port by a hash of the flow.
    pub const RANDOM: Self = Self(1 << 2);
    /// The same address for a client each time.
    pub const PERSISTENT: Self = Self(1 << 3);
    /// A port by chance (what kube-proxy and most CNIs ask for).
    pub const FULLY_RANDOM: Self = Self(1 << 4);
}

impl BitOr for NatFlags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl Rule {
    /// Sends the flow to another address, and to another port where one is given.
    #[must_use]
    pub fn dnat(self, address: impl Into<IpAddr>, port: Option<u16>) -> Self {
        self.nat(NFT_NAT_DNAT, address.into(), port.map(|p| (p, p)), NatFlags::NONE)
    }

    /// Gives the flow another source address, and a source port of a range where one is given.
    #[must_use]
    pub fn snat(self, address: impl Into<IpAddr>, ports: Option<(u16, u16)>, flags: NatFlags) -> Self {
        self.nat(NFT_NAT_SNAT, address.into(), ports, flags)
    }

    /// As [`Rule::snat`], to the address of the interface the flow leaves by. Where it has none of
    /// more than host scope (loopback), the packet is dropped.
    #[must_use]
    pub fn masquerade(self, ports: Option<(u16, u16)>, flags: NatFlags) -> Self {
        let flags = if ports.is_some() { flags | NatFlags::PORTS } else { flags };
        let mut attributes = flags.attribute(NFTA_MASQ_FLAGS);
        let loads = load_ports(ports, NFTA_MASQ_REG_PROTO_MIN, NFTA_MASQ_REG_PROTO_MAX, &mut attributes);
        self.then(loads).then([raw("masq", attributes)])
    }

    /// Takes the flow in on this machine, at the address of the interface it came in by; with it a
    /// router answers echo requests on others' behalf.
    #[must_use]
    pub fn redirect(self, port: Option<u16>) -> Self {
        let mut attributes = Vec::new();
        let loads = port.map(|port| {
            attributes.push(register(NFTA_REDIR_REG_PROTO_MIN, Register::Reg2));
            load(Register::Reg2, &port.to_be_bytes())
        });
        self.then(loads).then([raw("redir", attributes)])
    }

    fn nat(self, kind: u32, address: IpAddr, ports: Option<(u16, u16)>, flags: NatFlags) -> Self {
        let (family, bytes) = match address {
            IpAddr::V4(a) => (2, a.octets().to_vec()),
            IpAddr::V6(a) => (10, a.octets().to_vec()),
        };
        let mut attributes = vec![
            number(NFTA_NAT_TYPE, kind),
            number(NFTA_NAT_FAMILY, family),
            register(NFTA_NAT_REG_ADDR_MIN, Register::Reg1),
        ];
        attributes.extend(flags.attribute(NFTA_NAT_FLAGS));
        let loads = load_ports(ports, NFTA_NAT_REG_PROTO_MIN, NFTA_NAT_REG_PROTO_MAX, &mut attributes);
        self.then([load(Register::Reg1, &bytes)]).then(loads).then([raw("nat", attributes)])
    }
}

impl NatFlags {
    fn attribute(self, kind: u16) -> Vec<DefaultNla> {
        if self == Self::NONE { Vec::new() } else { vec![number(kind, self.0)] }
    }
}

/// Loads a range of ports into registers 2 and 3 and names them to the expression; one port alone is
/// its own end.
fn load_ports(
    ports: Option<(u16, u16)>,
    low_kind: u16,
    high_kind: u16,
    attributes: &mut Vec<DefaultNla>,
) -> Vec<Expressions> {
    let Some((low, high)) = ports else { return Vec::new() };
    attributes.push(register(low_kind, Register::Reg2));
    let mut loads = vec![load(Register::Reg2, &low.to_be_bytes())];
    if low != high {
        attributes.push(register(high_kind, Register::Reg3));
        loads.push(load(Register::Reg3, &high.to_be_bytes()));
    }
    loads
}
