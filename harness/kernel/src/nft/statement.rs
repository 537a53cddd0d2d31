//! What a rule does: count, mark, and end with a verdict.

use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{MetaKey, Register, Verdict};

use super::expression::{load, meta_set, number, raw, verdict};
use super::rule::{Rule, TCP};

pub(super) const NFTA_COUNTER_BYTES: u16 = 1;
pub(super) const NFTA_COUNTER_PACKETS: u16 = 2;
const NFTA_REJECT_TYPE: u16 = 1;
const NFTA_REJECT_ICMP_CODE: u16 = 2;
const NFT_REJECT_ICMP_UNREACH: u32 = 0;
const NFT_REJECT_TCP_RST: u32 = 1;
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;

impl Rule {
    /// Counts the packets that got this far.
    #[must_use]
    pub fn counter(self) -> Self {
        let zero = |kind| DefaultNla::new(kind, vec![0; 8]);
        self.then([raw("counter", vec![zero(NFTA_COUNTER_BYTES), zero(NFTA_COUNTER_PACKETS)])])
    }

    /// Ends this chain; chains of other tables at the same hook still see the packet.
    #[must_use]
    pub fn accept(self) -> Self {
        self.then([verdict(Verdict::Other(NF_ACCEPT))])
    }

    /// Loses the packet, without a word to anybody.
    #[must_use]
    pub fn drop(self) -> Self {
        self.then([verdict(Verdict::Other(NF_DROP))])
    }

    /// Leaves the chain to its policy.
    #[must_use]
    pub fn return_(self) -> Self {
        self.then([verdict(Verdict::Return)])
    }

    /// Marks the packet, for routing rules and later chains.
    #[must_use]
    pub fn mark_set(self, mark: u32) -> Self {
        self.then([load(Register::Reg1, &mark.to_ne_bytes()), meta_set(MetaKey::Mark)])
    }

    /// Refuses a TCP segment with a reset.
    #[must_use]
    pub fn reject_tcp_reset(self) -> Self {
        let reset = vec![number(NFTA_REJECT_TYPE, NFT_REJECT_TCP_RST), DefaultNla::new(NFTA_REJECT_ICMP_CODE, vec![0])];
        self.l4proto(TCP).then([raw("reject", reset)])
    }

    /// Refuses with ICMP "destination unreachable" of a code (1: host, 3: port); family `ip` only.
    #[must_use]
    pub fn reject_icmp(self, code: u8) -> Self {
        let unreachable =
            vec![number(NFTA_REJECT_TYPE, NFT_REJECT_ICMP_UNREACH), DefaultNla::new(NFTA_REJECT_ICMP_CODE, vec![code])];
        self.then([raw("reject", unreachable)])
    }
}
