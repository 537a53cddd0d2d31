//! Source NAT reuses ports for other pods while the server remembers them (I7).
//!
//! `hop` selects what makes such a reuse fail: a load balancer that swallows the old connection's answer, a
//! server that ignores resets, or nothing (then it recovers at once, and is benign).

use std::ops::RangeInclusive;

use relapse_kernel::conntrack::Conntrack;
use relapse_kernel::nft::{self, Chain, Hook, Policy, Rule, Table};
use relapse_kernel::sockdiag::{SockDiag, mask, state};
use relapse_kernel::sysctl;
use relapse_model::diagnostics::Span;
use relapse_model::spanned::Spanned;
use relapse_model::values::PortRange;
use relapse_model::{ClusterPlan, NodeId, OutsideId, Resolver};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::cluster::node_network::{SNAT_TABLE, snat};
use crate::cluster::{Cluster, Outside};
use crate::fault::{Fault, FaultError, FaultSpec, InForce, Job, Look, SYNS, UndoStack, Where, World, now};

/// Limits source NAT of a node to a few ports, so that they are reused while the server still remembers them.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SnatCollisionSpec {
    pub node: Spanned<String>,
    /// The remaining ports.
    pub ports: Spanned<PortRange>,
    pub hop: Spanned<Hop>,
    /// `outside/NAME`. Default: the only host outside, or the only one behind a load balancer.
    pub to: Option<Spanned<String>>,
    /// Source of the TCP timestamps of the node's pods. Default own.
    #[serde(default)]
    pub clocks: Clocks,
}

/// Where TCP timestamps of different pods come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Clocks {
    /// As on different hosts: each pod has its own offset, so half of all reuses have an older timestamp.
    #[default]
    Own,
    /// One clock: timestamps of a later connection always advance, and the server accepts it.
    Shared,
}

/// What makes a reused port fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Hop {
    /// A stateful load balancer drops packets that do not belong to the new connection.
    LoadBalancer,
    /// The server ignores resets of connections in TIME_WAIT.
    Server,
    /// Nothing: the connection succeeds after all.
    None,
}

/// The same, resolved.
#[derive(Debug)]
pub struct SnatCollision {
    pub(crate) node: NodeId,
    pub(crate) ports: RangeInclusive<u16>,
    pub(crate) hop: Hop,
    pub(crate) to: OutsideId,
    pub(crate) clocks: Clocks,
}

impl SnatCollisionSpec {
    /// The only possible host, if none is named.
    fn only_host(&self, at: Span, resolver: &mut Resolver<'_>) -> Option<OutsideId> {
        let hosts = &resolver.cluster.outside;
        let behind: Vec<usize> = (0..hosts.len()).filter(|i| hosts[*i].load_balancer).collect();
        match (hosts.len(), behind.as_slice()) {
            (1, _) => Some(OutsideId(0)),
            (_, [only]) => Some(OutsideId(*only)),
            _ => {
                resolver.error(at, "`snat-collision` has no target host", "add `to: outside/NAME`");
                None
            }
        }
    }
}

impl FaultSpec for SnatCollisionSpec {
    const EXAMPLE: &'static str = "{ node: worker-1, ports: 46990-46999, hop: load-balancer }";
    const LOOK: &'static [Look] = &[
        (Where::Node, "conntrack -L -p tcp; conntrack -S"),
        (Where::Node, SYNS),
        (Where::LoadBalancer, "conntrack -L -p tcp"),
        (Where::Outside, "ss -tan state time-wait"),
    ];

    fn plan(&self, at: Span, resolver: &mut Resolver<'_>) -> Option<Box<dyn Fault>> {
        let node = resolver.node(&self.node);
        let to = match &self.to {
            Some(to) => resolver.outside(to),
            None => self.only_host(at, resolver),
        };
        let host = &resolver.cluster.outside[to?.0];
        if self.hop.value == Hop::LoadBalancer && !host.load_balancer {
            let message = format!("there is no load balancer in front of `outside/{}`", host.name);
            resolver.error(self.hop.span, message, "give the host `loadBalancer: true`, or choose another `hop`");
        }
        Some(Box::new(SnatCollision {
            node: node?,
            ports: self.ports.0.clone(),
            hop: self.hop.value,
            to: to?,
            clocks: self.clocks,
        }))
    }
}

// The mutation.

impl Fault for SnatCollision {
    fn changes(&self, cluster: &ClusterPlan) -> Vec<String> {
        let mut all = vec![format!("source NAT of node/{}", cluster.nodes[self.node.0].name)];
        if self.hop != Hop::None {
            all.push(format!("the way to outside/{}", cluster.outside[self.to.0].name));
        }
        all
    }

    fn inject<'a>(&'a self, world: &'a World, undo: &'a mut UndoStack) -> Job<'a, Result<InForce, FaultError>> {
        Box::pin(async move {
            let cluster = world.cluster.as_ref();
            let network = &cluster.plan().network;
            let node = cluster.node(self.node).ns.clone();
            let destination = cluster.plan().outside[self.to.0].address;
            let outside = cluster.outside(self.to);
            self.prepare_hop(outside, undo)?;
            let (home, before) = (node.clone(), snat(network, None));
            undo.push(format!("widen the ports of source NAT on {}", node.name()), move || {
                before.replace(&home)?;
                Conntrack::open(&home)?.delete_where(|entry| entry.original.1.ip() == destination).map(drop)
            });
            let (low, high) = (*self.ports.start(), *self.ports.end());
            if self.clocks == Clocks::Shared {
                self.share_clock(cluster, undo)?;
            }
            let t0 = now();
            snat(network, Some((destination, (low, high)))).replace(&node)?;
            let wanted = format!("to {destination} by ports {low}-{high}");
            let found =
                nft::read(&node, SNAT_TABLE)?.into_iter().filter_map(|rule| rule.comment).find(|rule| *rule == wanted);
            let t1 = now();
            let read_back = found.ok_or_else(|| FaultError::NotInForce {
                what: "narrow source NAT".into(),
                read_back: "no such rule".into(),
            })?;
            Ok(InForce {
                t0,
                t1,
                what: format!(
                    "source NAT on {} to {destination} narrowed to ports {low}-{high}, {}{}",
                    node.name(),
                    self.hop.description(),
                    if self.clocks == Clocks::Shared { ", timestamps from one clock" } else { "" }
                ),
                read_back,
                reduced: None,
            })
        })
    }
}

/// Name of the table with which a load balancer drops packets that do not match its state.
const HOP_TABLE: &str = "relapse-load-balancer";
/// Set on a connection's entry once its SYN-ACK has passed.
const ANSWERED: u32 = 1;
/// RFC 1337 protection: resets do not end TIME_WAIT.
const RFC1337: &str = "net.ipv4.tcp_rfc1337";
/// 1: each pair of addresses has its own offset. 2: no offsets.
const TIMESTAMPS: &str = "net.ipv4.tcp_timestamps";

impl Hop {
    const fn description(self) -> &'static str {
        match self {
            Self::LoadBalancer => "behind a load balancer that drops an old connection's ACK",
            Self::Server => "to a server that ignores resets in TIME_WAIT",
            Self::None => "to a plain server",
        }
    }
}

impl SnatCollision {
    /// Makes pods of the node use timestamps from one clock; the server forgets earlier connections from
    /// the narrow range of ports.
    fn share_clock(&self, cluster: &dyn Cluster, undo: &mut UndoStack) -> Result<(), FaultError> {
        let plan = cluster.plan();
        for id in plan.pods_with_links(self.node) {
            let (ns, home) = (cluster.pod(id).ns, cluster.pod(id).ns);
            undo.push(format!("restore timestamp offsets of {}", ns.name()), move || {
                sysctl::write(&home, TIMESTAMPS, "1")
            });
            sysctl::write(&ns, TIMESTAMPS, "2")?;
        }
        let server = SockDiag::open(&cluster.outside(self.to).ns)?;
        let old = server.tcp_sockets(mask(&[state::TIME_WAIT]))?;
        old.iter()
            .filter(|socket| self.ports.contains(&socket.remote.port()))
            .try_for_each(|socket| server.destroy(socket))
    }

    fn prepare_hop(&self, outside: &Outside, undo: &mut UndoStack) -> Result<(), FaultError> {
        match self.hop {
            Hop::None => Ok(()),
            Hop::Server => {
                let home = outside.ns.clone();
                undo.push("let the server accept resets again", move || sysctl::write(&home, RFC1337, "0"));
                sysctl::write(&outside.ns, RFC1337, "1")
            }
            Hop::LoadBalancer => {
                let hop = outside.load_balancer.clone();
                let hop = hop.ok_or_else(|| FaultError::NotFound {
                    what: format!("a load balancer in front of {}", outside.name),
                })?;
                let home = hop.clone();
                undo.push("remove the filter of the load balancer", move || {
                    nft::delete_table_if_there(&home, HOP_TABLE)
                });
                swallow().apply(&hop)
            }
        }
    }
}

/// Drops a reply to a SYN that is not a SYN-ACK: to a stateful hop it belongs to no connection.
fn swallow() -> Table {
    Table::new(HOP_TABLE)
        .chain(Chain::filter("forward", Hook::Forward, 0, Policy::Accept))
        .rule(
            "forward",
            Rule::new()
                .ct_direction_reply()
                .tcp_flags_syn_ack()
                .ct_mark_set(ANSWERED)
                .accept()
                .comment("a connection is answered"),
        )
        .rule(
            "forward",
            Rule::new()
                .ct_direction_reply()
                .l4proto(6)
                .not_ct_mark(ANSWERED)
                .counter()
                .drop()
                .comment("an ACK without a SYN-ACK before it"),
        )
}
