//! The kernel asked which way a packet would take, for links and for routes.

use std::net::IpAddr;

use netlink_packet_route::route::{RouteAttribute, RouteFlags, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::error::Result;
use crate::netns::NetNs;

/// How the kernel says that there is no way: `EACCES` for a prohibited one, `EINVAL` for a blackhole, `EXDEV` for the
/// reverse path filter.
const NO_WAY: [i32; 5] = [libc::ENETUNREACH, libc::EHOSTUNREACH, libc::EACCES, libc::EINVAL, libc::EXDEV];

/// The route it would take; that there is none is an answer, too. See [`crate::route::lookup`].
pub(crate) fn find(
    ns: &NetNs,
    destination: IpAddr,
    source: Option<IpAddr>,
    iif: Option<u32>,
) -> Result<Option<RouteMessage>> {
    let host = if destination.is_ipv4() { 32 } else { 128 };
    let mut question = RouteMessage::default();
    question.header.address_family = family(destination);
    question.header.destination_prefix_length = host;
    question.header.flags = RouteFlags::LookupTable;
    question.attributes.push(RouteAttribute::Destination(destination.into()));
    if let Some(source) = source {
        question.header.source_prefix_length = host;
        question.attributes.push(RouteAttribute::Source(source.into()));
    }
    question.attributes.extend(iif.map(RouteAttribute::Iif));
    let what = format!("look up the way to {destination}");
    match ns.rtnetlink()?.get(&what, RouteNetlinkMessage::GetRoute(question)) {
        Ok(RouteNetlinkMessage::NewRoute(way)) => Ok(Some(way)),
        Ok(_) => Ok(None),
        Err(e) if e.errno().is_some_and(|errno| NO_WAY.contains(&errno)) => Ok(None),
        Err(e) => Err(e),
    }
}

/// The kernel's name for the family of an address.
pub(crate) const fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}
