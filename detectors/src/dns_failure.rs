//! `dns-failure`: cluster DNS does not answer, neither through its Service nor on any endpoint.
//!
//! What it sees: from one source, two consecutive queries to the DNS Service and to each of its endpoints fail; four
//! while other sources get answers, since a slow upstream causes occasional misses too. The Service is accused if two
//! nodes see that, or if one does, no other gets an answer, and an upstream resolver answers the same question
//! directly. A single node that gets no answers, not even for the cluster's own names, while others, which host no
//! endpoint, do is a finding about that node, as is one that drops queries before they leave it. A domain for which the
//! upstream itself has only SERVFAIL, or which fails alone, is `info`, and so is a name that only one node asks for and
//! no upstream resolver answers. The evidence says whether the cluster's own names are answered.
//! Why it matters: pods cannot resolve any name although the upstream resolvers work.
//! Which incident: I3.

mod asked;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::capped::Capped;
use crate::claims::{Claim, want};
use crate::detector::{Context, Detector, DetectorInfo, Scope, State, new};
use crate::dns_endpoints::DnsEndpoints;
use crate::finding::{Level, Severity, Subject, SubjectKind};
use crate::names::is_own;
use crate::signal::{CollectorKind, Endpoint, Observed, PodLog, Probe, ProbeKind, Signal};
use crate::time::Time;
use asked::{Asked, CAP, Name, Run, STALE, Source};

pub const INFO: DetectorInfo = DetectorInfo {
    name: "dns-failure",
    incident: "I3",
    level: Level::Symptom,
    subjects: &[SubjectKind::Name, SubjectKind::Node, SubjectKind::Service],
    what: "Cluster DNS does not answer, neither through its Service nor on any of its endpoints.",
    facts: "It finds the same with none and with stale facts.",
    wants: &[CollectorKind::Probes, CollectorKind::Inventory, CollectorKind::PodLogs],
    needs: &[&[CollectorKind::Probes]],
    scope: Scope::Cluster,
    state: State::Cluster(new::<DnsFailure>),
};

/// Events up to this long before the first miss belong to the failure.
const BEFORE: Duration = Duration::from_secs(2);
/// Names that have not been asked for this long are dropped.
const FORGET: Duration = Duration::from_mins(2);

#[derive(Default)]
struct DnsFailure {
    sources: Capped<(Arc<str>, IpAddr), Source, CAP>,
    /// What each upstream resolver last responded, by the name asked.
    upstream: Capped<(IpAddr, Name), (Time, Response), CAP>,
    latest: DnsEndpoints,
    endpoints: Option<Vec<Endpoint>>,
    /// The last timeout in a replica's log.
    log: Option<(Time, PodLog)>,
}

/// What an upstream resolver responded to a question.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Response {
    Answer,
    ServFail,
    Nothing,
}

const SERVFAIL: &str = "SERVFAIL";

/// A source that gets no answer for a name.
struct Failing<'a> {
    node: &'a Arc<str>,
    address: IpAddr,
    name: &'a Name,
    asked: &'a Asked,
    source: &'a Source,
}

impl Failing<'_> {
    const fn since(&self) -> Time {
        self.asked.service.first
    }

    /// Whether its node dropped queries before they left it: then its misses show nothing about the Service. Those to a
    /// Service without endpoints do not leave either, so those to the endpoints decide.
    fn never_left(&self) -> bool {
        self.asked.endpoints.values().any(|run| run.never_left)
    }
}

impl DnsFailure {
    fn probe(&mut self, signal: &Signal, probe: &Probe) {
        let at = signal.at;
        if probe.kind == ProbeKind::DnsUpstream {
            let response = match &probe.error {
                _ if probe.ok => Response::Answer,
                Some(error) if error == SERVFAIL => Response::ServFail,
                _ => Response::Nothing,
            };
            self.upstream.insert((probe.target, probe.about.clone()), (at, response));
            return;
        }
        if !matches!(probe.kind, ProbeKind::DnsService | ProbeKind::DnsEndpoint) {
            return;
        }
        let is_service = probe.kind == ProbeKind::DnsService;
        let is_here = |e: &Endpoint| e.node == *signal.node && (is_service || e.address == probe.target);
        let is_remote = !self.endpoints.iter().flatten().any(is_here);
        let Some(source) = self.sources.entry((Arc::clone(&signal.node), probe.source)) else { return };
        // A source that gets no answer for an own name gets none for an external one.
        if probe.about.as_deref().is_some_and(is_own) {
            if probe.ok {
                source.own_answered = source.own_answered.max(at);
            }
            return;
        }
        if !probe.ok {
            source.well_since = None;
        } else if is_remote {
            source.answered = at.max(source.answered);
            source.well_since.get_or_insert(at);
        }
        let Some(asked) = source.asked.entry(probe.about.clone()) else { return };
        let run = match probe.kind {
            ProbeKind::DnsService => Some(&mut asked.service),
            _ => asked.endpoints.entry(probe.target),
        };
        if let Some(run) = run {
            run.add(at, probe);
        }
    }

    fn judge(&mut self, cx: &mut Context<'_>) {
        let now = cx.now;
        let answered = self.sources.values().map(|source| source.answered).max().unwrap_or_default();
        for asked in self.sources.values_mut().flat_map(|source| source.asked.values_mut()) {
            asked.judge(now, answered, self.endpoints.as_deref());
        }
        let all = self.sources.iter().flat_map(|((node, address), source)| {
            let failing = source.asked.iter().filter(|(_, asked)| asked.failing);
            failing.map(move |(name, asked)| Failing { node, address: *address, name, asked, source })
        });
        let (domains, failing): (Vec<_>, Vec<_>) = all.partition(|failing| self.is_the_domain(failing));
        let mut wanted = BTreeMap::new();
        for domain in domains {
            let name = domain.name.clone().unwrap_or_default();
            let evidence = format!(
                "{} gets {} for {name} from {}; {}",
                domain.node,
                domain.asked.service.error.as_deref().unwrap_or("no answer"),
                cx.operator.dns_service,
                self.response_of(domain.name, domain.since())
            );
            let claim = Claim { severity: Severity::Info, since: domain.since(), evidence };
            want(&mut wanted, Subject::name(name.trim_end_matches('.')), claim);
        }
        self.accuse(cx, &failing, &mut wanted);
        cx.claims.settle(wanted, "cluster DNS answers again");
    }

    /// Accuses the Service, or a node that gets no answers while others do.
    fn accuse(&self, cx: &Context<'_>, failing: &[Failing<'_>], wanted: &mut BTreeMap<Subject, Claim>) {
        let (kept, failing): (Vec<_>, Vec<_>) = failing.iter().partition(|failing| failing.never_left());
        for kept in kept {
            let evidence = format!("{}; the queries do not leave the node", self.evidence(cx, kept));
            let claim = Claim { severity: Severity::Warning, since: kept.since(), evidence };
            want(wanted, Subject::node(&**kept.node), claim);
        }
        let Some(first) = failing.iter().min_by_key(|failing| failing.since()) else { return };
        let since = first.since();
        let nodes: BTreeSet<&Arc<str>> = failing.iter().map(|failing| failing.node).collect();
        let is_other = |node: &Arc<str>, source| !nodes.contains(node) && self.uses_the_network(node, source, since);
        let others = || self.sources.iter().filter(|((node, _), s)| is_other(node, s)).map(|(_, source)| source);
        let is_answered = others().any(|source| source.answered > since);
        let upstream_answers = failing.iter().any(|failing| self.answers(failing.name, since));
        // Cluster DNS is reached, and only external names fail, which the upstream resolvers do not answer either: not
        // the fault of the one node that asks.
        let is_lost = |failing: &&Failing| self.upstream_of(failing.name, Response::Nothing, since).is_some();
        let is_upstream = |failing: &&Failing| failing.source.own_answered >= since && is_lost(failing);
        if nodes.len() < 2 && !upstream_answers && failing.iter().all(is_upstream) {
            for failing in &failing {
                let name = failing.name.as_deref().unwrap_or_default().trim_end_matches('.');
                let evidence = self.evidence(cx, failing);
                want(wanted, Subject::name(name), Claim { severity: Severity::Info, since: failing.since(), evidence });
            }
            return;
        }
        if nodes.len() >= 2 || !is_answered && upstream_answers {
            let subject = Subject::service(&cx.operator.dns_service);
            wanted.insert(subject, Claim { severity: Severity::Warning, since, evidence: self.evidence(cx, first) });
            return;
        }
        // A node that gets answers for the cluster's own names is not cut off. Nor is one that may only be the last to
        // recover: the others must have been answered all the time, or while it went on failing.
        let last = first.asked.service.last;
        let well = |source: &Source| {
            source.answered > since && source.well_since.is_some_and(|well| well <= since || last.since(well) >= STALE)
        };
        if first.source.own_answered < since && others().any(well) {
            let evidence = format!("{}; other nodes get answers", self.evidence(cx, first));
            wanted.insert(Subject::node(&**first.node), Claim { severity: Severity::Warning, since, evidence });
        }
    }

    /// Answers to its agent may come from there, and show nothing about the way to cluster DNS.
    fn hosts_an_endpoint(&self, node: &str) -> bool {
        self.endpoints.iter().flatten().any(|endpoint| endpoint.node == node)
    }

    /// Whether its answers show that cluster DNS is reached over the network: an endpoint elsewhere answered all the
    /// time.
    fn uses_the_network(&self, node: &str, source: &Source, since: Time) -> bool {
        let is_here = |at: &IpAddr| self.endpoints.iter().flatten().any(|e| e.address == *at && e.node == node);
        let answers =
            |(at, run): (&IpAddr, &Run)| run.misses == 0 && run.first <= since && run.last > since && !is_here(at);
        !self.hosts_an_endpoint(node) || source.asked.values().any(|asked| asked.endpoints.iter().any(answers))
    }

    /// Whether the name's own servers are at fault: the upstream has no answer either, or only this name fails.
    fn is_the_domain(&self, failing: &Failing<'_>) -> bool {
        let since = failing.since();
        let is_servfail = failing.asked.service.error.as_deref() == Some(SERVFAIL);
        if failing.name.is_none() || !is_servfail || self.answers(failing.name, since) {
            return false;
        }
        let is_refused = self.upstream_of(failing.name, Response::ServFail, since).is_some();
        let others = failing.source.asked.iter().filter(|(name, _)| *name != failing.name);
        is_refused || others.map(|(_, asked)| &asked.service).any(|run| run.misses == 0 && run.last > since)
    }

    /// Whether an upstream resolver answers this question directly.
    fn answers(&self, name: &Name, since: Time) -> bool {
        self.upstream_of(name, Response::Answer, since).is_some()
    }

    /// The upstream resolver whose last response to this question is this one. An answer from before the failure counts
    /// no more.
    fn upstream_of(&self, name: &Name, response: Response, since: Time) -> Option<IpAddr> {
        let before = if response == Response::Answer { Duration::ZERO } else { BEFORE };
        let is = |(at, last): &(Time, Response)| *last == response && *at + before >= since;
        self.upstream.iter().find(|((_, asked), last)| asked == name && is(last)).map(|((address, _), _)| *address)
    }

    fn evidence(&self, cx: &Context<'_>, failing: &Failing<'_>) -> String {
        let Failing { node, address, name, asked, source } = failing;
        let since = failing.since();
        let error = asked.service.error.as_deref().unwrap_or("no answer");
        let endpoints = match &self.endpoints {
            Some(ready) if ready.is_empty() => "there is no ready endpoint".to_owned(),
            Some(ready) => format!("queries to every endpoint ({}) failed too", ready.len()),
            None => format!("queries to the known endpoints ({}) failed too", asked.endpoints.len()),
        };
        let own = if source.own_answered >= since { "; the cluster's own names are answered" } else { "" };
        let log = self.log.as_ref().filter(|(at, _)| *at >= since - BEFORE);
        format!(
            "{} consecutive queries from {address} on {node} to {} ({}) failed ({error}); {endpoints}{own}; {}{}",
            asked.service.misses,
            cx.operator.dns_service,
            cx.operator.dns_address,
            self.response_of(name, since),
            log.map(|(_, log)| format!("; the log of {} has {:?}", log.pod, log.line)).unwrap_or_default()
        )
    }

    /// How the upstream resolvers responded to this question since then.
    fn response_of(&self, name: &Name, since: Time) -> String {
        let last = |response| self.upstream_of(name, response, since);
        match (last(Response::Answer), last(Response::ServFail), last(Response::Nothing)) {
            (Some(address), ..) => format!("upstream {address} answers direct queries"),
            (None, Some(address), _) => format!("upstream {address} answers SERVFAIL itself"),
            (None, None, Some(_)) => "the upstream resolvers do not answer either".to_owned(),
            (None, None, None) => "no upstream resolver was queried directly".to_owned(),
        }
    }
}

impl Detector for DnsFailure {
    fn observe(&mut self, cx: &mut Context<'_>, signal: &Signal) {
        match &signal.observed {
            Observed::Probe(probe) => {
                self.probe(signal, probe);
                self.judge(cx);
            }
            Observed::PodLog(log) if log.line.contains("i/o timeout") => self.log = Some((signal.at, log.clone())),
            _ => {
                let Some(ready) = self.latest.update(cx.operator, signal) else { return };
                self.endpoints = Some(ready.to_vec());
                // A deleted pod is no longer probed; its misses must not linger.
                for asked in self.sources.values_mut().flat_map(|source| source.asked.values_mut()) {
                    asked.endpoints.retain(|address, _| ready.iter().any(|e| e.address == *address));
                }
            }
        }
    }

    fn tick(&mut self, cx: &mut Context<'_>) {
        self.judge(cx);
    }

    fn forget(&mut self, cx: &Context<'_>) {
        for source in self.sources.values_mut() {
            source.asked.retain(|_, asked| cx.now.since(asked.service.last) < FORGET);
        }
        self.upstream.retain(|_, (at, _)| cx.now.since(*at) < FORGET);
    }
}
