//! The servers of one domain fail, and resolvers have only SERVFAIL for its name: benign for cluster DNS (twin of I3).

use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use relapse_detectors::time::limit;
use relapse_model::diagnostics::{Span, quoted};
use relapse_model::spanned::Spanned;
use relapse_model::zone::folded;
use relapse_model::{ClusterPlan, OutsideId, Resolver};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::cluster::Cluster;
use crate::fault::{Fault, FaultError, FaultSpec, InForce, Job, Look, UndoStack, Where, World, now, wait_for};
use crate::workload::stub;

/// All resolvers outside that have a record answer SERVFAIL for its name, as they do when the domain's own servers fail.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DomainFailureSpec {
    /// Name of a record of hosts in `outside`.
    pub name: Spanned<String>,
}

/// The same, resolved.
#[derive(Debug)]
pub struct DomainFailure {
    resolvers: Vec<OutsideId>,
    name: String,
}

impl FaultSpec for DomainFailureSpec {
    const EXAMPLE: &'static str = "{ name: a.example }";
    const LOOK: &'static [Look] =
        &[(Where::Pod, "getent ahosts example-api.com"), (Where::Pod, "tcpdump -lni any port 53")];

    fn plan(&self, _at: Span, resolver: &mut Resolver<'_>) -> Option<Box<dyn Fault>> {
        resolver.domain(&self.name);
        let name = folded(&self.name);
        let hosts = resolver.cluster.outside.iter().enumerate();
        let has = |records: &[(String, _)]| records.iter().any(|(owner, _)| *owner == name);
        let resolvers: Vec<_> =
            hosts.filter(|(_, host)| has(&host.records)).map(|(number, _)| OutsideId(number)).collect();
        if resolvers.is_empty() {
            let message = format!("no host has a record of {}", quoted(&self.name));
            resolver.error(self.name.span, message, "name a record of a host in `outside`");
            return None;
        }
        Some(Box::new(DomainFailure { resolvers, name }))
    }
}

// The mutation.

/// Timeout of reading back.
const PATIENCE: Duration = Duration::from_secs(2);

/// Queries a resolver on its own host, and returns the answer in words if it is the expected one.
async fn answers(cluster: &dyn Cluster, id: OutsideId, name: &str, fails: bool) -> Result<String, FaultError> {
    let (outside, address) = (cluster.outside(id), cluster.plan().outside[id.0].address);
    let asked = stub::response(&outside.ns, address, name, RecordType::A);
    let read_back = match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok(code)) if (code == ResponseCode::ServFail) == fails => {
            return Ok(format!("{} answers {code:?} for {name}", outside.name));
        }
        Ok(Ok(code)) => format!("{} answers {code:?} for {name}", outside.name),
        Ok(Err(e)) => format!("{}: {e}", outside.name),
        Err(_) => format!("{} gives no answer for {name} within {}", outside.name, limit(PATIENCE)),
    };
    Err(FaultError::NotInForce { what: format!("{} {name}", if fails { "fail" } else { "answer" }), read_back })
}

impl Fault for DomainFailure {
    fn changes(&self, cluster: &ClusterPlan) -> Vec<String> {
        let at = |id: &OutsideId| format!("the record of {} at outside/{}", self.name, cluster.outside[id.0].name);
        self.resolvers.iter().map(at).collect()
    }

    fn inject<'a>(&'a self, world: &'a World, undo: &'a mut UndoStack) -> Job<'a, Result<InForce, FaultError>> {
        Box::pin(async move {
            let cluster = &world.cluster;
            for id in &self.resolvers {
                let (home, id, name) = (cluster.clone(), *id, self.name.clone());
                undo.push(format!("answer {name} at {} again", cluster.outside(id).name), move || {
                    home.outside(id).records.set_failing(&name, false);
                    wait_for(Box::pin(async move { answers(home.as_ref(), id, &name, false).await.map(drop) }))
                });
            }
            let t0 = now();
            self.resolvers.iter().for_each(|id| cluster.outside(*id).records.set_failing(&self.name, true));
            let mut read_back = Vec::new();
            for id in &self.resolvers {
                read_back.push(answers(cluster.as_ref(), *id, &self.name, true).await?);
            }
            let t1 = now();
            let what = format!("the servers of {} fail", self.name);
            Ok(InForce { t0, t1, what, read_back: read_back.join("; "), reduced: None })
        })
    }
}
