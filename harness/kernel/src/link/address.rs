//! Addresses of interfaces.

use std::net::IpAddr;

use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::error::Result;
use crate::netns::NetNs;

/// An address on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    pub index: u32,
    pub address: IpAddr,
    pub prefix_len: u8,
}

impl Address {
    fn from_message(message: &AddressMessage) -> Option<Self> {
        let mut local = None;
        let mut address = None;
        for attribute in &message.attributes {
            match attribute {
                // On a point-to-point link `Address` is the peer's address; `Local` is always the local one.
                AddressAttribute::Local(ip) => local = Some(*ip),
                AddressAttribute::Address(ip) => address = Some(*ip),
                _ => {}
            }
        }
        Some(Self { index: message.header.index, address: local.or(address)?, prefix_len: message.header.prefix_len })
    }
}

/// Deletes an address, and with it the routes that have it as preferred source.
///
/// # Errors
/// The error reported by the kernel.
pub fn delete_address(ns: &NetNs, index: u32, address: IpAddr, prefix_len: u8) -> Result<()> {
    let what = format!("delete address {address}/{prefix_len} of link {index}");
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.family = family(address);
    message.header.prefix_len = prefix_len;
    message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
    ns.rtnetlink()?.change(&what, RouteNetlinkMessage::DelAddress(message), 0)
}

/// All addresses of a namespace, of both families, sorted.
///
/// # Errors
/// When the request to the kernel fails.
pub fn addresses(ns: &NetNs) -> Result<Vec<Address>> {
    let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let mut addresses = ns.rtnetlink()?.dump("list addresses", request, |answer| match answer {
        RouteNetlinkMessage::NewAddress(message) => Address::from_message(&message),
        _ => None,
    })?;
    addresses.sort_unstable();
    Ok(addresses)
}

/// The address family in the kernel's numbering.
pub(crate) const fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}
