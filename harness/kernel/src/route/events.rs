//! Changes of links, addresses, routes and rules as the kernel announces them.

use std::io;

use netlink_packet_core::{DecodeError, NetlinkBuffer, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;

use super::{Route, Rule};
use crate::error::Result;
use crate::link::Link;
use crate::netlink::Listener;
use crate::netns::NetNs;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// New, or changed: the kernel does not say which.
    NewLink(Link),
    /// Deleted, or moved into another namespace.
    DelLink(Link),
    /// New, or in the place of another.
    NewRoute(Route),
    /// Not announced for the IPv4 routes that go with a link that is set down or deleted.
    DelRoute(Route),
    NewRule(Rule),
    DelRule(Rule),
}

/// A stream of changes in one namespace.
pub struct RouteEvents(Listener<News>);

impl RouteEvents {
    /// Subscribes. Must be called within a tokio runtime. When it returns, the subscription is in
    /// force: a change made after it is seen.
    ///
    /// # Errors
    /// When the subscription is refused.
    pub fn open(ns: &NetNs) -> Result<Self> {
        let groups = [
            libc::RTNLGRP_LINK,
            libc::RTNLGRP_IPV4_ROUTE,
            libc::RTNLGRP_IPV4_RULE,
            libc::RTNLGRP_IPV6_ROUTE,
            libc::RTNLGRP_IPV6_RULE,
        ];
        ns.listener(NETLINK_ROUTE, &groups, read).map(Self)
    }

    /// Waits for changes, and returns those that came together.
    ///
    /// # Errors
    /// `ENOBUFS` when the kernel had to drop some; `InvalidData` when one cannot be understood. After
    /// either, the stream goes on, but something is missing from it.
    pub async fn next(&mut self) -> io::Result<Vec<News>> {
        self.0.next().await
    }
}

fn read(message: NetlinkBuffer<&[u8]>) -> std::result::Result<Option<News>, DecodeError> {
    let NetlinkPayload::InnerMessage(message) = NetlinkMessage::deserialize(message.into_inner())?.payload else {
        return Ok(None);
    };
    Ok(match &message {
        RouteNetlinkMessage::NewLink(m) => Some(News::NewLink(Link::from_message(m))),
        RouteNetlinkMessage::DelLink(m) => Some(News::DelLink(Link::from_message(m))),
        RouteNetlinkMessage::NewRoute(m) => Route::from_message(m).map(News::NewRoute),
        RouteNetlinkMessage::DelRoute(m) => Route::from_message(m).map(News::DelRoute),
        RouteNetlinkMessage::NewRule(m) => Rule::from_message(m).map(News::NewRule),
        RouteNetlinkMessage::DelRule(m) => Rule::from_message(m).map(News::DelRule),
        _ => None,
    })
}
