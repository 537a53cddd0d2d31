//! Which way a packet would take, and what the kernel has learned about ways.

use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{RouteAttribute, RouteFlags, RouteMessage};

use super::{Kind, Route, messages};
use crate::error::Result;
use crate::link::address::family;
use crate::link::rtnl;
use crate::netns::NetNs;
use crate::sysctl;

/// The kernel's answer to [`lookup`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lookup {
    pub oif: Option<u32>,
    pub gateway: Option<IpAddr>,
    /// The table that had the answer; `None` when none had.
    pub table: Option<u32>,
    /// The source the kernel would choose, where none was given.
    pub source: Option<IpAddr>,
    /// What is known of the way's MTU: the route's, or a learned one.
    pub mtu: Option<u32>,
    pub kind: Option<Kind>,
    /// Why there is no way (`ENETUNREACH`, `EHOSTUNREACH`, ...): an answer, not a failure.
    pub error: Option<i32>,
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
    let answer = rtnl(ns)?.get(&format!("look up the way to {destination}"), RouteNetlinkMessage::GetRoute(question));
    let answer = match answer {
        Ok(answer) => answer,
        Err(e) => {
            return match e.errno().filter(|errno| is_answer(*errno)) {
                Some(errno) => Ok(Lookup { error: Some(errno), ..Lookup::default() }),
                None => Err(e),
            };
        }
    };
    let found = Some(&answer).and_then(|answer| match answer {
        RouteNetlinkMessage::NewRoute(message) => Route::from_message(message),
        _ => None,
    });
    Ok(found.map_or_else(Lookup::default, |route| Lookup {
        oif: route.oif,
        gateway: route.gateway,
        table: Some(route.table),
        source: route.source,
        mtu: route.mtu,
        kind: Some(route.kind),
        error: refusal(route.kind),
    }))
}

/// The path MTUs learned from "fragmentation needed", by destination.
///
/// # Errors
/// When the kernel cannot be asked.
pub fn learned_path_mtus(ns: &NetNs) -> Result<Vec<(IpAddr, u32)>> {
    let mut learned: Vec<(IpAddr, u32)> = messages(ns, RouteFlags::Cloned)?
        .iter()
        .filter_map(Route::from_message)
        .filter_map(|route| Some((route.destination.0, route.mtu?)))
        .collect();
    learned.sort_unstable();
    learned.dedup();
    Ok(learned)
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
    sysctl::trigger(ns, "net/ipv4/route/flush", "1")
}

/// `EACCES` is how a prohibited way answers, `EINVAL` a blackhole, `EXDEV` the reverse path filter.
const fn is_answer(errno: i32) -> bool {
    matches!(errno, libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL | libc::EXDEV)
}

/// IPv6 answers with the refusing route instead of an error.
const fn refusal(kind: Kind) -> Option<i32> {
    match kind {
        Kind::Blackhole => Some(libc::EINVAL),
        Kind::Unreachable => Some(libc::EHOSTUNREACH),
        Kind::Prohibit => Some(libc::EACCES),
        _ => None,
    }
}
