//! The steps of a `call`: their YAML and their planning.

use std::collections::BTreeSet;
use std::time::Duration;

use relapse_detectors::time::limit;
use relapse_model::diagnostics::{Span, did_you_mean, quoted};
use relapse_model::spanned::Spanned;
use relapse_model::values::{self, Name};
use relapse_model::{PartId, PartPlan, Place, PodRole, Query, Step as Planned, Target, Work};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::workload::flow::{Draft, LOOKUP};
use crate::workload::servers::app::PATIENCE;
use crate::workload::{names, query};

/// Something an application does before it responds.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(title = "step")]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    Get(Get),
    Connect(Connect),
    Queries(Queries),
    Transfer(Transfer),
    /// Steps that begin at the same time.
    Together(#[schemars(length(min = 1, max = 100))] Vec<Step>),
    /// Steps one after another, inside `together`.
    InTurn(#[schemars(length(min = 1, max = 100))] Vec<Step>),
}

/// Gets a response over HTTP.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Get {
    /// Name of the part, used by effects.
    pub name: Spanned<Name>,
    /// Server, such as `name/example-api.com` or `outside/example-api`.
    pub of: Spanned<String>,
    /// Port of the server.
    #[schemars(range(min = 1))]
    pub port: Spanned<u16>,
    /// Size of the response body, bytes. Default 1000.
    #[schemars(range(min = 1, max = 16_777_216))]
    pub response: Option<Spanned<u32>>,
    /// Keeps the connection for the next request. Default false.
    #[serde(default)]
    pub keep: bool,
    /// Time after which the part fails. Default: nine tenths of the flow's, for all parts in all.
    pub timeout: Option<Spanned<values::Duration>>,
}

/// Opens a connection to a database, used by later parts.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Connect {
    /// Name of the part, used by effects and by `over`.
    pub name: Spanned<Name>,
    /// The database, such as `name/database.example.com` or `outside/database`.
    pub to: Spanned<String>,
    /// Port of the database.
    #[schemars(range(min = 1))]
    pub port: Spanned<u16>,
    /// Keeps the connection for the next request. Default false.
    #[serde(default)]
    pub keep: bool,
    /// Time after which the part fails. Default: nine tenths of the flow's, for all parts in all.
    pub timeout: Option<Spanned<values::Duration>>,
}

/// Sends queries to a database one after another, over one connection.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Queries {
    /// Name of the part, used by effects.
    pub name: Spanned<Name>,
    /// Name of an earlier `connect`, whose connection is used. Default: a connection of its own, to `to`.
    pub over: Option<Spanned<String>>,
    /// The database. Needs `port`, and excludes `over`.
    pub to: Option<Spanned<String>>,
    /// Port of the database.
    #[schemars(range(min = 1))]
    pub port: Option<Spanned<u16>>,
    /// Number of queries.
    #[schemars(range(min = 1, max = 100_000))]
    pub count: Spanned<u32>,
    /// Size of a query, bytes. Default 120.
    #[schemars(range(min = 1, max = 1_048_576))]
    pub request: Option<Spanned<u32>>,
    /// Size of a response, bytes. Default 900.
    #[schemars(range(min = 1, max = 16_777_216))]
    pub response: Option<Spanned<u32>>,
    /// Time a query takes the database without any fault. Default 0s.
    pub takes: Option<Spanned<values::Duration>>,
    /// Time between a response and the next query. Default 0s.
    pub think: Option<Spanned<values::Duration>>,
    /// Keeps the connection for the next request. Default false.
    #[serde(default)]
    pub keep: bool,
    /// Time after which the part fails. Default: nine tenths of the flow's, for all parts in all.
    pub timeout: Option<Spanned<values::Duration>>,
}

/// Sends files to an object store, or fetches them, one after another over one connection.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Transfer {
    /// Name of the part, used by effects.
    pub name: Spanned<Name>,
    /// The store, such as `name/oss.example.com` or `outside/store`.
    pub to: Spanned<String>,
    /// Port of the store.
    #[schemars(range(min = 1))]
    pub port: Spanned<u16>,
    /// Size of a file, bytes.
    #[schemars(range(min = 1, max = 67_108_864))]
    pub bytes: Spanned<u32>,
    #[serde(default)]
    pub direction: Direction,
    /// Number of files. Default 1.
    #[schemars(range(min = 1, max = 1000))]
    pub times: Option<Spanned<u32>>,
    /// Keeps the connection for the next request. Default false.
    #[serde(default)]
    pub keep: bool,
    /// Time after which the part fails. Default: nine tenths of the flow's, for all parts in all.
    pub timeout: Option<Spanned<values::Duration>>,
}

/// Which way a file goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// To the store (HTTP PUT).
    #[default]
    Upload,
    /// From the store (HTTP GET).
    Download,
}

/// Plans the steps of a flow; its target must be set.
pub(super) fn plan(steps: &[Step], flow: &mut Draft<'_, '_>) {
    let app = flow.server();
    let mut planning = Planning { flow, app, connected: BTreeSet::new() };
    let steps = steps.iter().map(|step| planning.step(step)).collect();
    flow.plan.steps = Planned::InTurn(steps);
    // Files and queries of one part share a connection.
    let own = flow.plan.parts.iter().filter(|part| part.connects());
    let entries = own.map(|part| 1 + if matches!(part.to, Target::Name(_)) { LOOKUP } else { 0 });
    flow.plan.entries += entries.sum::<u32>();
    flow.plan.looks_up |= flow.plan.parts.iter().any(|part| matches!(part.to, Target::Name(_)));
}

struct Planning<'d, 'r, 'a> {
    flow: &'d mut Draft<'r, 'a>,
    /// Where the application runs, if known.
    app: Option<Place>,
    /// `connect` parts that have completed.
    connected: BTreeSet<PartId>,
}

/// The fields common to all kinds of parts.
struct Common<'a> {
    kind: &'static str,
    name: &'a Spanned<Name>,
    keep: bool,
    timeout: Option<&'a Spanned<values::Duration>>,
}

impl Planning<'_, '_, '_> {
    fn step(&mut self, step: &Step) -> Planned {
        match step {
            Step::InTurn(steps) => Planned::InTurn(steps.iter().map(|step| self.step(step)).collect()),
            Step::Together(steps) => {
                // A connection opened by one of them is available only after all have completed.
                let before = self.connected.clone();
                let mut after = before.clone();
                let mut planned = Vec::new();
                for step in steps {
                    planned.push(self.step(step));
                    after.append(&mut std::mem::replace(&mut self.connected, before.clone()));
                }
                self.connected = after;
                Planned::Together(planned)
            }
            Step::Get(get) => {
                let Get { name, of, port, response, keep, timeout } = get;
                let common = Common { kind: "get", name, keep: *keep, timeout: timeout.as_ref() };
                self.part(&common, of, *port, Work::Get { response: response.map_or(1000, |n| n.value) })
            }
            Step::Connect(Connect { name, to, port, keep, timeout }) => {
                let common = Common { kind: "connect", name, keep: *keep, timeout: timeout.as_ref() };
                self.connected.insert(PartId(self.flow.plan.parts.len()));
                self.part(&common, to, *port, Work::Connect)
            }
            Step::Transfer(Transfer { name, to, port, bytes, direction, times, keep, timeout }) => {
                let common = Common { kind: "transfer", name, keep: *keep, timeout: timeout.as_ref() };
                let upload = *direction == Direction::Upload;
                let work = Work::Transfer { bytes: bytes.value, upload, times: times.map_or(1, |n| n.value) };
                self.part(&common, to, *port, work)
            }
            Step::Queries(queries) => self.queries(queries),
        }
    }

    fn queries(&mut self, queries: &Queries) -> Planned {
        let Queries { name, over, to, port, count, request, response, takes, think, keep, timeout } = queries;
        let common = Common { kind: "queries", name, keep: *keep, timeout: timeout.as_ref() };
        let time = |duration: &Option<Spanned<values::Duration>>| duration.as_ref().map_or(Duration::ZERO, |d| d.0);
        let query = Query {
            request: request.map_or(query::REQUEST, |n| n.value),
            response: response.map_or(query::RESPONSE, |n| n.value),
            takes: time(takes),
        };
        let think_time = time(think);
        let work = |over| Work::Queries { over, count: count.value, query, think: think_time };
        let least = query.takes.saturating_mul(count.value) + think_time.saturating_mul(count.value - 1);
        let limit_of_part = timeout.as_ref().map_or(self.longest(), |timeout| timeout.0);
        if let Some(at) = takes.as_ref().or(think.as_ref()).filter(|_| least > limit_of_part) {
            let message = format!(
                "{} takes {} without any fault, but fails after {}",
                quoted(&name.0),
                limit(least),
                limit(limit_of_part)
            );
            self.error(at.span, message, "write fewer queries, shorter times, or a longer `timeout`");
        }
        match (over, to, port) {
            (Some(over), None, None) => {
                if *keep {
                    let message = format!("the connection of {} belongs to {}", quoted(&name.0), quoted(over));
                    self.error(name.span, message, "write `keep` there");
                }
                let Some(other) = self.connection(over) else { return Planned::InTurn(Vec::new()) };
                let PartPlan { to, port, .. } = self.flow.plan.parts[other.0];
                self.add(&common, to, port, work(Some(other)))
            }
            (None, Some(to), Some(port)) => self.part(&common, to, *port, work(None)),
            _ => {
                let message =
                    format!("{} goes either over another part's connection or to a database", quoted(&name.0));
                self.error(name.span, message, "write `over: NAME`, or `to` and `port`");
                Planned::InTurn(Vec::new())
            }
        }
    }

    /// The completed `connect` part with this name.
    fn connection(&mut self, over: &Spanned<String>) -> Option<PartId> {
        let parts = &self.flow.plan.parts;
        let found = self.connected.iter().find(|id| parts.get(id.0).is_some_and(|part| part.name == over.value));
        if found.is_none() {
            let names: Vec<&str> =
                self.connected.iter().filter_map(|id| parts.get(id.0)).map(|part| part.name.as_str()).collect();
            let message = format!("no part {} has connected by then", quoted(over));
            let help = did_you_mean(over, "earlier `connect` parts", names);
            self.flow.resolver.error(over.span, message, help);
        }
        found.copied()
    }

    /// Plans a part that connects to `to`.
    fn part(&mut self, common: &Common<'_>, to: &Spanned<String>, port: Spanned<u16>, work: Work) -> Planned {
        let target = names::target(self.flow.resolver, to, self.app, None);
        if let (Some(target), Some(app)) = (target, self.app) {
            if self.flow.resolver.cluster.behind(target) == [app] {
                let message = format!("{} would ask the application itself", quoted(&common.name.0));
                self.error(to.span, message, "choose another server");
            }
            self.flow.served(target, to, port, common.kind);
        }
        // A placeholder if the target is unknown: that is reported already.
        self.add(common, target.unwrap_or(self.flow.plan.to), port.value, work)
    }

    fn add(&mut self, common: &Common<'_>, to: Target, port: u16, work: Work) -> Planned {
        let Common { kind, name, keep, timeout } = *common;
        if self.flow.plan.parts.iter().any(|part| part.name == *name.0) {
            let message = format!("there are two parts named {}", quoted(&name.0));
            self.error(name.span, message, "rename one");
        }
        if let Some(at) = timeout.filter(|timeout| timeout.0 > self.longest()) {
            let message = format!("`timeout` has no effect: all parts together fail after {}", limit(self.longest()));
            self.error(at.span, message, "write less, or give the flow a longer `timeout`, of which they get 9/10");
        }
        let timeout = timeout.and_then(|timeout| self.flow.resolver.duration("timeout", timeout));
        let id = PartId(self.flow.plan.parts.len());
        self.flow.plan.parts.push(PartPlan { name: name.0.to_string(), kind, to, port, work, keep, timeout });
        Planned::Part(id)
    }

    /// Time after which all parts have failed.
    fn longest(&self) -> Duration {
        self.flow.plan.timeout.mul_f64(PATIENCE)
    }

    fn error(&mut self, span: Span, message: String, help: &str) {
        self.flow.resolver.error(span, message, help);
    }
}

impl Draft<'_, '_> {
    /// Where the (first) server of the flow runs; for an ingress, where its backend runs.
    fn server(&self) -> Option<Place> {
        let cluster = &self.resolver.cluster;
        let first = *cluster.behind(self.known_target()?).first()?;
        let (answering, _) = cluster.answering(first, self.plan.port.unwrap_or_default());
        let first = *cluster.behind(answering).first()?;
        let Place::Pod(pod) = first else { return Some(first) };
        match cluster.pods[pod.0].role {
            PodRole::Ingress { backend, .. } => cluster.services[backend.0].pods.first().map(|pod| Place::Pod(*pod)),
            _ => Some(first),
        }
    }
}
