//! What the agents' probes show of Services: by node, whether the virtual address and the endpoints behind it answer.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::capped::Capped;
use crate::signal::{Endpoint, Endpoints, Observed, Probe, ProbeKind, Signal};
use crate::time::Time;

/// Probes of a Service that are remembered.
const KEPT: usize = 8;
/// Answers in a row after which a Service that never answered between its failures works again.
const WORKS_AFTER: usize = 2;
/// Per mille of a node's connection table from which new connections may be dropped there.
const FULL: u128 = 950;
/// A table is read less often than the node is probed, so that it may have been full this long before.
const BEFORE: Duration = Duration::from_secs(1);
/// Endpoints that must have answered, if a Service has more.
const ENOUGH: usize = 64;
/// A node whose last probe is older than this no longer counts.
const STALE: Duration = Duration::from_secs(10);
/// Pods that evidence names.
const NAMED: usize = 4;
const CAP: usize = 4096;

/// A port of a Service, as probed by a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub node: Arc<str>,
    pub service: String,
    pub port: u16,
}

#[derive(Default)]
pub(crate) struct ServiceProbes {
    probed: Capped<Key, Probed, CAP>,
    endpoints: Capped<String, Known, CAP>,
    /// When the connection table of a node was last full.
    full: Capped<Arc<str>, Time, CAP>,
}

/// The endpoints of a Service.
#[derive(Default)]
struct Known {
    /// When they last changed; 0 while they are as they were first seen.
    since: Time,
    ready: Option<Vec<Endpoint>>,
}

#[derive(Default)]
struct Probed {
    /// When each of the last probes began, and why it failed.
    recent: VecDeque<(Time, Option<String>)>,
    target: Option<IpAddr>,
    last: Time,
    /// It has answered on this node.
    worked: bool,
    /// When each endpoint last answered and last failed.
    endpoints: Capped<IpAddr, Outcomes, CAP>,
}

#[derive(Default)]
struct Outcomes {
    answered: Time,
    failed: Time,
}

/// A Service that fails on a node although every endpoint behind it answers that node.
pub(crate) struct Failing {
    pub key: Key,
    /// When the first of the failed probes began.
    pub since: Time,
    pub failed: usize,
    pub of: usize,
    pub address: IpAddr,
    pub error: String,
    pub ready: Vec<Endpoint>,
    pub worked: bool,
}

impl Failing {
    /// The observation, as evidence.
    pub fn evidence(&self) -> String {
        let Self { key, failed, of, address, error, ready, .. } = self;
        let pods = ready.iter().map(|endpoint| format!("{} ({})", endpoint.pod, endpoint.address));
        let pods: Vec<String> = pods.take(NAMED).collect();
        let more = match ready.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!(
            "{failed} of {of} connects from {} to {} ({address}:{}) failed ({error}), while {}{more} answered it directly",
            key.node,
            key.service,
            key.port,
            pods.join(", ")
        )
    }
}

impl ServiceProbes {
    /// Takes note of a signal. Returns whether it is about a Service.
    pub fn observe(&mut self, signal: &Signal) -> bool {
        match &signal.observed {
            Observed::Probe(probe) => self.probe(signal, probe),
            Observed::Endpoints(Endpoints { service, ready, .. }) => {
                let Some(known) = self.endpoints.entry(service.clone()) else { return false };
                // All agents report a change, some of them late.
                match &known.ready {
                    Some(before) if signal.at < known.since || before == ready => {}
                    before => {
                        let since = if before.is_some() { signal.at } else { known.since };
                        *known = Known { since, ready: Some(ready.clone()) };
                    }
                }
                true
            }
            Observed::ConntrackTable(table) if table.share_of(1000) >= FULL => {
                self.full.insert(Arc::clone(&signal.node), signal.at);
                false
            }
            _ => false,
        }
    }

    fn probe(&mut self, signal: &Signal, probe: &Probe) -> bool {
        let (Some(service), Some(port)) = (&probe.about, probe.port) else { return false };
        let is_service = match probe.kind {
            ProbeKind::Service => true,
            ProbeKind::Endpoint => false,
            _ => return false,
        };
        let key = Key { node: Arc::clone(&signal.node), service: service.clone(), port };
        let Some(probed) = self.probed.entry(key) else { return false };
        let began = signal.at - Duration::from_micros(probe.took_us);
        if is_service {
            probed.last = probed.last.max(signal.at);
            probed.target = Some(probe.target);
            probed.worked |= probe.ok;
            if probed.recent.len() == KEPT {
                probed.recent.pop_front();
            }
            let error = || probe.error.clone().unwrap_or_else(|| "no answer".to_owned());
            probed.recent.push_back((began, (!probe.ok).then(error)));
        } else if let Some(outcomes) = probed.endpoints.entry(probe.target) {
            let time = if probe.ok { &mut outcomes.answered } else { &mut outcomes.failed };
            *time = signal.at.max(*time);
        }
        true
    }

    /// The Services that failed at least `failures` times on a node, counting from `settle` after their endpoints last
    /// changed, while every ready endpoint ([`ENOUGH`] of many) answered that node and none failed.
    pub fn failing(&self, now: Time, failures: usize, settle: Duration) -> Vec<Failing> {
        let one = |(key, probed): (&Key, &Probed)| self.fails(now, key, probed, failures, settle);
        self.probed.iter().filter_map(one).collect()
    }

    fn fails(&self, now: Time, key: &Key, probed: &Probed, failures: usize, settle: Duration) -> Option<Failing> {
        let known = self.endpoints.get(&key.service)?;
        let ready = known.ready.as_ref().filter(|ready| !ready.is_empty())?;
        if now.since(probed.last) > STALE {
            return None;
        }
        let counted = || probed.recent.iter().filter(|(began, _)| *began >= known.since + settle);
        let failed: Vec<_> = counted().filter_map(|(began, error)| Some((*began, error.as_ref()?))).collect();
        let (since, error) = failed.first()?;
        // Answers since the last failure, and whether there were any before it.
        let after = counted().rev().take_while(|(_, error)| error.is_none()).count();
        let between = counted().skip_while(|(_, error)| error.is_none()).count() - failed.len() > after;
        if failed.len() < failures || (after >= WORKS_AFTER && !between) {
            return None;
        }
        let outcomes = || ready.iter().filter_map(|endpoint| probed.endpoints.get(&endpoint.address));
        let answered = outcomes().filter(|outcomes| outcomes.answered >= *since).count();
        let failed_too = outcomes().any(|outcomes| outcomes.failed >= *since);
        // A full table on the way drops some connects and not others, whatever they ask for.
        let is_full = |node: &str| self.full.get(node).is_some_and(|at| *at + BEFORE >= *since);
        if is_full(&key.node) || ready.iter().any(|endpoint| is_full(&endpoint.node)) {
            return None;
        }
        (answered >= ready.len().min(ENOUGH) && !failed_too).then(|| Failing {
            key: key.clone(),
            since: *since,
            failed: failed.len(),
            of: counted().count(),
            address: probed.target.unwrap_or(IpAddr::from([0, 0, 0, 0])),
            error: (*error).clone(),
            ready: ready.clone(),
            worked: probed.worked,
        })
    }

    /// Another node that has reached the Service since then.
    pub fn works_elsewhere(&self, failing: &Failing) -> Option<&str> {
        let Key { node, service, port } = &failing.key;
        let same = |key: &&Key| key.service == *service && key.port == *port && key.node != *node;
        let reached = |(_, probed): &(&Key, &Probed)| {
            probed.recent.iter().any(|(began, error)| *began >= failing.since && error.is_none())
        };
        self.probed.iter().filter(|(key, _)| same(key)).find(reached).map(|(key, _)| &*key.node)
    }

    /// The Services, when their endpoints last changed, and to what.
    pub fn changes(&self) -> impl Iterator<Item = (&str, Time, &[Endpoint])> {
        self.endpoints
            .iter()
            .map(|(service, known)| (service.as_str(), known.since, known.ready.as_deref().unwrap_or_default()))
    }
}
