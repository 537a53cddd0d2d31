//! Routes and rules as they were: the kernel's whole message, to be put back exactly.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{RouteAttribute, RouteFlags, RouteMessage, RouteNextHopFlags};
use netlink_packet_route::rule::RuleMessage;

use super::rule::STATE_FLAGS;
use super::{Route, Rule, messages, rule};
use crate::error::{Error, Result};
use crate::netns::NetNs;

/// What the kernel reports about a route but does not take back: the state of its links, of
/// hardware, of the request.
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
        // Ages and use counts: they would make a route differ from itself.
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

    /// What it says, as far as a [`Route`] can.
    pub fn route(&self) -> Route {
        Route::from_message(&self.0).expect("only routes of the two families are saved")
    }

    /// Puts it back and reads it back. That it is there already, exactly so, is success.
    ///
    /// # Errors
    /// `EEXIST` when another route to the destination with the same metric stands in its place; what
    /// else the kernel said: `ENETUNREACH` when the route to its gateway is not back yet.
    pub fn restore(&self, ns: &NetNs) -> Result<()> {
        restore_routes(ns, std::slice::from_ref(self))
    }

    /// Deletes exactly this route.
    ///
    /// # Errors
    /// `ESRCH` when it is not there; what else the kernel said.
    pub fn delete(&self, ns: &NetNs) -> Result<()> {
        ns.rtnetlink()?.change(&self.route().what("delete"), RouteNetlinkMessage::DelRoute(self.0.clone()), 0)
    }

    /// Whether it is there now, exactly so.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn is_in_force(&self, ns: &NetNs) -> Result<bool> {
        Ok(save_routes(ns, None)?.contains(self))
    }

    /// Routes that need no other come first: a gateway must be reachable when a route names it.
    fn rank(&self) -> u8 {
        let depends = |a: &RouteAttribute| {
            matches!(a, RouteAttribute::Gateway(_) | RouteAttribute::Via(_) | RouteAttribute::MultiPath(_))
        };
        u8::from(self.0.attributes.iter().any(depends))
    }
}

/// The routes of one table, or of all, as they are now.
///
/// # Errors
/// When the kernel cannot be asked.
pub fn save_routes(ns: &NetNs, table: Option<u32>) -> Result<Vec<SavedRoute>> {
    let mut saved: Vec<SavedRoute> = messages(ns)?.into_iter().map(SavedRoute::new).collect();
    saved.retain(|s| table.is_none_or(|t| s.route().table == t));
    Ok(saved)
}

/// Restores several, those to gateways after those they depend on, and reads them back. Tries all
/// of them, and returns the first error.
///
/// # Errors
/// See [`SavedRoute::restore`].
pub fn restore_routes(ns: &NetNs, saved: &[SavedRoute]) -> Result<()> {
    // Asked before anything is added: the kernel's own IPv6 routes with metric 0 would not be refused
    // but added once more, with metric 1024.
    let there = save_routes(ns, None)?;
    let mut missing: Vec<&SavedRoute> = saved.iter().filter(|s| !there.contains(s)).collect();
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
    let there = save_routes(ns, None)?;
    missing.into_iter().find(|s| !there.contains(s)).map_or(Ok(()), |absent| {
        Err(Error::NotInForce { what: absent.route().what("restore"), read_back: "a table without it".into() })
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

    /// What it says, as far as a [`Rule`] can.
    pub fn rule(&self) -> Rule {
        Rule::from_message(&self.0).expect("only rules of the two families are saved")
    }

    /// Puts it back and reads it back. That it is there already, exactly so, is success.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn restore(&self, ns: &NetNs) -> Result<()> {
        if self.is_in_force(ns)? {
            return Ok(());
        }
        let what = self.rule().what("restore");
        ns.rtnetlink()?.change(&what, RouteNetlinkMessage::NewRule(self.0.clone()), NLM_F_CREATE | NLM_F_EXCL)?;
        if self.is_in_force(ns)? {
            Ok(())
        } else {
            Err(Error::NotInForce { what, read_back: "a list without it".into() })
        }
    }

    /// Deletes this rule.
    ///
    /// # Errors
    /// `ENOENT` when it is not there; what else the kernel said.
    pub fn delete(&self, ns: &NetNs) -> Result<()> {
        let what = self.rule().what("delete");
        if !self.is_in_force(ns)? {
            // The kernel compares only what a request says, and would take a more special rule for it.
            return Err(Error::kernel(what, std::io::Error::from_raw_os_error(libc::ENOENT)));
        }
        ns.rtnetlink()?.change(&what, RouteNetlinkMessage::DelRule(self.0.clone()), 0)
    }

    /// Whether it is there now, exactly so.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn is_in_force(&self, ns: &NetNs) -> Result<bool> {
        Ok(save_rules(ns)?.contains(self))
    }
}

/// The rules of both families as they are now.
///
/// # Errors
/// When the kernel cannot be asked.
pub fn save_rules(ns: &NetNs) -> Result<Vec<SavedRule>> {
    Ok(rule::messages(ns)?.into_iter().map(SavedRule::new).collect())
}
