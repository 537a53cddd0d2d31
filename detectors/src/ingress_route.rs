//! `ingress-route`: an ingress sends to a port that never answered it, and the port that did is no longer used.
//!
//! What it sees: in the log of an ingress, two requests in a row to a port of an address that gave no response, while
//! another port of that address answered the same ingress before, or is the Service's and answers the nodes' probes.
//! Why it matters: users get 502 although the back end is well; it is the controller's configuration.
//! Which incident: W3.
//!
//! Left out: a port that answered before, whose server may be gone; addresses that never answered on any port.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::capped::Capped;
use crate::claims::{Claim, want};
use crate::detector::{Context, Detector, DetectorInfo, Scope, State, new};
use crate::finding::{Level, Severity, Subject, SubjectKind};
use crate::signal::{CollectorKind, IngressLog, Observed, ProbeKind, Signal};
use crate::time::Time;

pub const INFO: DetectorInfo = DetectorInfo {
    name: "ingress-route",
    incident: "W3",
    level: Level::Cause,
    subjects: &[SubjectKind::Pod],
    what: "An ingress sends to a port of its back end that does not answer, instead of the one that did.",
    facts: "It finds the same with none and with stale facts.",
    wants: &[CollectorKind::IngressLog, CollectorKind::Probes],
    needs: &[&[CollectorKind::IngressLog]],
    scope: Scope::Cluster,
    state: State::Cluster(new::<IngressRoute>),
};

/// Requests without a response that are enough.
const SEVERAL: u32 = 2;
/// A back end to which nothing was sent for this long is forgotten.
const FORGET: Duration = Duration::from_mins(1);
const CAP: usize = 1024;

#[derive(Default)]
struct IngressRoute {
    ingresses: Capped<String, Ingress, CAP>,
    /// Ports of Services, and whether each answered its last probe.
    probed: Capped<SocketAddr, bool, CAP>,
}

#[derive(Default)]
struct Ingress {
    /// Back ends that answered.
    good: Capped<SocketAddr, (), CAP>,
    /// Back ends that never did.
    silent: Capped<SocketAddr, Silent, CAP>,
}

struct Silent {
    since: Time,
    last: Time,
    requests: u32,
    status: u16,
}

impl Ingress {
    fn request(&mut self, at: Time, upstream: SocketAddr, log: &IngressLog) {
        if log.upstream_status.is_some() {
            self.good.insert(upstream, ());
            // Requests to this address arrive again.
            self.silent.retain(|other, _| other.ip() != upstream.ip());
        } else if !self.good.contains_key(&upstream) {
            let new = || Silent { since: at, last: at, requests: 0, status: log.status };
            if let Some(silent) = self.silent.entry_or(upstream, new) {
                (silent.last, silent.requests, silent.status) = (at, silent.requests + 1, log.status);
            }
        }
    }
}

impl IngressRoute {
    fn judge(&self, cx: &mut Context<'_>) {
        let mut wanted = BTreeMap::new();
        for (pod, ingress) in self.ingresses.iter() {
            for (to, silent) in ingress.silent.iter().filter(|(_, silent)| silent.requests >= SEVERAL) {
                let used = ingress.good.iter().map(|(good, ())| good).find(|good| good.ip() == to.ip());
                let Some(why) = used.map(|port| format!("{port} answered it before")).or_else(|| self.served(to))
                else {
                    continue;
                };
                let evidence = format!(
                    "{pod} sent {} requests to {to} without a response and answered {}; {why}",
                    silent.requests, silent.status
                );
                let claim = Claim { severity: Severity::Warning, since: silent.since, evidence };
                want(&mut wanted, Subject::pod(pod), claim);
            }
        }
        cx.claims.settle(wanted, "the ingress gets responses again");
    }

    /// The port of the same Service that answers, if this one is none of its ports.
    fn served(&self, to: &SocketAddr) -> Option<String> {
        let mut ports = self.probed.iter().filter(|(port, _)| port.ip() == to.ip() && !self.probed.contains_key(to));
        ports.find(|(_, answers)| **answers).map(|(port, _)| format!("{port} answers the nodes"))
    }
}

impl Detector for IngressRoute {
    fn observe(&mut self, cx: &mut Context<'_>, signal: &Signal) {
        if let Observed::Probe(probe) = &signal.observed
            && let (ProbeKind::Service, Some(port)) = (probe.kind, probe.port)
        {
            self.probed.insert(SocketAddr::new(probe.target, port), probe.ok);
        }
        let Observed::IngressLog(log) = &signal.observed else { return };
        let Some(upstream) = log.upstream else { return };
        if let Some(ingress) = self.ingresses.entry(log.pod.clone()) {
            ingress.request(signal.at, upstream, log);
            self.judge(cx);
        }
    }

    fn tick(&mut self, cx: &mut Context<'_>) {
        for ingress in self.ingresses.values_mut() {
            ingress.silent.retain(|_, silent| cx.now.since(silent.last) < FORGET);
        }
        self.judge(cx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Scene, play, scene};

    const NAME: &str = INFO.name;

    /// An ingress whose back end answers.
    fn armed() -> Scene {
        scene!(NAME, "0 ingress 200 192.168.0.20:80 200; 100 ingress 200 192.168.0.20:80 200")
    }

    #[test]
    fn incident_two_requests_to_a_port_that_never_answered() {
        let mut scene = armed();
        play!(scene, "1000 ingress 502 192.168.0.20:8081 -; 1050 ? nothing");
        play!(scene, "1100 ingress 502 192.168.0.20:8081 - ? warning 1100 pod/ingress");
        play!(scene, "? evidence 192.168.0.20:80 answered it before");
        play!(scene, "5000 ingress 200 192.168.0.20:80 200 ? over");
    }

    #[test]
    fn late_a_port_that_is_none_of_the_service_behind_it() {
        let requests = "1000 ingress 502 192.168.0.20:8081 -; 1100 ingress 502 192.168.0.20:8081 -";
        let mut scene = scene!(NAME, "0 connect shop 192.168.0.20:80 ok; {requests} ? warning 1100 pod/ingress");
        play!(scene, "? evidence 192.168.0.20:80 answers the nodes; 5000 ingress 200 192.168.0.20:80 200 ? over");
        for twin in [
            // One of its ports is down, the Service is down, another Service is up.
            "0 connect shop 192.168.0.20:80 ok; 0 connect shop 192.168.0.20:8081 refused",
            "0 connect shop 192.168.0.20:80 refused",
            "0 connect shop 192.168.0.30:80 ok",
        ] {
            scene!(NAME, "{twin}; {requests}; 2000 ? nothing");
        }
    }

    #[test]
    fn twin_a_reload_and_an_error_that_the_back_end_answered() {
        let mut scene = armed();
        for at in [1_000, 1_100, 1_200] {
            play!(scene, "{at} ingress 500 192.168.0.20:80 500; {at} ingress 502 192.168.0.20:8080 502 ? silence");
        }
    }

    #[test]
    fn a_back_end_that_is_gone_and_a_name_that_is_not_resolved() {
        let mut scene = armed();
        for at in [1_000, 1_100, 1_200] {
            play!(
                scene,
                "{at} ingress 502 192.168.0.20:80 -; {at} ingress 502 - -; {at} ingress 502 192.168.0.21:80 -"
            );
        }
        play!(scene, "2000 ? nothing");
    }
}
