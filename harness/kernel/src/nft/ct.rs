//! Connection tracking in rules: state, direction and mark of the flow a packet belongs to.
//!
//! Expression `ct` (`NFTA_CT_*`, `NFT_CT_*` in `linux/netfilter/nf_tables.h`). A rule with any of
//! these enables connection tracking in its namespace; so does a chain of type nat.

use netlink_packet_netfilter::nftables::{Expressions, Operator, Register};

use super::expression::{load, mask, number, raw, register};
use super::rule::Rule;

const NFTA_CT_DREG: u16 = 1;
const NFTA_CT_KEY: u16 = 2;
const NFTA_CT_SREG: u16 = 4;
const NFT_CT_STATE: u32 = 0;
const NFT_CT_DIRECTION: u32 = 1;
const NFT_CT_MARK: u32 = 3;

/// The state connection tracking assigns to a packet (`NF_CT_STATE_BIT`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum CtState {
    /// Belongs to no flow and may not begin one (outside the window, an unexpected reset).
    Invalid = 1,
    New = 1 << 3,
}

impl Rule {
    /// The packet's state is one of these.
    pub fn ct_state(self, states: &[CtState]) -> Self {
        let bits = states.iter().fold(0, |bits, state| bits | *state as u32);
        self.then([ct(NFT_CT_STATE)]).is(mask(&bits.to_ne_bytes()), Operator::NotEqual, &[0; 4])
    }

    /// The packet is in the direction in which the flow was opened.
    pub fn ct_direction_original(self) -> Self {
        self.is(ct(NFT_CT_DIRECTION), Operator::Equal, &[0])
    }

    /// The packet is in the opposite direction.
    pub fn ct_direction_reply(self) -> Self {
        self.is(ct(NFT_CT_DIRECTION), Operator::Equal, &[1])
    }

    /// The flow has this mark.
    pub fn ct_mark(self, mark: u32) -> Self {
        self.is(ct(NFT_CT_MARK), Operator::Equal, &mark.to_ne_bytes())
    }

    /// The flow has any other mark.
    pub fn not_ct_mark(self, mark: u32) -> Self {
        self.is(ct(NFT_CT_MARK), Operator::NotEqual, &mark.to_ne_bytes())
    }

    /// Marks the flow: the mark applies to both directions and to later packets.
    pub fn ct_mark_set(self, mark: u32) -> Self {
        let set = vec![number(NFTA_CT_KEY, NFT_CT_MARK), register(NFTA_CT_SREG, Register::Reg1)];
        self.then([load(Register::Reg1, &mark.to_ne_bytes()), raw("ct", set)])
    }

    /// Keeps the packet out of connection tracking; only in a chain before it (priority below -200).
    pub fn notrack(self) -> Self {
        self.then([raw("notrack", Vec::new())])
    }
}

fn ct(key: u32) -> Expressions {
    raw("ct", vec![register(NFTA_CT_DREG, Register::Reg1), number(NFTA_CT_KEY, key)])
}
