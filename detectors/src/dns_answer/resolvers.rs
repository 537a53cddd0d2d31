//! Upstream resolvers that answer with different addresses for one name.
//!
//! An answer is compared with the last two of each other resolver, and one common address is enough, so that rotation is
//! no difference. A resolver that lags behind the others does so for at most a TTL.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use crate::capped::Capped;
use crate::claims::Claim;
use crate::finding::Severity;
use crate::names::Answer;
use crate::operator::Operator;
use crate::time::Time;

/// Answers per resolver that are compared.
const LATEST: usize = 2;
/// Different answers that are needed of each of the two.
const ANSWERS: u32 = 3;
/// Time that a difference must last beyond the TTL.
const MORE: Duration = Duration::from_secs(1);
/// Resolvers queried within so many TTLs, or within this time, are queried in the same period.
const TTLS: u32 = 4;
const PERIOD: Duration = Duration::from_secs(10);
const FEW: usize = 16;

/// The answers of each resolver for one name.
#[derive(Debug, Default)]
pub(super) struct Resolvers {
    servers: Capped<Server, Answers, FEW>,
    pairs: Capped<(Server, Server), Pair, { FEW * FEW }>,
    ttl: Duration,
}

/// A resolver, and whether it is queried for IPv6.
type Server = (IpAddr, bool);

#[derive(Debug, Default)]
struct Answers {
    latest: VecDeque<BTreeSet<IpAddr>>,
    id: u16,
    at: Time,
}

/// Two resolvers.
#[derive(Debug, Default)]
struct Pair {
    agreed: bool,
    apart: Option<Apart>,
}

#[derive(Debug)]
struct Apart {
    since: Time,
    answers: [u32; 2],
}

impl Resolvers {
    pub fn answer(&mut self, operator: &Operator, answer: &Answer<'_>) {
        let is_cluster_dns = answer.server == operator.dns_address || operator.is_pod(answer.server);
        if is_cluster_dns || answer.addresses.is_empty() {
            return;
        }
        self.ttl = answer.ttl;
        let server = (answer.server, answer.ipv6);
        let addresses: BTreeSet<IpAddr> = answer.addresses.iter().copied().collect();
        let Some(own) = self.servers.entry(server) else { return };
        // The same answer, captured on another interface.
        if own.id == answer.id && !own.latest.is_empty() {
            return;
        }
        (own.id, own.at) = (answer.id, answer.at);
        own.latest.push_back(addresses.clone());
        if own.latest.len() > LATEST {
            own.latest.pop_front();
        }
        for (other, others) in self.servers.iter() {
            if *other == server || other.1 != answer.ipv6 || answer.at.since(others.at) > period(self.ttl) {
                continue;
            }
            let Some(pair) = self.pairs.entry((server.min(*other), server.max(*other))) else { continue };
            if others.latest.iter().any(|latest| !latest.is_disjoint(&addresses)) {
                *pair = Pair { agreed: true, apart: None };
            } else {
                let apart = pair.apart.get_or_insert(Apart { since: answer.at, answers: [0; 2] });
                apart.answers[usize::from(server > *other)] += 1;
            }
        }
    }

    /// The claim that two of them keep disagreeing.
    pub fn claim(&self, now: Time) -> Option<Claim> {
        let asked =
            |server: &Server| self.servers.get(server).filter(|answers| now.since(answers.at) <= period(self.ttl));
        let last = |answers: &Answers| {
            let addresses = answers.latest.iter().flatten().collect::<BTreeSet<_>>();
            addresses.into_iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        let claims = self.pairs.iter().filter_map(|((one, other), pair)| {
            let apart = pair.apart.as_ref().filter(|apart| apart.answers.iter().all(|n| *n >= ANSWERS))?;
            let (answers, other_answers) = (asked(one)?, asked(other)?);
            let evidence = format!(
                "{} answers {} and {} answers {}, for longer than the TTL of {} s",
                one.0,
                last(answers),
                other.0,
                last(other_answers),
                self.ttl.as_secs()
            );
            let severity = if pair.agreed { Severity::Warning } else { Severity::Info };
            let stands = now.since(apart.since) > self.ttl + MORE;
            stands.then_some(Claim { severity, since: apart.since, evidence })
        });
        claims.max_by_key(|claim| claim.severity)
    }
}

fn period(ttl: Duration) -> Duration {
    (ttl * TTLS).max(PERIOD)
}
