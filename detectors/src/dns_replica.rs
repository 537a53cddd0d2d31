//! `dns-replica`: the last ready endpoint of cluster DNS is gone, and no link explains it.
//!
//! What it sees: the ready endpoints of the DNS Service fall to none while the pod NIC of the node that
//! hosted the last one is up.
//! Why it matters: no name resolves anywhere in the cluster; the mend is the pod, not a link.
//! Which incident: I3, its second variant.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::claims::Claims;
use crate::detector::{Detector, DetectorInfo, Scope};
use crate::finding::{Finding, Level, Severity, Subject};
use crate::operator::Operator;
use crate::signal::{Change, CollectorKind, ContainerState, Endpoint, Observed, Signal};
use crate::time::Time;

pub const INFO: DetectorInfo = DetectorInfo {
    name: "dns-replica",
    incident: "I3",
    level: Level::Cause,
    what: "The last ready endpoint of cluster DNS is gone while the links of its node are whole.",
    wants: &[CollectorKind::Inventory, CollectorKind::Rtnetlink, CollectorKind::Api],
    needs: &[&[CollectorKind::Inventory]],
    scope: Scope::Cluster,
    arm: |operator| {
        Box::new(DnsReplica {
            operator: operator.clone(),
            claims: Claims::new(&INFO),
            seen: Time::default(),
            last: Vec::new(),
            none_since: None,
            explained: false,
            nic_lost: BTreeSet::new(),
            deleted: None,
            containers: BTreeMap::new(),
        })
    },
};

/// Agents differ by some milliseconds: the loss of a link may be told after what it caused.
const SETTLE: Duration = Duration::from_millis(200);
/// Most pods whose containers are remembered.
const CAP: usize = 1024;

struct DnsReplica {
    operator: Operator,
    claims: Claims,
    seen: Time,
    /// The endpoints that were ready last.
    last: Vec<Endpoint>,
    none_since: Option<Time>,
    /// A lost link explains it, and goes on doing so until an endpoint is ready again.
    explained: bool,
    /// Nodes whose pod NIC is gone or down.
    nic_lost: BTreeSet<Arc<str>>,
    /// The last of those pods that was deleted.
    deleted: Option<String>,
    /// By pod, where the API tells: what its containers are, other than running.
    containers: BTreeMap<String, String>,
}

impl DnsReplica {
    fn judge(&mut self, now: Time, out: &mut Vec<Finding>) {
        let Some(since) = self.none_since.filter(|since| now.since(*since) >= SETTLE) else { return };
        let subject = Subject::service(&self.operator.dns_service);
        let intact = self.last.iter().find(|endpoint| !self.nic_lost.contains(endpoint.node.as_str()));
        self.explained |= intact.is_none() && self.claims.standing(&subject).is_none();
        let Some(lost) = intact.filter(|_| !self.explained) else { return };
        self.claims.make(out, &subject, Severity::Critical, since, || {
            let how = if self.deleted.as_ref() == Some(&lost.pod) { "was deleted" } else { "is no longer ready" };
            let container = self.containers.get(&lost.pod).map(|state| format!("; its container is {state}"));
            format!(
                "no ready endpoint behind {}: {} ({}) on {} {how}, and {} of that node is whole{}",
                self.operator.dns_service,
                lost.pod,
                lost.address,
                lost.node,
                self.operator.pod_nic,
                container.unwrap_or_default()
            )
        });
    }
}

impl Detector for DnsReplica {
    fn info(&self) -> &'static DetectorInfo {
        &INFO
    }

    fn observe(&mut self, _now: Time, signal: &Signal, out: &mut Vec<Finding>) {
        match &signal.observed {
            Observed::Link(link) if link.name == self.operator.pod_nic => {
                if link.change == Change::Removed || !link.up || !link.carrier {
                    self.nic_lost.insert(Arc::clone(&signal.node));
                } else {
                    self.nic_lost.remove(&signal.node);
                }
            }
            Observed::Container(container) if container.state == ContainerState::Running => {
                self.containers.remove(&container.pod);
            }
            Observed::Container(container) if self.containers.len() < CAP => {
                let restarts = match container.restarts {
                    0 => String::new(),
                    1 => ", restarted once".to_owned(),
                    restarts => format!(", restarted {restarts} times"),
                };
                self.containers.insert(container.pod.clone(), format!("{}{restarts}", container.state));
            }
            Observed::Pod(pod) if self.last.iter().any(|endpoint| endpoint.pod == pod.name) => {
                self.deleted = (pod.change == Change::Removed).then(|| pod.name.clone());
            }
            Observed::Endpoints(list) if list.service == self.operator.dns_service && signal.at >= self.seen => {
                self.seen = signal.at;
                if !list.ready.is_empty() {
                    self.none_since = None;
                    self.explained = false;
                    self.last.clone_from(&list.ready);
                    let subject = Subject::service(&self.operator.dns_service);
                    self.claims.withdraw(out, &subject, format!("{} ready again", list.ready[0].pod));
                } else if !self.last.is_empty() {
                    self.none_since.get_or_insert(signal.at);
                }
            }
            _ => {}
        }
    }

    fn tick(&mut self, now: Time, out: &mut Vec<Finding>) {
        self.judge(now, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::Container;
    use crate::testing::{Scene, endpoints, link, link_gone};

    const NAME: &str = "dns-replica";

    #[test]
    fn variant_the_only_replica_is_killed_with_every_link_intact() {
        let mut scene = Scene::new();
        scene.at(0, "worker-1", link("eth1", 3));
        scene.at(0, "worker-1", endpoints(&[("coredns-0", "worker-1")]));
        scene.at(1_000, "worker-1", endpoints(&[]));
        scene.until(2_000);
        assert_eq!(scene.first(NAME, Severity::Critical), Some((1_200, "service/kube-dns".into())));
        assert!(scene.evidence(NAME).contains("coredns-0 (10.176.98.2) on worker-1"));
        scene.at(3_000, "worker-1", endpoints(&[("coredns-9", "worker-2")]));
        assert!(scene.cleared(NAME));
    }

    #[test]
    fn where_the_api_tells_the_evidence_says_what_became_of_the_container() {
        let mut scene = Scene::new();
        scene.at(0, "worker-1", link("eth1", 3));
        scene.at(0, "worker-1", endpoints(&[("coredns-0", "worker-1")]));
        // As a real kubelet tells of a program that ends at once: CrashLoopBackOff comes with its next look.
        let ended = ContainerState::Terminated { reason: "Completed".into(), exit_code: 0 };
        let waiting = ContainerState::Waiting { reason: "CrashLoopBackOff".into() };
        for (at, state) in [(700, ended), (900, waiting)] {
            let container = Container { pod: "coredns-0".into(), container: "coredns".into(), state, restarts: 1 };
            scene.at(at, "worker-1", Observed::Container(container));
        }
        scene.at(1_000, "worker-1", endpoints(&[]));
        scene.until(2_000);
        let evidence = scene.evidence(NAME);
        assert!(evidence.ends_with("; its container is waiting (CrashLoopBackOff), restarted once"), "{evidence}");
    }

    #[test]
    fn a_lost_nic_explains_it_even_when_told_a_little_later() {
        let mut scene = Scene::new();
        scene.at(0, "worker-1", link("eth1", 3));
        scene.at(0, "worker-1", endpoints(&[("coredns-0", "worker-1")]));
        scene.at(1_000, "worker-2", endpoints(&[]));
        scene.at(1_100, "worker-1", link_gone("eth1", 3));
        scene.until(4_000);
        // The link is back before the endpoint is.
        scene.at(4_000, "worker-1", link("eth1", 3));
        scene.until(6_000);
        assert_eq!(scene.worst(NAME), None);
    }

    #[test]
    fn a_cluster_whose_dns_is_not_up_yet_has_lost_nothing() {
        let mut scene = Scene::new();
        scene.at(0, "worker-1", endpoints(&[]));
        scene.until(4_000);
        assert_eq!(scene.findings, []);
    }
}
