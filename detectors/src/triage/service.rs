//! Step 4, the Service: kube-proxy as a workload, then its rules on the node that is asked.
//!
//! Compared: the Service's virtual address and an endpoint behind it, on this node and on others.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::access::{Leg, Outcome};
use super::{Ask, Look, Run, Step};
use crate::capped::Capped;
use crate::finding::Subject;
use crate::operator::Operator;
use crate::signal::{Change, Endpoint, Flow, Observed, Probe, ProbeKind, Signal};
use crate::time::Time;

const MISSES: u32 = 2;
/// A translated connection proves the rules for this long.
const PROOF: Duration = Duration::from_secs(10);
/// Endpoints may be as old as this when rules have not followed yet.
const FOLLOWS: Duration = Duration::from_secs(2);
const CAP: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Services {
    /// By node and Service.
    probes: BTreeMap<(Arc<str>, Kind, String), Run>,
    kube_proxy: BTreeMap<Arc<str>, Run>,
    /// By name: address, endpoints, and when they changed.
    endpoints: BTreeMap<String, (IpAddr, Vec<Endpoint>, Time)>,
    /// Where connections to a Service's address went last, by node: the endpoint, or the Service itself.
    translated: Capped<(Arc<str>, IpAddr), (Time, IpAddr), CAP>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Service,
    Endpoint,
}

impl Services {
    fn probe(&mut self, node: &Arc<str>, at: Time, probe: &Probe) {
        let run = match probe.kind {
            ProbeKind::KubeProxy => self.kube_proxy.entry(Arc::clone(node)).or_default(),
            ProbeKind::Service | ProbeKind::Endpoint => {
                let named = self.endpoints.iter().find(|(_, (address, ..))| *address == probe.target);
                let about = probe.about.clone().or_else(|| named.map(|(name, _)| name.clone()));
                let kind = if probe.kind == ProbeKind::Service { Kind::Service } else { Kind::Endpoint };
                let Some(about) = about else { return };
                self.probes.entry((Arc::clone(node), kind, about)).or_default()
            }
            _ => return,
        };
        run.probe(at, probe);
    }

    fn flow(&mut self, node: &Arc<str>, at: Time, flow: &Flow) {
        let service = flow.original.destination.ip();
        let is_service = self.endpoints.values().any(|(address, ..)| *address == service);
        if is_service && flow.change == Change::Added {
            self.translated.insert((Arc::clone(node), service), (at, flow.reply.source.ip()));
        }
    }

    /// The last probes of a Service from a node.
    fn run(&self, kind: Kind, node: &str, service: &str) -> Option<&Run> {
        let mut of = self.probes.iter().filter(|((at, own, name), _)| &**at == node && *own == kind && name == service);
        of.next().map(|(_, run)| run)
    }

    fn probed(&self, kind: Kind, node: &str, service: &str, now: Time) -> Option<bool> {
        self.run(kind, node, service)?.state(now, MISSES)
    }

    /// Whether an address may be an endpoint of the leg's Service.
    pub fn is_ready(&self, leg: &Leg, address: IpAddr) -> bool {
        let known = leg.service.as_ref().and_then(|service| self.endpoints.get(&service.name));
        known.is_none_or(|(_, ready, _)| ready.iter().any(|endpoint| endpoint.address == address))
    }

    fn leg(&self, ask: &Ask<'_>, leg: &Leg, name: &str, address: IpAddr) -> Look {
        let now = ask.now;
        let mut proof = None;
        let nodes: Vec<&str> = leg.rule_nodes().collect();
        let known = self.endpoints.get(name);
        for node in &nodes {
            let healthy = self.kube_proxy.iter().find(|(at, _)| &***at == *node);
            let stopped = healthy.and_then(|(_, run)| run.state(now, MISSES)) == Some(false);
            let kube_proxy = if stopped { "kube-proxy does not answer; " } else { "" };
            let by_service = self.probed(Kind::Service, node, name, now);
            let both = self.run(Kind::Service, node, name).zip(self.run(Kind::Endpoint, node, name));
            let by_pod = both.is_some_and(|(service, endpoint)| endpoint.answers_beside(service));
            let at = Subject::node(*node);
            if by_service == Some(false) && by_pod {
                let elsewhere = self
                    .probes
                    .iter()
                    .filter(|((other, kind, about), _)| &**other != *node && *kind == Kind::Service && about == name);
                let elsewhere: Vec<bool> = elsewhere.filter_map(|(_, run)| run.state(now, MISSES)).collect();
                let (at, where_) = match elsewhere.as_slice() {
                    [] => (at, String::new()),
                    some if some.contains(&true) => (at, "; on other nodes it works".to_owned()),
                    _ => (Subject::service(name), "; on other nodes as well".to_owned()),
                };
                let what = format!("{kube_proxy}on {node} {name} does not answer, its pods do{where_}");
                return Look::faulty(at, what).explains_if(true);
            }
            // Where the rules led the last connects of this leg.
            let led = ask.shared.journeys.of(leg);
            let broken = led.iter().rev().filter(|journey| journey.is_broken(now) || journey.refused.is_some());
            for journey in broken.take(3) {
                let Some(origin) = journey.origin().filter(|origin| &*origin.node == *node) else { continue };
                let asked = origin.destination;
                let by_port = leg.via.iter().any(|end| end.addresses.contains(&asked.ip()));
                if asked.ip() != address && !by_port {
                    continue;
                }
                let here = journey.syns.iter().filter(|sight| &*sight.node == *node);
                let to = here.clone().find(|sight| sight.destination != asked).map(|sight| sight.destination.ip());
                // What is asked by the node's own address never leaves it untranslated.
                let untranslated =
                    to.is_none() && by_service != Some(true) && (by_port || here.clone().any(|sight| sight.goes_out()));
                let stale = to.filter(|to| {
                    known.is_some_and(|(_, ready, since)| {
                        let follows = journey.began().since(*since) >= FOLLOWS;
                        follows && !ready.is_empty() && ready.iter().all(|one| one.address != *to)
                    })
                });
                let what = match stale {
                    Some(to) => format!("{kube_proxy}{node} sends connects to {name} to {to}, no endpoint any more"),
                    None if untranslated => {
                        format!("{kube_proxy}{node} does not translate connects to {asked}, of {name}")
                    }
                    None => continue,
                };
                return Look::faulty(at, what).explains_if(true);
            }
            if stopped {
                return Look::faulty(at, format!("kube-proxy of {node} does not answer"));
            }
            let flow = self.translated.get(&((*node).into(), address)).filter(|(at, _)| now.since(*at) < PROOF);
            if let Some((_, to)) = flow.filter(|(_, to)| *to != address) {
                proof = Some(format!("{node} translates {name} to {to}"));
            } else if by_service == Some(true) {
                proof = Some(format!("{name} answers on {node}"));
            } else if led.iter().any(|journey| journey.answered().is_some_and(|at| now.since(at) < PROOF)) {
                proof = Some(format!("{name} is reached from {node}"));
            }
        }
        proof.map_or_else(|| Look::not_seen(format!("no connect to {name} was seen")), Look::in_order)
    }
}

impl Step for Services {
    fn observe(&mut self, _: &Operator, signal: &Signal) {
        match &signal.observed {
            Observed::Probe(probe) => self.probe(&signal.node, signal.at, probe),
            Observed::Flow(flow) => self.flow(&signal.node, signal.at, flow),
            Observed::Endpoints(list) => {
                let known = self.endpoints.get(&list.service);
                if known.is_none_or(|(_, ready, since)| *ready != list.ready && *since <= signal.at) {
                    self.endpoints.insert(list.service.clone(), (list.address, list.ready.clone(), signal.at));
                }
            }
            _ => {}
        }
    }

    fn look(&self, ask: &Ask<'_>) -> Look {
        let services = ask.access.legs.iter().filter_map(|leg| Some((leg, leg.service.as_ref()?)));
        let mut looks: Vec<Look> =
            services.map(|(leg, service)| self.leg(ask, leg, &service.name, service.address)).collect();
        // Cluster DNS is a Service, too.
        for leg in ask.access.legs.iter().filter(|leg| leg.lookup.is_some()) {
            let only = leg.client_nodes().find(|node| ask.dns.is_only_the_service(ask.now, node));
            if let Some(node) = only {
                let what = format!("on {node} {} does not answer, its endpoints do", ask.operator.dns_service);
                looks.push(Look::faulty(Subject::node(node), what).explains_if(true));
            }
        }
        if looks.is_empty() {
            return Look::not_on_this_way("no Service is asked");
        }
        let mut look = Look::worst(looks);
        look.explains &= match ask.outcome {
            Outcome::Slow(_) => false,
            Outcome::Status(_) => ask.outcome.is_gateway(),
            _ => true,
        };
        look
    }
}
