//! Saved routes and rules: the kernel's whole message, for exact restoration.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{RouteAttribute, RouteFlags, RouteMessage, RouteNextHopFlags};
use netlink_packet_route::rule::RuleMessage;

use super::rule::STATE_FLAGS;
use super::{Route, Rule, messages, rule};
use crate::error::{Error, Result};
use crate::netns::NetNs;

/// Flags the kernel reports about a route but does not accept: the state of its links, of hardware, of the
/// request.
const LINK_STATE: RouteFlags = RouteFlags::Dead
    .union(RouteFlags::Linkdown)
    .union(RouteFlags::Unresolved)
    .union(RouteFlags::Offload)
    .union(RouteFlags::Trap)
    .union(RouteFlags::RtOffload)
    .union(RouteFlags::RtTrap)
    .union(RouteFlags::OffloadFailed)
    .union(RouteFlags::Notify);

/// A route with all its attributes, known to this crate or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedRoute(RouteMessage);

impl SavedRoute {
    fn new(mut message: RouteMessage) -> Self {
        message.header.flags -= LINK_STATE;
        // Ages and use counts would make a route differ from itself.
        message.attributes.retain(|a| !matches!(a, RouteAttribute::CacheInfo(_)));
        for attribute in &mut message.attributes {
            if let RouteAttribute::MultiPath(hops) = attribute {
                for hop in hops {
                    hop.flags &= RouteNextHopFlags::Onlink | RouteNextHopFlags::Pervasive;
                }
            }
        }
        Self(message)
    }

    /// The part of the message that a [`Route`] can represent.
    pub fn route(&self) -> Route {
        Route::from_message(&self.0).expect("only routes of the two families are saved")
    }

    /// Restores the route and reads it back. An identical route that exists already is a success.
    ///
    /// # Errors
    /// `EEXIST` if another route with the same destination and metric exists; any other error reported by the
    /// kernel, such as `ENETUNREACH` if the route to its gateway is not restored yet.
    pub fn restore(&self, ns: &NetNs) -> Result<()> {
        restore_routes(ns, std::slice::from_ref(self))
    }

    /// Deletes exactly this route.
    ///
    /// # Errors
    /// `ESRCH` if it does not exist; any other error reported by the kernel.
    pub fn delete(&self, ns: &NetNs) -> Result<()> {
        ns.rtnetlink()?.change(&self.route().what("delete"), RouteNetlinkMessage::DelRoute(self.0.clone()), 0)
    }

    /// Whether an identical route exists now.
    ///
    /// # Errors
    /// When the request to the kernel fails.
    pub fn is_in_force(&self, ns: &NetNs) -> Result<bool> {
        Ok(save_routes(ns, None)?.contains(self))
    }

    /// Routes without a gateway come first: a gateway must be reachable when a route to it is added.
    fn rank(&self) -> u8 {
        let depends = |a: &RouteAttribute| {
            matches!(a, RouteAttribute::Gateway(_) | RouteAttribute::Via(_) | RouteAttribute::MultiPath(_))
        };
        u8::from(self.0.attributes.iter().any(depends))
    }
}

/// The current routes of one table or of all tables.
///
/// # Errors
/// When the request to the kernel fails.
pub fn save_routes(ns: &NetNs, table: Option<u32>) -> Result<Vec<SavedRoute>> {
    let mut saved: Vec<SavedRoute> = messages(ns)?.into_iter().map(SavedRoute::new).collect();
    saved.retain(|s| table.is_none_or(|t| s.route().table == t));
    Ok(saved)
}

/// Restores several routes, those via gateways last, and reads them back. Tries all of them, and returns the first
/// error.
///
/// # Errors
/// See [`SavedRoute::restore`].
pub fn restore_routes(ns: &NetNs, saved: &[SavedRoute]) -> Result<()> {
    // Check before adding: the kernel's own IPv6 routes with metric 0 would not be refused but added a second
    // time, with metric 1024.
    let existing = save_routes(ns, None)?;
    let mut missing: Vec<&SavedRoute> = saved.iter().filter(|s| !existing.contains(s)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    missing.sort_by_key(|s| s.rank());
    let rtnl = ns.rtnetlink()?;
    let restore = |s: &&SavedRoute| {
        let message = RouteNetlinkMessage::NewRoute(s.0.clone());
        rtnl.change(&s.route().what("restore"), message, NLM_F_CREATE | NLM_F_EXCL)
    };
    missing.iter().map(restore).fold(Ok(()), Result::and)?;
    let existing = save_routes(ns, None)?;
    missing.into_iter().find(|s| !existing.contains(s)).map_or(Ok(()), |absent| {
        Err(Error::NotInForce { what: absent.route().what("restore"), read_back: "no such route".into() })
    })
}

/// A rule with all its attributes, known to this crate or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedRule(RuleMessage);

impl SavedRule {
    fn new(mut message: RuleMessage) -> Self {
        message.header.flags -= STATE_FLAGS;
        Self(message)
    }

    /// The part of the message that a [`Rule`] can represent.
    pub fn rule(&self) -> Rule {
        Rule::from_message(&self.0).expect("only rules of the two families are saved")
    }

    /// Restores the rule and reads it back. An identical rule that exists already is a success.
    ///
    /// # Errors
    /// The error reported by the kernel.
    pub fn restore(&self, ns: &NetNs) -> Result<()> {
        if self.is_in_force(ns)? {
            return Ok(());
        }
        let what = self.rule().what("restore");
        ns.rtnetlink()?.change(&what, RouteNetlinkMessage::NewRule(self.0.clone()), NLM_F_CREATE | NLM_F_EXCL)?;
        if self.is_in_force(ns)? { Ok(()) } else { Err(Error::NotInForce { what, read_back: "no such rule".into() }) }
    }

    /// Deletes this rule.
    ///
    /// # Errors
    /// `ENOENT` if it does not exist; any other error reported by the kernel.
    pub fn delete(&self, ns: &NetNs) -> Result<()> {
        let what = self.rule().what("delete");
        if !self.is_in_force(ns)? {
            // The kernel compares only the attributes in the request, and would delete a more specific rule instead.
            return Err(Error::kernel(what, std::io::Error::from_raw_os_error(libc::ENOENT)));
        }
        ns.rtnetlink()?.change(&what, RouteNetlinkMessage::DelRule(self.0.clone()), 0)
    }

    /// Whether an identical rule exists now.
    ///
    /// # Errors
    /// When the request to the kernel fails.
    pub fn is_in_force(&self, ns: &NetNs) -> Result<bool> {
        Ok(save_rules(ns)?.contains(self))
    }
}

/// The current rules of both families.
///
/// # Errors
/// When the request to the kernel fails.
pub fn save_rules(ns: &NetNs) -> Result<Vec<SavedRule>> {
    Ok(rule::messages(ns)?.into_iter().map(SavedRule::new).collect())
}
