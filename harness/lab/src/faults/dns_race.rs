//! A and AAAA queries race over one UDP socket, again and again: benign (twin of I2 and I7).

use relapse_kernel::conntrack::Conntrack;
use relapse_model::diagnostics::Span;
use relapse_model::spanned::Spanned;
use relapse_model::{PodId, Resolver};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::fault::{Fault, FaultError, FaultSpec, InForce, Job, Look, UndoStack, Where, World, now};
use crate::workload::stub;

/// A pod sends A and AAAA queries in parallel over one UDP socket.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DnsRaceSpec {
    pub pod: Spanned<String>,
    /// Number of query pairs.
    #[schemars(range(min = 1, max = 100_000))]
    pub count: Spanned<u32>,
}

/// The same, resolved.
#[derive(Debug)]
pub struct DnsRace {
    pub(crate) pod: PodId,
    pub(crate) count: u32,
}

impl FaultSpec for DnsRaceSpec {
    const EXAMPLE: &'static str = "{ pod: a, count: 100 }";
    const LOOK: &'static [Look] =
        &[(Where::Pod, "tcpdump -lni any port 53"), (Where::Node, "conntrack -L -p udp; conntrack -S")];

    fn plan(&self, at: Span, resolver: &mut Resolver<'_>) -> Option<Box<dyn Fault>> {
        let pod = resolver.pod(&self.pod);
        resolver.needs_dns(at)?;
        Some(Box::new(DnsRace { pod: pod?, count: self.count.value }))
    }
}

// The mutation.

impl Fault for DnsRace {
    fn inject<'a>(&'a self, world: &'a World, undo: &'a mut UndoStack) -> Job<'a, Result<InForce, FaultError>> {
        Box::pin(async move {
            let cluster = world.cluster.as_ref();
            let plan = cluster.plan();
            let dns = plan.dns.as_ref().ok_or_else(|| FaultError::NotFound { what: "cluster DNS".into() })?;
            let service = &plan.services[dns.service.0];
            let name = plan.service_domain(dns.service);
            let ns = cluster.pod(self.pod).ns;
            undo.push("nothing to undo: queries leave nothing behind", || Ok(()));
            let tracking = Conntrack::open(&cluster.node(plan.pods[self.pod.0].node).ns)?;
            let before = tracking.stats()?;
            let t0 = now();
            let mut answered = 0;
            let mut t1 = t0;
            for number in 0..self.count {
                let answer = tokio::time::timeout(PATIENCE, stub::lookup(&ns, service.address, &name, &[])).await;
                answered += u32::from(matches!(answer, Ok(Ok(_))));
                if number == 0 {
                    t1 = now();
                }
            }
            let after = tracking.stats()?;
            if answered * 2 < self.count {
                return Err(FaultError::NotInForce {
                    what: "query A and AAAA in parallel".into(),
                    read_back: format!("{answered} of {} answered", self.count),
                });
            }
            Ok(InForce {
                t0,
                t1,
                what: format!("{} pairs of A and AAAA queries, each pair over one socket", self.count),
                read_back: format!(
                    "{answered} answered, clashes resolved {}, insertions failed {}",
                    after.clash_resolve - before.clash_resolve,
                    after.insert_failed - before.insert_failed
                ),
                reduced: None,
            })
        })
    }
}

/// A query that takes longer counts as lost.
const PATIENCE: std::time::Duration = std::time::Duration::from_millis(400);
