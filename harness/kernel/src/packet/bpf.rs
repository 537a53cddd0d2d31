//! A small assembler for classic BPF: the instructions a filter needs, and blocks of them.
//!
//! A [`Block`] falls through to "accept", or jumps to what follows it. Loads are relative to the
//! network header (`SKF_NET_OFF`), whatever link header precedes it: Ethernet, or none on a tunnel
//! (Documentation/networking/filter.rst in the kernel's sources).

use std::net::IpAddr;

// Classic BPF, include/uapi/linux/bpf_common.h and filter.h.
pub(super) const LOAD_BYTE: u16 = 0x30; // BPF_LD | BPF_B | BPF_ABS
pub(super) const LOAD_HALF: u16 = 0x28; // BPF_LD | BPF_H | BPF_ABS
pub(super) const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
pub(super) const LOAD_BYTE_AT_X: u16 = 0x50; // BPF_LD | BPF_B | BPF_IND
pub(super) const LOAD_HALF_AT_X: u16 = 0x48; // BPF_LD | BPF_H | BPF_IND
pub(super) const LOAD_X_HEADER_LENGTH: u16 = 0xb1; // BPF_LDX | BPF_B | BPF_MSH: 4 * (byte & 15)
pub(super) const SET_X: u16 = 0x01; // BPF_LDX | BPF_IMM
pub(super) const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
pub(super) const SHIFT_RIGHT: u16 = 0x74; // BPF_ALU | BPF_RSH | BPF_K
pub(super) const ADD_X: u16 = 0x0c; // BPF_ALU | BPF_ADD | BPF_X
pub(super) const SUBTRACT_X: u16 = 0x1c; // BPF_ALU | BPF_SUB | BPF_X
pub(super) const A_TO_X: u16 = 0x07; // BPF_MISC | BPF_TAX
pub(super) const IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
pub(super) const IF_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
pub(super) const IF_ANY_BIT: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
pub(super) const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// Where a conditional jump leads.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum To {
    /// The following instruction.
    Next,
    /// The end of the block: accept.
    Accept,
    /// Past the block.
    Fail,
    /// Over so many instructions.
    Over(u8),
}

/// One term for one version of IP.
#[derive(Default)]
pub(super) struct Block(Vec<(u16, u32, To, To)>);

impl Block {
    pub fn statement(&mut self, code: u16, k: u32) {
        self.0.push((code, k, To::Next, To::Next));
    }

    pub fn load(&mut self, code: u16, at: i32) {
        self.statement(code, at.cast_unsigned());
    }

    /// A load relative to the network header.
    pub fn network(&mut self, code: u16, at: i32) {
        self.load(code, libc::SKF_NET_OFF + at);
    }

    pub fn jump(&mut self, code: u16, k: u32, yes: To, no: To) {
        self.0.push((code, k, yes, no));
    }

    pub fn require(&mut self, code: u16, k: u32) {
        self.jump(code, k, To::Next, To::Fail);
    }

    /// Source or destination lies in the prefix.
    pub fn prefix(&mut self, network: IpAddr, length: u8) {
        let (octets, source, destination) = match network {
            IpAddr::V4(address) => (address.octets().to_vec(), 12, 16),
            IpAddr::V6(address) => (address.octets().to_vec(), 8, 24),
        };
        let words: Vec<(i32, u32, u32)> = octets
            .chunks_exact(4)
            .zip((0_u8..).step_by(32))
            .map(|(word, bit)| {
                let ones = u32::from(length.saturating_sub(bit).min(32));
                let mask = u32::MAX.checked_shl(32 - ones).unwrap_or(0);
                (i32::from(bit / 8), mask, u32::from_be_bytes([word[0], word[1], word[2], word[3]]) & mask)
            })
            .filter(|&(_, mask, _)| mask != 0)
            .collect();
        // Three instructions a word; the first address that does not match leads to the second, one
        // that does leads past it.
        let count = u8::try_from(words.len()).unwrap_or(0);
        for (address, matched, failed) in [(source, true, false), (destination, false, true)] {
            for (number, &(at, mask, value)) in (1..).zip(&words) {
                self.network(LOAD_WORD, address + at);
                self.statement(AND, mask);
                let yes = if matched && number == count { To::Over(3 * count) } else { To::Next };
                let no = if failed { To::Fail } else { To::Over(3 * (count - number)) };
                self.jump(IF_EQUAL, value, yes, no);
            }
        }
    }

    pub fn finish(self, snap: u32) -> Vec<libc::sock_filter> {
        let end = self.0.len();
        let mut out: Vec<_> = self
            .0
            .iter()
            .enumerate()
            .map(|(at, &(code, k, yes, no))| {
                let distance = |to| match to {
                    To::Next => 0,
                    To::Over(count) => count,
                    To::Accept => offset(end - at - 1),
                    To::Fail => offset(end - at),
                };
                libc::sock_filter { code, jt: distance(yes), jf: distance(no), k }
            })
            .collect();
        out.push(libc::sock_filter { code: RETURN, jt: 0, jf: 0, k: snap });
        out
    }
}

/// A jump reaches 255 instructions; the longest block has some fifty.
fn offset(distance: usize) -> u8 {
    u8::try_from(distance).expect("a block is short")
}
