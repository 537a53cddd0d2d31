//! Changes of links, addresses, routes and rules as the kernel announces them.

use std::io;

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;

use super::{Route, Rule};
use crate::error::Result;
use crate::link::{Address, Link};
use crate::netlink::Listener;
use crate::netns::NetNs;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// New, or changed: the kernel does not say which.
    NewLink(Link),
    /// Deleted, or moved into another namespace.
    DelLink(Link),
    NewAddress(Address),
    DelAddress(Address),
    /// New, or in the place of another.
    NewRoute(Route),
    /// Not announced for the IPv4 routes that go with a link that is set down or deleted.
    DelRoute(Route),
    NewRule(Rule),
    DelRule(Rule),
}

/// A stream of changes in one namespace.
pub struct Events {
    listener: Listener,
}

impl Events {
    /// Subscribes. Must be called within a tokio runtime. When it returns, the subscription is in
    /// force: a change made after it is seen.
    ///
    /// # Errors
    /// When the subscription is refused.
    pub fn open(ns: &NetNs) -> Result<Self> {
        let groups = [
            libc::RTNLGRP_LINK,
            libc::RTNLGRP_IPV4_IFADDR,
            libc::RTNLGRP_IPV4_ROUTE,
            libc::RTNLGRP_IPV4_RULE,
            libc::RTNLGRP_IPV6_IFADDR,
            libc::RTNLGRP_IPV6_ROUTE,
            libc::RTNLGRP_IPV6_RULE,
        ];
        Ok(Self { listener: ns.listener(NETLINK_ROUTE, &groups)? })
    }

    /// Waits for changes, and returns those that came together.
    ///
    /// # Errors
    /// `ENOBUFS` when the kernel had to drop some; `InvalidData` when one cannot be understood. After
    /// either, the stream goes on, but something is missing from it.
    pub async fn next(&mut self) -> io::Result<Vec<News>> {
        loop {
            let news = parse(self.listener.next().await?)?;
            if !news.is_empty() {
                return Ok(news);
            }
        }
    }
}

/// The changes in one datagram.
fn parse(datagram: &[u8]) -> io::Result<Vec<News>> {
    let mut news = Vec::new();
    let mut rest = datagram;
    while !rest.is_empty() {
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
        rest = &rest[(message.header.length as usize).next_multiple_of(4).min(rest.len())..];
        if let NetlinkPayload::InnerMessage(inner) = &message.payload {
            news.extend(translate(inner));
        }
    }
    Ok(news)
}

fn translate(message: &RouteNetlinkMessage) -> Option<News> {
    Some(match message {
        RouteNetlinkMessage::NewLink(m) => News::NewLink(Link::from_message(m)),
        RouteNetlinkMessage::DelLink(m) => News::DelLink(Link::from_message(m)),
        RouteNetlinkMessage::NewAddress(m) => News::NewAddress(Address::from_message(m)?),
        RouteNetlinkMessage::DelAddress(m) => News::DelAddress(Address::from_message(m)?),
        RouteNetlinkMessage::NewRoute(m) => News::NewRoute(Route::from_message(m)?),
        RouteNetlinkMessage::DelRoute(m) => News::DelRoute(Route::from_message(m)?),
        RouteNetlinkMessage::NewRule(m) => News::NewRule(Rule::from_message(m)?),
        RouteNetlinkMessage::DelRule(m) => News::DelRule(Rule::from_message(m)?),
        _ => return None,
    })
}
