//! Which way a packet would take, and forgetting what the kernel has learned about ways.

use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{RouteAttribute, RouteFlags, RouteMessage};

use super::Route;
use crate::error::{Context, Result};
use crate::link::address::family;
use crate::netns::NetNs;

/// How the kernel says that there is no way: `EACCES` for a prohibited one, `EINVAL` for a blackhole, `EXDEV` for the
/// reverse path filter.
const NO_WAY: [i32; 5] = [libc::ENETUNREACH, libc::EHOSTUNREACH, libc::EACCES, libc::EINVAL, libc::EXDEV];

/// The kernel's answer to [`lookup`]; without either where there is no way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lookup {
    pub oif: Option<u32>,
    /// The table that had the answer.
    pub table: Option<u32>,
}

/// Asks which way a packet would take. With `iif` it is one that came in there and is forwarded,
/// reverse path filter included; without, one of this namespace's own: from a source that it does
/// not have there is no way.
///
/// # Errors
/// When the kernel cannot be asked.
pub fn lookup(ns: &NetNs, destination: IpAddr, source: Option<IpAddr>, iif: Option<u32>) -> Result<Lookup> {
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
    let what = format!("look up the route to {destination}");
    let route = match ns.rtnetlink()?.get(&what, RouteNetlinkMessage::GetRoute(question)) {
        Ok(RouteNetlinkMessage::NewRoute(way)) => Route::from_message(&way),
        Ok(_) => None,
        // That there is no way is an answer, too.
        Err(e) if e.errno().is_some_and(|errno| NO_WAY.contains(&errno)) => None,
        Err(e) => return Err(e),
    };
    Ok(route.map_or_else(Lookup::default, |route| Lookup { oif: route.oif, table: Some(route.table) }))
}

/// Forgets all IPv4 path MTUs that a namespace has learned. No other change does: what was learned
/// outlives changes of other routes and of rules (only the route it hangs on takes it along), and
/// nothing of this is announced to listeners.
///
/// IPv6 has no such switch; there a learned path MTU goes with its route.
///
/// # Errors
/// `ENOENT` in a user namespace on a kernel before 5.4.
pub fn flush_path_mtu(ns: &NetNs) -> Result<()> {
    let flushed = ns.run(|| std::fs::write("/proc/sys/net/ipv4/route/flush", "1"))?;
    flushed.context(|| format!("write net/ipv4/route/flush in {}", ns.name()))
}
