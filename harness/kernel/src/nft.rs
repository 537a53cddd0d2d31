//! nftables: one table per owner, sent as one batch and read back.
//!
//! A [`Table`] is declared as a whole (chains, rules), sent in one transaction, and then listed again
//! by the kernel: chains with their hooks, rules with their comments and expressions. A difference
//! is [`Error::NotInForce`]. A rule's comment states its purpose and identifies its counter.
//!
//! ```no_run
//! # fn main() -> relapse_kernel::Result<()> {
//! # let ns = relapse_kernel::NetNs::create("doc")?;
//! use relapse_kernel::nft::{self, Chain, Hook, Policy, Rule, Table};
//! let table = Table::new("relapse-gateway")
//!     .chain(Chain::filter("forward", Hook::Forward, -150, Policy::Accept))
//!     .rule("forward", Rule::new().tcp_flags(2, 2).counter().tcp_mss_clamp(1280).comment("mss clamp"));
//! table.apply(&ns)?;
//! let clamped = nft::counter(&ns, "relapse-gateway", "mss clamp")?;
//! # Ok(()) }
//! ```
//!
//! Left out: IPv6, sets, maps, jumps, sets of intervals.
//!
//! Kernel side: `net/netfilter/nf_tables_api.c`, numbers in `linux/netfilter/nf_tables.h`.

mod batch;
mod ct;
mod expression;
mod nat;
mod queue;
mod rule;
mod ruleset;
mod statement;
#[cfg(test)]
mod tests;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Hook as HookAttribute, HookNumber, NfTablesMessage, RuleAttribute, RuleMessage,
    TableAttribute, TableMessage,
};
use netlink_sys::protocols::NETLINK_NETFILTER;

pub use self::ct::CtState;
pub use self::rule::Rule;
pub use self::ruleset::RuleInfo;

use self::batch::Batch;
use crate::error::{Error, Result};
use crate::netlink::Netlink;
use crate::netns::NetNs;

/// The longest comment that the `nft` command can show.
const COMMENT_LENGTH: usize = 127;

/// The point in a packet's path at which a chain is attached (`NF_INET_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Hook {
    Prerouting = 0,
    Input = 1,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

/// The verdict for packets that no rule decides on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    Accept,
    Drop,
}

/// A base chain.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Chain {
    name: String,
    kind: String,
    hook: u32,
    priority: i32,
    policy: Policy,
}

impl Chain {
    /// A chain that accepts, drops, counts or marks. Priorities: -300 before connection tracking,
    /// -150 after it, 0 the usual one.
    pub fn filter(name: &str, hook: Hook, priority: i32, policy: Policy) -> Self {
        Self { name: name.into(), kind: "filter".into(), hook: hook as u32, priority, policy }
    }

    /// A chain that sees only the first packet of each flow and may translate it. -100 for destinations
    /// (prerouting, output), 100 for sources (postrouting, input). Enables connection tracking.
    pub fn nat(name: &str, hook: Hook, priority: i32) -> Self {
        Self { kind: "nat".into(), ..Self::filter(name, hook, priority, Policy::Accept) }
    }
}

/// What a message of a batch does, in words; the message; its flags.
type Step = (String, NfTablesMessage, u16);

/// An IPv4 table, declared as a whole.
#[derive(Clone, Debug)]
#[must_use]
pub struct Table {
    name: String,
    chains: Vec<Chain>,
    rules: Vec<(String, Rule)>,
}

impl Table {
    /// An empty table.
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), chains: Vec::new(), rules: Vec::new() }
    }

    /// Adds a chain.
    pub fn chain(mut self, chain: Chain) -> Self {
        self.chains.push(chain);
        self
    }

    /// Adds a rule at the end of a chain.
    pub fn rule(mut self, chain: &str, rule: Rule) -> Self {
        self.rules.push((chain.into(), rule));
        self
    }

    /// Creates the table and reads it back.
    ///
    /// # Errors
    /// If the table exists already (`EEXIST`), the kernel refuses (nothing is left behind), or a difference is
    /// read back.
    pub fn apply(&self, ns: &NetNs) -> Result<()> {
        let make = (format!("create table {}", self.name), self.message(), NLM_F_CREATE | NLM_F_EXCL);
        self.send(ns, &[make], &format!("apply nft table {}", self.name))
    }

    /// Creates the table, atomically replacing an existing one; every packet sees at least one of them, and some
    /// briefly see both. Counters start at 0. Reads it back.
    ///
    /// The new table is active some 0.3 ms after the call. The kernel acknowledges a removal only when no packet
    /// can be in the old table any more, 8 to 16 ms later.
    ///
    /// # Errors
    /// As [`Table::apply`]; if refused, the old table stays.
    pub fn replace(&self, ns: &NetNs) -> Result<()> {
        // Deleting a table that does not exist would fail, so create it first.
        let ensure = (format!("ensure table {}", self.name), self.message(), NLM_F_CREATE);
        let delete = (format!("delete table {}", self.name), deletion(&self.name), 0);
        let create = (format!("create table {}", self.name), self.message(), NLM_F_CREATE);
        self.send(ns, &[ensure, delete, create], &format!("replace nft table {}", self.name))
    }

    /// Atomically replaces the rules of a table with the same chains, or creates it. The chains stay, so that no
    /// queued packet is dropped. Reads it back.
    ///
    /// # Errors
    /// As [`Table::apply`]; if refused, the old rules stay.
    pub fn refill(&self, ns: &NetNs) -> Result<()> {
        let mut first = vec![(format!("ensure table {}", self.name), self.message(), NLM_F_CREATE)];
        for chain in &self.chains {
            first.push((format!("ensure chain {}", chain.name), self.chain_message(chain), NLM_F_CREATE));
            let of = vec![RuleAttribute::Table(self.name.clone()), RuleAttribute::Chain(chain.name.clone())];
            let all = NfTablesMessage::DeleteRule(RuleMessage { attributes: of });
            first.push((format!("empty chain {}", chain.name), all, 0));
        }
        self.send(ns, &first, &format!("refill nft table {}", self.name))
    }

    fn send(&self, ns: &NetNs, first: &[Step], what: &str) -> Result<()> {
        match self.send_as_it_is(ns, first, what) {
            // The kernel does not know an expression.
            Err(e) if e.errno() == Some(libc::ENOENT) && self.rules.iter().any(|(_, rule)| rule.queues()) => {
                let rules = self.rules.iter().map(|(chain, rule)| (chain.clone(), rule.by_target())).collect();
                Self { rules, ..self.clone() }.send_as_it_is(ns, first, what)
            }
            result => result,
        }
    }

    fn send_as_it_is(&self, ns: &NetNs, first: &[Step], what: &str) -> Result<()> {
        let mut batch = Batch::new();
        for (step, message, flags) in first {
            batch.push(step.clone(), message.clone(), *flags);
        }
        for chain in &self.chains {
            batch.push(format!("create chain {}", chain.name), self.chain_message(chain), NLM_F_CREATE);
        }
        for (chain, rule) in &self.rules {
            let comment = rule.comment.as_deref().unwrap_or_default();
            let message = self.rule_message(chain, rule);
            let message = message.map_err(|why| Error::Refused { what: format!("{what}: rule {comment:?}"), why })?;
            batch.push(format!("rule {comment:?} of chain {chain}"), message, NLM_F_CREATE | NLM_F_APPEND);
        }
        let netlink = open(ns)?;
        batch.send(&netlink, what)?;
        self.check(&ruleset::chains(&netlink, &self.name)?, &ruleset::rules(&netlink, &self.name)?)
            .map_err(|read_back| Error::NotInForce { what: format!("{what} in {}", ns.name()), read_back })
    }

    /// Compares the table with what was read back; the error is the first difference.
    fn check(&self, chains: &[Chain], rules: &[RuleInfo]) -> std::result::Result<(), String> {
        for chain in &self.chains {
            if !chains.contains(chain) {
                return Err(format!("no chain {chain:?} among {chains:?}"));
            }
            let wanted: Vec<_> = self.rules.iter().filter(|(name, _)| *name == chain.name).collect();
            let actual: Vec<_> = rules.iter().filter(|rule| rule.chain == chain.name).collect();
            if wanted.len() != actual.len() {
                return Err(format!("{} rules in chain {}, not {}", actual.len(), chain.name, wanted.len()));
            }
            for ((_, rule), info) in wanted.into_iter().zip(actual) {
                if rule.comment != info.comment || !rule.names().eq(&info.expressions) {
                    return Err(format!("{info:?} in place of rule {:?}", rule.comment));
                }
            }
        }
        if chains.len() == self.chains.len() {
            Ok(())
        } else {
            Err(format!("{} chains, not {}", chains.len(), self.chains.len()))
        }
    }

    fn message(&self) -> NfTablesMessage {
        NfTablesMessage::NewTable(TableMessage { attributes: vec![TableAttribute::Name(self.name.clone())] })
    }

    fn chain_message(&self, chain: &Chain) -> NfTablesMessage {
        let number = HookAttribute::Number(HookNumber::Other(chain.hook));
        let attributes = vec![
            ChainAttribute::Table(self.name.clone()),
            ChainAttribute::Name(chain.name.clone()),
            ChainAttribute::Type(chain.kind.clone()),
            ChainAttribute::Hook(vec![number, HookAttribute::Priority(chain.priority.cast_unsigned())]),
            ChainAttribute::Policy(u32::from(chain.policy == Policy::Accept)),
        ];
        NfTablesMessage::NewChain(ChainMessage { attributes })
    }

    fn rule_message(&self, chain: &str, rule: &Rule) -> std::result::Result<NfTablesMessage, String> {
        let expressions = rule.expressions().ok_or("it matches an IP version that the table does not see")?;
        let mut attributes = vec![
            RuleAttribute::Table(self.name.clone()),
            RuleAttribute::Chain(chain.to_owned()),
            RuleAttribute::Expressions(expressions.iter().cloned().map(Into::into).collect()),
        ];
        if let Some(comment) = &rule.comment {
            if comment.len() > COMMENT_LENGTH {
                return Err(format!("its comment is longer than {COMMENT_LENGTH} bytes"));
            }
            attributes.push(RuleAttribute::UserData(ruleset::comment_data(comment)));
        }
        Ok(NfTablesMessage::NewRule(RuleMessage { attributes }))
    }
}

/// Deletes a table and everything in it.
///
/// # Errors
/// `ENOENT` if it does not exist.
pub fn delete_table(ns: &NetNs, table: &str) -> Result<()> {
    let mut batch = Batch::new();
    batch.push("delete table".into(), deletion(table), 0);
    batch.send(&open(ns)?, &format!("delete nft table {table}"))
}

/// Deletes a table, if it exists.
///
/// # Errors
/// When the kernel refuses to list or to delete tables.
pub fn delete_table_if_there(ns: &NetNs, table: &str) -> Result<()> {
    if list_tables(ns)?.iter().any(|there| there == table) { delete_table(ns, table) } else { Ok(()) }
}

/// The names of all tables, of any family.
///
/// # Errors
/// When the kernel refuses to list them.
pub fn list_tables(ns: &NetNs) -> Result<Vec<String>> {
    ruleset::tables(&open(ns)?)
}

/// The rules of a table.
///
/// # Errors
/// When it does not exist.
pub fn read(ns: &NetNs, table: &str) -> Result<Vec<RuleInfo>> {
    let netlink = open(ns)?;
    let rules = ruleset::rules(&netlink, table)?;
    if rules.is_empty() && !ruleset::tables(&netlink)?.iter().any(|name| name == table) {
        return Err(Error::NotFound { what: format!("list nft table {table}") });
    }
    Ok(rules)
}

/// The number of packets counted by the rules with this comment.
///
/// # Errors
/// When no rule has this comment.
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

fn deletion(table: &str) -> NfTablesMessage {
    NfTablesMessage::DeleteTable(TableMessage { attributes: vec![TableAttribute::Name(table.to_owned())] })
}
