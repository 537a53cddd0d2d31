//! `service-rules`: a node's rules for a Service do not work.
//!
//! What it sees: from a node, three connects to a Service's virtual address fail while every ready endpoint answers
//! the same node directly; another node reaches the Service, or this one did before. `info` while kube-proxy does not
//! run on the node, since its rules are then merely old: see `kube-proxy`.
//! Why it matters: clients on that node lose the Service although it is well, and only there.
//! Which incident: W1.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::claims::{Claim, want};
use crate::detector::{Context, Detector, DetectorInfo, Scope, State, new};
use crate::finding::{Level, Severity, Subject, SubjectKind};
use crate::service_probes::{Failing, ServiceProbes};
use crate::signal::{CollectorKind, Observed, ProbeKind, Signal};
use crate::time::Time;

pub const INFO: DetectorInfo = DetectorInfo {
    name: "service-rules",
    incident: "W1",
    level: Level::Cause,
    subjects: &[SubjectKind::Node],
    what: "A Service's virtual address fails from one node while the endpoints behind it answer that node.",
    facts: "It finds the same with none and with stale facts.",
    wants: &[CollectorKind::Probes, CollectorKind::Inventory, CollectorKind::ConntrackTable],
    needs: &[&[CollectorKind::Probes], &[CollectorKind::Inventory]],
    scope: Scope::Cluster,
    state: State::Cluster(new::<ServiceRules>),
};

/// Failures required: two could be lost packets.
const FAILURES: usize = 3;
/// kube-proxy writes its rules within a second of a change (`minSyncPeriod`), and somewhat later on a busy node.
const SETTLE: Duration = Duration::from_secs(2);

#[derive(Default)]
struct ServiceRules {
    probes: ServiceProbes,
    /// When each node's kube-proxy last answered; 0 if it was only asked.
    answered: BTreeMap<Arc<str>, Time>,
}

impl Detector for ServiceRules {
    fn observe(&mut self, cx: &mut Context<'_>, signal: &Signal) {
        match &signal.observed {
            Observed::Probe(probe) if probe.kind == ProbeKind::KubeProxy => {
                let answered = self.answered.entry(Arc::clone(&signal.node)).or_default();
                if probe.ok {
                    *answered = signal.at;
                }
            }
            _ if self.probes.observe(signal) => {}
            _ => return,
        }
        let mut wanted = BTreeMap::new();
        for failing in self.probes.failing(cx.now, FAILURES, SETTLE) {
            let elsewhere = self.probes.works_elsewhere(&failing);
            let Some(comparison) = comparison(&failing, elsewhere) else { continue };
            // A request for its health takes as long to fail as a connect: what counts is an answer.
            let dead = self.answered.get(&failing.key.node).is_some_and(|answered| *answered < failing.since);
            let severity = if dead { Severity::Info } else { Severity::Warning };
            let mut evidence = format!("{}; {comparison}", failing.evidence());
            if dead {
                evidence += "; kube-proxy has not answered there since";
            }
            let claim = Claim { severity, since: failing.since, evidence };
            want(&mut wanted, Subject::node(&*failing.key.node), claim);
        }
        cx.claims.settle(wanted, "the Service answers, or its endpoints do not");
    }
}

fn comparison(failing: &Failing, elsewhere: Option<&str>) -> Option<String> {
    match elsewhere {
        Some(node) => Some(format!("{node} reaches the Service")),
        None => failing.worked.then(|| "it reached the Service before".to_owned()),
    }
}

#[cfg(test)]
pub(crate) mod tests;
