//! nftables: one table per owner, sent as one batch and read back.
//!
//! A [`Table`] is written down whole (chains, rules), sent in one transaction, and then listed again
//! by the kernel: chains with their hooks, rules with their comments and expressions. What is not
//! there as asked is [`Error::NotInForce`]. A rule's comment says why it is there, and is the name by
//! which its counter is read.
//!
//! ```no_run
//! # fn main() -> relapse_kernel::Result<()> {
//! # let ns = relapse_kernel::NetNs::create("doc")?;
//! use relapse_kernel::nft::{self, Chain, Hook, Policy, Rule, Table};
//! let table = Table::new("relapse-gateway")
//!     .chain(Chain::filter("forward", Hook::Forward, -150, Policy::Accept))
//!     .rule("forward", Rule::new().tcp_flags_syn().counter().tcp_mss_clamp(1280).comment("mss clamp"));
//! table.apply(&ns)?;
//! let clamped = nft::counter(&ns, "relapse-gateway", "mss clamp")?;
//! # Ok(()) }
//! ```
//!
//! Left out: sets, maps, jumps, sets of intervals: rules are few, and each says what it is for.
//!
//! Kernel side: `net/netfilter/nf_tables_api.c`, numbers in `linux/netfilter/nf_tables.h`.

mod batch;
mod ct;
mod expression;
mod nat;
mod number;
mod rule;
mod ruleset;
mod statement;
mod tcp_option;
#[cfg(test)]
mod tests;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_netfilter::NetfilterProtoFamily;
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Hook as HookAttribute, HookNumber, NfTablesMessage, RuleAttribute, RuleMessage,
    TableAttribute, TableMessage,
};
use netlink_sys::protocols::NETLINK_NETFILTER;

pub use self::ct::CtState;
pub use self::nat::NatFlags;
pub use self::rule::{Ports, Prefix, Rule, tcp_flags};
pub use self::ruleset::{RuleInfo, Ruleset};

use self::batch::Batch;
use crate::error::{Error, Result};
use crate::netlink::Netlink;
use crate::netns::NetNs;

/// The longest comment: what the command `nft` can show.
const COMMENT_LENGTH: usize = 127;

/// The packets a table sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family(NetfilterProtoFamily);

impl Family {
    pub const IPV4: Self = Self(NetfilterProtoFamily::IPv4);
    pub const IPV6: Self = Self(NetfilterProtoFamily::IPv6);
    /// Both.
    pub const INET: Self = Self(NetfilterProtoFamily::Inet);
}

/// Where on a packet's way a chain stands (`NF_INET_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
    /// One that only tables of others have.
    Other(u32),
}

impl Hook {
    const fn number(self) -> u32 {
        match self {
            Self::Prerouting => 0,
            Self::Input => 1,
            Self::Forward => 2,
            Self::Output => 3,
            Self::Postrouting => 4,
            Self::Other(number) => number,
        }
    }

    const fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Prerouting,
            1 => Self::Input,
            2 => Self::Forward,
            3 => Self::Output,
            4 => Self::Postrouting,
            other => Self::Other(other),
        }
    }
}

/// What becomes of a packet that no rule decided on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    Accept,
    Drop,
}

/// A chain; with a [`Base`], packets pass it by themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    pub name: String,
    pub base: Option<Base>,
}

/// Where and when packets pass a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    pub kind: String,
    pub hook: Hook,
    pub priority: i32,
    pub policy: Policy,
}

impl Chain {
    /// A chain that lets through, drops, counts, marks. Priorities: -300 before connection tracking,
    /// -150 after it, 0 the usual place.
    #[must_use]
    pub fn filter(name: &str, hook: Hook, priority: i32, policy: Policy) -> Self {
        Self::based(name, "filter", hook, priority, policy)
    }

    /// A chain that sees the first packet of each flow and may translate it. -100 for destinations
    /// (prerouting, output), 100 for sources (postrouting, input). Switches connection tracking on.
    #[must_use]
    pub fn nat(name: &str, hook: Hook, priority: i32) -> Self {
        Self::based(name, "nat", hook, priority, Policy::Accept)
    }

    /// A chain at output after which a packet whose mark changed is routed anew.
    #[must_use]
    pub fn route(name: &str, priority: i32) -> Self {
        Self::based(name, "route", Hook::Output, priority, Policy::Accept)
    }

    fn based(name: &str, kind: &str, hook: Hook, priority: i32, policy: Policy) -> Self {
        Self { name: name.into(), base: Some(Base { kind: kind.into(), hook, priority, policy }) }
    }
}

/// A table, written down whole.
#[derive(Clone, Debug)]
pub struct Table {
    name: String,
    family: Family,
    chains: Vec<Chain>,
    rules: Vec<(String, Rule)>,
}

impl Table {
    /// An empty table for IPv4.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), family: Family::IPV4, chains: Vec::new(), rules: Vec::new() }
    }

    /// For other packets than IPv4.
    #[must_use]
    pub const fn family(mut self, family: Family) -> Self {
        self.family = family;
        self
    }

    /// Adds a chain.
    #[must_use]
    pub fn chain(mut self, chain: Chain) -> Self {
        self.chains.push(chain);
        self
    }

    /// Adds a rule at the end of a chain.
    #[must_use]
    pub fn rule(mut self, chain: &str, rule: Rule) -> Self {
        self.rules.push((chain.into(), rule));
        self
    }

    /// Makes the table and reads it back.
    ///
    /// # Errors
    /// When the table is there already (`EEXIST`), the kernel refuses (nothing is left behind), or
    /// what is read back differs.
    pub fn apply(&self, ns: &NetNs) -> Result<()> {
        let mut batch = Batch::new();
        batch.push(format!("make table {}", self.name), self.family.0, self.message(), NLM_F_CREATE | NLM_F_EXCL);
        self.send(ns, batch, &format!("apply nft table {}", self.name))
    }

    /// Makes the table, in one step with the removal of the one that was there; no packet sees
    /// neither, for a moment some see both. Counters begin at 0. Reads it back.
    ///
    /// The new table acts some 0.3 ms after the call. The kernel acknowledges the removal of anything
    /// only when no packet can be in it any more, 8 to 16 ms later.
    ///
    /// # Errors
    /// As [`Table::apply`]; on refusal the old table stays.
    pub fn replace(&self, ns: &NetNs) -> Result<()> {
        let mut batch = Batch::new();
        // A table must be there to be deleted, whether it was or not.
        batch.push(format!("make sure of table {}", self.name), self.family.0, self.message(), NLM_F_CREATE);
        batch.push(format!("delete table {}", self.name), self.family.0, deletion(&self.name), 0);
        batch.push(format!("make table {}", self.name), self.family.0, self.message(), NLM_F_CREATE);
        self.send(ns, batch, &format!("replace nft table {}", self.name))
    }

    fn send(&self, ns: &NetNs, mut batch: Batch, what: &str) -> Result<()> {
        for chain in &self.chains {
            let message = self.chain_message(chain);
            batch.push(format!("make chain {}", chain.name), self.family.0, message, NLM_F_CREATE);
        }
        for (chain, rule) in &self.rules {
            push_rule(&mut batch, self.family, &self.name, chain, rule, NLM_F_APPEND, what)?;
        }
        let netlink = open(ns)?;
        batch.send(&netlink, what)?;
        self.check(&ruleset::read(&netlink, &self.name)?)
            .map_err(|read_back| Error::NotInForce { what: format!("{what} in {}", ns.name()), read_back })
    }

    /// Compares with what was read back; the error says the first difference.
    fn check(&self, found: &Ruleset) -> std::result::Result<(), String> {
        for chain in &self.chains {
            if !found.chains.contains(chain) {
                return Err(format!("no chain {chain:?} among {:?}", found.chains));
            }
            let wanted: Vec<_> = self.rules.iter().filter(|(name, _)| *name == chain.name).collect();
            let there: Vec<_> = found.rules.iter().filter(|rule| rule.chain == chain.name).collect();
            if wanted.len() != there.len() {
                return Err(format!("{} rules in chain {}, not {}", there.len(), chain.name, wanted.len()));
            }
            for ((_, rule), info) in wanted.into_iter().zip(there) {
                if !ruleset::same(rule, self.family, info) {
                    return Err(format!("{info:?} in place of rule {:?}", rule.comment));
                }
            }
        }
        if found.chains.len() == self.chains.len() {
            Ok(())
        } else {
            Err(format!("{} chains, not {}", found.chains.len(), self.chains.len()))
        }
    }

    fn message(&self) -> NfTablesMessage {
        NfTablesMessage::NewTable(TableMessage { attributes: vec![TableAttribute::Name(self.name.clone())] })
    }

    fn chain_message(&self, chain: &Chain) -> NfTablesMessage {
        let mut attributes = vec![ChainAttribute::Table(self.name.clone()), ChainAttribute::Name(chain.name.clone())];
        if let Some(base) = &chain.base {
            let number = HookAttribute::Number(HookNumber::Other(base.hook.number()));
            attributes.push(ChainAttribute::Type(base.kind.clone()));
            attributes.push(ChainAttribute::Hook(vec![number, HookAttribute::Priority(base.priority.cast_unsigned())]));
            attributes.push(ChainAttribute::Policy(u32::from(base.policy == Policy::Accept)));
        }
        NfTablesMessage::NewChain(ChainMessage { attributes })
    }
}

/// Adds a rule at the end of a chain that is in force; returns its handle once it is read back.
///
/// # Errors
/// When there is no such table or chain, or the kernel refuses.
pub fn append_rule(ns: &NetNs, table: &str, chain: &str, rule: &Rule) -> Result<u64> {
    add_rule(ns, table, chain, rule, NLM_F_APPEND)
}

/// Adds a rule at the beginning of a chain that is in force; returns its handle once it is read back.
///
/// # Errors
/// As [`append_rule`].
pub fn insert_rule(ns: &NetNs, table: &str, chain: &str, rule: &Rule) -> Result<u64> {
    add_rule(ns, table, chain, rule, 0)
}

fn add_rule(ns: &NetNs, table: &str, chain: &str, rule: &Rule, flags: u16) -> Result<u64> {
    let what = format!("add a rule to nft chain {table} {chain}");
    let netlink = open(ns)?;
    let mut batch = Batch::new();
    let family = family_of(&netlink, table, &what)?;
    push_rule(&mut batch, family, table, chain, rule, flags, &what)?;
    batch.send(&netlink, &what)?;
    let found = ruleset::read(&netlink, table)?;
    let mut rules = found.rules.iter().filter(|r| r.chain == chain);
    let info = if flags & NLM_F_APPEND == 0 { rules.next() } else { rules.next_back() };
    match info {
        Some(info) if ruleset::same(rule, family, info) => Ok(info.handle),
        other => Err(Error::NotInForce { what, read_back: format!("{other:?}") }),
    }
}

/// Takes one rule away.
///
/// # Errors
/// When it is not there.
pub fn delete_rule(ns: &NetNs, table: &str, chain: &str, handle: u64) -> Result<()> {
    let what = format!("delete rule {handle} of nft chain {table} {chain}");
    let netlink = open(ns)?;
    let family = family_of(&netlink, table, &what)?;
    let attributes = vec![
        RuleAttribute::Table(table.to_owned()),
        RuleAttribute::Chain(chain.to_owned()),
        RuleAttribute::Handle(handle),
    ];
    let mut batch = Batch::new();
    batch.push("delete it".into(), family.0, NfTablesMessage::DeleteRule(RuleMessage { attributes }), 0);
    batch.send(&netlink, &what)
}

/// Takes a table away with all that is in it.
///
/// # Errors
/// When it is not there.
pub fn delete_table(ns: &NetNs, table: &str) -> Result<()> {
    let what = format!("delete nft table {table}");
    let netlink = open(ns)?;
    let family = family_of(&netlink, table, &what)?;
    let mut batch = Batch::new();
    batch.push("delete it".into(), family.0, deletion(table), 0);
    batch.send(&netlink, &what)
}

/// The names of all tables.
///
/// # Errors
/// When the kernel refuses to list them.
pub fn list_tables(ns: &NetNs) -> Result<Vec<String>> {
    Ok(ruleset::tables(&open(ns)?)?.into_iter().map(|(_, name)| name).collect())
}

/// The chains and rules of a table.
///
/// # Errors
/// When it is not there.
pub fn read(ns: &NetNs, table: &str) -> Result<Ruleset> {
    ruleset::read(&open(ns)?, table)
}

/// How many packets the rules with this comment have counted.
///
/// # Errors
/// When no rule has it.
pub fn counter(ns: &NetNs, table: &str, comment: &str) -> Result<u64> {
    let found = ruleset::rules(&open(ns)?, table)?;
    let mut rules = found.iter().filter(|rule| rule.comment.as_deref() == Some(comment)).peekable();
    if rules.peek().is_none() {
        return Err(Error::NotFound { what: format!("read the counter of nft rule {comment:?} in {table}") });
    }
    Ok(rules.map(|rule| rule.packets).sum())
}

fn open(ns: &NetNs) -> Result<Netlink> {
    ns.netlink(NETLINK_NETFILTER)
}

fn family_of(netlink: &Netlink, table: &str, what: &str) -> Result<Family> {
    let tables = ruleset::tables(netlink)?;
    let found = tables.into_iter().find(|(_, name)| name == table);
    found.map(|(family, _)| family).ok_or_else(|| Error::NotFound { what: format!("{what}: table") })
}

fn deletion(table: &str) -> NfTablesMessage {
    NfTablesMessage::DeleteTable(TableMessage { attributes: vec![TableAttribute::Name(table.to_owned())] })
}

fn push_rule(
    batch: &mut Batch,
    family: Family,
    table: &str,
    chain: &str,
    rule: &Rule,
    flags: u16,
    what: &str,
) -> Result<()> {
    let comment = rule.comment.as_deref().unwrap_or_default();
    let wrong = |why: String| {
        Error::kernel(format!("{what}: rule {comment:?}"), std::io::Error::new(std::io::ErrorKind::InvalidInput, why))
    };
    if comment.len() > COMMENT_LENGTH {
        return Err(wrong(format!("its comment is longer than {COMMENT_LENGTH} bytes")));
    }
    let expressions = rule
        .expressions(family.0.into())
        .ok_or_else(|| wrong("it is for packets of an IP version that the table does not see".into()))?;
    let mut attributes = vec![
        RuleAttribute::Table(table.to_owned()),
        RuleAttribute::Chain(chain.to_owned()),
        RuleAttribute::Expressions(expressions.into_iter().map(Into::into).collect()),
    ];
    if rule.comment.is_some() {
        attributes.push(RuleAttribute::UserData(ruleset::comment_data(comment)));
    }
    let message = NfTablesMessage::NewRule(RuleMessage { attributes });
    batch.push(format!("rule {comment:?} of chain {chain}"), family.0, message, NLM_F_CREATE | flags);
    Ok(())
}
