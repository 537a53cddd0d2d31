//! DNS answers about addresses, and the names they belong to.

use std::net::IpAddr;
use std::time::Duration;

use crate::operator::{DeclaredName, Operator};
use crate::signal::{Dns, Observed, Signal};
use crate::time::Time;

/// The cluster's own zone, in which addresses change with pods.
const CLUSTER_ZONE: &str = "cluster.local";
/// Assumed time to live where a recording has none.
const TTL: Duration = Duration::from_secs(30);

/// Whether a name lies in the cluster's own zone.
pub(crate) fn is_own(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.strip_suffix(CLUSTER_ZONE).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// A positive or negative answer to a query for addresses.
pub(crate) struct Answer<'a> {
    pub at: Time,
    pub server: IpAddr,
    pub id: u16,
    /// The name in the query, in lower case without the dot at its end.
    pub asked: String,
    /// The same without the search domain that a stub resolver appended (resolv.conf(5)), if that is a known name.
    pub name: String,
    pub declared: Option<&'a DeclaredName>,
    pub ipv6: bool,
    /// Empty if the name does not exist or has no addresses of this version.
    pub addresses: &'a [IpAddr],
    pub ttl: Duration,
}

impl<'a> Answer<'a> {
    /// The answer in a signal. `None` for failures and for undeclared names of the cluster's own zone. `is_known`
    /// tells whether a name had addresses before.
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
        if is_own(&asked) && declared.is_none_or(|declared| declared.name != asked) {
            return None;
        }
        let ttl = ttl.map_or(TTL, |seconds| Duration::from_secs(seconds.into()));
        let (at, server, id, addresses) = (signal.at, server.ip(), *id, answers.as_slice());
        Some(Self { at, server, id, asked, name, declared, ipv6, addresses, ttl })
    }
}
