//! The probes of the blackbox exporters: from each place where a flow starts, what a cautious operator would probe of the
//! same server, once a second.
//!
//! - `http`, and what an application gets of others (`call`): module `http_2xx` on the same path, so with as large a
//!   body (at most [`LARGEST`]).
//! - `tcp`, `query`, and databases of a `call`: module `tcp_connect`.
//! - `ping`: module `icmp`.
//! - `dns`: module `dns_NAME` asks the same server for A records and needs NOERROR; `dns_NAME_known` also needs every
//!   address to be one that the resolvers' records have in the scenario, as where operators list them.
//!
//! Modules are those of the exporter's own example, with its time limit of 5 s, and IPv4. `hold` flows are left out, and
//! those that their scenario says are not probed.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use relapse_model::zone::folded;
use relapse_model::{ClusterPlan, FlowPlan, Place, Target, Work};
use serde_json::{Value, json};

use crate::workload::servers::app;
use crate::workload::servers::http::bytes_path;

/// Time limit of a probe (`blackbox.yml` and `example.yml` of the exporter).
const TIME_LIMIT: &str = "5s";
/// The largest body that a probe gets, bytes.
const LARGEST: u32 = 200_000;
const DNS_PORT: u16 = 53;

/// One probe.
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    pub from: Place,
    pub module: String,
    pub target: String,
    config: Value,
}

impl Probe {
    fn new(from: Place, module: &str, target: String, config: Value) -> Self {
        Self { from, module: module.to_owned(), target, config }
    }

    /// The path of the exporter that probes.
    pub fn path(&self) -> String {
        let encode = |text: &str| text.bytes().map(encoded).collect::<String>();
        format!("/probe?module={}&target={}", encode(&self.module), encode(&self.target))
    }
}

/// Percent-encoding, of all but unreserved characters (RFC 3986, 2.3).
fn encoded(byte: u8) -> String {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    }
}

/// The configuration of an exporter.
pub fn modules<'a>(probes: impl Iterator<Item = &'a Probe>) -> Value {
    let modules: BTreeMap<&str, &Value> = probes.map(|probe| (probe.module.as_str(), &probe.config)).collect();
    json!({ "modules": modules })
}

/// All probes of a workload, without duplicates.
pub fn of(plan: &ClusterPlan, flows: &[FlowPlan]) -> Vec<Probe> {
    let mut probes: Vec<Probe> = Vec::new();
    for flow in flows.iter().filter(|flow| flow.probed) {
        let server = plan.entry(flow);
        let host = host(plan, flow.to, server);
        let found = match flow.kind {
            "http" => vec![http(flow.from, &host, server.port(), &bytes(flow.response))],
            "call" => {
                let asked = flow.parts.iter().map(|part| {
                    let from = plan.behind(flow.to).first().copied().unwrap_or(flow.from);
                    let server = SocketAddr::new(plan.target_address(part.to), part.port);
                    match part.work {
                        Work::Get { .. } | Work::Transfer { .. } => {
                            http(from, &self::host(plan, part.to, server), part.port, &bytes(part.response().max(1)))
                        }
                        Work::Connect | Work::Queries { .. } => {
                            tcp(from, &self::host(plan, part.to, server), part.port)
                        }
                    }
                });
                std::iter::once(http(flow.from, &host, server.port(), &app::path(flow))).chain(asked).collect()
            }
            "tcp" | "query" => vec![tcp(flow.from, &host, server.port())],
            "ping" => {
                let icmp = json!({ "prober": "icmp", "timeout": TIME_LIMIT, "icmp": ip4() });
                vec![Probe::new(flow.from, "icmp", host, icmp)]
            }
            "dns" => dns(plan, flow, server),
            _ => Vec::new(),
        };
        for probe in found {
            if !probes.contains(&probe) {
                probes.push(probe);
            }
        }
    }
    probes
}

fn bytes(size: u32) -> String {
    bytes_path(size.min(LARGEST))
}

/// The name or address that is probed.
fn host(plan: &ClusterPlan, to: Target, server: SocketAddr) -> String {
    match to {
        Target::Name(id) => plan.names[id.0].name.clone(),
        Target::Place(_) | Target::Service(_) => server.ip().to_string(),
    }
}

fn ip4() -> Value {
    json!({ "preferred_ip_protocol": "ip4" })
}

fn http(from: Place, host: &str, port: u16, path: &str) -> Probe {
    let config = json!({ "prober": "http", "timeout": TIME_LIMIT, "http": ip4() });
    Probe::new(from, "http_2xx", format!("http://{host}:{port}{path}"), config)
}

fn tcp(from: Place, host: &str, port: u16) -> Probe {
    let config = json!({ "prober": "tcp", "timeout": TIME_LIMIT, "tcp": ip4() });
    Probe::new(from, "tcp_connect", format!("{host}:{port}"), config)
}

fn dns(plan: &ClusterPlan, flow: &FlowPlan, server: SocketAddr) -> Vec<Probe> {
    let Some(asked) = &flow.query else { return Vec::new() };
    let asked = folded(asked);
    // The exporter has no search list.
    let services = (0..plan.services.len()).map(relapse_model::ServiceId).map(|id| plan.service_domain(id));
    let name = services.into_iter().find(|domain| domain.starts_with(&format!("{asked}."))).unwrap_or(asked);
    let config = |validate: Value| {
        let mut dns = json!({ "query_name": name, "query_type": "A", "preferred_ip_protocol": "ip4" });
        if !validate.is_null() {
            dns["validate_answer_rrs"] = validate;
        }
        json!({ "prober": "dns", "timeout": TIME_LIMIT, "dns": dns })
    };
    let module = format!("dns_{}", name.replace(['.', '-'], "_"));
    let target = format!("{}:{DNS_PORT}", server.ip());
    let mut probes = vec![Probe::new(flow.from, &module, target.clone(), config(Value::Null))];
    let records = plan.outside.iter().flat_map(|host| &host.records).find(|(owner, _)| *owner == name);
    if let Some((_, addresses)) = records {
        let known: Vec<String> = addresses.iter().map(|address| address.to_string().replace('.', "\\.")).collect();
        let all_known = json!({ "fail_if_not_matches_regexp": [format!("[\\t ]({})$", known.join("|"))] });
        probes.push(Probe::new(flow.from, &format!("{module}_known"), target, config(all_known)));
    }
    probes
}
