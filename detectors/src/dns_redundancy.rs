//! `dns-redundancy`: cluster DNS depends on a single node.
//!
//! What it sees: the ready endpoints behind the DNS Service are all on one node, however many there are. A warning if
//! that was so from the start, or has been for a minute; `info` while a lost replica may still be replaced.
//! Why it matters: if that node or its NIC fails, no name in the cluster resolves.
//! Which incident: I3, as the risk that precedes it.

use std::time::Duration;

use crate::detector::{Context, Detector, DetectorInfo, Scope, State, new};
use crate::dns_endpoints::DnsEndpoints;
use crate::finding::{Level, Severity, SubjectKind};
use crate::signal::{CollectorKind, Signal};
use crate::time::Time;

pub const INFO: DetectorInfo = DetectorInfo {
    name: "dns-redundancy",
    incident: "I3",
    level: Level::Risk,
    subjects: &[SubjectKind::Service],
    what: "All ready endpoints of cluster DNS are on one node.",
    facts: "It finds the same with none and with stale facts.",
    wants: &[CollectorKind::Inventory],
    needs: &[&[CollectorKind::Inventory]],
    scope: Scope::Cluster,
    state: State::Cluster(new::<DnsRedundancy>),
};

/// How long a replacement may take.
const REPLACEMENT: Duration = Duration::from_mins(1);

#[derive(Default)]
struct DnsRedundancy {
    latest: DnsEndpoints,
    /// They were on two nodes at some time.
    had_two: bool,
    /// The endpoints on the single node, and since when.
    single: Option<(Time, String)>,
}

impl Detector for DnsRedundancy {
    fn observe(&mut self, cx: &mut Context<'_>, signal: &Signal) {
        let Some(ready) = self.latest.update(cx.operator, signal) else { return };
        let Some(first) = ready.first() else { return };
        if ready.iter().all(|endpoint| endpoint.node == first.node) {
            // A dual-stack pod counts once.
            let mut pods: Vec<_> = ready.iter().map(|endpoint| &endpoint.pod).collect();
            pods.sort_unstable();
            pods.dedup();
            let what = match pods.len() {
                1 => {
                    format!("one ready endpoint behind {}: {} ({})", cx.operator.dns_service, first.pod, first.address)
                }
                pods => format!("all {pods} ready endpoints behind {} are", cx.operator.dns_service),
            };
            let since = self.single.as_ref().map_or(signal.at, |(since, _)| *since);
            self.single = Some((since, format!("{what} on {}", first.node)));
            self.tick(cx);
        } else {
            self.had_two = true;
            self.single = None;
            cx.claims.withdraw(format!("ready endpoints of {} on more than one node", cx.operator.dns_service));
        }
    }

    fn tick(&mut self, cx: &mut Context<'_>) {
        let Some((since, what)) = &self.single else { return };
        let warn = !self.had_two || cx.now.since(*since) >= REPLACEMENT;
        let severity = if warn { Severity::Warning } else { Severity::Info };
        cx.claims.make(severity, *since, || what.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{play, scene};

    const NAME: &str = INFO.name;

    #[test]
    fn a_single_replica_at_first_sight_is_a_risk_at_once() {
        let single = "0 @worker-2 endpoints 0@worker-1 ? warning 0 service/kube-dns";
        scene!(NAME, "{single}; 500 endpoints 0@worker-1 1@worker-2 ? over");
    }

    #[test]
    fn two_replicas_on_one_node_are_a_risk() {
        let mut scene = scene!(NAME, "0 endpoints 0@worker-1 1@worker-1 ? warning 0 service/kube-dns");
        play!(scene, "? evidence all 2 ready endpoints behind kube-dns are on worker-1");
        play!(scene, "500 endpoints 0@worker-1 1@worker-1 2@worker-2 ? over");
    }

    #[test]
    fn twin_one_of_two_replicas_lost_is_info_for_a_minute() {
        let lost = "0 endpoints 0@worker-1 1@worker-2; 1000 endpoints 1@worker-2";
        scene!(NAME, "{lost}; 60900 ? info; 61100 ? warning");
    }

    #[test]
    fn twin_rolling_restart_with_two_replicas() {
        let mut scene = scene!(NAME, "");
        let [a, b, c, d] = ["0@worker-1", "1@worker-2", "2@worker-1", "3@worker-2"];
        let lists: [&[_]; 5] = [&[a, b], &[b], &[b, c], &[c], &[c, d]];
        for (at, list) in (0..).step_by(300).zip(lists) {
            let list = list.join(" ");
            play!(scene, "{at} endpoints {list}; {} @worker-2 endpoints {list}", at + 40);
        }
        play!(scene, "5000 ? quiet ? nothing stands ? dns-replica: nothing");
    }

    #[test]
    fn a_late_agent_does_not_turn_back_time() {
        scene!(NAME, "1000 endpoints 0@worker-1 1@worker-2; ~900 @worker-2 endpoints 0@worker-1 ? silence");
    }
}
