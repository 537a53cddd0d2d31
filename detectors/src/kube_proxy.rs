//! `kube-proxy`: kube-proxy does not run on a node, and the node's rules are out of date.
//!
//! What it sees: three requests in a row for kube-proxy's health fail, and meanwhile the endpoints of a Service have
//! changed, or a Service fails on that node while its endpoints answer. `info` while nothing has changed: the rules in
//! force are then right.
//! Why it matters: clients on that node are sent to pods that no longer exist, and never to new ones.
//! Which incident: W2.

use std::time::Duration;

use crate::detector::{Context, Detector, DetectorInfo, Scope, State, new};
use crate::finding::{Level, Severity, SubjectKind};
use crate::service_probes::ServiceProbes;
use crate::signal::{CollectorKind, Observed, ProbeKind, Signal};
use crate::time::Time;

pub const INFO: DetectorInfo = DetectorInfo {
    name: "kube-proxy",
    incident: "W2",
    level: Level::Cause,
    subjects: &[SubjectKind::Node],
    what: "kube-proxy does not run on a node, and the node has missed a change of endpoints.",
    facts: "It finds the same with none and with stale facts.",
    wants: &[CollectorKind::Probes, CollectorKind::Inventory, CollectorKind::ConntrackTable],
    needs: &[&[CollectorKind::Probes], &[CollectorKind::Inventory]],
    scope: Scope::Node,
    state: State::EachNode(new::<KubeProxy>),
};

/// Failed requests in a row required: a restart takes a second or two.
const MISSES: u32 = 3;
/// A change this recent may still be written in time.
const SETTLE: Duration = Duration::from_secs(2);
/// Failures of a Service required.
const FAILURES: usize = 2;

#[derive(Default)]
struct KubeProxy {
    probes: ServiceProbes,
    misses: u32,
    /// When the first failed request began, and why.
    since: Time,
    error: String,
}

impl Detector for KubeProxy {
    fn observe(&mut self, cx: &mut Context<'_>, signal: &Signal) {
        match &signal.observed {
            Observed::Probe(probe) if probe.kind == ProbeKind::KubeProxy && probe.ok => {
                self.misses = 0;
                cx.claims.withdraw("kube-proxy answers again");
            }
            Observed::Probe(probe) if probe.kind == ProbeKind::KubeProxy => {
                if self.misses == 0 {
                    self.since = signal.at - Duration::from_micros(probe.took_us);
                }
                self.misses += 1;
                self.error = probe.error.clone().unwrap_or_else(|| "no answer".to_owned());
            }
            _ if self.probes.observe(signal) => {}
            _ => return,
        }
        self.judge(cx);
    }

    fn tick(&mut self, cx: &mut Context<'_>) {
        self.judge(cx);
    }
}

impl KubeProxy {
    fn judge(&self, cx: &mut Context<'_>) {
        if self.misses < MISSES || cx.claims.standing() >= Some(Severity::Warning) {
            return;
        }
        let Self { misses, error, since, .. } = self;
        let dead = format!("{misses} requests in a row for kube-proxy's health failed ({error})");
        let missed = |at: Time| at >= *since && cx.now.since(at) >= SETTLE;
        if let Some(failing) = self.probes.failing(cx.now, FAILURES, Duration::ZERO).first() {
            let evidence = || format!("{dead}; {}", failing.evidence());
            cx.claims.make(Severity::Warning, (*since).min(failing.since), evidence);
        } else if let Some((service, _, ready)) = self.probes.changes().find(|(_, at, _)| missed(*at)) {
            let pods: Vec<_> = ready.iter().map(|endpoint| endpoint.pod.as_str()).collect();
            let evidence = || format!("{dead}; meanwhile the endpoints of {service} became {}", pods.join(", "));
            cx.claims.make(Severity::Warning, *since, evidence);
        } else {
            cx.claims.make(Severity::Info, *since, || format!("{dead}; no endpoint has changed since"));
        }
    }
}
