//! A database table lacks the index that queries need (I5): every response is late, and the network is unaffected.
//!
//! relapse's own database delays each response by the time that a scan of the whole table takes. A MariaDB loses the
//! index ([`mariadb`]).

mod mariadb;

use std::net::SocketAddr;
use std::time::Duration;

use relapse_detectors::time::{limit, span};
use relapse_kernel::NetNs;
use relapse_model::diagnostics::{Span, quoted};
use relapse_model::spanned::Spanned;
use relapse_model::values;
use relapse_model::{ClusterPlan, FlowPlan, OutsideId, Place, Query, Resolver};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::{Instant, timeout};

use crate::cluster::Cluster;
use crate::fault::{Fault, FaultError, FaultSpec, InForce, Job, Look, UndoStack, Where, World, now, wait_for};
use crate::workload::servers::database::{Database, is_mariadb};

/// A database table lacks the index that queries need.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MissingIndexSpec {
    /// `outside/NAME`, a database that a flow queries.
    pub server: Spanned<String>,
    /// Time a query takes without the index; determines the size of the table.
    pub query: Spanned<values::Duration>,
}

/// The same, resolved.
#[derive(Debug)]
pub struct MissingIndex {
    pub(crate) server: OutsideId,
    pub(crate) port: u16,
    pub(crate) query: Duration,
}

impl FaultSpec for MissingIndexSpec {
    const EXAMPLE: &'static str = "{ server: outside/host, query: 400ms }";
    const LOOK: &'static [Look] =
        &[(Where::Node, "tcpdump -lni any -ttt 'host {pod} and tcp[13] & 8 != 0'"), (Where::Pod, "ss -tin")];

    fn plan(&self, _at: Span, resolver: &mut Resolver<'_>) -> Option<Box<dyn Fault>> {
        let (server, query) = (resolver.outside(&self.server), resolver.duration("query", &self.query));
        if query.is_some_and(|query| query < SHORTEST) {
            let message = "`query` is shorter than 1 ms, as fast as answers are anyway";
            resolver.error(self.query.span, message, "write at least `1ms`");
        }
        if query.is_some_and(|query| query > LONGEST) {
            resolver.error(self.query.span, "`query` is longer than a minute", "write at most `1m`");
        }
        let server = server?;
        let here = |to| resolver.cluster.behind(to).contains(&Place::Outside(server));
        let Some(port) = resolver.workload.iter().find_map(|flow| queried(flow, here)) else {
            let message = format!("nothing queries {}", quoted(&self.server));
            let help = "name a host that a `query` flow, or a `queries` part of a `call`, asks";
            resolver.error(self.server.span, message, help);
            return None;
        };
        Some(Box::new(MissingIndex { server, port, query: query? }))
    }
}

/// The port at which a flow queries a database, if that is `here`.
fn queried(flow: &FlowPlan, here: impl Fn(relapse_model::Target) -> bool) -> Option<u16> {
    let own = flow.port.filter(|_| flow.kind == "query" && here(flow.to));
    own.or_else(|| flow.parts.iter().find(|part| part.kind == "queries" && here(part.to)).map(|part| part.port))
}

// The mutation.

/// Allowance for a busy machine.
const SLACK: Duration = Duration::from_secs(1);
/// The shortest query.
const SHORTEST: Duration = Duration::from_millis(1);
/// The longest query.
const LONGEST: Duration = Duration::from_mins(1);
/// The query that reads back.
const QUERY: Query = Query { request: 120, response: 900, takes: Duration::ZERO };

impl MissingIndex {
    fn database(&self, cluster: &dyn Cluster) -> Database {
        Database::at(cluster, SocketAddr::new(cluster.plan().outside[self.server.0].address, self.port))
    }
}

impl Fault for MissingIndex {
    fn changes(&self, cluster: &ClusterPlan) -> Vec<String> {
        vec![format!("the index of outside/{}", cluster.outside[self.server.0].name)]
    }

    fn prepare<'a>(&'a self, cluster: &'a dyn Cluster) -> Job<'a, Result<(), FaultError>> {
        Box::pin(async move {
            if is_mariadb(cluster, self.server) { mariadb::prepare(self, cluster).await } else { Ok(()) }
        })
    }

    fn inject<'a>(&'a self, world: &'a World, undo: &'a mut UndoStack) -> Job<'a, Result<InForce, FaultError>> {
        Box::pin(async move {
            let (host, query) = (world.cluster.outside(self.server), self.query);
            if is_mariadb(world.cluster.as_ref(), self.server) {
                return mariadb::inject(self, world.cluster.as_ref(), undo).await;
            }
            let database = self.database(world.cluster.as_ref());
            let (ns, delay) = (host.ns.clone(), host.delay.clone());
            undo.push(format!("restore the index of {}", host.name), move || {
                delay.set(Duration::ZERO);
                // One fast answer proves it; a busy machine may be late with others.
                let deadline = Instant::now() + SLACK;
                let mut took = wait_for(Box::pin(time_query(&ns, database, SLACK)))?;
                while took >= query && Instant::now() < deadline {
                    took = took.min(wait_for(Box::pin(time_query(&ns, database, SLACK)))?);
                }
                if took < query {
                    return Ok(());
                }
                let what = format!("make {} fast again", ns.name());
                Err(FaultError::NotInForce { what, read_back: format!("the fastest answer took {}", span(took)) })
            });
            let t0 = now();
            host.delay.set(query);
            let took = time_query(&host.ns, database, query + SLACK).await?;
            let t1 = now();
            let read_back = format!("a query is answered after {}", span(took));
            if took < query {
                return Err(FaultError::NotInForce { what: format!("slow {} down", host.name), read_back });
            }
            let what = format!("{} scans its whole table, {} for each query", host.name, limit(query));
            Ok(InForce { t0, t1, what, read_back, reduced: None })
        })
    }
}

/// Measures a query on the database's own host, without any network.
async fn time_query(ns: &NetNs, database: Database, within: Duration) -> Result<Duration, FaultError> {
    let mut asked = Instant::now();
    let query = async {
        let mut stream = database.open(ns).await?;
        asked = Instant::now();
        database.ask(&mut stream, &QUERY).await
    };
    let result = timeout(within, query).await;
    match result {
        Ok(Ok(())) => Ok(asked.elapsed()),
        _ => Err(FaultError::NotInForce {
            what: format!("query {}", ns.name()),
            read_back: format!("no answer within {}", limit(within)),
        }),
    }
}
