//! `dns-answer`: a name resolves to a wrong address.
//!
//! What it sees: an answer outside the prefixes declared for the name. For an undeclared name: an answer outside all
//! prefixes that the name had, for longer than its TTL, if the path to that address is slow (`path-slow`), else `info`;
//! or two resolvers that agreed before and differ for longer than the TTL. An answer to a query with a search domain
//! counts for the name without it (resolv.conf(5)).
//! Why it matters: every lookup succeeds, and traffic goes elsewhere.
//! Which incident: I6.
//!
//! Left out: names of the cluster's own zone, and resolvers that never agreed, which may differ on purpose (`info`).

mod resolvers;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::capped::Capped;
use crate::claims::{Claim, want};
use crate::detector::{Context, Detector, DetectorInfo, Scope, State, new};
use crate::finding::{Level, Severity, Subject, SubjectKind};
use crate::names::Answer;
use crate::operator::Operator;
use crate::paths::Paths;
use crate::prefix::Prefix;
use crate::signal::{CollectorKind, Signal};
use crate::time::Time;
use resolvers::Resolvers;

pub const INFO: DetectorInfo = DetectorInfo {
    name: "dns-answer",
    incident: "I6",
    level: Level::Cause,
    subjects: &[SubjectKind::Name],
    what: "A name resolves to an address outside its prefixes, or two resolvers go on disagreeing about it.",
    facts: "Without declared prefixes it needs a slow path, or two resolvers that disagree; with stale ones it \
            accuses right answers, and its evidence says that no answer was ever inside them.",
    wants: &[CollectorKind::DnsPackets, CollectorKind::Packets, CollectorKind::ConntrackEvents],
    needs: &[&[CollectorKind::DnsPackets]],
    scope: Scope::Cluster,
    state: State::Cluster(new::<DnsAnswer>),
};

/// Prefixes that a name has within this time of its first answer are its own.
const FIRST: Duration = Duration::from_secs(1);
/// A prefix in answers for this long, without a slow path, is the name's own.
const MOVED: Duration = Duration::from_mins(10);
/// A resolver's wrong answer expires after so many TTLs, if others give right ones: a cache may query resolvers in turn.
const TTLS: u32 = 2;
const SHORTEST: Duration = Duration::from_secs(1);
const FEW: usize = 64;

#[derive(Default)]
struct DnsAnswer {
    paths: Paths,
    names: Capped<String, Name, 1024>,
}

#[derive(Default)]
struct Name {
    since: Time,
    last: Time,
    /// The /24 and /64 prefixes of its addresses.
    prefixes: Capped<Prefix, (), FEW>,
    /// Queries whose last answer has an address outside.
    outside: Capped<Asked, Outside, FEW>,
    /// The last right answer.
    right: Time,
    resolvers: Resolvers,
}

/// The name in the query, the server, and whether the query is for IPv6.
type Asked = (String, IpAddr, bool);

struct Outside {
    since: Time,
    last: Time,
    ttl: Duration,
    addresses: BTreeSet<IpAddr>,
    /// The declared prefixes, for the evidence.
    declared: Option<String>,
}

fn prefix_of(address: IpAddr) -> Prefix {
    Prefix::new(address, if address.is_ipv4() { 24 } else { 64 }).unwrap_or_else(|_| Prefix::host(address))
}

impl Name {
    fn answer(&mut self, operator: &Operator, answer: &Answer<'_>) {
        let key = (answer.asked.clone(), answer.server, answer.ipv6);
        let family = |prefix: &&Prefix| prefix.address().is_ipv6() == answer.ipv6;
        let declared: Vec<&Prefix> = answer.declared.iter().flat_map(|d| &d.prefixes).filter(family).collect();
        let outside: BTreeSet<IpAddr> = if declared.is_empty() {
            let is_first = answer.at.since(self.since) <= FIRST || !self.prefixes.keys().any(|p| family(&p));
            if is_first {
                answer.addresses.iter().for_each(|address| self.prefixes.insert(prefix_of(*address), ()));
            }
            let is_outside = |address: &&IpAddr| !self.prefixes.keys().any(|prefix| prefix.contains(**address));
            answer.addresses.iter().filter(is_outside).copied().collect()
        } else {
            let is_outside = |address: &&IpAddr| !declared.iter().any(|prefix| prefix.contains(**address));
            answer.addresses.iter().filter(is_outside).copied().collect()
        };
        if declared.is_empty() && answer.asked == answer.name {
            self.resolvers.answer(operator, answer);
        }
        if !answer.addresses.is_empty() {
            self.last = self.last.max(answer.at);
        }
        if outside.is_empty() {
            self.outside.remove(&key);
            self.right = self.right.max(answer.at);
            return;
        }
        let words = || declared.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let declared = (!declared.is_empty()).then(words);
        let new =
            || Outside { since: answer.at, last: answer.at, ttl: Duration::ZERO, addresses: BTreeSet::new(), declared };
        if let Some(known) = self.outside.entry_or(key, new) {
            known.last = known.last.max(answer.at);
            known.ttl = known.ttl.max(answer.ttl);
            known.addresses = outside;
        }
    }

    /// Adds prefixes that have proved to be the name's own, and drops expired answers.
    fn settle(&mut self, now: Time, name: &str, paths: &Paths) {
        let mut own = Vec::new();
        self.outside.retain(|_, outside| {
            let stands = now.since(outside.since);
            let is_old = self.right > outside.last && now.since(outside.last) > (outside.ttl * TTLS).max(SHORTEST);
            let is_fast = stands > outside.ttl && paths.is_usual(name, &outside.addresses);
            let is_own =
                outside.declared.is_none() && !paths.is_slow(name, &outside.addresses) && (is_fast || stands > MOVED);
            if is_own {
                own.extend(outside.addresses.iter().map(|address| prefix_of(*address)));
            }
            !is_old && !is_own
        });
        own.into_iter().for_each(|prefix| self.prefixes.insert(prefix, ()));
    }

    fn claims(&self, now: Time, name: &str, paths: &Paths) -> Option<Claim> {
        let mut wanted = BTreeMap::new();
        for ((asked, server, _), outside) in self.outside.iter() {
            let Outside { since, ttl, addresses, declared, .. } = outside;
            let stands = now.since(*since) > *ttl && paths.is_slow(name, addresses);
            let is_wrong = declared.is_some() || stands;
            let severity = if is_wrong { Severity::Warning } else { Severity::Info };
            let addresses = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let what = match declared {
                Some(declared) if self.right == Time::default() => {
                    format!(
                        "declared: {declared}, and no answer was ever inside, so these may no longer be its prefixes"
                    )
                }
                Some(declared) => format!("declared: {declared}"),
                None if stands => "no prefix that it had, and the path is slow".to_owned(),
                None => "no prefix that it had".to_owned(),
            };
            let evidence = format!("{server} answers {addresses} for {asked}, TTL {} s; {what}", ttl.as_secs());
            want(&mut wanted, Subject::name(name), Claim { severity, since: *since, evidence });
        }
        if let Some(claim) = self.resolvers.claim(now) {
            want(&mut wanted, Subject::name(name), claim);
        }
        wanted.into_values().next()
    }
}

impl DnsAnswer {
    fn judge(&self, cx: &mut Context<'_>) {
        let claims = self
            .names
            .iter()
            .filter_map(|(name, known)| Some((Subject::name(name.as_str()), known.claims(cx.now, name, &self.paths)?)));
        let wanted = claims.collect();
        cx.claims.settle(wanted, "resolvers give the name's own addresses");
    }
}

impl Detector for DnsAnswer {
    fn observe(&mut self, cx: &mut Context<'_>, signal: &Signal) {
        self.paths.observe(cx.operator, signal);
        let Some(answer) = Answer::of(cx.operator, signal, |name| self.names.contains_key(name)) else { return };
        if answer.addresses.is_empty() && !self.names.contains_key(&answer.name) {
            return;
        }
        let first = || Name { since: answer.at, ..Name::default() };
        let Some(name) = self.names.entry_or(answer.name.clone(), first) else { return };
        let before = name.outside.len();
        name.answer(cx.operator, &answer);
        if name.outside.len() != before {
            self.judge(cx);
        }
    }

    fn tick(&mut self, cx: &mut Context<'_>) {
        self.paths.tick(cx.now);
        self.names.iter_mut().for_each(|(name, known)| known.settle(cx.now, name, &self.paths));
        self.judge(cx);
    }

    fn forget(&mut self, cx: &Context<'_>) {
        self.paths.forget(cx.now);
        self.names.retain(|_, name| cx.now.since(name.last) < Duration::from_hours(1));
    }
}

#[cfg(test)]
pub mod tests;
