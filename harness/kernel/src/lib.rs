//! Privileged operations: the only crate that may use `unsafe`, netlink, nftables or raw sockets.
//!
//! Modules:
//! - [`netns`]: handles to network namespaces, and running code inside one.
//! - [`netlink`]: synchronous requests over one netlink socket; streams of notifications.
//! - [`builder`]: creates links, addresses, neighbours, routes and rules asynchronously with `rtnetlink`.
//! - [`link`], [`route`]: interfaces and addresses; routes, rules, neighbours and lookups.
//! - [`nft`]: nftables tables, sent as one batch and read back.
//! - [`delay`]: delays and loses packets of a path.
//! - [`conntrack`]: connection tracking events, statistics and entries.
//! - [`sockdiag`]: TCP sockets and their `tcp_info`.
//! - [`packet`]: AF_PACKET capture behind a BPF filter.
//! - [`socket`]: TCP, UDP and ICMP sockets created inside a namespace.
//! - [`sysctl`], [`kmsg`], [`clock`]: settings, the kernel log, monotonic time.
//! - [`process`]: the lab process in its own namespaces, and verification that they are released.
//! - [`host`]: the state of the machine before and after a run.
//!
//! Everything is synchronous except the streams (`RouteEvents`, `ConntrackEvents`, [`packet::Capture`],
//! [`kmsg::KernelLog`]).

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
