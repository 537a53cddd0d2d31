//! Address translation: `nat` and `masq` (`linux/netfilter/nf_tables.h`, `nf_nat.h`).
//!
//! Valid in chains of type nat only. The first packet of a flow decides; later packets follow the conntrack entry
//! without passing the chain, so a counter there counts flows. Addresses and ports are loaded into registers in
//! network byte order.

use std::net::IpAddr;

use netlink_packet_netfilter::nftables::Register;

use super::expression::{load, number, raw, register};
use super::rule::Rule;

const NFTA_NAT_TYPE: u16 = 1;
const NFTA_NAT_FAMILY: u16 = 2;
const NFTA_NAT_REG_ADDR_MIN: u16 = 3;
const NFTA_NAT_REG_PROTO_MIN: u16 = 5;
const NFT_NAT_DNAT: u32 = 1;
const NFPROTO_IPV4: u32 = 2;
const NFTA_MASQ_FLAGS: u16 = 1;
const NFTA_MASQ_REG_PROTO_MIN: u16 = 2;
const NFTA_MASQ_REG_PROTO_MAX: u16 = 3;
/// `NF_NAT_RANGE_PROTO_SPECIFIED`: a port range is given; without this flag `masq` ignores it.
const PORTS: u32 = 1 << 1;

impl Rule {
    /// Redirects the flow to another address, and to another port if given.
    pub fn dnat(mut self, address: impl Into<IpAddr>, port: Option<u16>) -> Self {
        let IpAddr::V4(address) = address.into() else {
            self.foreign = true;
            return self;
        };
        let mut attributes = vec![
            number(NFTA_NAT_TYPE, NFT_NAT_DNAT),
            number(NFTA_NAT_FAMILY, NFPROTO_IPV4),
            register(NFTA_NAT_REG_ADDR_MIN, Register::Reg1),
        ];
        attributes.extend(port.map(|_| register(NFTA_NAT_REG_PROTO_MIN, Register::Reg2)));
        self.then([load(Register::Reg1, &address.octets())])
            .then(port.map(|port| load(Register::Reg2, &port.to_be_bytes())))
            .then([raw("nat", attributes)])
    }

    /// Sets the flow's source address to that of the outgoing interface, and its source port to one of a range if
    /// given (the original port if it is in the range and free). If the interface has no address of more than
    /// host scope (loopback), the packet is dropped.
    pub fn masquerade(self, ports: Option<(u16, u16)>) -> Self {
        let Some((low, high)) = ports else { return self.then([raw("masq", Vec::new())]) };
        let attributes = vec![
            number(NFTA_MASQ_FLAGS, PORTS),
            register(NFTA_MASQ_REG_PROTO_MIN, Register::Reg2),
            register(NFTA_MASQ_REG_PROTO_MAX, Register::Reg3),
        ];
        self.then([
            load(Register::Reg2, &low.to_be_bytes()),
            load(Register::Reg3, &high.to_be_bytes()),
            raw("masq", attributes),
        ])
    }
}
