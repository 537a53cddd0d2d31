//! Notifications of new, updated and destroyed flows.
//!
//! With `nf_conntrack_events=2`, the default, only flows that begin while a listener is subscribed send
//! notifications; set 1 before the first flow. The kernel drops notifications the listener does not receive
//! in time, and [`ConntrackEvents::next`] then returns `ENOBUFS`.

use std::io;

use netlink_packet_core::{DecodeError, NLM_F_CREATE, NLM_F_EXCL, NetlinkBuffer};
use netlink_sys::protocols::NETLINK_NETFILTER;

use super::decode;
use super::entry::Entry;
use super::numbers::*;
use crate::error::Result;
use crate::netlink::Listener;
use crate::netns::NetNs;

/// `NFNLGRP_CONNTRACK_NEW`, `_UPDATE`, `_DESTROY`.
const GROUPS: [u32; 3] = [1, 2, 3];

/// The kind of a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    New,
    Update,
    Destroy,
}

/// One notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub change: Change,
    pub entry: Entry,
}

/// A subscription to the flow notifications of one namespace.
pub struct ConntrackEvents(Listener<Event>);

impl ConntrackEvents {
    /// Subscribes; the subscription is in force when this returns. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or the kernel refuses.
    pub fn open(ns: &NetNs) -> Result<Self> {
        ns.listener(NETLINK_NETFILTER, &GROUPS, read).map(Self)
    }

    /// Waits for the next notifications.
    ///
    /// # Errors
    /// `ENOBUFS` if notifications were lost: what follows is incomplete, and the caller must report it. The
    /// stream continues with the next call.
    pub async fn next(&mut self) -> io::Result<Vec<Event>> {
        self.0.next().await
    }
}

fn read(message: NetlinkBuffer<&[u8]>) -> std::result::Result<Option<Event>, DecodeError> {
    let change = match message.message_type() {
        IPCTNL_MSG_CT_DELETE => Change::Destroy,
        IPCTNL_MSG_CT_NEW if message.flags() & (NLM_F_CREATE | NLM_F_EXCL) != 0 => Change::New,
        IPCTNL_MSG_CT_NEW => Change::Update,
        _ => return Ok(None),
    };
    Ok(Some(Event { change, entry: decode::entry(message.payload()) }))
}
