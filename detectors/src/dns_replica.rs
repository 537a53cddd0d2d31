//! `dns-replica`: the last ready endpoint of cluster DNS is gone, and no link explains it.
//!
//! What it sees: the DNS Service loses its last ready endpoint, and no pod NIC under one is known to be lost; or it has
//! none for 3 s from the start, and no node lacks the pod NIC that others have. The evidence says that the NIC is up only
//! if an agent on that node reported so.
//! Why it matters: no name resolves anywhere in the cluster, and the fix is the pod, not a link.
//! Which incident: I3, its second variant.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::capped::Capped;
use crate::detector::{Context, Detector, DetectorInfo, Scope, State, new};
use crate::dns_endpoints::DnsEndpoints;
use crate::finding::{Level, Severity, SubjectKind};
use crate::signal::{Change, CollectorKind, ContainerState, Endpoint, Observed, Signal};
use crate::time::Time;

pub const INFO: DetectorInfo = DetectorInfo {
    name: "dns-replica",
    incident: "I3",
    level: Level::Cause,
    subjects: &[SubjectKind::Service],
    what: "The last ready endpoint of cluster DNS is gone while the links of its node are up.",
    facts: "It finds the same with none and with stale facts.",
    wants: &[CollectorKind::Inventory, CollectorKind::Rtnetlink, CollectorKind::Api],
    needs: &[&[CollectorKind::Inventory]],
    scope: Scope::Cluster,
    state: State::Cluster(new::<DnsReplica>),
};

/// Agents differ by some milliseconds: the loss of a link may be reported after its effect.
const SETTLE: Duration = Duration::from_millis(200);
/// Cluster DNS may be coming up.
const START: Duration = Duration::from_secs(3);
/// Limit on pods whose containers are tracked.
const CAP: usize = 1024;

#[derive(Default)]
struct DnsReplica {
    latest: DnsEndpoints,
    /// The last non-empty list of ready endpoints.
    last: Vec<Endpoint>,
    none_since: Option<Time>,
    /// There has been none since it was first seen.
    never: Option<Time>,
    /// A lost link explains it, until an endpoint is ready again.
    explained: bool,
    /// Whether the pod NIC is usable, by node; `None` if other links were reported. Nodes without an agent that sees
    /// links are missing.
    nics: BTreeMap<Arc<str>, Option<bool>>,
    /// The last of those pods that was deleted.
    deleted: Option<String>,
    /// State of containers that are not running, by pod, where the API reports it.
    containers: Capped<String, String, CAP>,
}

impl Detector for DnsReplica {
    fn observe(&mut self, cx: &mut Context<'_>, signal: &Signal) {
        match &signal.observed {
            Observed::Link(link) if link.name == cx.operator.pod_nic => {
                self.nics.insert(Arc::clone(&signal.node), Some(link.is_usable()));
            }
            Observed::Link(_) => {
                self.nics.entry(Arc::clone(&signal.node)).or_default();
            }
            Observed::Container(container) if container.state == ContainerState::Running => {
                self.containers.remove(&container.pod);
            }
            Observed::Container(container) => {
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
            _ => match self.latest.update(cx.operator, signal) {
                Some([]) if self.last.is_empty() => {
                    self.never.get_or_insert(signal.at);
                }
                Some([]) => {
                    self.none_since.get_or_insert(signal.at);
                }
                Some(ready @ [first, ..]) => {
                    (self.none_since, self.never) = (None, None);
                    self.explained = false;
                    self.last = ready.to_vec();
                    cx.claims.withdraw(format!("{} ready again", first.pod));
                }
                _ => {}
            },
        }
    }

    fn tick(&mut self, cx: &mut Context<'_>) {
        if let Some(since) = self.never.filter(|since| cx.now.since(*since) >= START) {
            // A node without the NIC that others have may be the endpoint's.
            let with = self.nics.values().filter(|up| **up == Some(true)).count();
            if with == 0 || with == self.nics.len() {
                cx.claims.make(Severity::Critical, since, || {
                    format!("no ready endpoint behind {} since it was first seen", cx.operator.dns_service)
                });
            }
        }
        let Some(since) = self.none_since.filter(|since| cx.now.since(*since) >= SETTLE) else { return };
        let nic = |endpoint: &&Endpoint| self.nics.get(endpoint.node.as_str()).copied().flatten();
        let intact = self.last.iter().filter(|endpoint| nic(endpoint) != Some(false)).max_by_key(nic);
        self.explained |= intact.is_none() && cx.claims.standing().is_none();
        let Some(lost) = intact.filter(|_| !self.explained) else { return };
        cx.claims.make(Severity::Critical, since, || {
            let how = if self.deleted.as_ref() == Some(&lost.pod) { "was deleted" } else { "is no longer ready" };
            let pod_nic = &cx.operator.pod_nic;
            let container = self.containers.get(&lost.pod).map(|state| format!("; its container is {state}"));
            format!(
                "no ready endpoint behind {}: {} ({}) on {} {how}, and {pod_nic} of that node {}{}",
                cx.operator.dns_service,
                lost.pod,
                lost.address,
                lost.node,
                if nic(&lost).is_some() { "is up" } else { "was not looked at" },
                container.unwrap_or_default()
            )
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::Container;
    use crate::testing::{play, scene};

    const NAME: &str = INFO.name;
    const ARMED: &str = "0 link eth1 3; 0 endpoints 0@worker-1";

    #[test]
    fn variant_the_only_replica_is_killed_with_every_link_intact() {
        let mut scene = scene!(NAME, "{ARMED}; 1000 endpoints; 2000 ? critical 1200 service/kube-dns");
        play!(
            scene,
            "2000 ? evidence coredns-0 (10.176.98.2) on worker-1 is no longer ready, and eth1 of that node is up"
        );
        play!(scene, "3000 endpoints 9@worker-2 ? over");
    }

    #[test]
    fn where_the_api_tells_the_evidence_says_what_became_of_the_container() {
        let mut scene = scene!(NAME, "{ARMED}");
        // As reported by a real kubelet for a program that exits immediately: CrashLoopBackOff follows later.
        let ended = ContainerState::Terminated { reason: "Completed".into(), exit_code: 0 };
        let waiting = ContainerState::Waiting { reason: "CrashLoopBackOff".into() };
        for (at, state) in [(700, ended), (900, waiting)] {
            let container = Container { pod: "coredns-0".into(), container: "coredns".into(), state, restarts: 1 };
            scene.at(at, "worker-1", container.into());
        }
        play!(scene, "1000 endpoints; 2000");
        let evidence = scene.evidence(NAME);
        assert!(evidence.ends_with("; its container is waiting (CrashLoopBackOff), restarted once"), "{evidence}");
    }

    #[test]
    fn a_lost_nic_explains_it_even_when_told_a_little_later() {
        let mut scene = scene!(NAME, "{ARMED}; 1000 @worker-2 endpoints; 1100 link -eth1 3; 4000");
        // The link is back before the endpoint is.
        play!(scene, "4000 link eth1 3; 6000 ? nothing");
    }

    #[test]
    fn late_no_endpoint_from_the_start() {
        let links = "0 link eth1 3; 0 @worker-2 link eth1 3";
        let mut scene =
            scene!(NAME, "{links}; 0 endpoints; 2900 ? silence; 3100 ? critical 3000..3050 service/kube-dns");
        play!(scene, "4000 endpoints 0@worker-1 ? over");
    }

    #[test]
    fn late_a_node_without_its_pod_nic_explains_it() {
        scene!(NAME, "0 link eth0 2; 0 @worker-2 link eth1 3; 0 endpoints; 9000 ? nothing");
    }

    #[test]
    fn a_nic_that_no_agent_looked_at_is_not_called_whole() {
        let mut scene =
            scene!(NAME, "0 @worker-2 link eth1 3; 0 @worker-2 endpoints 0@worker-1; 1000 @worker-2 endpoints");
        play!(scene, "2000 ? critical ? evidence eth1 of that node was not looked at");
    }

    #[test]
    fn a_cluster_whose_dns_is_not_up_yet_has_lost_nothing() {
        scene!(NAME, "0 endpoints; 2500 endpoints 0@worker-1 1@worker-2; 9000 ? silence");
    }
}
