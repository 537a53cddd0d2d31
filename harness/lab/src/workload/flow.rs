//! YAML and planning of flows: what all kinds have in common.

use std::sync::Arc;

use relapse_model::diagnostics::quoted;
use relapse_model::spanned::Spanned;
use relapse_model::values::{Duration, Name};
use relapse_model::{FlowPlan, NodeId, Place, Resolver, Target, TrafficPolicy};

use super::client::Client;
use super::{names, servers};

/// Placeholder for an unknown end of a flow; never in a finished plan.
const NOWHERE: Place = Place::Node(NodeId(0));

/// Connection-tracking entries created by a look-up: one socket for each search domain and one for the bare name.
pub(super) const LOOKUP: u32 = 5;

/// The settings common to all kinds of flows.
pub struct Common<'a> {
    pub name: &'a Spanned<Name>,
    pub from: &'a Spanned<String>,
    pub every: Option<&'a Spanned<Duration>>,
    pub timeout: Option<&'a Spanned<Duration>>,
}

/// A kind of flow in planning; see also [`flow_spec!`].
pub trait FlowSpec {
    /// Fills in the plan of the flow and reports errors. Returns the client.
    fn plan(&self, flow: &mut Draft<'_, '_>) -> Arc<dyn Client>;
}

/// Defines the settings of a kind of flow, including the common ones.
macro_rules! flow_spec {
    // `to;` stands for a server at a port: its fields, with the documentation of the first.
    ($(#[$about:meta])* pub struct $name:ident { $(#[$to:meta])* to; $($own:tt)* }) => {
        $crate::workload::flow::flow_spec! {
            $(#[$about])*
            pub struct $name {
                $(#[$to])*
                pub to: relapse_model::spanned::Spanned<String>,
                /// Entry to a Service for clients outside the cluster: `node/NAME`, at its node port, or `outside/NAME`, a
                /// load balancer.
                pub via: Option<relapse_model::spanned::Spanned<String>>,
                /// Resolver for a name in `to`: `outside/NAME`. Default: cluster DNS for pods and nodes, otherwise the
                /// client's own, or the first resolver outside.
                pub resolver: Option<relapse_model::spanned::Spanned<String>>,
                /// Port of the server.
                #[schemars(range(min = 1))]
                pub port: relapse_model::spanned::Spanned<u16>,
                $($own)*
            }
        }
    };
    ($(#[$about:meta])* pub struct $name:ident { $($own:tt)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            /// Name of the flow, used by effects.
            pub name: relapse_model::spanned::Spanned<relapse_model::values::Name>,
            /// Where the client runs, such as `pod/app`.
            pub from: relapse_model::spanned::Spanned<String>,
            $($own)*
            /// Time between the starts of two attempts. Default 100ms.
            pub every: Option<relapse_model::spanned::Spanned<relapse_model::values::Duration>>,
            /// Time after which an attempt fails. Default 400ms.
            pub timeout: Option<relapse_model::spanned::Spanned<relapse_model::values::Duration>>,
        }

        impl $name {
            pub(in crate::workload) fn common(&self) -> $crate::workload::flow::Common<'_> {
                $crate::workload::flow::Common {
                    name: &self.name,
                    from: &self.from,
                    every: self.every.as_ref(),
                    timeout: self.timeout.as_ref(),
                }
            }
        }
    };
}
pub(super) use flow_spec;

/// A flow that is being planned.
pub struct Draft<'r, 'a> {
    pub resolver: &'r mut Resolver<'a>,
    pub plan: FlowPlan,
    /// `None` if unknown, which has been reported already.
    from: Option<Place>,
}

/// Plans a flow.
pub(super) fn plan(
    kind: &'static str,
    Common { name, from: at, every, timeout }: Common<'_>,
    spec: &impl FlowSpec,
    resolver: &mut Resolver<'_>,
) -> (FlowPlan, Arc<dyn Client>) {
    let counted: Vec<Place> = at
        .strip_prefix("pod/")
        .map(|pod| resolver.counted(pod))
        .unwrap_or_default()
        .into_iter()
        .map(Place::Pod)
        .collect();
    let from = counted.first().copied().or_else(|| resolver.place(at));
    let mut plan = FlowPlan::new(name.0.clone(), kind, from.unwrap_or(NOWHERE), Target::Place(NOWHERE));
    plan.in_turn = counted.into_iter().skip(1).collect();
    plan.every = every.and_then(|d| resolver.duration("every", d)).unwrap_or(plan.every);
    plan.timeout = timeout.and_then(|d| resolver.duration("timeout", d)).unwrap_or(plan.timeout);
    let mut draft = Draft { resolver, plan, from };
    let client = spec.plan(&mut draft);
    let Draft { resolver, mut plan, .. } = draft;
    if matches!(plan.to, Target::Name(_)) {
        plan.entries += LOOKUP;
    }
    if matches!(plan.to, Target::Place(to) if to == plan.from && to != NOWHERE) {
        resolver.error(at.span, format!("flow `{}` would talk to itself", plan.name), "choose another server");
    }
    if plan.keeps > 0 && !plan.in_turn.is_empty() {
        let message = format!("flow `{}` keeps connections, but several pods cannot share one", plan.name);
        resolver.error(at.span, message, "name one of the pods, such as the first with `-1`");
    }
    (plan, client)
}

impl Draft<'_, '_> {
    /// Sets the target of the flow. A name is looked up at the resolver `asked`, if given.
    pub fn set_target(&mut self, to: &Spanned<String>, asked: Option<&Spanned<String>>) {
        if let Some(asked) = asked {
            self.plan.resolver = self.resolver.outside(asked);
            if self.plan.resolver.is_some_and(|host| self.resolver.cluster.outside[host.0].records.is_empty()) {
                let message = format!("{} is not a resolver", quoted(asked));
                self.resolver.error(asked.span, message, "name a host in `outside` that has `records`");
                return;
            }
            if !to.starts_with(names::PREFIX) {
                let message = format!("{} is not looked up, so no resolver is asked", quoted(to));
                self.resolver.error(asked.span, message, "leave `resolver` out, or write `to: name/NAME`");
            }
        }
        let target = names::target(self.resolver, to, self.from, self.plan.resolver);
        self.check_reachable(target, to);
    }

    /// Sets the target and port of a flow to a server of its own kind; see [`Self::set_target`]. A Service is reached
    /// `via` this entry, if given.
    pub fn set_server(
        &mut self,
        to: &Spanned<String>,
        via: Option<&Spanned<String>>,
        asked: Option<&Spanned<String>>,
        port: Spanned<u16>,
    ) {
        self.plan.port = Some(port.value);
        if let Some(via) = via {
            let Some(entry) = self.resolver.entry(via) else { return };
            self.plan.via = Some(entry);
        }
        self.set_target(to, asked);
        self.served(self.plan.to, to, port, self.plan.kind);
        if let (Some(via), Some(entry), Some(target)) = (via, self.plan.via, self.known_target()) {
            self.check_entry(via, entry, to, target);
        }
    }

    /// Reports an entry, written `via`, that does not lead to the target, written `to`.
    fn check_entry(&mut self, via: &Spanned<String>, entry: Place, to: &Spanned<String>, target: Target) {
        let Target::Service(id) = target else {
            let message = format!("{} is not a Service, and `via` is an entry to one", quoted(to));
            self.resolver.error(via.span, message, "write `to: service/NAME`, or leave `via` out");
            return;
        };
        if matches!(self.from, Some(Place::Pod(_) | Place::Node(_))) {
            let message = format!("{} is inside the cluster", self.resolver.cluster.place_name(self.plan.from));
            self.resolver.error(via.span, message, "leave `via` out: it uses the Service's own address");
            return;
        }
        let cluster = &self.resolver.cluster;
        let service = &cluster.services[id.0];
        let problem = match entry {
            Place::Node(_) if service.node_port.is_none() => {
                Some((format!("Service `{}` has no node port", service.name), "add `nodePort: 30080` to the Service"))
            }
            Place::Node(node) => {
                let here = service.pods.iter().any(|pod| cluster.pods[pod.0].node == node);
                (service.policy == TrafficPolicy::Local && !here && !service.pods.is_empty()).then(|| {
                    let message = format!("no pod of Service `{}` runs on {}", service.name, quoted(via));
                    (message, "choose a node with one, or `externalTrafficPolicy: cluster`: `local` drops the traffic")
                })
            }
            Place::Outside(host) => (cluster.outside[host.0].balances != Some(id)).then(|| {
                let message = format!("{} does not forward to Service `{}`", quoted(via), service.name);
                (message, "give the host in `outside` `balances: NAME`, the name of the Service")
            }),
            Place::Pod(_) | Place::Office(_) => None,
        };
        if let Some((message, help)) = problem {
            self.resolver.error(via.span, message, help);
        }
    }

    /// The target, if it is known.
    pub fn known_target(&self) -> Option<Target> {
        Some(self.plan.to).filter(|to| *to != Target::Place(NOWHERE))
    }

    /// Reports a target, written `to`, that cannot serve this kind of flow or part on this port.
    pub fn served(&mut self, target: Target, to: &Spanned<String>, port: Spanned<u16>, kind: &'static str) {
        let service = match target {
            Target::Service(id) => Some(id),
            Target::Name(id) => self.resolver.cluster.names[id.0].service,
            Target::Place(_) => None,
        };
        match service {
            Some(id) => {
                let service = &self.resolver.cluster.services[id.0];
                if !service.ports.contains(&port.value) && !service.ports.is_empty() {
                    let message = format!("Service `{}` has no port {}", service.name, port.value);
                    let ports: Vec<String> = service.ports.iter().map(ToString::to_string).collect();
                    self.resolver.error(port.span, message, format!("its ports: {}", ports.join(", ")));
                }
            }
            None => {
                let cluster = &self.resolver.cluster;
                let servers = cluster.behind(target).into_iter().filter_map(|place| match place {
                    Place::Outside(id) => cluster.outside[id.0].server.and_then(servers::third_party),
                    _ => None,
                });
                let what = if kind == self.plan.kind { "flow" } else { "part" };
                if let Some(server) = servers.into_iter().find(|server| !server.understands.contains(&kind)) {
                    let message = format!("{} on {} cannot serve a `{kind}` {what}", server.name, quoted(to));
                    self.resolver.error(to.span, message, server.help);
                }
            }
        }
    }

    /// Sets the target, which must be reachable; errors are reported at `at`.
    pub fn check_reachable(&mut self, target: Option<Target>, at: &Spanned<String>) {
        let Some(to) = target else { return };
        self.plan.to = to;
        self.plan.looks_up |= matches!(to, Target::Name(_));
        let Some(from) = self.from else { return };
        let cluster = &self.resolver.cluster;
        let (name, a, b) = (cluster.place_name(from), cluster.address(from), cluster.entry(&self.plan).ip());
        if matches!(to, Target::Service(_))
            && self.plan.via.is_none()
            && matches!(from, Place::Outside(_) | Place::Office(_))
        {
            let help = "a Service's address works only inside the cluster: add `via: node/NAME`, or use a pod, such as an ingress";
            self.resolver.error(at.span, format!("{name} cannot reach {}", quoted(at)), help);
        }
        if a.is_ipv4() != b.is_ipv4() && !a.is_unspecified() && !b.is_unspecified() {
            let message = format!("{name} has the address {a}, but {} has {b}", quoted(at));
            self.resolver.error(at.span, message, "both ends need addresses of one IP version");
        }
    }
}
