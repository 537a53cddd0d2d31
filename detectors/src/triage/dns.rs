//! Step 3, DNS: cluster DNS, and the clients' own resolvers for names that clients outside look up.
//!
//! Compared: the client's own look-ups and the agents' probes; the Service, its endpoints and the upstream resolvers;
//! a name's address now and those that it had before.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::access::{Leg, Lookup, Outcome};
use super::{Ask, Look, Run, State, Step, fresh};
use crate::capped::Capped;
use crate::finding::{Subject, SubjectKind};
use crate::names::{Answer, is_own};
use crate::operator::Operator;
use crate::signal::{Dns, Endpoint, Observed, Probe, ProbeKind, Signal};
use crate::time::{Time, span};

/// A query without an answer for this long has failed.
const PATIENCE: Duration = Duration::from_millis(350);
/// Failures in a row that count.
const MISSES: u32 = 2;
const CAP: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Resolution {
    /// Queries without an answer yet.
    open: Capped<(SocketAddr, IpAddr, u16), Time, CAP>,
    /// By client and resolver.
    clients: Capped<(IpAddr, IpAddr), Run, CAP>,
    /// Names that a client was denied although they had addresses.
    denied: Capped<(IpAddr, String), Time, CAP>,
    /// The addresses in the last answer, by name and IP version.
    current: Capped<(String, bool), Vec<IpAddr>, CAP>,
    /// Probes by node, kind, target and the external name that was asked.
    probes: BTreeMap<(Arc<str>, Kind, IpAddr, Option<String>), Run>,
    /// Look-ups of external names at the clients' own resolvers, and connects behind them.
    names: BTreeMap<(OfName, String, Option<IpAddr>), Run>,
    endpoints: Vec<Endpoint>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Service,
    Endpoint,
    Upstream,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum OfName {
    Name,
    Address,
}

impl Resolution {
    fn dns(&mut self, operator: &Operator, signal: &Signal, dns: &Dns) {
        let key = (dns.client, dns.server.ip(), dns.id);
        let between = (dns.client.ip(), dns.server.ip());
        let Some(response) = &dns.response else {
            self.open.insert(key, signal.at);
            return;
        };
        self.open.remove(&key);
        if let Some(run) = self.clients.entry(between) {
            match response.as_str() {
                "NOERROR" | "NXDOMAIN" => run.succeeded(signal.at),
                _ => run.failed(signal.at, response),
            }
        }
        let known = |name: &str| self.current.keys().any(|(known, _)| known == name);
        let Some(answer) = Answer::of(operator, signal, known) else { return };
        let denied = (dns.client.ip(), answer.name.clone());
        if !answer.addresses.is_empty() {
            self.denied.remove(&denied);
            self.current.insert((answer.name, answer.ipv6), answer.addresses.to_vec());
        } else if response == "NXDOMAIN" && answer.asked == answer.name && known(&answer.name) {
            self.denied.insert(denied, signal.at);
        }
    }

    fn probe(&mut self, node: &Arc<str>, at: Time, probe: &Probe) {
        let kind = match probe.kind {
            // If these fail, those for external names fail as well.
            ProbeKind::DnsService | ProbeKind::DnsEndpoint if probe.about.as_deref().is_some_and(is_own) => return,
            ProbeKind::DnsService => Kind::Service,
            ProbeKind::DnsEndpoint => Kind::Endpoint,
            ProbeKind::DnsUpstream => Kind::Upstream,
            ProbeKind::ExternalName | ProbeKind::Entry => {
                let Some(name) = probe.about.clone() else { return };
                let is_name = probe.kind == ProbeKind::ExternalName;
                let kind = if is_name { OfName::Name } else { OfName::Address };
                let resolver = is_name.then_some(probe.target);
                return self.names.entry((kind, name, resolver)).or_default().probe(at, probe);
            }
            _ => return,
        };
        let key = (Arc::clone(node), kind, probe.target, probe.about.clone());
        self.probes.entry(key).or_default().probe(at, probe);
    }

    /// Whether the last probes of this kind from these nodes fail, or answer; `None` without recent ones.
    fn probed(&self, kind: Kind, now: Time, nodes: &[&str]) -> Vec<bool> {
        let of_kind = self.probes.iter().filter(|((node, own, target, _), _)| {
            let is_endpoint = *own != Kind::Endpoint || self.endpoints.iter().any(|e| e.address == *target);
            *own == kind && is_endpoint && (nodes.is_empty() || nodes.contains(&&**node))
        });
        of_kind.filter_map(|(_, run)| run.state(now, MISSES)).collect()
    }

    /// Whether the upstream resolvers, asked for this name directly, have only SERVFAIL, and so has cluster DNS.
    fn is_refused_upstream(&self, now: Time, name: &str) -> bool {
        let is_it = |asked: &str| asked.trim_end_matches('.').eq_ignore_ascii_case(name.trim_end_matches('.'));
        let of_name = self.probes.iter().filter(|(key, _)| key.3.as_deref().is_some_and(is_it));
        let states: Vec<_> = of_name.filter_map(|(key, run)| Some((key.1, run.state(now, MISSES)?, run))).collect();
        let fails = |kind| states.iter().any(|(of, well, _)| *of == kind && !well);
        fails(Kind::Upstream)
            && fails(Kind::Service)
            && states.iter().all(|(_, well, run)| !well && run.error.as_deref() == Some("SERVFAIL"))
    }

    /// Cluster DNS answers at the address of each endpoint, but not at that of its Service: the Service is at fault.
    pub fn is_only_the_service(&self, now: Time, node: &str) -> bool {
        let of = |kind: Kind| self.probes.iter().filter(move |(key, _)| &*key.0 == node && key.1 == kind);
        let fails = |(_, run): &(&_, &Run)| run.state(now, MISSES) == Some(false);
        let Some((asked, service)) = of(Kind::Service).find(fails) else { return false };
        let answers = |endpoint: &Endpoint| {
            let run = of(Kind::Endpoint).find(|(key, _)| key.2 == endpoint.address && key.3 == asked.3);
            run.is_some_and(|(_, run)| run.answers_beside(service))
        };
        !self.endpoints.is_empty() && self.endpoints.iter().all(answers)
    }

    /// The addresses that a name has now.
    pub fn addresses(&self, name: &str) -> Vec<IpAddr> {
        let of = |ipv6| self.current.get(&(name.to_owned(), ipv6)).into_iter().flatten().copied();
        of(false).chain(of(true)).collect()
    }

    fn cluster(&self, ask: &Ask<'_>, leg: &Leg, lookup: &Lookup) -> Look {
        let (now, operator) = (ask.now, ask.operator);
        let nodes: Vec<&str> = leg.client_nodes().collect();
        let service = self.probed(Kind::Service, now, &nodes);
        let everywhere = self.probed(Kind::Service, now, &[]);
        let upstream = self.probed(Kind::Upstream, now, &[]);
        let own = self.own(ask, leg, lookup);
        let fails = service.contains(&false) || service.is_empty() && own == Some(false);
        if nodes.iter().any(|node| self.is_only_the_service(now, node)) {
            return Look::in_order("the endpoints of cluster DNS answer, asked directly");
        }
        if fails && self.is_refused_upstream(now, &lookup.name) {
            let what = format!("the upstream resolvers, asked directly, answer SERVFAIL for {}", lookup.name);
            return Look::faulty(Subject::name(&lookup.name), what).explains_if(true);
        }
        if fails {
            let asked = self.probed(Kind::Endpoint, now, &[]);
            let endpoints = match self.endpoints.len() {
                0 => "there is no ready endpoint".to_owned(),
                _ if asked.contains(&true) => "some endpoints, asked directly, answer".to_owned(),
                1 => "its only endpoint, asked directly, does not answer either".to_owned(),
                count => format!("its {count} endpoints, asked directly, do not answer either"),
            };
            let directly = match upstream.contains(&true) {
                true => "the upstream resolvers, asked directly, answer",
                false if upstream.is_empty() => "no upstream resolver was asked",
                false => "the upstream resolvers do not answer either",
            };
            let what = format!("{} does not answer; {endpoints}; {directly}", operator.dns_service);
            return Look::faulty(Subject::service(&operator.dns_service), what).explains_if(true);
        }
        if own == Some(false) && everywhere.contains(&true) {
            return Look::in_order(format!("{} answers others", operator.dns_service));
        }
        if own == Some(true) || service.contains(&true) {
            return Look::in_order(match self.addresses(&lookup.name).as_slice() {
                [] => format!("{} answers", operator.dns_service),
                [address, ..] => format!("{} resolves to {address}, as before", lookup.name),
            });
        }
        Look::not_seen(format!("no look-up of {} was seen", lookup.name))
    }

    /// Whether the leg's own clients get answers from this resolver.
    fn own(&self, ask: &Ask<'_>, leg: &Leg, lookup: &Lookup) -> Option<bool> {
        let own =
            self.clients.iter().filter(|((client, server), _)| *server == lookup.resolver && leg.is_from(*client));
        let states: Vec<bool> = own.filter_map(|(_, run)| run.state(ask.now, MISSES)).collect();
        if states.is_empty() { None } else { Some(!states.contains(&false)) }
    }

    fn elsewhere(&self, ask: &Ask<'_>, leg: &Leg, lookup: &Lookup) -> Look {
        let now = ask.now;
        let probe = |kind, resolver| self.names.get(&(kind, lookup.name.clone(), resolver));
        let name = probe(OfName::Name, Some(lookup.resolver));
        match name.and_then(|run| run.state(now, MISSES)).or_else(|| self.own(ask, leg, lookup)) {
            Some(false) => {
                let error = name.and_then(|run| run.error.as_deref()).unwrap_or("no answer");
                let by_address = probe(OfName::Address, None).and_then(|run| run.state(now, MISSES));
                let by_address = match by_address {
                    Some(true) => "; the address that it had answers",
                    Some(false) => "; the address that it had does not answer either",
                    None => "",
                };
                let silent = error == "timeout" || name.is_none();
                let subject = if silent {
                    Subject::server(SocketAddr::new(lookup.resolver, 53))
                } else {
                    Subject::name(&lookup.name)
                };
                let what = format!("{} is not resolved by {} ({error}){by_address}", lookup.name, lookup.resolver);
                Look::faulty(subject, what).explains_if(true)
            }
            Some(true) => Look::in_order(format!("{} resolves {}", lookup.resolver, lookup.name)),
            None => Look::not_seen(format!("no look-up of {} was seen", lookup.name)),
        }
    }

    /// Clients report that they cannot resolve the name, and nothing else was seen of their own resolver.
    fn reported(&self, ask: &Ask<'_>) -> Option<Look> {
        let leg = ask.access.legs.first()?;
        let lookup = leg.lookup.as_ref().filter(|lookup| lookup.resolver != ask.operator.dns_address)?;
        let unseen = self.elsewhere(ask, leg, lookup).state == State::NotSeen;
        (ask.outcome == Outcome::NameError && unseen).then(|| {
            let what = format!("{} cannot resolve {} at {}", leg.who(), lookup.name, lookup.resolver);
            Look::faulty(Subject::server(SocketAddr::new(lookup.resolver, 53)), what).explains_if(true)
        })
    }

    /// A name that leads elsewhere than before, where it is slow or unanswered.
    fn record(&self, ask: &Ask<'_>, lookup: &Lookup, leg: &Leg) -> Option<Look> {
        let now: BTreeSet<IpAddr> = self.addresses(&lookup.name).into_iter().collect();
        let paths = &ask.shared.paths;
        if now.is_empty() || now.iter().any(|address| paths.is_usual(&lookup.name, &[*address].into())) {
            return None;
        }
        let before = paths.usual_of(&lookup.name);
        let before = before.first()?;
        let subject = Subject::name(&lookup.name);
        let address = now.first()?;
        let slow = paths.slow();
        if let Some((_, _, run)) =
            slow.iter().find(|(name, (to, _), _)| *name == Some(&*lookup.name) && now.contains(to))
        {
            let (took, usual) = (span(run.took), span(before.time));
            let what = format!(
                "{} now resolves to {address}, {took} away; {}, as before, is {usual} away",
                lookup.name, before.address
            );
            return Some(Look::faulty(subject, what).explains_if(true));
        }
        let own = ask.shared.journeys.of(leg);
        let unanswered = own.iter().filter(|journey| journey.is_broken(ask.now));
        let mut elsewhere = unanswered.filter_map(|journey| Some(journey.origin()?.destination.ip()));
        elsewhere.any(|to| now.contains(&to)).then(|| {
            let what =
                format!("{} now resolves to {address}, which does not answer; before: {}", lookup.name, before.address);
            Look::faulty(subject, what).explains_if(true)
        })
    }

    pub(super) fn tick(&mut self, now: Time) {
        let late: Vec<_> =
            self.open.iter().filter(|(_, at)| now.since(**at) >= PATIENCE).map(|(key, at)| (*key, *at)).collect();
        for (key, at) in late {
            self.open.remove(&key);
            if let Some(run) =
                self.clients.entry((key.0.ip(), key.1)).filter(|run| run.answered.is_none_or(|ok| ok < at))
            {
                run.failed(now, "timeout");
            }
        }
    }
}

impl Step for Resolution {
    fn observe(&mut self, operator: &Operator, signal: &Signal) {
        match &signal.observed {
            Observed::Dns(dns) => self.dns(operator, signal, dns),
            Observed::Probe(probe) => self.probe(&signal.node, signal.at, probe),
            Observed::Endpoints(list) if list.service == operator.dns_service => self.endpoints.clone_from(&list.ready),
            _ => {}
        }
    }

    fn look(&self, ask: &Ask<'_>) -> Look {
        let lookups = ask.access.legs.iter().filter_map(|leg| Some((leg, leg.lookup.as_ref()?)));
        let looks: Vec<Look> = lookups
            .map(|(leg, lookup)| {
                let denied = leg.from.iter().flat_map(|end| &end.addresses).find_map(|client| {
                    self.denied.get(&(*client, lookup.name.clone())).filter(|at| fresh(Some(**at), ask.now))
                });
                if denied.is_some() {
                    let what = format!("{} does not exist any more (NXDOMAIN)", lookup.name);
                    return Look::faulty(Subject::name(&lookup.name), what).explains_if(true);
                }
                if let Some(record) = self.record(ask, lookup, leg) {
                    return record;
                }
                if lookup.resolver == ask.operator.dns_address {
                    self.cluster(ask, leg, lookup)
                } else {
                    self.elsewhere(ask, leg, lookup)
                }
            })
            .collect();
        if looks.is_empty() {
            return Look::not_on_this_way("no name is looked up");
        }
        let mut look = Look::worst(looks);
        if look.state != State::Faulty {
            look = self.reported(ask).unwrap_or(look);
        }
        // A name that is not resolved makes nothing slow, and its look-up refuses nothing.
        let record = look.at.as_ref().is_some_and(|at| at.kind == SubjectKind::Name);
        let fits = match ask.outcome {
            Outcome::NameError | Outcome::Timeout | Outcome::Failed => true,
            Outcome::Slow(_) | Outcome::Refused => record,
            Outcome::Status(_) => ask.outcome.is_gateway(),
            Outcome::Well => false,
        };
        look.explains &= fits;
        look
    }
}
