//! A burst of real flows fills a share of a node's conntrack table and goes away: benign (twin of I2).
//!
//! The flows are UDP datagrams of a pod to its node, each from and to other ports: a hundred thousand TCP connections
//! would need as many sockets on either side.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use relapse_kernel::conntrack::{Conntrack, Entry};
use relapse_kernel::{NetNs, socket};
use relapse_model::diagnostics::Span;
use relapse_model::spanned::Spanned;
use relapse_model::values;
use relapse_model::{NodeId, Place, PodId, Resolver};
use schemars::JsonSchema;
use serde::Deserialize;

use super::filler;
use crate::fault::{Fault, FaultError, FaultSpec, InForce, Job, Look, Requirement, UndoStack, World, now};

/// A burst of flows fills a share of the conntrack table, then goes away.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConntrackBurstSpec {
    pub node: Spanned<String>,
    /// Share of the limit to fill.
    #[schemars(range(min = 0.01, max = 0.9))]
    pub share: Spanned<f64>,
    /// Pod that sends the datagrams: `pod/NAME`, on the node.
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
            resolver.error(self.from.span, "only a pod can send a burst", "write `pod/NAME`");
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
            let node = world.cluster.node(self.node).ns.clone();
            let pod = world.cluster.pod(self.from).ns.clone();
            let plan = world.cluster.plan();
            let ends = Ends { from: plan.pods[self.from.0].address, to: plan.nodes[self.node.0].address };
            let (_, limit) = Conntrack::open(&node)?.table()?;
            let wanted = share_of(limit, self.share);
            let home = node.clone();
            undo.push(format!("remove the burst from the table of {}", node.name()), move || ends.forget(&home));
            let t0 = now();
            let home = node.clone();
            let sent = blocking(move || filler::without_events(&home, || ends.send(&pod, &home, wanted))).await?;
            let read_back = filler::read_back(&node, wanted)?;
            let t1 = now();
            // Part of the twin: a burst ends after a while. Entries expire after 30 s, or are removed here.
            tokio::time::sleep(self.lasts).await;
            let home = node.clone();
            blocking(move || ends.forget(&home)).await?;
            Ok(InForce {
                t0,
                t1,
                what: format!("a burst of {sent} datagrams to {}, gone after {:?}", node.name(), self.lasts),
                read_back: format!("{read_back} entries"),
                reduced: None,
            })
        })
    }
}

async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> Result<T, FaultError> + Send + 'static,
) -> Result<T, FaultError> {
    tokio::task::spawn_blocking(job).await.map_err(|_| FaultError::NotFound { what: "the burst".into() })?
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share of a limit"
)]
fn share_of(limit: u64, share: f64) -> u64 {
    (limit as f64 * share) as u64
}

/// The pod that sends datagrams, each on a flow of its own, and its node, which receives them. So no other node's table
/// fills.
#[derive(Clone, Copy)]
struct Ends {
    from: IpAddr,
    to: IpAddr,
}

/// Destination ports: those that need no privilege.
const PORTS: RangeInclusive<u16> = 1024..=u16::MAX;
/// Datagrams between two looks at the table.
const AT_ONCE: usize = 4096;
/// Source ports before giving up: enough for twice the largest limit in use.
const SOCKETS: usize = 16;
/// `IPPROTO_UDP`.
const UDP: u8 = 17;

impl Ends {
    /// Sends until the table has so many entries; returns the number of datagrams.
    fn send(self, pod: &NetNs, node: &NetNs, wanted: u64) -> Result<usize, FaultError> {
        let table = Conntrack::open(node)?;
        let mut sent = 0;
        for _ in 0..SOCKETS {
            let socket = socket::udp(pod, SocketAddr::new(self.from, 0))?;
            for port in PORTS {
                if sent % AT_ONCE == 0 && table.table()?.0 >= wanted {
                    return Ok(sent);
                }
                // A datagram that finds a queue full is made up for by a later one.
                sent += usize::from(socket.send_to(&[], SocketAddr::new(self.to, port)).is_ok());
            }
        }
        Ok(sent)
    }

    /// Removes the entries of these datagrams.
    fn forget(self, node: &NetNs) -> Result<(), FaultError> {
        let ends = |entry: &Entry| (entry.original.0.ip(), entry.original.1.ip()) == (self.from, self.to);
        filler::without_events(node, || {
            Conntrack::open(node)?.delete_where(|entry| entry.protocol == UDP && ends(entry))?;
            Ok(())
        })
    }
}
