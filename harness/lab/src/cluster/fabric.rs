//! The fabric: the cloud's network between nodes, outside hosts and the ends of office tunnels.
//!
//! One namespace that routes, with the properties that incidents depend on:
//! - it requires request and reply of a flow to use the same port, and drops a reply that would leave
//!   through another (I4); traffic between pods, and TCP of nodes, is checked by its source instead, so that the
//!   fabric's own connection tracking never fills before a node's (I2);
//! - it answers ICMP echo on behalf of hosts configured that way (I4);
//! - it may swallow the "fragmentation needed" it would send for a tunnel's smaller MTU (I1).
//!
//! It is isolated: it has no route and no cable to the machine it runs on.

use std::net::IpAddr;

use relapse_detectors::prefix::Prefix;
use relapse_kernel::builder::{Builder, VethEnd};
use relapse_kernel::link::LOOPBACK;
use relapse_kernel::nft::{Chain, CtState, Hook, Policy, Rule, Table};
use relapse_kernel::route::Route;
use relapse_kernel::{NetNs, Result, sysctl};
use relapse_model::ClusterPlan;

use super::paths::Paths;

/// Name of the fabric's nft table.
const TABLE: &str = "relapse-fabric";

/// The kind of a port of the fabric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortKind {
    /// A node's primary interface: traffic from pod to pod may not enter here.
    NodeSubnet,
    /// A node's pod NIC.
    PodSubnet,
    /// An outside host, a load balancer or a tunnel.
    Other,
}

/// The fabric, while being built and afterwards.
pub struct Fabric {
    pub at: Builder,
    ports: Vec<(VethEnd, PortKind)>,
    pod_prefix: Prefix,
    answers_echo_for: Vec<IpAddr>,
    gateway: IpAddr,
    swallow_fragmentation_needed: bool,
}

impl Fabric {
    /// Creates the fabric's namespace. `gateways` are the addresses it answers to.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn create(pod_prefix: Prefix, gateways: &[IpAddr]) -> Result<Self> {
        let at = Builder::open(&NetNs::create("fabric")?)?;
        at.set_up(LOOPBACK).await?;
        sysctl::apply(&at.ns, &sysctl::lab_settings(true))?;
        for gateway in gateways {
            at.add_address(LOOPBACK, *gateway, Prefix::host(*gateway).length()).await?;
        }
        Ok(Self {
            at,
            ports: Vec::new(),
            pod_prefix,
            answers_echo_for: Vec::new(),
            gateway: gateways[0],
            swallow_fragmentation_needed: false,
        })
    }

    /// Connects a cable's end to the fabric and routes `prefixes` to it via `next_hop`, which is at
    /// the other end.
    ///
    /// # Errors
    /// When the kernel refuses the neighbour or a route.
    pub async fn attach(
        &mut self,
        port: VethEnd,
        kind: PortKind,
        next_hop: IpAddr,
        peer: &VethEnd,
        prefixes: &[Prefix],
    ) -> Result<()> {
        port.add_neighbour(next_hop, peer).await?;
        for prefix in prefixes {
            let route = Route::to(prefix.address(), prefix.length()).via(next_hop).dev(port.index).onlink();
            self.at.add_route(&route).await?;
        }
        self.ports.push((port, kind));
        Ok(())
    }

    /// Answers ICMP echo on behalf of `address`.
    pub fn answer_echo_for(&mut self, address: IpAddr) {
        self.answers_echo_for.push(address);
    }

    /// Drops "fragmentation needed" sent by the fabric.
    pub const fn swallow_fragmentation_needed(&mut self) {
        self.swallow_fragmentation_needed = true;
    }

    /// Applies the rules, once every port is known, and the paths of the plan.
    ///
    /// # Errors
    /// When the kernel refuses them or different ones are read back.
    pub fn arm(&self, plan: &ClusterPlan) -> Result<Paths> {
        self.rules(plan.network.node_prefix).apply(&self.at.ns)?;
        Paths::new(&self.at.ns, plan)
    }

    fn rules(&self, nodes: Prefix) -> Table {
        let nodes = (nodes.address(), nodes.length());
        let pods = (self.pod_prefix.address(), self.pod_prefix.length());
        let mut table = Table::new(TABLE)
            .chain(Chain::filter("raw", Hook::Prerouting, -300, Policy::Accept))
            .chain(Chain::filter("mark", Hook::Prerouting, -150, Policy::Accept))
            .chain(Chain::nat("echo", Hook::Prerouting, -100))
            .chain(Chain::filter("forward", Hook::Forward, 0, Policy::Accept))
            .chain(Chain::filter("output", Hook::Output, 0, Policy::Accept))
            .rule(
                "raw",
                Rule::new().ip_saddr(pods).ip_daddr(pods).notrack().comment("between pods: checked by source"),
            );
        for of_nodes in [Rule::new().l4proto(TCP).ip_saddr(nodes), Rule::new().l4proto(TCP).ip_daddr(nodes)] {
            table = table.rule("raw", of_nodes.notrack().comment("TCP of nodes: checked by source"));
        }
        for (port, kind) in &self.ports {
            let here = Rule::new().iif(port.index);
            let (stray, what) = match kind {
                PortKind::NodeSubnet => {
                    (here.ip_saddr(pods).ip_daddr(pods), "a pod's packet to a pod from the node subnet")
                }
                PortKind::PodSubnet => (here.ip_saddr(nodes), "a node's packet from the pod subnet"),
                PortKind::Other => (here.ip_saddr(nodes), "a node's packet from elsewhere"),
            };
            table = table.rule("forward", stray.counter().drop().comment(format!("{}: {what}", port.name)));
            table = table
                .rule(
                    "mark",
                    Rule::new()
                        .iif(port.index)
                        .ct_state(&[CtState::New])
                        .ct_direction_original()
                        .ct_mark_set(port.index)
                        .comment(format!("{}: request arrived here", port.name)),
                )
                .rule(
                    "forward",
                    Rule::new()
                        .ct_direction_reply()
                        .ct_mark(port.index)
                        .not_oif(port.index)
                        .counter()
                        .drop()
                        .comment(format!("{}: reply would leave through another port", port.name)),
                );
        }
        for address in &self.answers_echo_for {
            let host = (*address, Prefix::host(*address).length());
            table = table.rule(
                "echo",
                Rule::new()
                    .ip_daddr(host)
                    .icmp_type(ICMP_ECHO_REQUEST)
                    .dnat(self.gateway, None)
                    .comment(format!("answers echo for {address}")),
            );
        }
        if self.swallow_fragmentation_needed {
            table = table.rule(
                "output",
                Rule::new()
                    .icmp_type(ICMP_DESTINATION_UNREACHABLE)
                    .icmp_code(ICMP_FRAGMENTATION_NEEDED)
                    .counter()
                    .drop()
                    .comment("fragmentation needed: swallowed"),
            );
        }
        table
    }
}

/// IANA protocol number.
const TCP: u8 = 6;
/// RFC 792.
const ICMP_ECHO_REQUEST: u8 = 8;
const ICMP_DESTINATION_UNREACHABLE: u8 = 3;
/// RFC 1191 section 4.
const ICMP_FRAGMENTATION_NEEDED: u8 = 4;
