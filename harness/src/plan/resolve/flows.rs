//! The workload: who talks to whom, how, and how often.

use std::time::Duration;

use relapse_model::Server;
use relapse_model::diagnostics::{Span, listed, nearest, quoted};
use relapse_model::spanned::Spanned;
use relapse_model::values::{self, Name};

use super::Planner;
use super::cluster::{is_numbered, numbers};
use crate::plan::{FlowKind, FlowPlan, OutsideId, Place, PodId, Target};
use crate::scenario::workload::{Closes, Connection, Dns, Flow};

const DEFAULT_EVERY: Duration = Duration::from_millis(100);
const DEFAULT_TIMEOUT: Duration = Duration::from_millis(400);
const DEFAULT_REQUEST: u32 = 100;
const DEFAULT_RESPONSE: u32 = 1000;
const MOST_FLOWS: usize = 128;
/// What a flow's end is while it is unknown; never in a plan that comes out.
const NOWHERE: Place = Place::Node(crate::plan::NodeId(0));

/// What all kinds of flows have.
struct Common<'a> {
    name: &'a Spanned<Name>,
    from: &'a Spanned<String>,
    every: Option<&'a Spanned<values::Duration>>,
    timeout: Option<&'a Spanned<values::Duration>>,
}

macro_rules! common {
    ($flow:expr) => {
        Common { name: &$flow.name, from: &$flow.from, every: $flow.every.as_ref(), timeout: $flow.timeout.as_ref() }
    };
}

impl Planner<'_> {
    pub(super) fn plan_workload(&mut self, flows: &[Flow]) {
        let common = |flow: &Flow| -> (String, Span) {
            let name = match flow {
                Flow::Tcp(f) => &f.name,
                Flow::Http(f) => &f.name,
                Flow::Dns(f) => &f.name,
                Flow::Ping(f) => &f.name,
                Flow::Hold(f) => &f.name,
            };
            (name.0.clone(), name.span)
        };
        let names: Vec<(String, Span)> = flows.iter().map(common).collect();
        self.unique("flows", names.iter().map(|(name, span)| (name.as_str(), *span)));
        if let Some((_, span)) = names.get(MOST_FLOWS) {
            self.error(*span, format!("there are {} flows", names.len()), format!("at most {MOST_FLOWS} fit"));
        }
        for flow in flows {
            let planned = self.plan_flow(flow);
            self.workload.push(planned);
        }
    }

    fn plan_flow(&mut self, flow: &Flow) -> FlowPlan {
        match flow {
            Flow::Tcp(f) => {
                let (from, to) = self.ends(&f.from, &f.to, Some(f.port));
                self.understood(to, "tcp", &f.to);
                let kind = FlowKind::Tcp {
                    to,
                    port: f.port.value,
                    request: f.request.map_or(DEFAULT_REQUEST, |n| n.value),
                    response: f.response.map_or(DEFAULT_RESPONSE, |n| n.value),
                    kept: f.connection == Connection::Kept,
                    server_closes: f.closes == Closes::Server,
                };
                self.flow_plan(&common!(f), from, kind)
            }
            Flow::Http(f) => {
                let (from, to) = self.ends(&f.from, &f.to, Some(f.port));
                let response = f.response.map_or(DEFAULT_RESPONSE, |n| n.value);
                self.flow_plan(&common!(f), from, FlowKind::Http { to, port: f.port.value, response })
            }
            Flow::Hold(f) => {
                let (from, to) = self.ends(&f.from, &f.to, Some(f.port));
                self.understood(to, "hold", &f.to);
                let kind = FlowKind::Hold { to, port: f.port.value, connections: f.connections.value };
                self.flow_plan(&common!(f), from, kind)
            }
            Flow::Ping(f) => {
                let (from, to) = self.ends(&f.from, &f.to, None);
                if matches!(to, Target::Service(_)) {
                    self.error(f.to.span, "a Service does not answer a ping", "ping one of its pods");
                }
                self.flow_plan(&common!(f), from, FlowKind::Ping { to })
            }
            Flow::Dns(f) => self.dns_flow(f),
        }
    }

    fn flow_plan(&mut self, flow: &Common<'_>, from: Place, kind: FlowKind) -> FlowPlan {
        let every = self.duration_or("every", flow.every, DEFAULT_EVERY);
        let timeout = self.duration_or("timeout", flow.timeout, DEFAULT_TIMEOUT);
        if matches!(kind.target(), Target::Place(to) if to == from && from != NOWHERE) {
            self.error(
                flow.from.span,
                format!("flow `{}` would talk to itself", flow.name.0),
                "let it go somewhere else",
            );
        }
        let in_turn: Vec<Place> = self.counted(flow.from).into_iter().skip(1).collect();
        if !in_turn.is_empty() && matches!(kind, FlowKind::Hold { .. } | FlowKind::Tcp { kept: true, .. }) {
            let message = format!("flow `{}` keeps connections, and several pods cannot share one", flow.name.0);
            self.error(flow.from.span, message, "name one of the pods, such as the first with `-1`");
        }
        FlowPlan { name: flow.name.0.clone(), from, in_turn, kind, every, timeout }
    }

    /// Where a flow starts: a place, or the first of the pods of a counted name.
    fn source(&mut self, from: &Spanned<String>) -> Option<Place> {
        self.counted(from).first().copied().or_else(|| self.place(from))
    }

    /// All pods of a counted name, `pod/NAME`; none where it is the name of one pod.
    fn counted(&self, from: &str) -> Vec<Place> {
        let pods = &self.cluster.pods;
        let Some(name) = from.strip_prefix("pod/").filter(|name| !pods.iter().any(|p| p.name == *name)) else {
            return Vec::new();
        };
        (0..pods.len()).filter(|i| is_numbered(&pods[*i].name, name)).map(|i| Place::Pod(PodId(i))).collect()
    }

    /// Both ends of a flow, which must be able to reach each other.
    fn ends(&mut self, from: &Spanned<String>, to: &Spanned<String>, port: Option<Spanned<u16>>) -> (Place, Target) {
        let (source, target) = (self.source(from), self.target(to));
        if let (Some(source), Some(target)) = (source, target) {
            self.reachable(source, target, to);
        }
        if let (Some(Target::Service(id)), Some(port)) = (target, port) {
            let service = &self.cluster.services[id.0];
            if !service.ports.contains(&port.value) && !service.ports.is_empty() {
                let message = format!("Service `{}` has no port {}", service.name, port.value);
                let help = format!("its ports: {}", numbers(&service.ports));
                self.error(port.span, message, help);
            }
        }
        (source.unwrap_or(NOWHERE), target.unwrap_or(Target::Place(NOWHERE)))
    }

    /// Tells where a flow goes to a server that is not relapse's own and speaks something else.
    fn understood(&mut self, to: Target, kind: &str, at: &Spanned<String>) {
        let Target::Place(Place::Outside(id)) = to else { return };
        match self.cluster.outside[id.0].server {
            Some(Server::Nginx) => {
                let message = format!("nginx on {} does not understand a `{kind}` flow", quoted(at));
                self.error(at.span, message, "make it an `http` flow, or leave `server` of that host out");
            }
            None => {}
        }
    }

    fn reachable(&mut self, from: Place, to: Target, at: &Spanned<String>) {
        if matches!(to, Target::Service(_)) && matches!(from, Place::Outside(_) | Place::Office(_)) {
            let message = format!("{} cannot reach {}", self.cluster.place_name(from), quoted(at));
            self.error(
                at.span,
                message,
                "a Service's address is known inside the cluster only: go to a pod, an ingress for one",
            );
        }
        let (a, b) = (self.cluster.address(from), self.cluster.target_address(to));
        if a.is_ipv4() != b.is_ipv4() && !a.is_unspecified() && !b.is_unspecified() {
            let message = format!("{} has the address {a}, and {} has {b}", self.cluster.place_name(from), quoted(at));
            self.error(at.span, message, "both ends need addresses of one IP version");
        }
    }

    fn dns_flow(&mut self, flow: &Dns) -> FlowPlan {
        let from = self.source(&flow.from);
        self.domain(&flow.query);
        let server = match &flow.server {
            Some(server) => self.target(server),
            None => match self.cluster.dns.as_ref().map(|dns| dns.service) {
                Some(service) => Some(Target::Service(service)),
                None => {
                    let help = "give the cluster `dns`, or the flow `server: outside/NAME`";
                    self.error(
                        flow.name.span,
                        format!("flow `{}` asks cluster DNS, and there is none", flow.name.0),
                        help,
                    );
                    None
                }
            },
        };
        let at = flow.server.as_ref().unwrap_or(&flow.from);
        if let (Some(from), Some(server)) = (from, server) {
            self.reachable(from, server, at);
        }
        if let Some(server) = server {
            self.known_name(flow, server);
        }
        let kind = FlowKind::Dns { name: flow.query.value.clone(), server: server.unwrap_or(Target::Place(NOWHERE)) };
        self.flow_plan(&common!(flow), from.unwrap_or(NOWHERE), kind)
    }

    /// Tells where a flow asks somebody who is no resolver, or for a name that nobody knows.
    fn known_name(&mut self, flow: &Dns, server: Target) {
        let dns = self.cluster.dns.as_ref();
        let cluster_dns = dns.is_some_and(|dns| match server {
            Target::Service(id) => id == dns.service,
            Target::Place(Place::Pod(id)) => dns.replicas.contains(&id),
            Target::Place(_) => false,
        });
        let resolvers: Vec<OutsideId> = match server {
            Target::Place(Place::Outside(id)) if !self.cluster.outside[id.0].records.is_empty() => vec![id],
            _ if cluster_dns => dns.map(|dns| dns.upstreams.clone()).unwrap_or_default(),
            _ => {
                let at = flow.server.as_ref().unwrap_or(&flow.from);
                let help = "name cluster DNS, one of its replicas, or a host in `outside` that has `records`";
                self.error(at.span, format!("{} is no resolver", quoted(at)), help);
                return;
            }
        };
        let folded = |name: &str| name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let query = folded(&flow.query);
        if cluster_dns && self.is_service_name(&query, dns.map(|d| d.search.as_slice()).unwrap_or_default()) {
            return;
        }
        let known: Vec<&str> = resolvers
            .iter()
            .flat_map(|id| &self.cluster.outside[id.0].records)
            .map(|(name, _)| name.as_str())
            .collect();
        if !known.is_empty() && !known.iter().any(|name| folded(name) == query) {
            let meant =
                nearest(&query, known.iter().copied()).map(|m| format!("did you mean `{m}`? ")).unwrap_or_default();
            let mut names = known;
            names.dedup();
            let help = format!("{meant}names they know: {}", listed(names));
            self.error(flow.query.span, format!("no resolver that is asked knows {}", quoted(&flow.query)), help);
        }
    }

    /// The name of a Service, bare or with as much of a search domain as there is.
    fn is_service_name(&self, query: &str, search: &[String]) -> bool {
        self.cluster.services.iter().any(|service| {
            query.strip_prefix(service.name.as_str()).is_some_and(|rest| {
                let domain = "default.svc.cluster.local";
                let rest = rest.strip_prefix('.').unwrap_or(rest);
                rest.is_empty() || domain.starts_with(rest) || search.iter().any(|s| s == rest)
            })
        })
    }

    /// How many held connections steady state asks for; tells where the workload opens fewer.
    pub(super) fn plan_held(&mut self, held: Option<&Spanned<u32>>) -> u32 {
        let Some(held) = held else { return 0 };
        let opened: u64 = self
            .workload
            .iter()
            .map(|flow| match flow.kind {
                FlowKind::Hold { connections, .. } => u64::from(connections),
                _ => 0,
            })
            .sum();
        if u64::from(held.value) > opened {
            let message = format!("{} connections cannot be held: the workload opens {opened}", held.value);
            self.error(held.span, message, "write fewer, or give a `hold` flow more `connections`");
        }
        held.value
    }
}
