//! How a changed DNS record reaches clients: with the answers they get, later than the change if those are cached or if
//! clients keep their connections.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use relapse_detectors::prefix::Prefix;
use relapse_detectors::signal::Dns;
use relapse_model::zone;

/// A changed record that some clients see later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spread {
    /// Folded owner of the record; may be a wildcard.
    pub name: String,
    /// Addresses of the record before the change, and after it. Empty if there is none.
    pub before: Vec<IpAddr>,
    pub after: Vec<IpAddr>,
    /// Longest time that a cache gives the old answer. `None` if no look-up is expected at all: all clients of the name
    /// keep their connections.
    pub hold: Option<Duration>,
    /// Pods, whose answers count. Agents ask the resolvers directly, past every cache.
    pub clients: Prefix,
}

impl Spread {
    /// Whether an answer to a pod contains the change; `None` if it shows neither.
    #[must_use]
    pub fn shows(&self, dns: &Dns) -> Option<bool> {
        let counts = self.clients.contains(dns.client.ip());
        if !counts || !matches!(dns.response.as_deref(), Some("NOERROR" | "NXDOMAIN")) {
            return None;
        }
        let ipv6 = match dns.record.as_str() {
            "A" => false,
            "AAAA" => true,
            _ => return None,
        };
        let asked = zone::folded(&dns.name);
        zone::owner(std::iter::once(self.name.as_str()), &asked)?;
        let family = |all: &[IpAddr]| all.iter().copied().filter(|a| a.is_ipv6() == ipv6).collect::<BTreeSet<_>>();
        let [before, after, answered] = [&self.before, &self.after, &dns.answers].map(|all| family(all));
        (before != after).then_some(answered == after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shows(name: &str, asked: &str, record: &str, response: &str, answers: &[&str]) -> Option<bool> {
        let all = |addresses: &[&str]| addresses.iter().map(|a| a.parse().unwrap()).collect::<Vec<IpAddr>>();
        let (before, after) = (all(&["10.219.226.2"]), all(&["100.64.249.132", "100.64.249.133"]));
        let spread =
            Spread { name: name.to_owned(), before, after, hold: None, clients: "10.176.96.0/20".parse().unwrap() };
        spread.shows(&Dns {
            client: ([10, 176, 96, 7], 40_000).into(),
            server: ([192, 168, 0, 10], 53).into(),
            id: 1,
            name: asked.to_owned(),
            record: record.to_owned(),
            response: (!response.is_empty()).then(|| response.to_owned()),
            answers: all(answers),
            ttl: None,
        })
    }

    #[test]
    fn an_answer_has_the_new_addresses_in_any_order_or_not() {
        let name = "oss.example.com";
        let of_name = |answers: &[&str]| shows(name, "OSS.example.com.", "A", "NOERROR", answers);
        assert_eq!(of_name(&["100.64.249.133", "100.64.249.132"]), Some(true));
        assert_eq!(of_name(&["10.219.226.2"]), Some(false));
        assert_eq!(of_name(&["100.64.249.132"]), Some(false), "one of them is not the new record");
        assert_eq!(shows(name, name, "A", "NXDOMAIN", &[]), Some(false));
        assert_eq!(shows(name, name, "A", "SERVFAIL", &[]), None);
        assert_eq!(shows(name, name, "A", "", &[]), None, "a query");
        assert_eq!(shows(name, name, "AAAA", "NOERROR", &[]), None, "the record has no IPv6 addresses at any time");
        assert_eq!(shows(name, "oss.example.com.cluster.local.", "A", "NXDOMAIN", &[]), None);
        assert_eq!(shows("*.example.com", name, "A", "NOERROR", &["10.219.226.2"]), Some(false));
    }
}
