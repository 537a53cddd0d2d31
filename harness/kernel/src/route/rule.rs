//! Policy rules, which select the table used for a packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::MAIN;
use crate::error::Result;
use crate::link::address::family;
use crate::netns::NetNs;

/// A policy rule. Rules with other selectors (ports, users, an inverted match) are read, but only
/// [`SavedRule`](super::SavedRule) keeps them completely.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Rule {
    /// Lower values are evaluated first.
    pub priority: u32,
    /// `0.0.0.0/0` or `::/0` for any source: the family is always known.
    pub from: (IpAddr, u8),
    pub to: Option<(IpAddr, u8)>,
    /// The incoming interface; `lo` for locally generated packets.
    pub iif: Option<String>,
    /// Mark and mask.
    pub mark: Option<(u32, u32)>,
    pub action: Action,
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Table(u32),
    Other(RuleAction),
}

impl Rule {
    /// A rule for every packet of a family, to the main table unless [`table`](Self::table) selects another.
    pub const fn ipv4(priority: u32) -> Self {
        Self::any(priority, IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    }

    pub const fn ipv6(priority: u32) -> Self {
        Self::any(priority, IpAddr::V6(Ipv6Addr::UNSPECIFIED))
    }

    const fn any(priority: u32, from: IpAddr) -> Self {
        Self { priority, from: (from, 0), to: None, iif: None, mark: None, action: Action::Table(MAIN) }
    }

    pub const fn from(mut self, address: IpAddr, prefix_len: u8) -> Self {
        self.from = (address, prefix_len);
        self
    }

    pub const fn to(mut self, address: IpAddr, prefix_len: u8) -> Self {
        self.to = Some((address, prefix_len));
        self
    }

    /// Packets whose mark has these bits.
    pub const fn marked(mut self, bits: u32) -> Self {
        self.mark = Some((bits, bits));
        self
    }

    pub const fn table(mut self, table: u32) -> Self {
        self.action = Action::Table(table);
        self
    }

    pub(crate) fn from_message(message: &RuleMessage) -> Option<Self> {
        let header = &message.header;
        let mut rule = match header.family {
            AddressFamily::Inet => Self::ipv4(0),
            AddressFamily::Inet6 => Self::ipv6(0),
            _ => return None,
        };
        let mut table = u32::from(header.table);
        let (mut mark, mut mask) = (None, u32::MAX);
        for attribute in &message.attributes {
            match attribute {
                RuleAttribute::Priority(priority) => rule.priority = *priority,
                RuleAttribute::Source(ip) => rule.from = (*ip, header.src_len),
                RuleAttribute::Destination(ip) => rule.to = Some((*ip, header.dst_len)),
                RuleAttribute::Iifname(name) => rule.iif = Some(name.clone()),
                RuleAttribute::FwMark(value) => mark = Some(*value),
                RuleAttribute::FwMask(value) => mask = *value,
                RuleAttribute::Table(number) => table = *number,
                _ => {}
            }
        }
        rule.mark = mark.map(|value| (value, mask));
        rule.action = match header.action {
            RuleAction::ToTable => Action::Table(table),
            other => Action::Other(other),
        };
        Some(rule)
    }

    pub(crate) fn message(&self) -> RuleMessage {
        let mut message = RuleMessage::default();
        message.header.family = family(self.from.0);
        message.attributes.push(RuleAttribute::Priority(self.priority));
        // The kernel's default is "unspecified", a rule that does nothing, so the action is always set.
        message.header.action = match self.action {
            Action::Table(table) => {
                message.attributes.push(RuleAttribute::Table(table));
                RuleAction::ToTable
            }
            Action::Other(other) => other,
        };
        if self.from.1 > 0 {
            message.header.src_len = self.from.1;
            message.attributes.push(RuleAttribute::Source(self.from.0));
        }
        if let Some((address, prefix_len)) = self.to {
            message.header.dst_len = prefix_len;
            message.attributes.push(RuleAttribute::Destination(address));
        }
        message.attributes.extend(self.iif.clone().map(RuleAttribute::Iifname));
        if let Some((mark, mask)) = self.mark {
            message.attributes.push(RuleAttribute::FwMark(mark));
            message.attributes.push(RuleAttribute::FwMask(mask));
        }
        message
    }

    pub(crate) fn what(&self, verb: &str) -> String {
        format!("{verb} rule {} from {}/{}", self.priority, self.from.0, self.from.1)
    }
}

/// Deletes the first rule that matches every field of `rule`.
///
/// # Errors
/// `ENOENT` if no rule matches; any other error reported by the kernel.
pub fn delete_rule(ns: &NetNs, rule: &Rule) -> Result<()> {
    ns.rtnetlink()?.change(&rule.what("delete"), RouteNetlinkMessage::DelRule(rule.message()), 0)
}

/// The rules of both families, sorted.
///
/// # Errors
/// When the request to the kernel fails.
pub fn rules(ns: &NetNs) -> Result<Vec<Rule>> {
    let mut rules: Vec<Rule> = messages(ns)?.iter().filter_map(Rule::from_message).collect();
    rules.sort_by_cached_key(|rule| (rule.priority, format!("{rule:?}")));
    Ok(rules)
}

pub(super) fn messages(ns: &NetNs) -> Result<Vec<RuleMessage>> {
    let request = RouteNetlinkMessage::GetRule(RuleMessage::default());
    ns.rtnetlink()?.dump("list rules", request, |answer| match answer {
        RouteNetlinkMessage::NewRule(message) => {
            Some(message).filter(|m| matches!(m.header.family, AddressFamily::Inet | AddressFamily::Inet6))
        }
        _ => None,
    })
}

/// Flags the kernel reports about a rule but does not accept: whether its interfaces exist now.
pub(super) const STATE_FLAGS: RuleFlags =
    RuleFlags::IifDetached.union(RuleFlags::OifDetached).union(RuleFlags::Unresolved);
