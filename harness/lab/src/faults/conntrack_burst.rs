//! A burst of connections fills a share of a node's conntrack table and goes away: benign (twin of I2).

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use relapse_kernel::conntrack::{Conntrack, Entry};
use relapse_model::diagnostics::Span;
use relapse_model::spanned::Spanned;
use relapse_model::values;
use relapse_model::{NodeId, Place, PodId, Resolver};
use schemars::JsonSchema;
use serde::Deserialize;

use super::filler::{self, insert, numbered};
use crate::fault::{Fault, FaultError, FaultSpec, InForce, Job, Look, Requirement, UndoStack, World, now};

/// A burst of connections fills a share of the conntrack table, then goes away.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConntrackBurstSpec {
    pub node: Spanned<String>,
    /// Share of the limit to fill.
    #[schemars(range(min = 0.01, max = 0.9))]
    pub share: Spanned<f64>,
    /// Pod that opens the connections: `pod/NAME`, on the node.
    pub from: Spanned<String>,
    /// How long it lasts.
    #[serde(rename = "for")]
    pub for_: Spanned<values::Duration>,
}

/// The same, resolved.
#[derive(Debug)]
pub struct ConntrackBurst {
    pub(crate) node: NodeId,
    pub(crate) share: f64,
    pub(crate) from: PodId,
    pub(crate) lasts: Duration,
}

impl FaultSpec for ConntrackBurstSpec {
    const EXAMPLE: &'static str = "{ node: worker-1, share: 0.7, from: pod/a, for: 2s }";
    const LOOK: &'static [Look] = super::conntrack_limit::ConntrackLimitSpec::LOOK;

    fn plan(&self, _at: Span, resolver: &mut Resolver<'_>) -> Option<Box<dyn Fault>> {
        let (node, from) = (resolver.node(&self.node), resolver.place(&self.from));
        let lasts = resolver.duration("for", &self.for_);
        let Place::Pod(from) = from? else {
            resolver.error(self.from.span, "only a pod can open a burst of connections", "write `pod/NAME`");
            return None;
        };
        resolver.pod_on_node(&self.from, from, node?);
        Some(Box::new(ConntrackBurst { node: node?, share: self.share.value, from, lasts: lasts? }))
    }
}

// The mutation.

impl Fault for ConntrackBurst {
    fn requires(&self) -> Vec<Requirement> {
        vec![Requirement::ConntrackLimitSteady]
    }

    fn inject<'a>(&'a self, world: &'a World, undo: &'a mut UndoStack) -> Job<'a, Result<InForce, FaultError>> {
        Box::pin(async move {
            let ns = world.cluster.node(self.node).ns.clone();
            let source = world.cluster.plan().pods[self.from.0].address;
            let (count, limit) = Conntrack::open(&ns)?.table()?;
            let wanted = share_of(limit, self.share).saturating_sub(count);
            let home = ns.clone();
            undo.push(format!("remove the burst from the table of {}", ns.name()), move || {
                Conntrack::open(&home)?.delete_marked(BURST_MARK)
            });
            let t0 = now();
            insert(&ns, BURST_MARK, &mut (0..wanted).map(|number| burst(source, number)))?;
            let read_back = filler::read_back(&ns, wanted)?;
            let t1 = now();
            // Part of the twin: a burst ends after a while.
            tokio::time::sleep(self.lasts).await;
            let home = ns.clone();
            let removed = tokio::task::spawn_blocking(move || Conntrack::open(&home)?.delete_marked(BURST_MARK)).await;
            removed.map_err(|_| FaultError::NotFound { what: "the burst".into() })??;
            Ok(InForce {
                t0,
                t1,
                what: format!("a burst of {wanted} flows on {}, gone after {:?}", ns.name(), self.lasts),
                read_back: format!("{read_back} entries"),
                reduced: None,
            })
        })
    }
}

/// Destinations of the burst (RFC 2544, not routed anywhere).
const BURST: [u8; 2] = [198, 19];
/// The mark that identifies the burst for removal ("brst").
const BURST_MARK: NonZeroU32 = NonZeroU32::new(0x6272_7374).unwrap();

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share of a limit"
)]
fn share_of(limit: u64, share: f64) -> u64 {
    (limit as f64 * share) as u64
}

fn burst(source: IpAddr, number: u64) -> Entry {
    let other = numbered(BURST, number);
    Entry::established(SocketAddr::new(source, other.port()), SocketAddr::new(other.ip(), 9), 30)
}
