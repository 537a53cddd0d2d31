//! Interfaces: state, MTU, and moving them between namespaces.
//!
//! Interfaces are addressed by index; a name is looked up once with [`find`]. Addresses are in [`address`]; veth pairs
//! are created by a [`Builder`](crate::builder::Builder).

use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkFlags, LinkMessage};

use crate::error::{Error, Result};
use crate::netns::NetNs;

pub mod address;

pub use address::{Address, addresses, delete_address};

/// The index of `lo`, the same in every namespace.
pub const LOOPBACK: u32 = 1;

/// An interface as reported by the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// Administratively up.
    pub up: bool,
    /// Has carrier: for a veth, both ends are up.
    pub carrier: bool,
    /// Up, with carrier, and the kernel has processed the change (`IFF_RUNNING`).
    pub running: bool,
    pub mtu: u32,
    /// `None` where the link has no Ethernet address.
    pub mac: Option<[u8; 6]>,
    /// The index of a veth's other end, in the namespace of that end.
    pub peer: Option<u32>,
}

impl Link {
    pub(crate) fn from_message(message: &LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            up: flags.contains(LinkFlags::Up),
            carrier: flags.contains(LinkFlags::LowerUp),
            running: flags.contains(LinkFlags::Running),
            mtu: 0,
            mac: None,
            peer: None,
        };
        let mut peer_is_elsewhere = false;
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Address(mac) => link.mac = mac.as_slice().try_into().ok(),
                LinkAttribute::Link(peer) if *peer != 0 => link.peer = Some(*peer),
                LinkAttribute::LinkNetNsId(_) => peer_is_elsewhere = true,
                _ => {}
            }
        }
        // A link that is its own lower link has no peer. A link of the same index in another namespace is a
        // peer, as created by the CNI plugins (the first veth of a pod and of its node both have index 2).
        if !peer_is_elsewhere {
            link.peer = link.peer.filter(|peer| *peer != link.index);
        }
        link
    }
}

/// All interfaces of a namespace, sorted by index.
///
/// # Errors
/// When the request to the kernel fails.
pub fn list(ns: &NetNs) -> Result<Vec<Link>> {
    let mut links = ns.rtnetlink()?.dump("list links", RouteNetlinkMessage::GetLink(question()), described)?;
    links.sort_by_key(|l| l.index);
    Ok(links)
}

/// The interface of this name, if there is one.
///
/// # Errors
/// When the request to the kernel fails.
pub fn find(ns: &NetNs, name: &str) -> Result<Option<Link>> {
    let mut message = question();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    found(ns.rtnetlink()?.get(&format!("find link {name}"), RouteNetlinkMessage::GetLink(message)))
}

/// The interface with this index, if there is one.
///
/// # Errors
/// When the request to the kernel fails.
pub fn get(ns: &NetNs, index: u32) -> Result<Option<Link>> {
    let mut message = question();
    message.header.index = index;
    found(ns.rtnetlink()?.get(&format!("look at link {index}"), RouteNetlinkMessage::GetLink(message)))
}

/// Sets an interface up or down. Setting it down removes its routes; setting it up does not restore them.
///
/// # Errors
/// The error reported by the kernel.
pub fn set_up(ns: &NetNs, index: u32, up: bool) -> Result<()> {
    let mut message = about(index);
    message.header.change_mask = LinkFlags::Up;
    message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
    let what = format!("set link {index} {}", if up { "up" } else { "down" });
    ns.rtnetlink()?.change(&what, RouteNetlinkMessage::SetLink(message), 0)
}

/// Waits until an interface is running, that is, until both ends of a pair are up and the kernel has
/// processed the change. Before that it has no queue and drops what it should send: after setting one end up
/// again, wait for both.
///
/// # Errors
/// [`Error::NotInForce`] if it is not running after three seconds.
pub fn wait_running(ns: &NetNs, index: u32) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(3);
    loop {
        let what = || format!("wait for link {index} in {} to be running", ns.name());
        // On recent kernels the request itself makes the kernel process the change.
        let link = get(ns, index)?.ok_or_else(|| Error::NotFound { what: what() })?;
        if link.running {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(Error::NotInForce { what: what(), read_back: format!("{link:?}") });
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Sets the MTU of one end; the other keeps its own.
///
/// # Errors
/// The error reported by the kernel.
pub fn set_mtu(ns: &NetNs, index: u32, mtu: u32) -> Result<()> {
    let mut message = about(index);
    message.attributes.push(LinkAttribute::Mtu(mtu));
    ns.rtnetlink()?.change(&format!("set the mtu of link {index} to {mtu}"), RouteNetlinkMessage::SetLink(message), 0)
}

/// Deletes an interface; for a veth, both ends.
///
/// # Errors
/// The error reported by the kernel.
pub fn delete(ns: &NetNs, index: u32) -> Result<()> {
    ns.rtnetlink()?.change(&format!("delete link {index}"), RouteNetlinkMessage::DelLink(about(index)), 0)
}

/// Moves an interface to another namespace, optionally renaming it, and returns it as it is there.
/// It arrives down and without addresses; its index changes only if it is in use there.
///
/// # Errors
/// The error reported by the kernel, for instance because the name is in use there.
pub fn move_to(ns: &NetNs, index: u32, target: &NetNs, new_name: Option<&str>) -> Result<Link> {
    let what = format!("move link {index} to {}", target.name());
    let name = match new_name {
        Some(name) => name.to_owned(),
        None => get(ns, index)?.ok_or_else(|| Error::NotFound { what: what.clone() })?.name,
    };
    let mut message = about(index);
    message.attributes.push(LinkAttribute::NetNsFd(target.as_fd().as_raw_fd()));
    message.attributes.push(LinkAttribute::IfName(name.clone()));
    ns.rtnetlink()?.change(&what, RouteNetlinkMessage::SetLink(message), 0)?;
    find(target, &name)?.ok_or(Error::NotFound { what })
}

/// A request for links without their statistics, which would be most of the answer.
fn question() -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    message
}

fn about(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

fn described(answer: RouteNetlinkMessage) -> Option<Link> {
    match answer {
        RouteNetlinkMessage::NewLink(message) => Some(Link::from_message(&message)),
        _ => None,
    }
}

fn found(answer: Result<RouteNetlinkMessage>) -> Result<Option<Link>> {
    match answer {
        Ok(answer) => Ok(described(answer)),
        Err(e) if e.errno() == Some(libc::ENODEV) => Ok(None),
        Err(e) => Err(e),
    }
}
