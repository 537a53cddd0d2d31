//! Notifications of changed links, addresses, routes and rules.

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
pub enum RouteEvent {
    /// New or changed: the kernel does not distinguish the two.
    NewLink(Link),
    /// Deleted, or moved into another namespace.
    DelLink(Link),
    /// New, or replacing another.
    NewRoute(Route),
    /// Not announced for the IPv4 routes removed with a link that is set down or deleted.
    DelRoute(Route),
    NewRule(Rule),
    DelRule(Rule),
}

/// A stream of changes in one namespace.
pub struct RouteEvents(Listener<RouteEvent>);

impl RouteEvents {
    /// Subscribes. Must be called within a tokio runtime. The subscription is in force when this returns: every
    /// later change is reported.
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

    /// Waits for changes, and returns those received together.
    ///
    /// # Errors
    /// `ENOBUFS` if the kernel dropped some; `InvalidData` if a message cannot be decoded. The stream
    /// continues after either, but with a gap.
    pub async fn next(&mut self) -> io::Result<Vec<RouteEvent>> {
        self.0.next().await
    }
}

fn read(message: NetlinkBuffer<&[u8]>) -> std::result::Result<Option<RouteEvent>, DecodeError> {
    let NetlinkPayload::InnerMessage(message) = NetlinkMessage::deserialize(message.into_inner())?.payload else {
        return Ok(None);
    };
    Ok(match &message {
        RouteNetlinkMessage::NewLink(m) => Some(RouteEvent::NewLink(Link::from_message(m))),
        RouteNetlinkMessage::DelLink(m) => Some(RouteEvent::DelLink(Link::from_message(m))),
        RouteNetlinkMessage::NewRoute(m) => Route::from_message(m).map(RouteEvent::NewRoute),
        RouteNetlinkMessage::DelRoute(m) => Route::from_message(m).map(RouteEvent::DelRoute),
        RouteNetlinkMessage::NewRule(m) => Rule::from_message(m).map(RouteEvent::NewRule),
        RouteNetlinkMessage::DelRule(m) => Rule::from_message(m).map(RouteEvent::DelRule),
        _ => None,
    })
}
