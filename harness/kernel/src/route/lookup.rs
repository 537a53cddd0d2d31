//! The route a packet would take, and flushing learned path MTUs.

use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{RouteAttribute, RouteFlags, RouteMessage};

use super::Route;
use crate::error::{Context, Result};
use crate::link::address::family;
use crate::netns::NetNs;

/// The errors by which the kernel reports that there is no route: among them `EACCES` for a prohibited one, `EINVAL`
/// for a blackhole, `EXDEV` for the reverse path filter.
const NO_ROUTE: [i32; 5] = [libc::ENETUNREACH, libc::EHOSTUNREACH, libc::EACCES, libc::EINVAL, libc::EXDEV];

/// The kernel's answer to [`lookup`]; both fields are `None` if there is no route.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lookup {
    pub oif: Option<u32>,
    /// The table that contains the route.
    pub table: Option<u32>,
}

/// Looks up the route a packet would take. With `iif` the packet is one received on that interface and forwarded,
/// and the reverse path filter applies; without it the packet originates in this namespace, and there is no route
/// from a source address the namespace does not have.
///
/// # Errors
/// When the request to the kernel fails.
pub fn lookup(ns: &NetNs, destination: IpAddr, source: Option<IpAddr>, iif: Option<u32>) -> Result<Lookup> {
    let host = if destination.is_ipv4() { 32 } else { 128 };
    let mut request = RouteMessage::default();
    request.header.address_family = family(destination);
    request.header.destination_prefix_length = host;
    request.header.flags = RouteFlags::LookupTable;
    request.attributes.push(RouteAttribute::Destination(destination.into()));
    if let Some(source) = source {
        request.header.source_prefix_length = host;
        request.attributes.push(RouteAttribute::Source(source.into()));
    }
    request.attributes.extend(iif.map(RouteAttribute::Iif));
    let what = format!("look up the route to {destination}");
    let route = match ns.rtnetlink()?.get(&what, RouteNetlinkMessage::GetRoute(request)) {
        Ok(RouteNetlinkMessage::NewRoute(found)) => Route::from_message(&found),
        Ok(_) => None,
        // That there is no route is a valid answer.
        Err(e) if e.errno().is_some_and(|errno| NO_ROUTE.contains(&errno)) => None,
        Err(e) => return Err(e),
    };
    Ok(route.map_or_else(Lookup::default, |route| Lookup { oif: route.oif, table: Some(route.table) }))
}

/// Flushes all IPv4 path MTUs learned in a namespace. Nothing else does: a learned path MTU outlives changes of
/// other routes and of rules (it is removed only with the route it belongs to), and no notification is sent
/// for any of this.
///
/// IPv6 has no such setting; there a learned path MTU is removed with its route.
///
/// # Errors
/// `ENOENT` in a user namespace on a kernel before 5.4.
pub fn flush_path_mtu(ns: &NetNs) -> Result<()> {
    let flushed = ns.run(|| std::fs::write("/proc/sys/net/ipv4/route/flush", "1"))?;
    flushed.context(|| format!("write net/ipv4/route/flush in {}", ns.name()))
}
