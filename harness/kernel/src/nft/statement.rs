//! Statements of a rule: count, clamp the MSS, queue, and verdicts.

use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{Register, Verdict};

use super::expression::{load, number, raw, register, verdict};
use super::queue;
use super::rule::{Rule, TCP};

const NFTA_COUNTER_BYTES: u16 = 1;
pub(super) const NFTA_COUNTER_PACKETS: u16 = 2;
const NFTA_EXTHDR_TYPE: u16 = 2;
const NFTA_EXTHDR_OFFSET: u16 = 3;
const NFTA_EXTHDR_LEN: u16 = 4;
const NFTA_EXTHDR_OP: u16 = 6;
const NFTA_EXTHDR_SREG: u16 = 7;
const NFT_EXTHDR_OP_TCPOPT: u32 = 1;
const TCPOPT_MAXSEG: u8 = 2;
const NFTA_REJECT_TYPE: u16 = 1;
const NFTA_REJECT_ICMP_CODE: u16 = 2;
const NFT_REJECT_ICMP_UNREACH: u32 = 0;
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;

impl Rule {
    /// Counts the packets that reach this statement.
    pub fn counter(self) -> Self {
        let zero = |kind| DefaultNla::new(kind, vec![0; 8]);
        self.then([raw("counter", vec![zero(NFTA_COUNTER_BYTES), zero(NFTA_COUNTER_PACKETS)])])
    }

    /// Lowers the MSS announced in a SYN to `size`, like the clamp of a gateway. Place it after a match for SYNs; it
    /// applies to each direction separately. An option that is not larger is left alone (`nft_exthdr_tcp_set_eval`),
    /// and none is added to a SYN without it.
    pub fn tcp_mss_clamp(self, size: u16) -> Self {
        // Two bytes of the option, after its kind and length.
        let write = vec![
            register(NFTA_EXTHDR_SREG, Register::Reg1),
            DefaultNla::new(NFTA_EXTHDR_TYPE, vec![TCPOPT_MAXSEG]),
            number(NFTA_EXTHDR_OFFSET, 2),
            number(NFTA_EXTHDR_LEN, 2),
            number(NFTA_EXTHDR_OP, NFT_EXTHDR_OP_TCPOPT),
        ];
        self.l4proto(TCP).then([load(Register::Reg1, &size.to_be_bytes()), raw("exthdr", write)])
    }

    /// Ends this chain; chains of other tables at the same hook still see the packet.
    pub fn accept(self) -> Self {
        self.then([verdict(Verdict::Other(NF_ACCEPT))])
    }

    /// Drops the packet silently.
    pub fn drop(self) -> Self {
        self.then([verdict(Verdict::Other(NF_DROP))])
    }

    /// Queues the packet to user space ([`crate::delay`]). Once accepted, it continues with the next chain. It is
    /// dropped if the queue is not bound, or if a chain of the namespace is removed while it waits
    /// (`nf_queue_nf_hook_drop`).
    pub fn queue(self, number: u16) -> Self {
        self.then([queue::queue(number)])
    }

    /// Rejects the packet with ICMP "destination unreachable" of this code (1: host, 3: port).
    pub fn reject_icmp(self, code: u8) -> Self {
        let unreachable =
            vec![number(NFTA_REJECT_TYPE, NFT_REJECT_ICMP_UNREACH), DefaultNla::new(NFTA_REJECT_ICMP_CODE, vec![code])];
        self.then([raw("reject", unreachable)])
    }
}
