//! Neighbours: which MAC address answers for an IP address.

use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};

use crate::error::Result;
use crate::link::address::family;
use crate::link::rtnl;
use crate::netns::NetNs;

/// A neighbour of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Neighbour {
    pub index: u32,
    pub address: IpAddr,
    /// `None` while nobody has answered.
    pub mac: Option<[u8; 6]>,
    /// Written down, never asked for and never forgotten.
    pub permanent: bool,
}

/// Forgets a neighbour.
///
/// # Errors
/// What the kernel said.
pub fn delete_neighbour(ns: &NetNs, index: u32, address: IpAddr) -> Result<()> {
    let what = format!("delete neighbour {address} on link {index}");
    rtnl(ns)?.change(&what, RouteNetlinkMessage::DelNeighbour(about(index, address)), 0)
}

/// The neighbours of a namespace, in order; the kernel's own (multicast, loopback) are left out.
///
/// # Errors
/// When the kernel cannot be asked.
pub fn neighbours(ns: &NetNs) -> Result<Vec<Neighbour>> {
    let answers = rtnl(ns)?.dump("list neighbours", RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()))?;
    let mut neighbours: Vec<Neighbour> = answers
        .iter()
        .filter_map(|answer| match answer {
            RouteNetlinkMessage::NewNeighbour(message) => parse(message),
            _ => None,
        })
        .collect();
    neighbours.sort_unstable();
    Ok(neighbours)
}

fn parse(message: &NeighbourMessage) -> Option<Neighbour> {
    if message.header.state == NeighbourState::Noarp {
        return None;
    }
    let mut address = None;
    let mut mac = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => address = Some(IpAddr::from(*ip)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => address = Some(IpAddr::from(*ip)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok(),
            _ => {}
        }
    }
    let permanent = message.header.state == NeighbourState::Permanent;
    Some(Neighbour { index: message.header.ifindex, address: address?, mac, permanent })
}

fn about(index: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = index;
    message.attributes.push(NeighbourAttribute::Destination(match address {
        IpAddr::V4(ip) => NeighbourAddress::Inet(ip),
        IpAddr::V6(ip) => NeighbourAddress::Inet6(ip),
    }));
    message
}
