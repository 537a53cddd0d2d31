//! `dns-redundancy`: cluster DNS rests on a single endpoint.
//!
//! What it sees: exactly one ready endpoint behind the DNS Service. A warning where it was so at first
//! sight, or has been so for a minute; `info` while a lost replica may still be replaced.
//! Why it matters: with that one pod, its node or its NIC, every name in the cluster is lost.
//! Which incident: I3, as the risk that stands before it.

use std::time::Duration;

use crate::claims::Claims;
use crate::detector::{Detector, DetectorInfo, Scope};
use crate::finding::{Finding, Level, Severity, Subject};
use crate::signal::{CollectorKind, Endpoints, Observed, Signal};
use crate::time::Time;

pub const INFO: DetectorInfo = DetectorInfo {
    name: "dns-redundancy",
    incident: "I3",
    level: Level::Risk,
    what: "Cluster DNS rests on a single ready endpoint.",
    wants: &[CollectorKind::Inventory],
    needs: &[&[CollectorKind::Inventory]],
    scope: Scope::Cluster,
    arm: |operator| {
        Box::new(DnsRedundancy {
            service: operator.dns_service.clone(),
            claims: Claims::new(&INFO),
            seen: Time::default(),
            had_two: false,
            single: None,
        })
    },
};

/// How long a replacement may take.
const REPLACEMENT: Duration = Duration::from_mins(1);

struct DnsRedundancy {
    service: String,
    claims: Claims,
    seen: Time,
    had_two: bool,
    /// Since when there is one, and which.
    single: Option<(Time, String)>,
}

/// How many pods stand behind a Service; a pod with an address of each family is one.
pub(crate) fn replicas(endpoints: &Endpoints) -> usize {
    let mut pods: Vec<_> = endpoints.ready.iter().map(|endpoint| &endpoint.pod).collect();
    pods.sort_unstable();
    pods.dedup();
    pods.len()
}

impl DnsRedundancy {
    fn judge(&mut self, now: Time, out: &mut Vec<Finding>) {
        let Some((since, name)) = &self.single else { return };
        let warn = !self.had_two || now.since(*since) >= REPLACEMENT;
        let severity = if warn { Severity::Warning } else { Severity::Info };
        self.claims.make(out, &Subject::service(&self.service), severity, *since, || {
            format!("one ready endpoint behind {}: {name}", self.service)
        });
    }
}

impl Detector for DnsRedundancy {
    fn info(&self) -> &'static DetectorInfo {
        &INFO
    }

    fn observe(&mut self, now: Time, signal: &Signal, out: &mut Vec<Finding>) {
        let Observed::Endpoints(endpoints) = &signal.observed else { return };
        // Every node's agent tells the same story, some of them late.
        if endpoints.service != self.service || signal.at < self.seen {
            return;
        }
        self.seen = signal.at;
        match replicas(endpoints) {
            0 => {}
            1 => {
                let endpoint = &endpoints.ready[0];
                let name = format!("{} ({}) on {}", endpoint.pod, endpoint.address, endpoint.node);
                let since = self.single.as_ref().map_or(signal.at, |(since, _)| *since);
                self.single = Some((since, name));
                self.judge(now, out);
            }
            count => {
                self.had_two = true;
                self.single = None;
                let evidence = format!("{count} ready endpoints behind {}", self.service);
                self.claims.withdraw(out, &Subject::service(&self.service), evidence);
            }
        }
    }

    fn tick(&mut self, now: Time, out: &mut Vec<Finding>) {
        self.judge(now, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Scene, endpoints};

    const NAME: &str = "dns-redundancy";

    #[test]
    fn a_single_replica_at_first_sight_is_a_risk_at_once() {
        let mut scene = Scene::new();
        scene.at(0, "worker-2", endpoints(&[("coredns-0", "worker-1")]));
        assert_eq!(scene.first(NAME, Severity::Warning), Some((0, "service/kube-dns".into())));
        scene.at(500, "worker-1", endpoints(&[("coredns-0", "worker-1"), ("coredns-1", "worker-2")]));
        assert!(scene.cleared(NAME));
    }

    #[test]
    fn twin_one_of_two_replicas_lost_is_info_for_a_minute() {
        let mut scene = Scene::new();
        scene.at(0, "worker-1", endpoints(&[("coredns-0", "worker-1"), ("coredns-1", "worker-2")]));
        scene.at(1_000, "worker-1", endpoints(&[("coredns-1", "worker-2")]));
        scene.until(60_900);
        assert_eq!(scene.worst(NAME), Some(Severity::Info));
        scene.until(61_100);
        assert_eq!(scene.worst(NAME), Some(Severity::Warning));
    }

    #[test]
    fn twin_rolling_restart_with_two_replicas() {
        let mut scene = Scene::new();
        let [a, b, c, d] = [
            ("coredns-0", "worker-1"),
            ("coredns-1", "worker-2"),
            ("coredns-2", "worker-1"),
            ("coredns-3", "worker-2"),
        ];
        let lists: [&[_]; 5] = [&[a, b], &[b], &[b, c], &[c], &[c, d]];
        for (step, list) in lists.into_iter().enumerate() {
            scene.at(step as u64 * 300, "worker-1", endpoints(list));
            scene.at(step as u64 * 300 + 40, "worker-2", endpoints(list));
        }
        scene.until(5_000);
        scene.assert_quiet();
        assert!(scene.worst("dns-replica").is_none());
        assert!(scene.standing(NAME).is_none());
    }

    #[test]
    fn a_late_agent_does_not_turn_back_time() {
        let mut scene = Scene::new();
        scene.at(1_000, "worker-1", endpoints(&[("coredns-0", "worker-1"), ("coredns-1", "worker-2")]));
        scene.late(900, "worker-2", endpoints(&[("coredns-0", "worker-1")]));
        assert_eq!(scene.findings, []);
    }
}
