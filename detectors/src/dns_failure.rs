//! `dns-failure`: cluster DNS does not answer, by its Service or by any endpoint.
//!
//! What it sees: from one source, two questions in a row to the DNS Service and two in a row to each of
//! its endpoints fail; its evidence says whether an upstream resolver, asked directly, answers. While
//! other sources still get answers, four in a row are asked for: a slow upstream gives such misses too.
//! Why it matters: pods cannot resolve any name although the upstream resolvers work.
//! Which incident: I3.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::claims::Claims;
use crate::detector::{Detector, DetectorInfo, Scope};
use crate::finding::{Finding, Level, Severity, Subject};
use crate::operator::Operator;
use crate::signal::{CollectorKind, Endpoint, Observed, PodLog, Probe, ProbeKind, Signal};
use crate::time::Time;

pub const INFO: DetectorInfo = DetectorInfo {
    name: "dns-failure",
    incident: "I3",
    level: Level::Symptom,
    what: "Cluster DNS does not answer, neither by its Service nor by any of its endpoints.",
    wants: &[CollectorKind::Probes, CollectorKind::Inventory, CollectorKind::PodLogs],
    needs: &[&[CollectorKind::Probes]],
    scope: Scope::Cluster,
    arm: |operator| {
        Box::new(DnsFailure {
            operator: operator.clone(),
            claims: Claims::new(&INFO),
            sources: BTreeMap::new(),
            upstream: BTreeMap::new(),
            endpoints: None,
            endpoints_at: Time::default(),
            answered: Time::default(),
            log: None,
        })
    },
};

/// Misses in a row, and while other sources get answers.
const MISSES: u32 = 2;
const MISSES_AMONG_ANSWERS: u32 = 4;
/// A run of misses that has not grown for this long says nothing any more.
const STALE: Duration = Duration::from_secs(5);
const CAP: usize = 1024;

struct DnsFailure {
    operator: Operator,
    claims: Claims,
    sources: BTreeMap<(Arc<str>, IpAddr), Source>,
    /// Upstream resolvers: when each last answered, and last failed to.
    upstream: BTreeMap<IpAddr, Outcome>,
    endpoints: Option<Vec<Endpoint>>,
    endpoints_at: Time,
    /// The last answer of cluster DNS to anyone.
    answered: Time,
    /// What a replica last wrote into its log about a time-out.
    log: Option<(Time, PodLog)>,
}

#[derive(Default)]
struct Source {
    service: Run,
    endpoints: BTreeMap<IpAddr, Run>,
    failing: bool,
}

/// Misses in a row.
#[derive(Default)]
struct Run {
    misses: u32,
    first: Time,
    last: Time,
    error: Option<String>,
}

#[derive(Default)]
struct Outcome {
    answered: Option<Time>,
    failed: Option<Time>,
}

impl Run {
    fn add(&mut self, at: Time, probe: &Probe) {
        if probe.ok {
            *self = Self { last: at, ..Self::default() };
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

impl DnsFailure {
    fn probe(&mut self, signal: &Signal, probe: &Probe) {
        let cluster_dns = matches!(probe.kind, ProbeKind::DnsService | ProbeKind::DnsEndpoint);
        if cluster_dns && probe.ok {
            self.answered = self.answered.max(signal.at);
        }
        match probe.kind {
            ProbeKind::DnsUpstream if self.upstream.len() < CAP || self.upstream.contains_key(&probe.target) => {
                let outcome = self.upstream.entry(probe.target).or_default();
                let time = if probe.ok { &mut outcome.answered } else { &mut outcome.failed };
                *time = Some(signal.at);
            }
            ProbeKind::DnsService | ProbeKind::DnsEndpoint => {
                let key = (Arc::clone(&signal.node), probe.source);
                if self.sources.len() >= CAP && !self.sources.contains_key(&key) {
                    return;
                }
                let source = self.sources.entry(key).or_default();
                if probe.kind == ProbeKind::DnsService {
                    source.service.add(signal.at, probe);
                } else if source.endpoints.len() < CAP || source.endpoints.contains_key(&probe.target) {
                    source.endpoints.entry(probe.target).or_default().add(signal.at, probe);
                }
            }
            _ => {}
        }
    }

    fn judge(&mut self, now: Time, out: &mut Vec<Finding>) {
        let mut failing = None;
        for ((node, address), source) in &mut self.sources {
            let others_answered = source.service.misses > 0 && self.answered > source.service.first;
            let misses = match &self.endpoints {
                _ if others_answered => MISSES_AMONG_ANSWERS,
                None if source.endpoints.is_empty() => MISSES_AMONG_ANSWERS,
                _ => MISSES,
            };
            let endpoint_fails =
                |address: &IpAddr| source.endpoints.get(address).is_some_and(|run| run.fails(now, misses));
            let endpoints_fail = match &self.endpoints {
                Some(ready) => ready.iter().all(|endpoint| endpoint_fails(&endpoint.address)),
                // Without an inventory, what was asked lately is what there is.
                None => source.endpoints.values().all(|run| run.fails(now, misses) || now.since(run.last) >= STALE),
            };
            if source.service.misses == 0 {
                source.failing = false;
            } else if source.service.fails(now, misses) && endpoints_fail {
                source.failing = true;
            }
            if source.failing {
                failing.get_or_insert((node, address, &*source));
            }
        }
        let subject = Subject::service(&self.operator.dns_service);
        let Some((node, address, source)) = failing else {
            self.claims.withdraw(out, &subject, "the DNS Service answers again");
            return;
        };
        let since = source.service.first;
        let (operator, upstream, ready) = (&self.operator, &self.upstream, &self.endpoints);
        let recent = self.log.as_ref().filter(|(at, _)| *at >= since - Duration::from_secs(2));
        let log = recent.map(|(_, log)| format!("; the log of {} says {:?}", log.pod, log.line)).unwrap_or_default();
        self.claims.make(out, &subject, Severity::Warning, since, || {
            let error = source.service.error.as_deref().unwrap_or("no answer");
            let endpoints = match ready {
                Some(ready) if ready.is_empty() => "there is no ready endpoint".to_owned(),
                Some(ready) => format!("so do questions to every endpoint ({})", ready.len()),
                None => format!("so do questions to the endpoints known ({})", source.endpoints.len()),
            };
            format!(
                "{} questions in a row from {address} on {node} to {} ({}) failed ({error}); {endpoints}; {}{log}",
                source.service.misses,
                operator.dns_service,
                operator.dns_address,
                upstream_says(upstream, since)
            )
        });
    }
}

/// What the upstream resolvers did since then.
fn upstream_says(upstream: &BTreeMap<IpAddr, Outcome>, since: Time) -> String {
    let recent = |time: Option<Time>| time.is_some_and(|at| at >= since - Duration::from_secs(2));
    if let Some((address, _)) = upstream.iter().find(|(_, outcome)| recent(outcome.answered)) {
        return format!("upstream {address} answers when asked directly");
    }
    if upstream.values().any(|outcome| recent(outcome.failed)) {
        return "the upstream resolvers do not answer either".to_owned();
    }
    "no upstream resolver was asked directly".to_owned()
}

impl Detector for DnsFailure {
    fn info(&self) -> &'static DetectorInfo {
        &INFO
    }

    fn observe(&mut self, now: Time, signal: &Signal, out: &mut Vec<Finding>) {
        match &signal.observed {
            Observed::Probe(probe) if probe.kind != ProbeKind::Echo => self.probe(signal, probe),
            Observed::Endpoints(list) if list.service == self.operator.dns_service => {
                if signal.at >= self.endpoints_at {
                    self.endpoints_at = signal.at;
                    self.endpoints = Some(list.ready.clone());
                    // A pod that is gone is asked no more; its misses must not linger.
                    for source in self.sources.values_mut() {
                        source.endpoints.retain(|address, _| list.ready.iter().any(|e| e.address == *address));
                    }
                }
                return;
            }
            Observed::PodLog(log) => {
                if log.line.contains("i/o timeout") {
                    self.log = Some((signal.at, log.clone()));
                }
                return;
            }
            _ => return,
        }
        self.judge(now, out);
    }

    fn tick(&mut self, _now: Time, _out: &mut Vec<Finding>) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Scene, endpoints, probe};

    const NAME: &str = "dns-failure";
    const SERVICE: &str = "192.168.0.10";
    const FIRST: &str = "10.176.98.2";
    const SECOND: &str = "10.176.98.3";

    /// One round of probes from both nodes.
    fn round(scene: &mut Scene, at: u64, service: bool, endpoint: &[(&str, bool)], upstream: bool) {
        for node in ["worker-1", "worker-2"] {
            scene.at(at, node, probe(ProbeKind::DnsUpstream, "10.16.16.16", upstream));
            scene.at(at, node, probe(ProbeKind::DnsService, SERVICE, service));
            for (address, ok) in endpoint {
                scene.at(at, node, probe(ProbeKind::DnsEndpoint, address, *ok));
            }
        }
    }

    #[test]
    fn incident_two_misses_in_a_row_while_upstream_answers() {
        let mut scene = Scene::new();
        scene.at(0, "worker-1", endpoints(&[("coredns-0", "worker-1")]));
        round(&mut scene, 100, true, &[(FIRST, true)], true);
        round(&mut scene, 600, false, &[(FIRST, false)], true);
        assert_eq!(scene.worst(NAME), None, "one miss");
        round(&mut scene, 1_100, false, &[(FIRST, false)], true);
        assert_eq!(scene.first(NAME, Severity::Warning), Some((1_100, "service/kube-dns".into())));
        assert!(scene.evidence(NAME).contains("upstream 10.16.16.16 answers when asked directly"));
        round(&mut scene, 1_600, true, &[(FIRST, true)], true);
        assert!(scene.cleared(NAME));
    }

    #[test]
    fn where_its_log_is_read_the_evidence_quotes_it() {
        let mut scene = Scene::new();
        scene.at(0, "worker-1", endpoints(&[("coredns-0", "worker-1")]));
        round(&mut scene, 600, false, &[(FIRST, false)], true);
        // As a real CoreDNS wrote it whose upstream answered too late.
        let line =
            "[ERROR] plugin/errors: 2 example-api.com. A: read udp 10.176.97.10:42269->10.16.16.16:53: i/o timeout";
        let line = line.to_owned();
        scene.at(700, "worker-1", Observed::PodLog(PodLog { pod: "coredns-0".into(), line: line.clone() }));
        round(&mut scene, 1_100, false, &[(FIRST, false)], true);
        assert!(scene.evidence(NAME).ends_with(&format!("; the log of coredns-0 says {line:?}")));
    }

    #[test]
    fn variant_no_endpoint_is_left() {
        let mut scene = Scene::new();
        scene.at(0, "worker-1", endpoints(&[("coredns-0", "worker-1")]));
        round(&mut scene, 100, true, &[(FIRST, true)], true);
        scene.at(500, "worker-1", endpoints(&[]));
        round(&mut scene, 600, false, &[], true);
        round(&mut scene, 1_100, false, &[], true);
        assert_eq!(scene.worst(NAME), Some(Severity::Warning));
        assert!(scene.evidence(NAME).contains("there is no ready endpoint"));
    }

    #[test]
    fn an_unreachable_upstream_is_said() {
        let mut scene = Scene::new();
        scene.at(0, "worker-1", endpoints(&[("coredns-0", "worker-1")]));
        round(&mut scene, 600, false, &[(FIRST, false)], false);
        round(&mut scene, 1_100, false, &[(FIRST, false)], false);
        assert!(scene.evidence(NAME).contains("upstream resolvers do not answer either"));
    }

    #[test]
    fn twin_one_of_two_replicas_lost() {
        let mut scene = Scene::new();
        scene.at(0, "worker-1", endpoints(&[("coredns-0", "worker-1"), ("coredns-1", "worker-2")]));
        round(&mut scene, 100, true, &[(FIRST, true), (SECOND, true)], true);
        // Half of the questions to the Service still go to the lost one, at worst several in a row.
        for step in 1..6 {
            round(&mut scene, step * 400, false, &[(FIRST, false), (SECOND, true)], true);
        }
        scene.assert_quiet();
    }

    #[test]
    fn twin_rolling_restart_a_new_endpoint_was_not_asked_yet() {
        let mut scene = Scene::new();
        scene.at(0, "worker-1", endpoints(&[("coredns-0", "worker-1")]));
        round(&mut scene, 100, true, &[(FIRST, true)], true);
        round(&mut scene, 500, false, &[(FIRST, false)], true);
        scene.at(600, "worker-1", endpoints(&[("coredns-0", "worker-1"), ("coredns-1", "worker-2")]));
        round(&mut scene, 900, false, &[(FIRST, false)], true);
        assert_eq!(scene.worst(NAME), None);
    }

    #[test]
    fn twin_one_slow_upstream_of_two() {
        let mut scene = Scene::new();
        scene.at(0, "worker-1", endpoints(&[("coredns-0", "worker-1")]));
        // Late answers are answers. Even where every other one misses its deadline, no run forms.
        for step in 0..20 {
            let node = if step % 2 == 0 { "worker-1" } else { "worker-2" };
            scene.at(step * 200, node, probe(ProbeKind::DnsService, SERVICE, step % 3 != 0));
            scene.at(step * 200, node, probe(ProbeKind::DnsEndpoint, FIRST, step % 4 != 0));
        }
        scene.assert_quiet();
    }
}
