//! Reads back the rules in force.

use netlink_packet_core::Nla;
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, ExpressionAttribute, Expressions, Hook as HookAttribute, ListAttribute,
    NfTablesMessage, RuleAttribute, RuleMessage, TableAttribute, TableMessage,
};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily};

use super::statement::NFTA_COUNTER_PACKETS;
use super::{Chain, Policy};
use crate::error::Result;
use crate::netlink::Netlink;

/// `NFTNL_UDATA_RULE_COMMENT` (libnftnl): user data is a list of type, length, value of one byte each.
const UDATA_COMMENT: u8 = 0;

/// A rule as read back from the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleInfo {
    pub chain: String,
    pub comment: Option<String>,
    /// The value of its counter; 0 without a counter.
    pub packets: u64,
    /// The names of its expressions, in order.
    pub expressions: Vec<String>,
}

/// User data that holds a comment, in the format of the `nft` command.
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

/// The names of all tables.
pub(super) fn tables(netlink: &Netlink) -> Result<Vec<String>> {
    let request = NfTablesMessage::GetTable(TableMessage { attributes: Vec::new() });
    dump(netlink, "list nft tables", request, |message| {
        let NfTablesMessage::NewTable(TableMessage { attributes }) = message else { return None };
        attributes.into_iter().find_map(|attribute| match attribute {
            TableAttribute::Name(name) => Some(name),
            _ => None,
        })
    })
}

/// The chains of a table (of every family that has one of that name).
pub(super) fn chains(netlink: &Netlink, table: &str) -> Result<Vec<Chain>> {
    // The kernel filters rules by table, but not chains.
    let request = NfTablesMessage::GetChain(ChainMessage { attributes: Vec::new() });
    dump(netlink, &format!("list nft table {table}"), request, |message| match message {
        NfTablesMessage::NewChain(message) => chain(message, table),
        _ => None,
    })
}

/// The rules of a table; empty if there is no such table.
pub(super) fn rules(netlink: &Netlink, table: &str) -> Result<Vec<RuleInfo>> {
    let attributes = vec![RuleAttribute::Table(table.to_owned())];
    let request = NfTablesMessage::GetRule(RuleMessage { attributes });
    dump(netlink, &format!("list rules of nft table {table}"), request, |message| match message {
        NfTablesMessage::NewRule(message) => Some(rule(message)),
        _ => None,
    })
}

fn dump<T>(
    netlink: &Netlink,
    what: &str,
    request: NfTablesMessage,
    read: impl Fn(NfTablesMessage) -> Option<T>,
) -> Result<Vec<T>> {
    let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, 0);
    netlink.dump(what, NetfilterMessage::new(header, request), |answer: NetfilterMessage| match answer.inner {
        NetfilterMessageInner::NfTables(message) => read(message),
        _ => None,
    })
}

fn chain(message: ChainMessage, table: &str) -> Option<Chain> {
    let mut chain =
        Chain { name: String::new(), kind: String::new(), hook: u32::MAX, priority: 0, policy: Policy::Accept };
    for attribute in message.attributes {
        match attribute {
            ChainAttribute::Table(name) if name != table => return None,
            ChainAttribute::Name(name) => chain.name = name,
            ChainAttribute::Type(kind) => chain.kind = kind,
            ChainAttribute::Policy(0) => chain.policy = Policy::Drop,
            ChainAttribute::Hook(hooks) => {
                for hook in hooks {
                    match hook {
                        HookAttribute::Number(number) => chain.hook = number.into(),
                        HookAttribute::Priority(priority) => chain.priority = priority.cast_signed(),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(chain)
}

fn rule(message: RuleMessage) -> RuleInfo {
    let mut info = RuleInfo::default();
    for attribute in message.attributes {
        match attribute {
            RuleAttribute::Chain(chain) => info.chain = chain,
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
                for packets in attributes.iter().filter(|attribute| attribute.kind() == NFTA_COUNTER_PACKETS) {
                    let mut value = [0; 8];
                    if packets.value_len() == value.len() {
                        packets.emit_value(&mut value);
                    }
                    info.packets = u64::from_be_bytes(value);
                }
            }
            _ => {}
        }
    }
}
