//! Domain names in DNS answers: whose addresses an answer gives.

use std::net::IpAddr;
use std::time::Duration;

use crate::operator::{DeclaredName, Operator};
use crate::signal::{Dns, Observed, Signal};
use crate::time::Time;

/// Names below it are the cluster's own: their addresses change with its pods.
const CLUSTER_ZONE: &str = "cluster.local";
/// Where an answer does not say how long it may be kept.
const TTL: Duration = Duration::from_secs(30);

/// An answer about the addresses of a name.
pub(crate) struct Answer<'a> {
    pub at: Time,
    pub server: IpAddr,
    pub id: u16,
    /// What was asked for, folded.
    pub asked: String,
    /// The name that is meant: without the search domain that a stub resolver appended (resolv.conf(5)).
    pub name: String,
    pub declared: Option<&'a DeclaredName>,
    pub ipv6: bool,
    /// None where there is no such name, or none of this kind.
    pub addresses: &'a [IpAddr],
    pub ttl: Duration,
}

impl<'a> Answer<'a> {
    /// What an answer says; nothing where it failed, or is about the cluster's own names. `is_known` says which names
    /// had an address before.
    pub fn of(operator: &'a Operator, signal: &'a Signal, is_known: impl Fn(&str) -> bool) -> Option<Self> {
        let Observed::Dns(dns) = &signal.observed else { return None };
        let Dns { server, id, record, answers, ttl, .. } = dns;
        let ipv6 = match record.as_str() {
            "A" => false,
            "AAAA" => true,
            _ => return None,
        };
        if !matches!(dns.response.as_deref()?, "NOERROR" | "NXDOMAIN") {
            return None;
        }
        let asked = dns.name.strip_suffix('.').unwrap_or(&dns.name).to_ascii_lowercase();
        let declared = |name: &str| operator.names.iter().find(|declared| declared.name == name);
        let ends = asked.match_indices('.').map(|(dot, _)| &asked[..dot]);
        let itself = std::iter::once(asked.as_str());
        let meant = itself.chain(ends).find(|name| declared(name).is_some() || is_known(name)).unwrap_or(&asked);
        let (name, declared) = (meant.to_owned(), declared(meant));
        let is_own = asked.strip_suffix(CLUSTER_ZONE).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        if is_own && declared.is_none_or(|declared| declared.name != asked) {
            return None;
        }
        let ttl = ttl.map_or(TTL, |seconds| Duration::from_secs(seconds.into()));
        let (at, server, id, addresses) = (signal.at, server.ip(), *id, answers.as_slice());
        Some(Self { at, server, id, asked, name, declared, ipv6, addresses, ttl })
    }
}
