//! `dns-failure`: cluster DNS does not answer, neither through its Service nor on any endpoint.
//!
//! What it sees: from one source, two consecutive queries to the DNS Service and to each of its endpoints fail; four
//! while other sources get answers, since a slow upstream causes occasional misses too. The Service is accused if two
//! nodes see that, or if one does, no other gets an answer, and an upstream resolver answers the same question directly.
//! A single node that gets no answers while others, which host no endpoint, do is a finding about that node, as is one
//! whose queries are dropped before they leave it. A domain for which the upstream itself has only SERVFAIL, or which
//! fails alone, is `info`. The evidence says whether the cluster's own names are answered.
//! Why it matters: pods cannot resolve any name although the upstream resolvers work.
//! Which incident: I3.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::capped::Capped;
use crate::claims::{Claim, want};
use crate::detector::{Context, Detector, DetectorInfo, Scope, State, new};
use crate::dns_endpoints::DnsEndpoints;
use crate::finding::{Level, Severity, Subject};
use crate::names::is_own;
use crate::signal::{CollectorKind, Endpoint, Observed, PodLog, Probe, ProbeKind, Signal};
use crate::time::Time;

pub const INFO: DetectorInfo = DetectorInfo {
    name: "dns-failure",
    incident: "I3",
    level: Level::Symptom,
    what: "Cluster DNS does not answer, neither through its Service nor on any of its endpoints.",
    facts: "It finds the same with none and with stale facts.",
    wants: &[CollectorKind::Probes, CollectorKind::Inventory, CollectorKind::PodLogs],
    needs: &[&[CollectorKind::Probes]],
    scope: Scope::Cluster,
    state: State::Cluster(new::<DnsFailure>),
};

/// Consecutive misses required, and the number required while other sources get answers.
const MISSES: u32 = 2;
const MISSES_AMONG_ANSWERS: u32 = 4;
/// A run of misses that has not grown for this long is ignored.
const STALE: Duration = Duration::from_secs(5);
/// Events up to this long before the first miss belong to the failure.
const BEFORE: Duration = Duration::from_secs(2);
/// Names that have not been asked for this long are dropped.
const FORGET: Duration = Duration::from_mins(2);
const CAP: usize = 1024;

/// An external name that was asked; `None` if the probe asked only one name and does not state it.
type Name = Option<String>;

#[derive(Default)]
struct DnsFailure {
    sources: Capped<(Arc<str>, IpAddr), Source, CAP>,
    /// What each upstream resolver last responded, by the name asked.
    upstream: Capped<(IpAddr, Name), (Time, Word), CAP>,
    latest: DnsEndpoints,
    endpoints: Option<Vec<Endpoint>>,
    /// The last timeout in a replica's log.
    log: Option<(Time, PodLog)>,
}

/// An agent that asks cluster DNS.
#[derive(Default)]
struct Source {
    asked: Capped<Name, Asked, CAP>,
    /// When it last got an answer that cannot come from its own node, and when the first of those without a miss since.
    answered: Time,
    well_since: Option<Time>,
    /// The last answer for a name of the cluster's own.
    own_answered: Time,
}

/// Queries of a source for one external name.
#[derive(Default)]
struct Asked {
    service: Run,
    endpoints: Capped<IpAddr, Run, CAP>,
    failing: bool,
}

/// Consecutive misses, or answers where there are none.
#[derive(Default)]
struct Run {
    misses: u32,
    first: Time,
    last: Time,
    error: Option<String>,
}

/// What an upstream resolver responded to a question.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Answer,
    ServFail,
    Nothing,
}

const SERVFAIL: &str = "SERVFAIL";
/// EPERM, the end of the operating system's message: netfilter dropped the query on the node that sent it, for example
/// because the node's connection table is full.
const NEVER_LEFT: &str = "(os error 1)";

impl Run {
    fn add(&mut self, at: Time, probe: &Probe) {
        if probe.ok {
            let first = if self.misses == 0 && self.last > Time::default() { self.first } else { at };
            *self = Self { first, last: at, ..Self::default() };
            return;
        }
        if self.misses == 0 {
            self.first = at;
        }
        self.misses += 1;
        self.last = self.last.max(at);
        self.error.clone_from(&probe.error);
    }

    fn fails(&self, now: Time, misses: u32) -> bool {
        self.misses >= misses && now.since(self.last) < STALE
    }
}

impl Asked {
    /// Evaluates recent queries: whether neither the Service nor any endpoint answers. `answered`: when any
    /// source last got an answer.
    fn judge(&mut self, now: Time, answered: Time, ready: Option<&[Endpoint]>) {
        let others_answered = self.service.misses > 0 && answered > self.service.first;
        let no_endpoints_known = ready.is_none() && self.endpoints.is_empty();
        let misses = if others_answered || no_endpoints_known { MISSES_AMONG_ANSWERS } else { MISSES };
        let endpoints_fail = match ready {
            Some(ready) => {
                ready.iter().all(|e| self.endpoints.get(&e.address).is_some_and(|run| run.fails(now, misses)))
            }
            // Without an inventory, recently probed endpoints count.
            None => self.endpoints.values().all(|run| run.fails(now, misses) || now.since(run.last) >= STALE),
        };
        let fails = self.service.fails(now, misses) && endpoints_fail;
        // A name that is no longer asked fails no more.
        let stands = self.failing && now.since(self.service.last) < STALE;
        self.failing = self.service.misses > 0 && (stands || fails);
    }
}

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

    /// Whether its queries do not leave its node. Those to a Service without endpoints do not either, so those to the
    /// endpoints decide.
    fn never_left(&self) -> bool {
        let is_kept = |run: &Run| run.error.as_deref().is_some_and(|error| error.ends_with(NEVER_LEFT));
        !self.asked.endpoints.is_empty() && self.asked.endpoints.values().chain([&self.asked.service]).all(is_kept)
    }
}

impl DnsFailure {
    fn probe(&mut self, signal: &Signal, probe: &Probe) {
        let at = signal.at;
        if probe.kind == ProbeKind::DnsUpstream {
            let word = match &probe.error {
                _ if probe.ok => Word::Answer,
                Some(error) if error == SERVFAIL => Word::ServFail,
                _ => Word::Nothing,
            };
            self.upstream.insert((probe.target, probe.about.clone()), (at, word));
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
                self.word_of(domain.name, domain.since())
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
        if nodes.len() >= 2 || !is_answered && upstream_answers {
            let subject = Subject::service(&cx.operator.dns_service);
            wanted.insert(subject, Claim { severity: Severity::Warning, since, evidence: self.evidence(cx, first) });
            return;
        }
        // The node may only be the last to recover: the others were answered all the time, or while it went on failing.
        let last = first.asked.service.last;
        let well = |source: &Source| {
            source.answered > since && source.well_since.is_some_and(|well| well <= since || last.since(well) >= STALE)
        };
        if others().any(well) {
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
        let is_refused = self.upstream_of(failing.name, Word::ServFail, since).is_some();
        let others = failing.source.asked.iter().filter(|(name, _)| *name != failing.name);
        is_refused || others.map(|(_, asked)| &asked.service).any(|run| run.misses == 0 && run.last > since)
    }

    /// Whether an upstream resolver answers this question directly.
    fn answers(&self, name: &Name, since: Time) -> bool {
        self.upstream_of(name, Word::Answer, since).is_some()
    }

    /// The upstream resolver whose last word about this question is this one. An answer from before the failure counts
    /// no more.
    fn upstream_of(&self, name: &Name, word: Word, since: Time) -> Option<IpAddr> {
        let before = if word == Word::Answer { Duration::ZERO } else { BEFORE };
        let is = |(at, last): &(Time, Word)| *last == word && *at + before >= since;
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
            self.word_of(name, since),
            log.map(|(_, log)| format!("; the log of {} has {:?}", log.pod, log.line)).unwrap_or_default()
        )
    }

    /// How the upstream resolvers responded to this question since then.
    fn word_of(&self, name: &Name, since: Time) -> String {
        let last = |word| self.upstream_of(name, word, since);
        match (last(Word::Answer), last(Word::ServFail), last(Word::Nothing)) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Scene, play, scene};

    const NAME: &str = INFO.name;
    const SERVICE: &str = "192.168.0.10";
    const FIRST: &str = "10.176.98.2";
    const SECOND: &str = "10.176.98.3";

    /// One round of probes from both nodes.
    fn round(scene: &mut Scene, at: u64, service: bool, endpoint: &[(&str, bool)], upstream: bool) {
        for node in ["worker-1", "worker-2"] {
            play!(scene, "{at} @{node} probe upstream 10.16.16.16 {upstream}");
            play!(scene, "{at} @{node} probe service {SERVICE} {service}");
            for (address, ok) in endpoint {
                play!(scene, "{at} @{node} probe endpoint {address} {ok}");
            }
        }
    }

    fn one_endpoint() -> Scene {
        scene!(NAME, "0 endpoints 0@worker-1")
    }

    #[test]
    fn incident_two_misses_in_a_row_while_upstream_answers() {
        let mut scene = one_endpoint();
        round(&mut scene, 100, true, &[(FIRST, true)], true);
        round(&mut scene, 600, false, &[(FIRST, false)], true);
        play!(scene, "? nothing");
        round(&mut scene, 1_100, false, &[(FIRST, false)], true);
        play!(scene, "? warning 1100 service/kube-dns ? evidence upstream 10.16.16.16 answers direct queries");
        round(&mut scene, 1_600, true, &[(FIRST, true)], true);
        play!(scene, "? over");
    }

    #[test]
    fn answers_of_an_endpoint_on_the_same_node_show_nothing_even_when_it_is_none_any_more() {
        let mut scene = one_endpoint();
        round(&mut scene, 100, true, &[(FIRST, true)], true);
        for at in (600..7_000).step_by(500) {
            play!(scene, "{at} @worker-2 probe upstream 10.16.16.16 ok");
            for (node, ok) in [("worker-1", true), ("worker-2", false), ("worker-3", false)] {
                play!(scene, "{at} @{node} probe service {SERVICE} {ok}; {at} @{node} probe endpoint {FIRST} {ok}");
            }
        }
        play!(scene, "7000 endpoints; 7010 @worker-3 probe service {SERVICE} ok");
        assert!(scene.findings.iter().all(|(_, it)| it.detector != NAME || it.subject.name == "kube-dns"));
    }

    #[test]
    fn queries_that_never_leave_their_node_are_a_finding_about_it() {
        let mut scene = one_endpoint();
        round(&mut scene, 100, true, &[(FIRST, true)], true);
        for at in [600, 1_100] {
            play!(scene, "{at} @worker-2 probe upstream 10.16.16.16 ok");
            for (kind, target) in [(ProbeKind::DnsService, SERVICE), (ProbeKind::DnsEndpoint, FIRST)] {
                let (source, target) = ("10.176.64.11".parse().unwrap(), target.parse().unwrap());
                let error = Some("Operation not permitted (os error 1)".to_owned());
                let probe = Probe { kind, source, target, port: None, about: None, ok: false, took_us: 40, error };
                scene.at(at, "worker-2", probe.into());
            }
        }
        play!(scene, "1200 ? warning 1100 node/worker-2 ? evidence the queries do not leave the node");
        assert!(scene.findings.iter().all(|(_, it)| it.detector != NAME || it.subject.name != "kube-dns"));
    }

    #[test]
    fn where_its_log_is_read_the_evidence_quotes_it() {
        let mut scene = one_endpoint();
        round(&mut scene, 600, false, &[(FIRST, false)], true);
        // Logged by a real CoreDNS whose upstream answered too late.
        let line =
            "[ERROR] plugin/errors: 2 example-api.com. A: read udp 10.176.97.10:42269->10.16.16.16:53: i/o timeout";
        scene.at(700, "worker-1", PodLog { pod: "coredns-0".into(), line: line.into() }.into());
        round(&mut scene, 1_100, false, &[(FIRST, false)], true);
        assert!(scene.evidence(NAME).ends_with(&format!("; the log of coredns-0 has {line:?}")));
    }

    #[test]
    fn variant_no_endpoint_is_left() {
        let mut scene = one_endpoint();
        round(&mut scene, 100, true, &[(FIRST, true)], true);
        play!(scene, "500 endpoints");
        round(&mut scene, 600, false, &[], true);
        round(&mut scene, 1_100, false, &[], true);
        play!(scene, "? warning ? evidence there is no ready endpoint");
    }

    /// What agents report for an external name, and for the cluster's own one.
    fn asked(scene: &mut Scene, at: u64, node: &str, name: &str, outcome: &str, own: &str, upstream: &str) {
        play!(scene, "{at} @{node} probe upstream 10.16.16.16 {upstream} {name}");
        for (kind, target) in [("service", SERVICE), ("endpoint", FIRST)] {
            play!(scene, "{at} @{node} probe {kind} {target} {own} kube-dns.kube-system.svc.cluster.local.");
            play!(scene, "{at} @{node} probe {kind} {target} {outcome} {name}");
        }
    }

    #[test]
    fn twin_one_domain_that_fails_at_its_own_servers_is_info() {
        let mut scene = one_endpoint();
        for node in ["worker-1", "worker-2"] {
            asked(&mut scene, 300, node, "partner.example.com.", "ok", "ok", "ok");
        }
        for at in (500..5_000).step_by(200) {
            for node in ["worker-1", "worker-2"] {
                asked(&mut scene, at, node, "partner.example.com.", "SERVFAIL", "ok", "SERVFAIL");
            }
        }
        play!(
            scene,
            "? quiet ? info 700..900 name/partner.example.com ? evidence upstream 10.16.16.16 answers SERVFAIL itself"
        );
        play!(scene, "15000 ? over");
    }

    #[test]
    fn twin_one_domain_that_fails_while_others_are_answered() {
        let mut scene = one_endpoint();
        for at in (500..5_000).step_by(200) {
            for node in ["worker-1", "worker-2"] {
                asked(&mut scene, at, node, "partner.example.com.", "SERVFAIL", "ok", "timeout");
                asked(&mut scene, at, node, "example-api.com.", "ok", "ok", "timeout");
            }
        }
        play!(scene, "? quiet ? info");
    }

    #[test]
    fn incident_external_names_fail_where_the_upstream_answers_them() {
        // The node of CoreDNS still gets its own names; what it forwards is lost.
        let mut scene = one_endpoint();
        for at in [500, 700, 900] {
            asked(&mut scene, at, "worker-1", "example-api.com.", "SERVFAIL", "ok", "ok");
        }
        play!(scene, "? warning 700 service/kube-dns ? evidence the cluster's own names are answered");
    }

    #[test]
    fn one_source_alone_does_not_accuse_the_service() {
        for (upstream, expected) in [("timeout", "nothing"), ("ok", "warning 700 service/kube-dns")] {
            let mut scene = one_endpoint();
            for at in (500..3_000).step_by(200) {
                asked(&mut scene, at, "worker-1", "example-api.com.", "timeout", "timeout", upstream);
            }
            play!(scene, "? {expected}");
        }
        let mut scene = one_endpoint();
        for at in [500, 700] {
            for node in ["worker-1", "worker-2"] {
                asked(&mut scene, at, node, "example-api.com.", "timeout", "timeout", "timeout");
            }
        }
        play!(scene, "? warning 700 service/kube-dns");
    }

    #[test]
    fn one_cut_off_node_is_a_finding_about_that_node() {
        let mut scene = one_endpoint();
        for at in (100..4_000).step_by(200) {
            let cut = if at > 1_000 { "timeout" } else { "ok" };
            asked(&mut scene, at, "worker-1", "example-api.com.", "ok", "ok", "ok");
            asked(&mut scene, at, "worker-2", "example-api.com.", cut, cut, cut);
            asked(&mut scene, at + 50, "worker-3", "example-api.com.", "ok", "ok", "ok");
        }
        play!(scene, "? warning 1600..1800 node/worker-2 ? evidence other nodes get answers");
        assert!(
            scene
                .findings
                .iter()
                .filter(|(_, f)| f.detector == NAME)
                .all(|(_, f)| f.subject == Subject::node("worker-2"))
        );
        asked(&mut scene, 4_100, "worker-2", "example-api.com.", "ok", "ok", "ok");
        play!(scene, "? over");
    }

    #[test]
    fn a_node_is_cut_off_though_all_others_host_endpoints_if_these_reach_each_other() {
        for (elsewhere, subject) in [("ok", Subject::node("worker-2")), ("timeout", Subject::service("kube-dns"))] {
            let mut scene = scene!(NAME, "0 endpoints 0@worker-1 1@worker-3");
            for at in (100..4_000).step_by(200) {
                let cut = if at > 1_000 { "timeout" } else { "ok" };
                let elsewhere = if at > 1_000 { elsewhere } else { "ok" };
                for (node, service, first, second) in [
                    ("worker-1", "ok", "ok", elsewhere),
                    ("worker-2", cut, cut, cut),
                    ("worker-3", "ok", elsewhere, "ok"),
                ] {
                    play!(scene, "{at} @{node} probe upstream 10.16.16.16 ok");
                    play!(scene, "{at} @{node} probe service {SERVICE} {service}");
                    play!(
                        scene,
                        "{at} @{node} probe endpoint {FIRST} {first}; {at} @{node} probe endpoint {SECOND} {second}"
                    );
                }
            }
            let own = scene.findings.iter().filter(|(_, finding)| finding.detector == NAME);
            assert_eq!(own.map(|(_, finding)| &finding.subject).collect::<Vec<_>>(), [&subject]);
        }
    }

    #[test]
    fn nodes_that_recover_one_after_another_are_not_cut_off() {
        let mut scene = one_endpoint();
        for at in (500..4_000).step_by(200) {
            for (node, back) in [("worker-1", 2_000), ("worker-2", 3_400)] {
                let outcome = if at >= back { "ok" } else { "timeout" };
                asked(&mut scene, at, node, "example-api.com.", outcome, outcome, "ok");
            }
        }
        let accused: Vec<_> =
            scene.findings.iter().filter(|(_, f)| f.detector == NAME).map(|(_, f)| &f.subject).collect();
        assert_eq!(accused, [&Subject::service("kube-dns"), &Subject::service("kube-dns")]);
    }

    #[test]
    fn the_last_node_to_recover_is_not_cut_off_though_the_old_endpoints_node_never_missed() {
        let mut scene = one_endpoint();
        for at in (500..2_000).step_by(200) {
            asked(&mut scene, at, "worker-1", "example-api.com.", "ok", "ok", "ok");
            for node in ["worker-2", "worker-3"] {
                asked(&mut scene, at, node, "example-api.com.", "timeout", "timeout", "ok");
            }
        }
        play!(scene, "2000 endpoints 1@worker-2");
        for node in ["worker-1", "worker-3"] {
            play!(scene, "2010 @{node} probe service {SERVICE} ok example-api.com.");
        }
        play!(scene, "2020 @worker-2 probe service {SERVICE} timeout example-api.com.");
        play!(scene, "2200 @worker-2 probe service {SERVICE} ok example-api.com.; 2300 ? over");
        let mut accused = scene.findings.iter().filter(|(_, f)| f.detector == NAME).map(|(_, f)| &*f.subject.name);
        assert!(accused.all(|name| name == "kube-dns"));
    }

    #[test]
    fn an_unreachable_upstream_is_said() {
        let mut scene = one_endpoint();
        round(&mut scene, 600, false, &[(FIRST, false)], false);
        round(&mut scene, 1_100, false, &[(FIRST, false)], false);
        play!(scene, "? evidence upstream resolvers do not answer either");
    }

    #[test]
    fn twin_one_of_two_replicas_lost() {
        let mut scene = scene!(NAME, "0 endpoints 0@worker-1 1@worker-2");
        round(&mut scene, 100, true, &[(FIRST, true), (SECOND, true)], true);
        // Half of the queries to the Service still go to the lost replica, at worst several consecutive ones.
        for step in 1..6 {
            round(&mut scene, step * 400, false, &[(FIRST, false), (SECOND, true)], true);
        }
        play!(scene, "? quiet");
    }

    #[test]
    fn twin_rolling_restart_a_new_endpoint_was_not_asked_yet() {
        let mut scene = one_endpoint();
        round(&mut scene, 100, true, &[(FIRST, true)], true);
        round(&mut scene, 500, false, &[(FIRST, false)], true);
        play!(scene, "600 endpoints 0@worker-1 1@worker-2");
        round(&mut scene, 900, false, &[(FIRST, false)], true);
        play!(scene, "? nothing");
    }

    #[test]
    fn twin_one_slow_upstream_of_two() {
        let mut scene = one_endpoint();
        // Late answers are answers: even if every other one misses its deadline, no run of misses forms.
        for step in 0..20 {
            let (at, node) = (step * 200, if step % 2 == 0 { "worker-1" } else { "worker-2" });
            play!(scene, "{at} @{node} probe service {SERVICE} {}", step % 3 != 0);
            play!(scene, "{at} @{node} probe endpoint {FIRST} {}", step % 4 != 0);
        }
        play!(scene, "? quiet");
    }
}
