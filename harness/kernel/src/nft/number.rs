//! Every n-th packet, and packets by size: expressions `numgen` and `byteorder`.

use netlink_packet_netfilter::nftables::{MetaKey, Operator, Register};

use super::expression::{meta, number, raw, register};
use super::rule::Rule;

const NFTA_NG_DREG: u16 = 1;
const NFTA_NG_MODULUS: u16 = 2;
const NFTA_NG_TYPE: u16 = 3;
const NFT_NG_INCREMENTAL: u32 = 0;
const NFT_NG_RANDOM: u32 = 1;
const NFTA_BYTEORDER_SREG: u16 = 1;
const NFTA_BYTEORDER_DREG: u16 = 2;
const NFTA_BYTEORDER_OP: u16 = 3;
const NFTA_BYTEORDER_LEN: u16 = 4;
const NFTA_BYTEORDER_SIZE: u16 = 5;
const NFT_BYTEORDER_HTON: u32 = 1;

impl Rule {
    /// A random number below `modulus` is `k`: loss of one in `modulus`.
    #[must_use]
    pub fn numgen_random(self, modulus: u32, k: u32) -> Self {
        self.numgen(NFT_NG_RANDOM, modulus, k)
    }

    /// The packets that get this far in the rule, counted modulo `modulus`, stand at `k`: exactly
    /// one in `modulus`. Each rule counts for itself.
    #[must_use]
    pub fn numgen_inc(self, modulus: u32, k: u32) -> Self {
        self.numgen(NFT_NG_INCREMENTAL, modulus, k)
    }

    /// The IP packet is longer than `length` bytes. A segment that the sender left to the card to
    /// cut (GSO) counts whole, up to 64 KiB and beyond what any link carries: to lose what does not
    /// fit, use the MTU of a link.
    #[must_use]
    pub fn length_above(self, length: u32) -> Self {
        // Registers compare byte by byte, so the number is first turned to network order.
        let swap = vec![
            register(NFTA_BYTEORDER_SREG, Register::Reg1),
            register(NFTA_BYTEORDER_DREG, Register::Reg1),
            number(NFTA_BYTEORDER_OP, NFT_BYTEORDER_HTON),
            number(NFTA_BYTEORDER_LEN, 4),
            number(NFTA_BYTEORDER_SIZE, 4),
        ];
        self.then([meta(MetaKey::Length)]).is(raw("byteorder", swap), Operator::GreaterThan, &length.to_be_bytes())
    }

    fn numgen(self, kind: u32, modulus: u32, k: u32) -> Self {
        let attributes =
            vec![register(NFTA_NG_DREG, Register::Reg1), number(NFTA_NG_MODULUS, modulus), number(NFTA_NG_TYPE, kind)];
        self.is(raw("numgen", attributes), Operator::Equal, &k.to_ne_bytes())
    }
}
