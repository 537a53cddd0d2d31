//! The privileged room: the only crate that may hold `unsafe`, netlink, nft or raw sockets.
//!
//! A map of the modules:
//! - [`netns`]: a network namespace as a handle, and the one thread that enters it.
//! - [`netlink`]: requests to the kernel over one netlink socket, synchronous; streams of its news.
//! - [`builder`]: links, addresses, neighbours, routes and rules are made, asynchronously, by `rtnetlink`.
//! - [`link`], [`route`]: interfaces and addresses; routes, rules, neighbours and look-ups.
//! - [`nft`]: tables of nftables rules, sent as one batch and read back.
//! - [`delay`]: packets that arrive late or not at all.
//! - [`conntrack`]: events, statistics, entries of connection tracking.
//! - [`sockdiag`]: TCP sockets and their `tcp_info`.
//! - [`packet`]: AF_PACKET capture behind a BPF filter.
//! - [`socket`]: TCP, UDP and ICMP sockets made inside a namespace.
//! - [`sysctl`], [`kmsg`], [`clock`]: settings, the kernel log, monotonic time.
//! - [`process`]: the lab process in namespaces of its own, and the proof that it is gone.
//! - [`host`]: what the machine looks like from outside, before and after.
//!
//! Everything else is synchronous but the streams (`RouteEvents`, `ConntrackEvents`, [`packet::Capture`], [`kmsg::KernelLog`]).

pub mod builder;
pub mod clock;
pub mod conntrack;
pub mod delay;
pub mod error;
pub mod host;
pub mod kmsg;
pub mod link;
mod netlink;
pub mod netns;
pub mod nft;
pub mod packet;
pub mod process;
pub mod route;
pub mod sockdiag;
pub mod socket;
pub mod sysctl;
mod watched;

pub use error::{Error, Result};
pub use netns::NetNs;
