//! Connection tracking of a node: table size, statistics and flows.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::Change;

/// Size of the connection tracking table of the node and its limit (polled; there is no notification).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConntrackTable {
    /// `nf_conntrack_count`: entries in this namespace.
    pub count: u64,
    /// `nf_conntrack_max`: the limit each namespace's count is compared with.
    pub limit: u64,
}

impl ConntrackTable {
    /// A limit of 0 means none (`net/netfilter/nf_conntrack_core.c`).
    #[must_use]
    pub const fn effective_limit(&self) -> u64 {
        if self.limit == 0 { u64::MAX } else { self.limit }
    }

    /// The share of the limit in use, in units of 1/`parts`.
    #[must_use]
    pub fn share_of(&self, parts: u128) -> u128 {
        u128::from(self.count) * parts / u128::from(self.effective_limit())
    }
}

/// Statistics, summed over processors (`IPCTNL_MSG_CT_GET_STATS_CPU`). Cumulative; a detector looks at differences.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConntrackStats {
    /// New entries dropped because the table was full.
    pub drop: u64,
    /// Entries evicted early to make room.
    pub early_drop: u64,
    /// Insertions that failed (races, or no free port for a source NAT).
    pub insert_failed: u64,
    /// Clashes resolved (two equal concurrent UDP flows): harmless.
    pub clash_resolve: u64,
    pub invalid: u64,
}

impl ConntrackStats {
    /// Growth since an earlier reading. Failed insertions, which are also counted as drops but have other causes, are
    /// subtracted. A counter that went backwards was reset and counts as no growth.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let insert_failed = self.insert_failed.saturating_sub(before.insert_failed);
        Self {
            drop: self.drop.saturating_sub(before.drop).saturating_sub(insert_failed),
            early_drop: self.early_drop.saturating_sub(before.early_drop),
            insert_failed,
            clash_resolve: self.clash_resolve.saturating_sub(before.clash_resolve),
            invalid: self.invalid.saturating_sub(before.invalid),
        }
    }
}

/// One direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tuple {
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

/// Transport protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    Tcp,
    Udp,
    Icmp,
    Other(u8),
}

/// A tracked flow (ctnetlink events): the sender's tuple, and the tuple of replies.
/// Source NAT shows as `reply.destination != original.source`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    pub change: Change,
    pub protocol: Protocol,
    pub original: Tuple,
    pub reply: Tuple,
    /// Both directions seen (`IPS_SEEN_REPLY`).
    pub replied: bool,
}

impl Flow {
    /// The flow's identity outside the node: its source after translation, and the responder.
    #[must_use]
    pub const fn outside(&self) -> (SocketAddr, SocketAddr) {
        (self.reply.destination, self.reply.source)
    }

    /// Whether its source is translated.
    #[must_use]
    pub fn is_translated(&self) -> bool {
        self.reply.destination != self.original.source
    }
}
