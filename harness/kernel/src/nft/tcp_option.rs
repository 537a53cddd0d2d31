//! The MSS option of TCP, read and rewritten: expression `exthdr` (`NFTA_EXTHDR_*`).
//!
//! Writing only ever lowers: the kernel leaves an option alone that is not larger than the new value
//! (`nft_exthdr_tcp_set_eval`), and a SYN without the option stays without it.

use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{Operator, Register};

use super::expression::{load, number, raw, register};
use super::rule::{Rule, TCP};

const NFTA_EXTHDR_DREG: u16 = 1;
const NFTA_EXTHDR_TYPE: u16 = 2;
const NFTA_EXTHDR_OFFSET: u16 = 3;
const NFTA_EXTHDR_LEN: u16 = 4;
const NFTA_EXTHDR_OP: u16 = 6;
const NFTA_EXTHDR_SREG: u16 = 7;
const NFT_EXTHDR_OP_TCPOPT: u32 = 1;
const TCPOPT_MAXSEG: u8 = 2;

impl Rule {
    /// Lowers the MSS a SYN announces to `size`, as the clamp of a gateway does. Write it behind a
    /// match for SYNs; it sees each direction for itself.
    #[must_use]
    pub fn tcp_mss_clamp(self, size: u16) -> Self {
        let write = maxseg(register(NFTA_EXTHDR_SREG, Register::Reg1));
        self.l4proto(TCP).then([load(Register::Reg1, &size.to_be_bytes()), raw("exthdr", write)])
    }

    /// The MSS a SYN announces is larger than `size`.
    #[must_use]
    pub fn tcp_mss_above(self, size: u16) -> Self {
        let read = maxseg(register(NFTA_EXTHDR_DREG, Register::Reg1));
        self.l4proto(TCP).is(raw("exthdr", read), Operator::GreaterThan, &size.to_be_bytes())
    }

    /// The MSS a SYN announces is `size`.
    #[must_use]
    pub fn tcp_mss(self, size: u16) -> Self {
        let read = maxseg(register(NFTA_EXTHDR_DREG, Register::Reg1));
        self.l4proto(TCP).is(raw("exthdr", read), Operator::Equal, &size.to_be_bytes())
    }
}

/// Two bytes of option 2, behind its kind and length.
fn maxseg(direction: DefaultNla) -> Vec<DefaultNla> {
    vec![
        direction,
        DefaultNla::new(NFTA_EXTHDR_TYPE, vec![TCPOPT_MAXSEG]),
        number(NFTA_EXTHDR_OFFSET, 2),
        number(NFTA_EXTHDR_LEN, 2),
        number(NFTA_EXTHDR_OP, NFT_EXTHDR_OP_TCPOPT),
    ]
}
