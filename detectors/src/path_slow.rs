//! `path-slow`: round trips to a name or a prefix take much longer than they did.
//!
//! What it sees: three round trips in a row, of handshakes or data, that take far longer than usual on that path, or,
//! at a new address of a name, than at the addresses that the name had. Slow servers, lost segments and short stalls of
//! the machine do not count; see [`crate::paths`].
//! Why it matters: everything works, slowly, and nothing is wrong with the server.
//! Which incident: I6.

use std::collections::BTreeMap;

use crate::claims::{Claim, want};
use crate::detector::{Context, Detector, DetectorInfo, Scope, State, new};
use crate::finding::{Level, Severity, Subject, SubjectKind};
use crate::paths::Paths;
use crate::signal::{CollectorKind, Signal};
use crate::time::span;

pub const INFO: DetectorInfo = DetectorInfo {
    name: "path-slow",
    incident: "I6",
    level: Level::Symptom,
    subjects: &[SubjectKind::Name, SubjectKind::Path],
    what: "Round trips to a name or a prefix take much longer than they did.",
    facts: "It finds the same with none and with stale facts; without prefixes of peers it names their /24.",
    wants: &[CollectorKind::Packets, CollectorKind::DnsPackets, CollectorKind::ConntrackEvents],
    needs: &[&[CollectorKind::Packets]],
    scope: Scope::Cluster,
    state: State::Cluster(new::<PathSlow>),
};

#[derive(Default)]
struct PathSlow(Paths);

impl PathSlow {
    fn judge(&self, cx: &mut Context<'_>) {
        let mut wanted = BTreeMap::new();
        for (name, (address, node), run) in self.0.slow() {
            let subject = match name {
                Some(name) => Subject::name(name),
                None => Subject::path(cx.operator.path_of(*address)),
            };
            let [took, usual] = [run.took, run.usual].map(span);
            let evidence =
                format!("round trips from {node} to {address} take {took}, several in a row; usual: {usual}");
            want(&mut wanted, subject, Claim { severity: Severity::Warning, since: run.since, evidence });
        }
        cx.claims.settle(wanted, "round trips are as fast as before, or go to another address");
    }
}

impl Detector for PathSlow {
    fn observe(&mut self, cx: &mut Context<'_>, signal: &Signal) {
        if self.0.observe(cx.operator, signal) {
            self.judge(cx);
        }
    }

    fn tick(&mut self, cx: &mut Context<'_>) {
        self.0.tick(cx.now);
        self.judge(cx);
    }

    fn forget(&mut self, cx: &Context<'_>) {
        self.0.forget(cx.now);
    }
}

#[cfg(test)]
mod tests;
