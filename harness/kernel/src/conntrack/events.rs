//! News of flows: made, changed, gone.
//!
//! With `nf_conntrack_events=2`, the default, only flows that begin while somebody listens tell of
//! themselves; set 1 before the first flow. News that the listener does not fetch in time is
//! dropped by the kernel, and [`Events::next`] says so with `ENOBUFS`.

use std::io;

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL, NetlinkMessage, NetlinkPayload, Nla, NlasIterator};
use netlink_packet_netfilter::NetfilterMessage;
use netlink_packet_netfilter::conntrack::ConntrackAttribute;
use netlink_sys::protocols::NETLINK_NETFILTER;

use super::entry::{self, Entry};
use super::told;
use crate::clock;
use crate::error::Result;
use crate::netlink::Listener;
use crate::netns::NetNs;

/// `NFNLGRP_CONNTRACK_NEW`, `_UPDATE`, `_DESTROY`.
const GROUPS: [u32; 3] = [1, 2, 3];
const CTA_TIMESTAMP: u16 = 20;
const CTA_TIMESTAMP_EVENT: u16 = 27;
const CTA_TIMESTAMP_START: u16 = 1;
const CTA_TIMESTAMP_STOP: u16 = 2;

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
        Ok(Self { listener: Listener::open(ns, NETLINK_NETFILTER, &GROUPS)? })
    }

    /// Waits for the next news.
    ///
    /// # Errors
    /// `ENOBUFS` when news was lost: what follows is incomplete, and the caller says so. Listening
    /// goes on with the next call.
    pub async fn next(&self) -> io::Result<Vec<Event>> {
        parse(&self.listener.next().await?)
    }
}

fn parse(datagram: &[u8]) -> io::Result<Vec<Event>> {
    let mut events = Vec::new();
    let mut rest = datagram;
    while !rest.is_empty() {
        let message = NetlinkMessage::<NetfilterMessage>::deserialize(rest)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
        let length = (message.header.length as usize).next_multiple_of(4).clamp(16, rest.len());
        rest = &rest[length..];
        let NetlinkPayload::InnerMessage(inner) = message.payload else { continue };
        let Some((attributes, gone)) = told(inner.inner) else { continue };
        let made = message.header.flags & (NLM_F_CREATE | NLM_F_EXCL) != 0;
        let change = match (gone, made) {
            (true, _) => Change::Destroy,
            (false, true) => Change::New,
            (false, false) => Change::Update,
        };
        let timestamp = timestamp(&attributes, gone).map(clock::from_realtime);
        events.push(Event { change, entry: entry::parse(&attributes), timestamp });
    }
    Ok(events)
}

/// The stamp of the event where the kernel gives one (6.14 and later), else that of the flow's end
/// or beginning.
fn timestamp(attributes: &[ConntrackAttribute], gone: bool) -> Option<u64> {
    let other = |kind| {
        attributes.iter().find_map(|attribute| match attribute {
            ConntrackAttribute::Other(other) if other.kind() & 0x3fff == kind => Some(other),
            _ => None,
        })
    };
    other(CTA_TIMESTAMP_EVENT).map(|stamp| u64::from_be_bytes(entry::bytes(stamp))).or_else(|| {
        let span = other(CTA_TIMESTAMP)?;
        let wanted = if gone { CTA_TIMESTAMP_STOP } else { CTA_TIMESTAMP_START };
        within(span, wanted)
    })
}

fn within(nest: &DefaultNla, wanted: u16) -> Option<u64> {
    let mut value = vec![0; nest.value_len()];
    nest.emit_value(&mut value);
    let stamp = NlasIterator::new(&value).flatten().find(|attribute| attribute.kind() == wanted)?;
    stamp.value().try_into().map(u64::from_be_bytes).ok()
}
