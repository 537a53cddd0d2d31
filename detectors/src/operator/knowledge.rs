//! Variants of the operator's facts: right, none, and stale.
//!
//! Invariants: each is derived from the right facts alone, so the same cluster has the same stale facts in every run.
//! What an agent reads from its own node or from the API server is in all of them: names of NICs, the table of pods,
//! the DNS Service and its address.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::{DeclaredName, DeclaredPath, DeclaredServer, Entry, Operator};
use crate::prefix::Prefix;

/// How much of the operator's facts detectors get.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Knowledge {
    /// The facts of the cluster.
    #[default]
    Right,
    /// No declared fact, and no prefix of pods or peers.
    None,
    /// A fixed copy from before the cluster was changed:
    /// - prefixes of pods and of names are the neighbouring prefixes of the same length, from which they have moved;
    /// - a declared MTU is 1500 bytes, from before the tunnel, or 1400 where no tunnel made it smaller;
    /// - servers and resolvers have the neighbouring address (the last bit differs), from which they have moved;
    /// - the limit of connection tracking is half the right one, from before an upgrade.
    ///
    /// Prefixes of peers, names and ports are still right.
    Stale,
}

/// MTU of a link without a tunnel, bytes.
const PLAIN: u16 = 1500;
/// MTU of a path by a tunnel that no longer exists, bytes.
const TUNNEL: u16 = 1400;

impl Knowledge {
    pub const ALL: [Self; 3] = [Self::Right, Self::None, Self::Stale];

    /// As on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Right => "right",
            Self::None => "none",
            Self::Stale => "stale",
        }
    }

    /// Whether it is [`Knowledge::Right`].
    #[must_use]
    pub const fn is_right(&self) -> bool {
        matches!(self, Self::Right)
    }

    /// What detectors get of these facts.
    #[must_use]
    pub fn of(self, right: Operator) -> Operator {
        match self {
            Self::Right => right,
            Self::None => Operator {
                pod_prefixes: Vec::new(),
                paths: Vec::new(),
                peers: Vec::new(),
                names: Vec::new(),
                servers: Vec::new(),
                entries: Vec::new(),
                conntrack_limit: None,
                ..right
            },
            Self::Stale => stale(right),
        }
    }
}

impl fmt::Display for Knowledge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn stale(mut right: Operator) -> Operator {
    right.pod_prefixes.iter_mut().for_each(|prefix| *prefix = prefix.neighbour());
    for DeclaredPath { mtu, .. } in &mut right.paths {
        *mtu = if *mtu == PLAIN { TUNNEL } else { PLAIN };
    }
    for DeclaredName { prefixes, .. } in &mut right.names {
        prefixes.iter_mut().for_each(|prefix| *prefix = prefix.neighbour());
    }
    for DeclaredServer { address, .. } in &mut right.servers {
        *address = SocketAddr::new(beside(address.ip()), address.port());
    }
    for Entry { resolver, .. } in &mut right.entries {
        *resolver = beside(*resolver);
    }
    right.conntrack_limit = right.conntrack_limit.map(|limit| limit / 2);
    right
}

fn beside(address: IpAddr) -> IpAddr {
    Prefix::host(address).neighbour().address()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::operator;

    #[test]
    fn none_has_nothing_that_was_declared() {
        let none = Knowledge::None.of(operator());
        assert!(!none.is_pod("10.176.98.29".parse().unwrap()));
        assert!(none.paths.is_empty() && none.peers.is_empty() && none.entries.is_empty());
        assert!(none.names.is_empty() && none.servers.is_empty() && none.conntrack_limit.is_none());
        let right = operator();
        assert_eq!(
            (none.pod_nic, none.pod_table, none.dns_address),
            (right.pod_nic, right.pod_table, right.dns_address)
        );
    }

    #[test]
    fn stale_is_the_same_wrong_copy_each_time() {
        let right =
            Operator { conntrack_limit: Some(65536), peers: vec!["192.168.60.0/24".parse().unwrap()], ..operator() };
        let stale = Knowledge::Stale.of(right.clone());
        assert_eq!(stale, Knowledge::Stale.of(right.clone()));
        assert_eq!(stale.pod_prefixes, ["10.176.112.0/20".parse().unwrap()]);
        assert_eq!(stale.declared_mtu("192.168.60.10".parse().unwrap()), Some(1500));
        assert_eq!(stale.names[0].prefixes, ["10.219.227.0/24".parse().unwrap()]);
        assert_eq!(stale.servers[0].address, "10.176.46.5:3306".parse().unwrap());
        assert_eq!(stale.entries[0].resolver, "203.0.113.52".parse::<IpAddr>().unwrap());
        assert_eq!((stale.conntrack_limit, &stale.peers), (Some(32768), &right.peers));
    }

    #[test]
    fn a_stale_mtu_always_differs() {
        for mtu in [1280, 1400, 1500, 9000] {
            let mut right = operator();
            right.paths[0].mtu = mtu;
            assert_ne!(Knowledge::Stale.of(right).paths[0].mtu, mtu);
        }
    }
}
