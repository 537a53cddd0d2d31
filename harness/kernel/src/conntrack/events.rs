//! News of flows: made, changed, gone.
//!
//! With `nf_conntrack_events=2`, the default, only flows that begin while somebody listens tell of
//! themselves; set 1 before the first flow. News that the listener does not fetch in time is
//! dropped by the kernel, and [`Events::next`] says so with `ENOBUFS`.

use std::io;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NetlinkBuffer};
use netlink_sys::protocols::NETLINK_NETFILTER;

use super::decode;
use super::entry::Entry;
use super::numbers::*;
use crate::clock;
use crate::error::Result;
use crate::netlink::Listener;
use crate::netns::NetNs;

/// `NFNLGRP_CONNTRACK_NEW`, `_UPDATE`, `_DESTROY`.
const GROUPS: [u32; 3] = [1, 2, 3];

/// What became of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    New,
    Update,
    Destroy,
}

/// One piece of news.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub change: Change,
    pub entry: Entry,
    /// When it happened, on the monotonic clock ([`clock::now`]), in nanoseconds; told where
    /// `nf_conntrack_timestamp` is 1.
    pub timestamp: Option<u64>,
}

/// A subscription to the news of one namespace.
pub struct Events {
    listener: Listener,
}

impl Events {
    /// Subscribes; in force when it returns. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or the kernel refuses.
    pub fn open(ns: &NetNs) -> Result<Self> {
        Ok(Self { listener: ns.listener(NETLINK_NETFILTER, &GROUPS)? })
    }

    /// Waits for the next news.
    ///
    /// # Errors
    /// `ENOBUFS` when news was lost: what follows is incomplete, and the caller says so. Listening
    /// goes on with the next call.
    pub async fn next(&mut self) -> io::Result<Vec<Event>> {
        parse(self.listener.next().await?)
    }
}

fn parse(datagram: &[u8]) -> io::Result<Vec<Event>> {
    let mut events = Vec::new();
    let mut rest = datagram;
    while !rest.is_empty() {
        let message =
            NetlinkBuffer::new_checked(rest).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
        let length = (message.length() as usize).next_multiple_of(4).clamp(16, rest.len());
        rest = &rest[length..];
        let gone = match message.message_type() {
            IPCTNL_MSG_CT_NEW => false,
            IPCTNL_MSG_CT_DELETE => true,
            _ => continue,
        };
        let made = message.flags() & (NLM_F_CREATE | NLM_F_EXCL) != 0;
        let change = match (gone, made) {
            (true, _) => Change::Destroy,
            (false, true) => Change::New,
            (false, false) => Change::Update,
        };
        let timestamp = timestamp(message.payload(), gone).map(clock::from_realtime);
        events.push(Event { change, entry: decode::entry(message.payload()), timestamp });
    }
    Ok(events)
}

/// The stamp of the event where the kernel gives one (6.14 and later), else that of the flow's end
/// or beginning.
fn timestamp(payload: &[u8], gone: bool) -> Option<u64> {
    let mut stamp = None;
    for (kind, value) in decode::of_message(payload) {
        let found = match kind {
            CTA_TIMESTAMP_EVENT => return Some(u64::from_be_bytes(decode::number(value))),
            CTA_TIMESTAMP if gone => decode::find(value, CTA_TIMESTAMP_STOP),
            CTA_TIMESTAMP => decode::find(value, CTA_TIMESTAMP_START),
            _ => None,
        };
        stamp = stamp.or(found.map(|value| u64::from_be_bytes(decode::number(value))));
    }
    stamp
}
