//! What is in force, as the kernel lists it.

use netlink_packet_core::{Nla, parse_u64_be};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, ExpressionAttribute, Expressions, Hook as HookAttribute, ListAttribute,
    NfTablesMessage, RuleAttribute, RuleMessage, TableAttribute, TableMessage,
};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily};

use super::statement::{NFTA_COUNTER_BYTES, NFTA_COUNTER_PACKETS};
use super::{Base, Chain, Family, Hook, Policy, expression};
use crate::error::{Error, Result};
use crate::netlink::Netlink;

/// `NFTNL_UDATA_RULE_COMMENT` (libnftnl): user data is a list of type, length, value of one byte each.
const UDATA_COMMENT: u8 = 0;

/// A table, read back.
#[derive(Clone, Debug, Default)]
pub struct Ruleset {
    pub chains: Vec<Chain>,
    pub rules: Vec<RuleInfo>,
}

/// A rule, read back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleInfo {
    pub chain: String,
    pub handle: u64,
    pub comment: Option<String>,
    /// What its counter stands at; 0 without a counter.
    pub packets: u64,
    pub bytes: u64,
    /// What its expressions are called, in order.
    pub expressions: Vec<String>,
}

/// User data that holds a comment, as the command `nft` writes and shows it.
pub(super) fn comment_data(comment: &str) -> Vec<u8> {
    let length = u8::try_from(comment.len() + 1).unwrap_or(u8::MAX);
    let mut data = vec![UDATA_COMMENT, length];
    data.extend(comment.bytes().take(usize::from(length) - 1));
    data.push(0);
    data
}

pub(super) fn comment_of(mut data: &[u8]) -> Option<String> {
    while let [kind, length, rest @ ..] = data {
        let value = rest.get(..usize::from(*length))?;
        if *kind == UDATA_COMMENT {
            return Some(String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned());
        }
        data = &rest[usize::from(*length)..];
    }
    None
}

/// Every table, with its family.
pub(super) fn tables(netlink: &Netlink) -> Result<Vec<(Family, String)>> {
    let request = NfTablesMessage::GetTable(TableMessage { attributes: Vec::new() });
    let mut tables = Vec::new();
    for (family, message) in dump(netlink, "list nft tables", request)? {
        let NfTablesMessage::NewTable(TableMessage { attributes }) = message else { continue };
        for attribute in attributes {
            if let TableAttribute::Name(name) = attribute {
                tables.push((family, name));
            }
        }
    }
    Ok(tables)
}

/// The chains and rules of a table (of every family that has one of that name).
pub(super) fn read(netlink: &Netlink, table: &str) -> Result<Ruleset> {
    let what = format!("list nft table {table}");
    // The kernel filters rules by table, but not chains.
    let chains = dump(netlink, &what, NfTablesMessage::GetChain(ChainMessage { attributes: Vec::new() }))?;
    let chains = chains.into_iter().filter_map(|(_, message)| match message {
        NfTablesMessage::NewChain(message) => chain(message, table),
        _ => None,
    });
    let ruleset = Ruleset { chains: chains.collect(), rules: rules(netlink, table)? };
    if ruleset.chains.is_empty() && !tables(netlink)?.iter().any(|(_, name)| name == table) {
        return Err(Error::NotFound { what });
    }
    Ok(ruleset)
}

/// The rules of a table; none where there is no such table.
pub(super) fn rules(netlink: &Netlink, table: &str) -> Result<Vec<RuleInfo>> {
    let attributes = vec![RuleAttribute::Table(table.to_owned())];
    let request = NfTablesMessage::GetRule(RuleMessage { attributes });
    let answers = dump(netlink, &format!("list rules of nft table {table}"), request)?;
    Ok(answers
        .into_iter()
        .filter_map(|(_, message)| match message {
            NfTablesMessage::NewRule(message) => Some(rule(message)),
            _ => None,
        })
        .collect())
}

fn dump(netlink: &Netlink, what: &str, request: NfTablesMessage) -> Result<Vec<(Family, NfTablesMessage)>> {
    let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, 0);
    let answers = netlink.dump(what, NetfilterMessage::new(header, request))?;
    Ok(answers
        .into_iter()
        .filter_map(|answer: NetfilterMessage| match answer.inner {
            NetfilterMessageInner::NfTables(message) => Some((Family(answer.header.family), message)),
            _ => None,
        })
        .collect())
}

fn chain(message: ChainMessage, table: &str) -> Option<Chain> {
    let mut chain = Chain { name: String::new(), base: None };
    let mut base = Base { kind: String::new(), hook: Hook::Prerouting, priority: 0, policy: Policy::Accept };
    let mut hooked = false;
    for attribute in message.attributes {
        match attribute {
            ChainAttribute::Table(name) if name != table => return None,
            ChainAttribute::Name(name) => chain.name = name,
            ChainAttribute::Type(kind) => base.kind = kind,
            ChainAttribute::Policy(0) => base.policy = Policy::Drop,
            ChainAttribute::Hook(hooks) => {
                for hook in hooks {
                    match hook {
                        HookAttribute::Number(number) => {
                            hooked = true;
                            base.hook = Hook::from_number(number.into());
                        }
                        HookAttribute::Priority(priority) => base.priority = priority.cast_signed(),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    chain.base = hooked.then_some(base);
    Some(chain)
}

fn rule(message: RuleMessage) -> RuleInfo {
    let mut info = RuleInfo::default();
    for attribute in message.attributes {
        match attribute {
            RuleAttribute::Chain(chain) => info.chain = chain,
            RuleAttribute::Handle(handle) => info.handle = handle,
            RuleAttribute::UserData(data) => info.comment = comment_of(&data),
            RuleAttribute::Expressions(elements) => {
                for element in elements {
                    if let ListAttribute::Element(parts) = element {
                        note(&mut info, parts);
                    }
                }
            }
            _ => {}
        }
    }
    info
}

fn note(info: &mut RuleInfo, parts: Vec<ExpressionAttribute>) {
    for part in parts {
        match part {
            ExpressionAttribute::Name(name) => info.expressions.push(name),
            ExpressionAttribute::Data(Expressions::Other { expression_type, attributes })
                if expression_type == "counter" =>
            {
                for attribute in attributes {
                    let mut value = [0; 8];
                    if attribute.value_len() == value.len() {
                        attribute.emit_value(&mut value);
                    }
                    match (attribute.kind(), parse_u64_be(&value)) {
                        (NFTA_COUNTER_PACKETS, Ok(packets)) => info.packets = packets,
                        (NFTA_COUNTER_BYTES, Ok(bytes)) => info.bytes = bytes,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
}

/// Whether what was read back is what was asked for, in a table of `family`.
pub(super) fn same(rule: &super::Rule, family: Family, info: &RuleInfo) -> bool {
    let expressions = rule.expressions(family.0.into()).unwrap_or_default();
    let names = expressions.iter().map(expression::name);
    rule.comment == info.comment && names.eq(info.expressions.iter().map(String::as_str))
}
