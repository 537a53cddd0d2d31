//! The counters of connection tracking.

use netlink_packet_core::{DefaultNla, Nla};
use netlink_packet_netfilter::conntrack::ConntrackMessage;
use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner};

use super::entry::bytes;

const CTA_STATS_GLOBAL_ENTRIES: u16 = 1;
const CTA_STATS_GLOBAL_MAX_ENTRIES: u16 = 2;

/// What happened in a namespace, over all CPUs (`enum ctattr_stats_cpu`). The kernel counts each in
/// 32 bits a CPU, which may wrap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Look-ups for a translated tuple that found it taken.
    pub found: u64,
    /// Packets that could not be tracked.
    pub invalid: u64,
    /// Entries put in. Kernels count those of ctnetlink only.
    pub insert: u64,
    /// Entries that were not put in: another flow had the same tuple (a port already taken).
    pub insert_failed: u64,
    /// Packets dropped because an entry could not be made, as when the table is full.
    pub drop: u64,
    /// Entries given up early to make room.
    pub early_drop: u64,
    /// ICMP errors that could not be tracked.
    pub error: u64,
    /// Look-ups begun anew because the table was resized.
    pub search_restart: u64,
    /// Races of two packets of one flow that were resolved.
    pub clash_resolve: u64,
    /// Entries that were not put in: too many others in the same place of the table.
    pub chain_toolong: u64,
}

impl Stats {
    fn field(&mut self, kind: u16) -> Option<&mut u64> {
        Some(match kind {
            2 => &mut self.found,
            4 => &mut self.invalid,
            8 => &mut self.insert,
            9 => &mut self.insert_failed,
            10 => &mut self.drop,
            11 => &mut self.early_drop,
            12 => &mut self.error,
            13 => &mut self.search_restart,
            14 => &mut self.clash_resolve,
            15 => &mut self.chain_toolong,
            _ => return None,
        })
    }
}

/// Adds up the answers, one a CPU.
pub(super) fn sum(answers: Vec<NetfilterMessage>) -> Stats {
    let mut stats = Stats::default();
    for attribute in answers.into_iter().flat_map(attributes) {
        if let Some(field) = stats.field(attribute.kind()) {
            *field += u64::from(u32::from_be_bytes(bytes(&attribute)));
        }
    }
    stats
}

/// Count and limit, of the answer that has both.
pub(super) fn global(answer: NetfilterMessage) -> Option<(u64, u64)> {
    let attributes = attributes(answer);
    let value = |kind| {
        let found = attributes.iter().find(|attribute| attribute.kind() == kind)?;
        Some(u64::from(u32::from_be_bytes(bytes(found))))
    };
    Some((value(CTA_STATS_GLOBAL_ENTRIES)?, value(CTA_STATS_GLOBAL_MAX_ENTRIES)?))
}

fn attributes(answer: NetfilterMessage) -> Vec<DefaultNla> {
    match answer.inner {
        NetfilterMessageInner::Conntrack(ConntrackMessage::Other { attributes, .. }) => attributes,
        _ => Vec::new(),
    }
}
