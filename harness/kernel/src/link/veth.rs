//! Veth pairs: two ends, each made directly in its namespace.

use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};

use super::{delete, set_up, wait_running};
use crate::error::{Error, Result};
use crate::netns::NetNs;

/// One end of a pair as it is to be. All of it is given, nothing left to the kernel's dice: names
/// and MAC addresses are the same in every run.
#[derive(Debug, Clone, Copy)]
pub struct VethEnd<'a> {
    pub ns: &'a NetNs,
    pub name: &'a str,
    /// Must differ from the other end's: for equal ones the kernel takes the link for one without a
    /// lower link, and may wait a second before it says that it is running.
    pub index: u32,
    pub mac: [u8; 6],
    pub mtu: u32,
}

/// Makes a pair, sets both ends up and sees both running: from then on no packet is dropped for
/// want of carrier. Leaves nothing behind if it fails.
///
/// # Errors
/// Equal indexes; a name or an index that is taken; what else the kernel said.
pub fn add_veth(a: &VethEnd<'_>, b: &VethEnd<'_>) -> Result<()> {
    let what = format!("add veth {} in {} with peer {} in {}", a.name, a.ns.name(), b.name, b.ns.name());
    if a.index == b.index {
        return Err(Error::Refused { what, why: format!("both ends have index {}", a.index) });
    }
    let mut peer = end(b);
    peer.attributes.push(LinkAttribute::NetNsFd(b.ns.as_fd().as_raw_fd()));
    let mut message = end(a);
    // The near end can be born up; the far one cannot, it has no peer yet when it is registered.
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    a.ns.rtnetlink()?.change(&what, RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)?;
    set_up(b.ns, b.index, true)
        .and_then(|()| wait_running(b.ns, b.index))
        .and_then(|()| wait_running(a.ns, a.index))
        .inspect_err(|_| {
            // The first error is the one worth telling.
            let _ = delete(a.ns, a.index);
        })
}

fn end(end: &VethEnd<'_>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = end.index;
    message.attributes = vec![
        LinkAttribute::IfName(end.name.to_owned()),
        LinkAttribute::Address(end.mac.to_vec()),
        LinkAttribute::Mtu(end.mtu),
    ];
    message
}
