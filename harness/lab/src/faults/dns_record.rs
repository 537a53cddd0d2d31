//! A record is edited at resolvers outside (I6).

use std::net::IpAddr;
use std::time::Duration;

use relapse_detectors::time::limit;
use relapse_model::diagnostics::{Span, quoted};
use relapse_model::spanned::Spanned;
use relapse_model::values::{self, Address};
use relapse_model::zone::folded;
use relapse_model::{ClusterPlan, FlowPlan, OutsideId, Place, Resolver, Target, time_in_cache};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::cluster::{Outside, Record};
use crate::fault::{Fault, FaultError, FaultSpec, InForce, Job, Look, Spread, UndoStack, Where, World, now, wait_for};
use crate::workload::stub;

/// Resolvers outside change a record, or lose it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DnsRecordSpec {
    /// `outside/NAME`, a host that has `records`.
    pub resolver: Option<Spanned<String>>,
    /// Several of them.
    pub resolvers: Option<Spanned<Vec<Spanned<String>>>>,
    /// Name of the record; `"*.example.com"` stands for all names below example.com that have none of their own.
    pub name: Spanned<String>,
    /// Its new addresses. An empty list removes the record.
    pub addresses: Vec<Spanned<Address>>,
    /// Its time to live. Default: that of the resolver's other records.
    pub ttl: Option<Spanned<values::Duration>>,
}

/// The same, resolved.
#[derive(Debug)]
pub struct DnsRecord {
    /// Each with its new record.
    resolvers: Vec<(OutsideId, Option<Record>)>,
    name: String,
}

impl FaultSpec for DnsRecordSpec {
    const EXAMPLE: &'static str = "{ resolver: outside/host, name: example-api.com, addresses: [10.176.46.4] }";
    const LOOK: &'static [Look] = &[
        (Where::Pod, "cat /etc/resolv.conf; getent ahosts example-api.com"),
        (Where::Pod, "tcpdump -lni any port 53"),
    ];

    fn plan(&self, at: Span, resolver: &mut Resolver<'_>) -> Option<Box<dyn Fault>> {
        let written: Vec<&Spanned<String>> = match (&self.resolver, &self.resolvers) {
            (Some(one), None) => vec![one],
            (None, Some(several)) if !several.is_empty() => several.iter().collect(),
            (None, Some(none)) => {
                resolver.error(none.span, "no resolver is named", "name hosts that have `records`");
                return None;
            }
            (one, _) => {
                let span = one.as_ref().map_or(at, |one| one.span);
                resolver.error(span, "either `resolver` or `resolvers` is needed", "write `resolver: outside/NAME`");
                return None;
            }
        };
        resolver.owner(&self.name);
        for (number, text) in written.iter().enumerate() {
            if written[..number].iter().any(|other| other.value == text.value) {
                resolver.error(text.span, format!("{} is named twice", quoted(text)), "name each resolver once");
            }
        }
        self.check_addresses(resolver);
        let ttl = self.ttl.as_ref().map(|ttl| resolver.seconds("ttl", ttl));
        let addresses: Vec<IpAddr> = self.addresses.iter().map(|address| address.0).collect();
        let mut resolvers = Vec::new();
        for text in written {
            let id = resolver.outside(text)?;
            let host = &resolver.cluster.outside[id.0];
            if host.records.is_empty() {
                let message = format!("{} is not a resolver: it has no `records`", quoted(text));
                resolver.error(text.span, message, "name a host that has `records`");
                return None;
            }
            let name = folded(&self.name);
            let before =
                host.records.iter().find(|(owner, _)| *owner == name).map(|(_, addresses)| addresses.as_slice());
            if before.unwrap_or_default() == addresses && self.ttl.is_none() {
                let message = format!("{} has that record already", quoted(text));
                resolver.error(self.name.span, message, "write other `addresses`, or `[]` to remove the record");
                return None;
            }
            let ttl = ttl.flatten().unwrap_or(host.ttl);
            let record = (!addresses.is_empty()).then(|| Record { addresses: addresses.clone(), ttl });
            resolvers.push((id, record));
        }
        ttl.is_none_or(|ttl| ttl.is_some()).then(|| Box::new(DnsRecord { resolvers, name: folded(&self.name) }) as _)
    }
}

impl DnsRecordSpec {
    /// Reports an address that is written twice, or that nothing in the scenario has.
    fn check_addresses(&self, resolver: &mut Resolver<'_>) {
        for (number, address) in self.addresses.iter().enumerate() {
            if self.addresses[..number].iter().any(|other| other.0 == address.0) {
                resolver.error(address.span, format!("{} is named twice", address.0), "name each address once");
            }
            let cluster = &resolver.cluster;
            let of_service = cluster.services.iter().any(|service| service.address == address.0);
            // Hosts have no IPv6 addresses, so an AAAA record may have any.
            if address.0.is_ipv4() && cluster.place_at(address.0).is_none() && !of_service {
                let message = format!("no host has the address {}", address.0);
                let help = "add a host to `outside`, or the address to a host's `alsoAt`; \
                            `server-death` is the fault for a server that does not answer";
                resolver.error(address.span, message, help);
            }
        }
    }
}

// The mutation.

/// Timeout of reading back.
const PATIENCE: Duration = Duration::from_secs(2);

impl Fault for DnsRecord {
    fn changes(&self, cluster: &ClusterPlan) -> Vec<String> {
        let at = |id: &OutsideId| format!("the record of {} at outside/{}", self.name, cluster.outside[id.0].name);
        self.resolvers.iter().map(|(id, _)| at(id)).collect()
    }

    fn spread(&self, world: &World) -> Option<Spread> {
        let plan = world.cluster.plan();
        let (id, record) = self.resolvers.first()?;
        let records = |id: &OutsideId| world.cluster.outside(*id).records.get(&self.name);
        let before = records(id);
        // Cluster DNS keeps what its upstream resolvers answer, and only clients in the cluster ask it.
        let asked = world.flows.iter().any(|(flow, _)| asks_cluster_dns(plan, flow, &self.name));
        let cache = plan.dns.as_ref().filter(|_| asked).and_then(|dns| Some((dns, dns.cache?)));
        let hold = cache.and_then(|(dns, longest)| {
            let upstream = self.resolvers.iter().filter(|(id, _)| dns.upstreams.contains(id));
            let ttls = upstream.flat_map(|(id, record)| {
                records(id).iter().chain(record).map(|record| record.ttl).chain([plan.outside[id.0].ttl]).max()
            });
            Some(time_in_cache(ttls.max()?, longest))
        });
        let hold = Duration::from_secs(hold.unwrap_or_default().into());
        let kept = only_kept(plan, world.flows.iter().map(|(flow, _)| flow), &self.name);
        let addresses = |record: Option<Record>| record.map(|record| record.addresses).unwrap_or_default();
        (kept || !hold.is_zero()).then(|| Spread {
            name: self.name.clone(),
            before: addresses(before),
            after: addresses(record.clone()),
            hold: (!kept).then_some(hold),
            clients: plan.network.pod_prefix,
        })
    }

    fn inject<'a>(&'a self, world: &'a World, undo: &'a mut UndoStack) -> Job<'a, Result<InForce, FaultError>> {
        Box::pin(async move {
            let cluster = world.cluster.as_ref();
            let hosts: Vec<Server> = self
                .resolvers
                .iter()
                .map(|(id, _)| Server::new(cluster.outside(*id), cluster.plan().outside[id.0].address))
                .collect();
            for host in &hosts {
                let (host, name) = (host.clone(), self.name.clone());
                let before = host.outside.records.get(&name);
                undo.push(format!("put the record of {name} at {} back", host.outside.name), move || {
                    host.outside.records.set(&name, before);
                    let expected = host.outside.records.answering(&asked(&name));
                    wait_for(Box::pin(async move { host.has(&name, expected.as_ref()).await.map(drop) }))
                });
            }
            let t0 = now();
            for (host, (_, record)) in hosts.iter().zip(&self.resolvers) {
                host.outside.records.set(&self.name, record.clone());
            }
            let mut read_back = Vec::new();
            for host in &hosts {
                // A wildcard may answer for a removed record.
                let expected = host.outside.records.answering(&asked(&self.name));
                read_back.push(host.has(&self.name, expected.as_ref()).await?);
            }
            let t1 = now();
            let names: Vec<&str> = hosts.iter().map(|host| host.outside.name.as_str()).collect();
            let what = match self.resolvers.first().and_then(|(_, record)| record.as_ref()) {
                Some(record) => {
                    format!("{} resolves to {} at {}", self.name, listed(&record.addresses), names.join(", "))
                }
                None => format!("{} is removed at {}", self.name, names.join(", ")),
            };
            Ok(InForce { t0, t1, what, read_back: read_back.join("; "), reduced: None })
        })
    }
}

/// Whether a flow looks a name up at cluster DNS.
fn asks_cluster_dns(plan: &ClusterPlan, flow: &FlowPlan, name: &str) -> bool {
    let at_dns = |place: Place| matches!(plan.resolver_at(place), Some(Target::Service(_)));
    let is_it = |to: Target| matches!(to, Target::Name(id) if plan.names[id.0].name == name);
    let own = flow.resolver.is_none() && at_dns(flow.from) && (is_it(flow.to) || flow.query.as_deref() == Some(name));
    // An application asks from where it runs.
    let homes = || plan.behind(flow.to).into_iter().any(at_dns);
    own || flow.parts.iter().any(|part| is_it(part.to)) && homes()
}

/// Whether every flow that connects to a name keeps its connections, and no flow only looks names up.
fn only_kept<'a>(plan: &ClusterPlan, flows: impl Iterator<Item = &'a FlowPlan>, name: &str) -> bool {
    let is_it = |to: Target| matches!(to, Target::Name(id) if plan.names[id.0].name == name);
    let mut any = false;
    for flow in flows {
        let own = is_it(flow.to).then_some(flow.keeps > 0);
        let mut keep = own.into_iter().chain(flow.parts.iter().filter(|part| is_it(part.to)).map(|part| part.keep));
        let looks_up = flow.looks_up && flow.parts.is_empty() && !matches!(flow.to, Target::Name(_));
        if looks_up || keep.clone().any(|keeps| !keeps) {
            return false;
        }
        any |= keep.next().is_some();
    }
    any
}

/// A resolver and its address.
#[derive(Clone)]
struct Server {
    outside: Outside,
    address: IpAddr,
}

impl Server {
    fn new(outside: &Outside, address: IpAddr) -> Self {
        Self { outside: outside.clone(), address }
    }

    /// Queries it, and returns the answer in words if it is the expected one.
    async fn has(&self, name: &str, expected: Option<&Record>) -> Result<String, FaultError> {
        let asked = asked(name);
        let answer = stub::lookup(&self.outside.ns, self.address, &asked, &[]);
        let what = || format!("edit the record of {name}");
        let Ok(answered) = tokio::time::timeout(PATIENCE, answer).await else {
            let read_back = format!("{} gives no answer for {asked} within {}", self.outside.name, limit(PATIENCE));
            return Err(FaultError::NotInForce { what: what(), read_back });
        };
        // A name that is removed is an error.
        let mut answered = answered.unwrap_or_default();
        let mut right = expected.map(|record| record.addresses.clone()).unwrap_or_default();
        answered.sort_unstable();
        right.sort_unstable();
        right.dedup();
        let read_back = format!("{} answers {} for {asked}", self.outside.name, listed(&answered));
        if answered == right {
            return Ok(read_back);
        }
        Err(FaultError::NotInForce { what: what(), read_back })
    }
}

/// A name for which the record answers.
fn asked(name: &str) -> String {
    name.strip_prefix("*.").map_or_else(|| name.to_owned(), |below| format!("read-back.{below}"))
}

fn listed(addresses: &[IpAddr]) -> String {
    if addresses.is_empty() {
        return "no address".to_owned();
    }
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
