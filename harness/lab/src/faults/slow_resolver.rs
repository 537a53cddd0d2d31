//! One resolver outside answers late: benign (twin of I3).

use std::net::IpAddr;
use std::time::Duration;

use relapse_detectors::time::{limit, span};
use relapse_kernel::NetNs;
use relapse_model::diagnostics::Span;
use relapse_model::spanned::Spanned;
use relapse_model::values;
use relapse_model::{ClusterPlan, OutsideId, Resolver};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::{Instant, timeout};

use crate::fault::{Fault, FaultError, FaultSpec, InForce, Job, Look, UndoStack, World, now, wait_for};
use crate::workload::stub;

/// A resolver outside answers late.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SlowResolverSpec {
    /// `outside/NAME`, a host that has `records`.
    pub resolver: Spanned<String>,
    /// Delay of its answers, at most 10s.
    pub delay: Spanned<values::Duration>,
}

/// The same, resolved.
#[derive(Debug)]
pub struct SlowResolver {
    pub(crate) resolver: OutsideId,
    pub(crate) delay: Duration,
}

impl FaultSpec for SlowResolverSpec {
    const EXAMPLE: &'static str = "{ resolver: outside/host, delay: 200ms }";
    const LOOK: &'static [Look] = super::dns_replica_loss::DnsReplicaLossSpec::LOOK;

    fn plan(&self, _at: Span, resolver: &mut Resolver<'_>) -> Option<Box<dyn Fault>> {
        let (host, delay) = (resolver.outside(&self.resolver), resolver.duration("delay", &self.delay));
        if delay.is_some_and(|delay| delay < SHORTEST) {
            let message = "`delay` is shorter than 1 ms, as fast as answers are anyway";
            resolver.error(self.delay.span, message, "write at least `1ms`");
        }
        if delay.is_some_and(|delay| delay > LONGEST) {
            let help = "write at most `10s`: stub resolvers give up after two attempts of 5 s";
            resolver.error(self.delay.span, "`delay` is longer than 10 s", help);
        }
        let host = host?;
        if resolver.cluster.outside[host.0].records.is_empty() {
            resolver.error(
                self.resolver.span,
                format!("`{}` is not a resolver: it has no `records`", self.resolver.value),
                "name a host that has `records`",
            );
        }
        Some(Box::new(SlowResolver { resolver: host, delay: delay? }))
    }
}

// The mutation.

/// The shortest delay.
const SHORTEST: Duration = Duration::from_millis(1);
/// The longest delay: what a stub resolver waits for in all (`resolv.conf(5)`).
const LONGEST: Duration = Duration::from_secs(10);
/// Allowance for a busy machine.
const SLACK: Duration = Duration::from_millis(500);

/// Time until the resolver answers a query of its own host, or `within` if it does not.
async fn time_query(ns: &NetNs, address: IpAddr, within: Duration) -> Duration {
    let asked = Instant::now();
    let _ = timeout(within, stub::lookup(ns, address, "read-back.invalid", &[])).await;
    asked.elapsed()
}

impl Fault for SlowResolver {
    fn changes(&self, cluster: &ClusterPlan) -> Vec<String> {
        vec![format!("the delay of outside/{}", cluster.outside[self.resolver.0].name)]
    }

    fn inject<'a>(&'a self, world: &'a World, undo: &'a mut UndoStack) -> Job<'a, Result<InForce, FaultError>> {
        Box::pin(async move {
            let resolver = world.cluster.outside(self.resolver);
            let address = world.cluster.plan().outside[self.resolver.0].address;
            let (ns, delay, limit_of) = (resolver.ns.clone(), resolver.delay.clone(), self.delay);
            let name = resolver.name.clone();
            undo.push(format!("remove the delay of {name}"), move || {
                delay.set(Duration::ZERO);
                // One fast answer proves it; a busy machine may be late with others.
                let deadline = Instant::now() + SLACK;
                let mut took = wait_for(Box::pin(time_query(&ns, address, limit_of.max(SLACK))));
                while took >= limit_of && Instant::now() < deadline {
                    took = took.min(wait_for(Box::pin(time_query(&ns, address, SLACK))));
                }
                if took < limit_of {
                    return Ok(());
                }
                let what = format!("remove the delay of {name}");
                Err(FaultError::NotInForce { what, read_back: format!("answered after {}", span(took)) })
            });
            let t0 = now();
            resolver.delay.set(self.delay);
            let took = time_query(&resolver.ns, address, self.delay * 2 + SLACK).await;
            let t1 = now();
            if took < self.delay {
                return Err(FaultError::NotInForce {
                    what: format!("delay the answers of {}", resolver.name),
                    read_back: format!("answered after {}", span(took)),
                });
            }
            Ok(InForce {
                t0,
                t1,
                what: format!("{} answers after {}", resolver.name, limit(self.delay)),
                read_back: format!("answered after {}", span(took)),
                reduced: None,
            })
        })
    }
}
