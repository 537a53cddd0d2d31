//! Addresses of interfaces.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::route::RouteType;

use crate::error::{Error, Result};
use crate::netns::NetNs;
use crate::way::{self, family};

/// An address on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    pub index: u32,
    pub address: IpAddr,
    pub prefix_len: u8,
}

/// Whether the kernel adds the route to the address's prefix by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrefixRoute {
    Add,
    /// The caller says all routes; none appears by itself.
    Omit,
}

impl Address {
    fn from_message(message: &AddressMessage) -> Option<Self> {
        let mut local = None;
        let mut address = None;
        for attribute in &message.attributes {
            match attribute {
                // On a point-to-point link `Address` is the other side, `Local` always one's own.
                AddressAttribute::Local(ip) => local = Some(*ip),
                AddressAttribute::Address(ip) => address = Some(*ip),
                _ => {}
            }
        }
        Some(Self { index: message.header.index, address: local.or(address)?, prefix_len: message.header.prefix_len })
    }
}

/// Adds an address, usable when this returns. IPv6 skips duplicate address detection, but even so
/// the kernel finishes such an address later than it says: this waits until it answers for it.
///
/// # Errors
/// What the kernel said.
pub fn add_address(ns: &NetNs, index: u32, address: IpAddr, prefix_len: u8, route: PrefixRoute) -> Result<()> {
    let mut message = message(index, address, prefix_len);
    let mut flags = AddressFlags::empty();
    if route == PrefixRoute::Omit {
        flags |= AddressFlags::Noprefixroute;
    }
    if address.is_ipv6() {
        flags |= AddressFlags::Nodad;
    }
    message.attributes.push(AddressAttribute::Flags(flags));
    let what = format!("add address {address}/{prefix_len} to link {index}");
    ns.rtnetlink()?.change(&what, RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)?;
    if address.is_ipv6() { wait_local(ns, address, what) } else { Ok(()) }
}

fn wait_local(ns: &NetNs, address: IpAddr, what: String) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(3);
    while way::find(ns, address, None, None)?.is_none_or(|way| way.header.kind != RouteType::Local) {
        if Instant::now() >= deadline {
            return Err(Error::NotInForce { what, read_back: "the kernel does not answer for it yet".into() });
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Deletes an address. Routes that prefer it as their source go with it.
///
/// # Errors
/// What the kernel said.
pub fn delete_address(ns: &NetNs, index: u32, address: IpAddr, prefix_len: u8) -> Result<()> {
    let what = format!("delete address {address}/{prefix_len} of link {index}");
    ns.rtnetlink()?.change(&what, RouteNetlinkMessage::DelAddress(message(index, address, prefix_len)), 0)
}

/// All addresses of a namespace, of both families, in order.
///
/// # Errors
/// When the kernel cannot be asked.
pub fn addresses(ns: &NetNs) -> Result<Vec<Address>> {
    let question = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let mut addresses = ns.rtnetlink()?.dump("list addresses", question, |answer| match answer {
        RouteNetlinkMessage::NewAddress(message) => Address::from_message(&message),
        _ => None,
    })?;
    addresses.sort_unstable();
    Ok(addresses)
}

fn message(index: u32, address: IpAddr, prefix_len: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.family = family(address);
    message.header.prefix_len = prefix_len;
    message.header.scope = if address.is_loopback() { AddressScope::Host } else { AddressScope::Universe };
    message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
    message
}
