//! `service-failure`: a Service does not answer at its virtual address although its endpoints do.
//!
//! What it sees: from some node, two connects to the virtual address fail while every ready endpoint answers that node.
//! Why it matters: this is what clients on that node see: a Service that looks down, in front of pods that are well.
//! Which incident: W1 and W2.
//!
//! Left out: Services whose endpoints fail too, or that have none; then the pods are at fault, not the Service.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::claims::{Claim, want};
use crate::detector::{Context, Detector, DetectorInfo, Scope, State, new};
use crate::finding::{Level, Severity, Subject, SubjectKind};
use crate::service_probes::ServiceProbes;
use crate::signal::{CollectorKind, Signal};

pub const INFO: DetectorInfo = DetectorInfo {
    name: "service-failure",
    incident: "W1",
    level: Level::Symptom,
    subjects: &[SubjectKind::Service],
    what: "A Service fails at its virtual address although every endpoint behind it answers.",
    facts: "It finds the same with none and with stale facts.",
    wants: &[CollectorKind::Probes, CollectorKind::Inventory, CollectorKind::ConntrackTable],
    needs: &[&[CollectorKind::Probes], &[CollectorKind::Inventory]],
    scope: Scope::Cluster,
    state: State::Cluster(new::<ServiceFailure>),
};

const FAILURES: usize = 2;
/// Old rules still hit an endpoint that has just left.
const SETTLE: Duration = Duration::from_secs(1);

#[derive(Default)]
struct ServiceFailure {
    probes: ServiceProbes,
}

impl Detector for ServiceFailure {
    fn observe(&mut self, cx: &mut Context<'_>, signal: &Signal) {
        if !self.probes.observe(signal) {
            return;
        }
        let mut wanted = BTreeMap::new();
        for failing in self.probes.failing(cx.now, FAILURES, SETTLE) {
            let claim = Claim { severity: Severity::Warning, since: failing.since, evidence: failing.evidence() };
            want(&mut wanted, Subject::service(&failing.key.service), claim);
        }
        cx.claims.settle(wanted, "the Service answers, or its endpoints do not");
    }
}
