//! Routes; and, in the submodules, rules, neighbours, lookups, and the kernel's notifications of changes.
//!
//! A [`Route`] is what the project creates and compares. Routes made by others are not rebuilt from a `Route`:
//! [`saved::SavedRoute`] and [`saved::SavedRule`] keep the kernel's whole message, and an undo restores exactly
//! that.
//!
//! - [`rule`]: policy rules. [`neighbour`]: permanent neighbours.
//! - [`lookup`]: the route a packet would take; flushing learned path MTUs.
//! - [`saved`]: saved routes and rules. [`events`]: notifications of changes.
//!
//! Left out: creating multipath, encapsulated and local routes, and gateways of the other family (saved ones are
//! restored whole).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteProtocol, RouteScope, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::error::Result;
use crate::link::address::family;
use crate::netns::NetNs;

pub mod events;
pub mod lookup;
pub mod neighbour;
pub mod rule;
pub mod saved;

pub use events::{RouteEvent, RouteEvents};
/// The type of a route: what happens to a packet that takes it.
pub use netlink_packet_route::route::RouteType as Kind;

pub use lookup::{Lookup, flush_path_mtu, lookup};
pub use neighbour::{Neighbour, neighbours};
pub use rule::{Action, Rule, delete_rule, rules};
pub use saved::{SavedRoute, SavedRule, restore_routes, save_routes, save_rules};

/// The table used unless a rule selects another one.
pub const MAIN: u32 = 254;
/// The kernel's own table of local addresses.
pub const LOCAL: u32 = 255;

/// A route with at most one next hop.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Route {
    pub table: u32,
    /// `0.0.0.0/0` or `::/0` for a default route: the family is always known.
    pub destination: (IpAddr, u8),
    pub gateway: Option<IpAddr>,
    pub oif: Option<u32>,
    /// Lower wins. For IPv6 the kernel turns 0 into 1024.
    pub metric: u32,
    pub mtu: Option<u32>,
    /// The gateway is on the link, even if no address of the interface covers it.
    pub onlink: bool,
    /// The preferred source of packets that leave by this route.
    pub source: Option<IpAddr>,
    pub kind: Kind,
    /// The origin (`RTPROT_*`): 2 the kernel, 3 `ip route`, 4 an administrator.
    pub protocol: u8,
}

impl Route {
    /// A route in the main table, incomplete without a next hop: set [`via`](Self::via),
    /// [`dev`](Self::dev), or a kind that needs none.
    pub const fn to(address: IpAddr, prefix_len: u8) -> Self {
        Self {
            table: MAIN,
            destination: (address, prefix_len),
            gateway: None,
            oif: None,
            metric: 0,
            mtu: None,
            onlink: false,
            source: None,
            kind: Kind::Unicast,
            protocol: 4,
        }
    }

    /// The default route of the gateway's family.
    pub const fn default_via(gateway: IpAddr) -> Self {
        Self::to(unspecified(gateway), 0).via(gateway)
    }

    pub const fn via(mut self, gateway: IpAddr) -> Self {
        self.gateway = Some(gateway);
        self
    }

    pub const fn dev(mut self, index: u32) -> Self {
        self.oif = Some(index);
        self
    }

    pub const fn table(mut self, table: u32) -> Self {
        self.table = table;
        self
    }

    pub const fn onlink(mut self) -> Self {
        self.onlink = true;
        self
    }

    pub const fn metric(mut self, metric: u32) -> Self {
        self.metric = metric;
        self
    }

    pub(crate) fn from_message(message: &RouteMessage) -> Option<Self> {
        let header = &message.header;
        let any = match header.address_family {
            AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            _ => return None,
        };
        let mut route = Self::to(any, header.destination_prefix_length).table(header.table.into());
        route.kind = header.kind;
        route.protocol = header.protocol.into();
        route.onlink = header.flags.contains(RouteFlags::Onlink);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(ip) => route.destination.0 = address(ip)?,
                RouteAttribute::Gateway(ip) => route.gateway = address(ip),
                RouteAttribute::Via(RouteVia::Inet(ip)) => route.gateway = Some((*ip).into()),
                RouteAttribute::Via(RouteVia::Inet6(ip)) => route.gateway = Some((*ip).into()),
                RouteAttribute::PrefSource(ip) => route.source = address(ip),
                RouteAttribute::Oif(index) => route.oif = Some(*index),
                RouteAttribute::Priority(metric) => route.metric = *metric,
                RouteAttribute::Table(table) => route.table = *table,
                RouteAttribute::Metrics(metrics) => {
                    route.mtu = metrics.iter().find_map(|metric| match metric {
                        RouteMetric::Mtu(mtu) => Some(*mtu),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        Some(route)
    }

    pub(crate) fn message(&self) -> RouteMessage {
        let (destination, prefix_len) = self.destination;
        let mut message = RouteMessage::default();
        message.header.address_family = family(destination);
        message.header.destination_prefix_length = prefix_len;
        message.header.kind = self.kind;
        message.header.protocol = RouteProtocol::from(self.protocol);
        let direct = self.kind == Kind::Unicast && self.gateway.is_none();
        message.header.scope = if direct { RouteScope::Link } else { RouteScope::Universe };
        if self.onlink {
            message.header.flags |= RouteFlags::Onlink;
        }
        // The header's field is too narrow for large tables; the attribute holds any table.
        message.attributes.push(RouteAttribute::Table(self.table));
        if prefix_len > 0 {
            message.attributes.push(RouteAttribute::Destination(destination.into()));
        }
        message.attributes.extend(self.gateway.map(|ip| RouteAttribute::Gateway(ip.into())));
        message.attributes.extend(self.oif.map(RouteAttribute::Oif));
        message.attributes.extend(self.source.map(|ip| RouteAttribute::PrefSource(ip.into())));
        message.attributes.extend(self.mtu.map(|mtu| RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)])));
        if self.metric > 0 {
            message.attributes.push(RouteAttribute::Priority(self.metric));
        }
        message
    }

    pub(crate) fn what(&self, verb: &str) -> String {
        format!("{verb} route {}/{} in table {}", self.destination.0, self.destination.1, self.table)
    }
}

/// Deletes the route that matches every field of `route` except the protocol.
///
/// # Errors
/// `ESRCH` if no route matches; any other error reported by the kernel.
pub fn delete_route(ns: &NetNs, route: &Route) -> Result<()> {
    let mut message = route.message();
    message.header.scope = RouteScope::NoWhere;
    message.header.protocol = RouteProtocol::Unspec;
    ns.rtnetlink()?.change(&route.what("delete"), RouteNetlinkMessage::DelRoute(message), 0)
}

/// The routes of one table or of all tables, of both families, sorted.
///
/// # Errors
/// When the request to the kernel fails.
pub fn routes(ns: &NetNs, table: Option<u32>) -> Result<Vec<Route>> {
    let mut routes: Vec<Route> = messages(ns)?.iter().filter_map(Route::from_message).collect();
    routes.retain(|route| table.is_none_or(|t| t == route.table));
    routes.sort_unstable_by_key(|route| (route.table, route.destination, route.metric, route.gateway, route.oif));
    Ok(routes)
}

/// The kernel's messages for all routes of both families, without cloned routes to single destinations.
fn messages(ns: &NetNs) -> Result<Vec<RouteMessage>> {
    let request = RouteNetlinkMessage::GetRoute(RouteMessage::default());
    ns.rtnetlink()?.dump("list routes", request, |answer| match answer {
        RouteNetlinkMessage::NewRoute(message) => Some(message)
            .filter(|m| matches!(m.header.address_family, AddressFamily::Inet | AddressFamily::Inet6))
            .filter(|m| !m.header.flags.contains(RouteFlags::Cloned)),
        _ => None,
    })
}

fn address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}

const fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}
