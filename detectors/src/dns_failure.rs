//! `dns-failure`: cluster DNS does not answer, neither through its Service nor on any endpoint.
//!
//! What it sees: from one source, two consecutive queries to the DNS Service and to each of its endpoints fail; the
//! evidence says whether an upstream resolver answers direct queries. While other sources still get answers, four
//! consecutive failures are required: a slow upstream causes occasional misses too.
//! Why it matters: pods cannot resolve any name although the upstream resolvers work.
//! Which incident: I3.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::capped::Capped;
use crate::detector::{Context, Detector, DetectorInfo, Scope, State, new};
use crate::dns_endpoints::DnsEndpoints;
use crate::finding::{Level, Severity};
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
const CAP: usize = 1024;

#[derive(Default)]
struct DnsFailure {
    sources: Capped<(Arc<str>, IpAddr), Source, CAP>,
    /// When each upstream resolver last answered and last failed.
    upstream: Capped<IpAddr, LastProbes, CAP>,
    latest: DnsEndpoints,
    endpoints: Option<Vec<Endpoint>>,
    /// The last answer of cluster DNS to any source.
    answered: Time,
    /// The last timeout in a replica's log.
    log: Option<(Time, PodLog)>,
}

#[derive(Default)]
struct Source {
    service: Run,
    endpoints: Capped<IpAddr, Run, CAP>,
    failing: bool,
}

/// Consecutive misses.
#[derive(Default)]
struct Run {
    misses: u32,
    first: Time,
    last: Time,
    error: Option<String>,
}

#[derive(Default)]
struct LastProbes {
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

impl Source {
    /// Evaluates recent queries. Returns whether neither the Service nor any endpoint answers.
    fn judge(&mut self, now: Time, answered: Time, ready: Option<&[Endpoint]>) -> bool {
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
        self.failing = self.service.misses > 0 && (self.failing || fails);
        self.failing
    }
}

impl DnsFailure {
    fn probe(&mut self, signal: &Signal, probe: &Probe) {
        let key = (Arc::clone(&signal.node), probe.source);
        let run = match probe.kind {
            ProbeKind::DnsUpstream => {
                if let Some(outcome) = self.upstream.entry(probe.target) {
                    let time = if probe.ok { &mut outcome.answered } else { &mut outcome.failed };
                    *time = Some(signal.at);
                }
                return;
            }
            ProbeKind::DnsService => self.sources.entry(key).map(|source| &mut source.service),
            ProbeKind::DnsEndpoint => self.sources.entry(key).and_then(|source| source.endpoints.entry(probe.target)),
            _ => return,
        };
        if probe.ok {
            self.answered = self.answered.max(signal.at);
        }
        if let Some(run) = run {
            run.add(signal.at, probe);
        }
    }

    fn judge(&mut self, cx: &mut Context<'_>) {
        let mut failing = None;
        for ((node, address), source) in self.sources.iter_mut() {
            if source.judge(cx.now, self.answered, self.endpoints.as_deref()) {
                failing.get_or_insert((node, address, &*source));
            }
        }
        let Some((node, address, source)) = failing else {
            return cx.claims.withdraw("the DNS Service answers again");
        };
        let since = source.service.first;
        cx.claims.make(Severity::Warning, since, || {
            let error = source.service.error.as_deref().unwrap_or("no answer");
            let endpoints = match &self.endpoints {
                Some(ready) if ready.is_empty() => "there is no ready endpoint".to_owned(),
                Some(ready) => format!("queries to every endpoint ({}) failed too", ready.len()),
                None => format!("queries to the known endpoints ({}) failed too", source.endpoints.len()),
            };
            let log = self.log.as_ref().filter(|(at, _)| *at >= since - BEFORE);
            format!(
                "{} consecutive queries from {address} on {node} to {} ({}) failed ({error}); {endpoints}; {}{}",
                source.service.misses,
                cx.operator.dns_service,
                cx.operator.dns_address,
                upstream_state(&self.upstream, since),
                log.map(|(_, log)| format!("; the log of {} has {:?}", log.pod, log.line)).unwrap_or_default()
            )
        });
    }
}

/// How the upstream resolvers responded since then.
fn upstream_state(upstream: &Capped<IpAddr, LastProbes, CAP>, since: Time) -> String {
    let recent = |time: Option<Time>| time.is_some_and(|at| at >= since - BEFORE);
    if let Some((address, _)) = upstream.iter().find(|(_, outcome)| recent(outcome.answered)) {
        return format!("upstream {address} answers direct queries");
    }
    if upstream.values().any(|outcome| recent(outcome.failed)) {
        return "the upstream resolvers do not answer either".to_owned();
    }
    "no upstream resolver was queried directly".to_owned()
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
                for source in self.sources.values_mut() {
                    source.endpoints.retain(|address, _| ready.iter().any(|e| e.address == *address));
                }
            }
        }
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
