//! Capture filters, and the classic BPF programs they compile to.
//!
//! A filter is a list of terms; a frame passes if at least one term matches. Each term becomes one block
//! for IPv4 and one for IPv6; the program is the sequence of all blocks, then "drop". A block falls through to
//! "accept" at its end, or jumps to the next block. Loads are relative to the network header (`SKF_NET_OFF`), whatever
//! link header precedes it: Ethernet, or none on a tunnel (Documentation/networking/filter.rst in the kernel source).
//!
//! Left out: fragments after the first (they have no ports), IPv6 extension headers.

use socket2::SockFilter;

use super::TCP_HEAD;
use super::parse::UDP_PAYLOAD;

// Classic BPF, include/uapi/linux/bpf_common.h and filter.h.
const LOAD_BYTE: u16 = 0x30; // BPF_LD | BPF_B | BPF_ABS
const LOAD_HALF: u16 = 0x28; // BPF_LD | BPF_H | BPF_ABS
const LOAD_BYTE_AT_X: u16 = 0x50; // BPF_LD | BPF_B | BPF_IND
const LOAD_HALF_AT_X: u16 = 0x48; // BPF_LD | BPF_H | BPF_IND
const LOAD_X_HEADER_LENGTH: u16 = 0xb1; // BPF_LDX | BPF_B | BPF_MSH: 4 * (byte & 15)
const SET_X: u16 = 0x01; // BPF_LDX | BPF_IMM
const IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const IF_ANY_BIT: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

const SYN: u32 = 2;
const DNS: u32 = 53;

/// Room for an Ethernet header with two VLAN tags; longer link headers do not occur here.
const LINK_HEADER: u32 = 22;
/// The longest IPv4 and TCP headers, and the part of the payload that is kept.
const TCP_HEADERS: u32 = 60 + 60 + TCP_HEAD as u32;
/// The same for UDP, with the part of the payload that is kept.
const UDP_HEADERS: u32 = 60 + 8 + UDP_PAYLOAD as u32;

/// Which frames a capture delivers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Filter(Vec<Term>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Term {
    Tcp,
    Syn,
    Dns,
}

impl Filter {
    /// SYN and SYN-ACK.
    pub fn syn() -> Self {
        Self(vec![Term::Syn])
    }

    /// All TCP.
    pub fn tcp() -> Self {
        Self(vec![Term::Tcp])
    }

    /// DNS over UDP, queries and answers.
    pub fn dns() -> Self {
        Self(vec![Term::Dns])
    }

    /// Frames that pass at least one of `filters`.
    pub fn any_of(filters: impl IntoIterator<Item = Self>) -> Self {
        Self(filters.into_iter().flat_map(|filter| filter.0).collect())
    }

    /// Bytes kept of a frame, from the link header on: the maximum over all terms.
    pub(super) fn snap(&self) -> u32 {
        self.0.iter().map(|term| term.snap()).max().unwrap_or(LINK_HEADER)
    }

    pub(super) fn program(&self) -> Vec<SockFilter> {
        self.steps().into_iter().map(|(code, k, yes, no)| SockFilter::new(code, yes, no, k)).collect()
    }

    /// Code, operand, and the number of instructions skipped if a condition holds and if not.
    fn steps(&self) -> Vec<(u16, u32, u8, u8)> {
        let blocks = self.0.iter().flat_map(|term| [term.block(true), term.block(false)]);
        let mut steps: Vec<_> = blocks.flatten().collect();
        steps.push((RETURN, 0, 0, 0));
        steps
    }
}

/// The target of a conditional jump.
#[derive(Clone, Copy)]
enum To {
    /// The following instruction.
    Next,
    /// The end of the block: accept.
    Accept,
    /// Past the block.
    Fail,
}

impl Term {
    const fn snap(self) -> u32 {
        LINK_HEADER + if matches!(self, Self::Dns) { UDP_HEADERS } else { TCP_HEADERS }
    }

    /// The instructions for one version of IP.
    fn block(self, four: bool) -> Vec<(u16, u32, u8, u8)> {
        let network = |code, at: i32| (code, (libc::SKF_NET_OFF + at).cast_unsigned(), To::Next, To::Next);
        let require = |code, k| (code, k, To::Next, To::Fail);
        let mut block = vec![
            (LOAD_HALF, (libc::SKF_AD_OFF + libc::SKF_AD_PROTOCOL).cast_unsigned(), To::Next, To::Next),
            require(IF_EQUAL, if four { 0x0800 } else { 0x86dd }),
            network(LOAD_BYTE, if four { 9 } else { 6 }),
            require(IF_EQUAL, if matches!(self, Self::Dns) { 17 } else { 6 }),
        ];
        // From here on X is the length of the IP header.
        if four {
            block.extend([
                network(LOAD_HALF, 6),
                (IF_ANY_BIT, 0x1fff, To::Fail, To::Next),
                network(LOAD_X_HEADER_LENGTH, 0),
            ]);
        } else {
            block.push((SET_X, 40, To::Next, To::Next));
        }
        match self {
            Self::Tcp => {}
            Self::Syn => block.extend([network(LOAD_BYTE_AT_X, 13), require(IF_ANY_BIT, SYN)]),
            Self::Dns => block.extend([
                network(LOAD_HALF_AT_X, 0),
                (IF_EQUAL, DNS, To::Accept, To::Next),
                network(LOAD_HALF_AT_X, 2),
                require(IF_EQUAL, DNS),
            ]),
        }
        let end = block.len();
        let step = |(at, (code, k, yes, no))| {
            let over = |to| match to {
                To::Next => 0,
                To::Accept => end - at - 1,
                To::Fail => end - at,
            };
            let over = |to| u8::try_from(over(to)).expect("a block is short");
            (code, k, over(yes), over(no))
        };
        block.into_iter().enumerate().map(step).chain([(RETURN, self.snap(), 0, 0)]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every jump of every filter stays inside its program, and the program inside the kernel's limit.
    #[test]
    fn jumps_stay_inside() {
        for filter in [Filter::syn(), Filter::any_of([Filter::dns(), Filter::tcp(), Filter::syn()])] {
            let steps = filter.steps();
            assert!(steps.len() < 4096);
            for (at, (code, _, yes, no)) in steps.iter().enumerate() {
                let last = at + 1 + usize::from(*yes.max(no));
                assert!(last < steps.len() || *code == RETURN, "{filter:?}: {at}");
            }
        }
    }
}
