//! Neighbours: the MAC address for an IP address.

use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};

use crate::error::Result;
use crate::netns::NetNs;

/// A neighbour of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Neighbour {
    pub index: u32,
    pub address: IpAddr,
    /// `None` until the neighbour is resolved.
    pub mac: Option<[u8; 6]>,
    /// Configured: never resolved and never expired.
    pub permanent: bool,
}

/// The neighbours of a namespace, sorted; the kernel's own (multicast, loopback) are left out.
///
/// # Errors
/// When the request to the kernel fails.
pub fn neighbours(ns: &NetNs) -> Result<Vec<Neighbour>> {
    let request = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
    let mut neighbours = ns.rtnetlink()?.dump("list neighbours", request, |answer| match answer {
        RouteNetlinkMessage::NewNeighbour(message) => parse(&message),
        _ => None,
    })?;
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
