//! `external-dns`: the resolver of clients outside does not answer for an external name of the cluster.
//!
//! What it sees: look-ups of a declared name at the clients' own resolver fail twice in a row from every node that makes
//! them. About the resolver if it does not answer, about the name if it answers without an address.
//! Why it matters: users cannot reach a cluster in which everything is well.
//! Which incident: W6.
//!
//! Left out: names that are not declared; nodes that have not asked lately.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::capped::Capped;
use crate::claims::{Claim, want};
use crate::detector::{Context, Detector, DetectorInfo, Scope, State, new};
use crate::finding::{Level, Severity, Subject, SubjectKind};
use crate::signal::{CollectorKind, Observed, ProbeKind, Signal};
use crate::time::Time;

pub const INFO: DetectorInfo = DetectorInfo {
    name: "external-dns",
    incident: "W6",
    level: Level::Cause,
    subjects: &[SubjectKind::Name, SubjectKind::Server],
    what: "The resolver of clients outside does not answer for an external name of the cluster.",
    facts: "It is silent without a declared name; with a stale resolver it accuses that address, and its evidence \
            says that it never answered.",
    wants: &[CollectorKind::Probes],
    needs: &[&[CollectorKind::Probes]],
    scope: Scope::Cluster,
    state: State::Cluster(new::<ExternalDns>),
};

/// Misses in a row from each node.
const MISSES: u32 = 2;
/// A node that has not asked for this long does not count.
const STALE: Duration = Duration::from_secs(5);
const CAP: usize = 1024;
/// RFC 1035 section 4.2.
const DNS_PORT: u16 = 53;

#[derive(Default)]
struct ExternalDns {
    /// By resolver and name, then by node.
    asked: Capped<(IpAddr, String), BTreeMap<Arc<str>, Run>, CAP>,
}

/// Misses in a row.
#[derive(Default)]
struct Run {
    misses: u32,
    since: Time,
    last: Time,
    error: String,
    /// It answered once.
    answered: bool,
}

impl ExternalDns {
    fn judge(&self, cx: &mut Context<'_>) {
        let mut wanted = BTreeMap::new();
        for ((resolver, name), nodes) in self.asked.iter() {
            let recent: Vec<&Run> = nodes.values().filter(|run| cx.now.since(run.last) < STALE).collect();
            let Some(first) = recent.iter().min_by_key(|run| run.since) else { continue };
            if recent.iter().any(|run| run.misses < MISSES) {
                continue;
            }
            let answers = recent.iter().any(|run| run.error != "timeout");
            let subject =
                if answers { Subject::name(name) } else { Subject::server(SocketAddr::new(*resolver, DNS_PORT)) };
            let (count, error) = (recent.len(), &first.error);
            let never = match nodes.values().any(|run| run.answered) {
                true => "",
                false => "; none was ever answered, so this may no longer be the clients' resolver",
            };
            let evidence =
                format!("look-ups of {name} at {resolver} failed from {count} nodes, the first by: {error}{never}");
            want(&mut wanted, subject, Claim { severity: Severity::Warning, since: first.since, evidence });
        }
        cx.claims.settle(wanted, "the name is resolved again");
    }
}

impl Detector for ExternalDns {
    fn observe(&mut self, cx: &mut Context<'_>, signal: &Signal) {
        let Observed::Probe(probe) = &signal.observed else { return };
        let (ProbeKind::ExternalName, Some(name)) = (probe.kind, &probe.about) else { return };
        let Some(nodes) = self.asked.entry((probe.target, name.clone())) else { return };
        let run = nodes.entry(Arc::clone(&signal.node)).or_default();
        if signal.at.since(run.last) >= STALE {
            run.misses = 0;
        }
        run.last = run.last.max(signal.at);
        if probe.ok {
            run.misses = 0;
            run.answered = true;
        } else {
            if run.misses == 0 {
                run.since = signal.at;
            }
            run.misses += 1;
            run.error = probe.error.clone().unwrap_or_default();
        }
        self.judge(cx);
    }

    fn tick(&mut self, cx: &mut Context<'_>) {
        self.judge(cx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{play, scene};

    const NAME: &str = INFO.name;

    #[test]
    fn incident_two_misses_from_each_node_name_the_resolver() {
        let mut scene = scene!(NAME, "0 @a external ok; 0 @b external ok");
        play!(scene, "1000 @a external timeout; 1000 @b external timeout; 1500 @a external timeout ? nothing");
        play!(scene, "1500 @b external timeout ? warning 1500 server/203.0.113.53:53");
        play!(scene, "4000 @a external ok ? over");
    }

    #[test]
    fn a_resolver_that_never_answered_may_be_an_old_declaration() {
        let question = "this may no longer be the clients' resolver";
        let mut scene = scene!(NAME, "0 external timeout; 500 external timeout ? warning 500 server/203.0.113.53:53");
        play!(scene, "500 ? evidence {question}");
        let scene = scene!(
            NAME,
            "0 external ok; 500 external timeout; 1000 external timeout; 1000 ? warning 1000 server/203.0.113.53:53"
        );
        let evidence = &scene.findings.last().expect("a finding").1.evidence;
        assert!(!evidence.contains(question), "{evidence}");
    }

    #[test]
    fn twin_misses_far_apart_are_not_in_a_row() {
        scene!(NAME, "0 external ok; 1000 external timeout; 60000 external timeout ? silence");
    }

    #[test]
    fn a_name_without_an_address_is_named_itself() {
        let mut scene = scene!(NAME, "0 @a external ok; 1000 @a external no-address; 1500 @a external no-address");
        play!(scene, "? warning 1500 name/tickets.example.com");
    }

    #[test]
    fn twin_a_node_that_reaches_nothing_and_a_resolver_that_is_slow() {
        let mut scene = scene!(NAME, "0 @a external ok; 0 @b external ok");
        for at in [1_000, 1_500, 2_000, 2_500] {
            play!(scene, "{at} @a external timeout; {at} @b external ok");
        }
        for (at, outcome) in [(3_000, "timeout"), (3_500, "ok"), (4_000, "timeout"), (4_500, "ok")] {
            play!(scene, "{at} @a external {outcome}; {at} @b external {outcome}");
        }
        play!(scene, "? silence");
    }
}
