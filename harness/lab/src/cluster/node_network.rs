//! A node's two NICs and what the CNI's address manager maintains there: table 2, rules for each pod,
//! source NAT. Works on namespace handles, so that both backends share it.

use std::io::ErrorKind;
use std::net::IpAddr;

use relapse_detectors::prefix::Prefix;
use relapse_kernel::Result;
use relapse_kernel::builder::Builder;
use relapse_kernel::nft::{Chain, CtState, Hook, Policy, Rule as NftRule, Table};
use relapse_kernel::route::{MAIN, Route, Rule};
use relapse_model::{NetworkPlan, NodePlan};

use super::cable::{End, connect};
use super::fabric::{Fabric, PortKind};

/// Name of the nft table that holds the CNI's source NAT on a node.
pub const SNAT_TABLE: &str = "relapse-cni-snat";
/// Its chain.
pub const SNAT_CHAIN: &str = "postrouting";

/// The prefix of one address.
#[must_use]
pub fn host(address: IpAddr) -> (IpAddr, u8) {
    (address, Prefix::host(address).length())
}

/// The prefix in the form used by the kernel crate.
#[must_use]
pub const fn pair(prefix: Prefix) -> (IpAddr, u8) {
    (prefix.address(), prefix.length())
}

/// Gives a node its NICs in the fabric: `eth0` with the default route of the main table, `eth1` with
/// that of the pod table.
///
/// # Errors
/// When the kernel refuses a link, address or route.
pub async fn attach_nics(
    fabric: &mut Fabric,
    number: usize,
    at: &Builder,
    node: &NodePlan,
    network: &NetworkPlan,
) -> Result<()> {
    let nics = [
        (
            &network.node_nic,
            format!("n{number}-node"),
            node.address,
            network.node_gateway,
            PortKind::NodeSubnet,
            MAIN,
            Prefix::host(node.address),
        ),
        (
            &network.pod_nic,
            format!("n{number}-pod"),
            node.pod_nic_address,
            network.pod_gateway,
            PortKind::PodSubnet,
            network.pod_table,
            node.pod_prefix,
        ),
    ];
    for (name, port, address, gateway, kind, table, prefix) in nics {
        let (inside, outside) =
            connect(&End { at, name, mtu: 1500 }, &End { at: &fabric.at, name: &port, mtu: 1500 }).await?;
        at.add_address(inside.index, address, Prefix::host(address).length()).await?;
        inside.add_neighbour(gateway, &outside).await?;
        at.add_route(&Route::default_via(gateway).dev(inside.index).onlink().table(table)).await?;
        fabric.attach(outside, kind, address, &inside, &[prefix]).await?;
    }
    Ok(())
}

/// The two rules the address manager maintains for a pod: from it to the pod table, to it to main.
pub fn pod_rules(network: &NetworkPlan, pod: IpAddr) -> [Rule; 2] {
    let (address, length) = host(pod);
    let rule = |priority| if pod.is_ipv4() { Rule::ipv4(priority) } else { Rule::ipv6(priority) };
    [
        rule(network.to_rule_priority).to(address, length).table(MAIN),
        rule(network.from_rule_priority).from(address, length).table(network.pod_table),
    ]
}

/// Name of the nft table that marks connections to node ports.
pub const NODE_PORTS_TABLE: &str = "relapse-cni-node-ports";
/// Their mark, and the priority of the rule for it: those of the AWS VPC CNI.
const NODE_PORT_MARK: u32 = 0x80;
pub const NODE_PORT_PRIORITY: u32 = 1024;

/// The rule that routes marked packets by the main table, before the rules for traffic from pods.
pub const fn node_port_rule() -> Rule {
    Rule::ipv4(NODE_PORT_PRIORITY).marked(NODE_PORT_MARK).table(MAIN)
}

/// Replies leave by the NIC by which the request came, with the address that was asked: connections to the node's
/// primary address through its primary NIC are marked, and so is each of their packets that comes from elsewhere, such
/// as from a pod's link.
pub fn node_ports(network: &NetworkPlan, node: &NodePlan) -> Table {
    let asked = NftRule::new().iifname(&network.node_nic).ip_daddr(host(node.address)).ct_state(&[CtState::New]);
    let replies = NftRule::new().ct_mark(NODE_PORT_MARK).ct_direction_reply().mark_set(NODE_PORT_MARK);
    Table::new(NODE_PORTS_TABLE)
        .chain(Chain::filter("prerouting", Hook::Prerouting, -150, Policy::Accept))
        .rule("prerouting", asked.ct_mark_set(NODE_PORT_MARK).comment("the node itself was asked"))
        .rule("prerouting", replies.comment("replies leave by the same NIC"))
}

/// The result, with this one error treated as success: as in a CNI, what a fault or its undo did before is
/// not an error.
///
/// # Errors
/// Any other.
pub fn unless(harmless: ErrorKind, result: Result<()>) -> Result<()> {
    let kind = |errno| std::io::Error::from_raw_os_error(errno).kind();
    result.or_else(|e| if e.errno().map(kind) == Some(harmless) { Ok(()) } else { Err(e) })
}

/// Source NAT of pod traffic that leaves the VPC, to the address of the outgoing NIC. `narrow` limits traffic to
/// one destination to a range of source ports.
pub fn snat(network: &NetworkPlan, narrow: Option<(IpAddr, (u16, u16))>) -> Table {
    let mut table = Table::new(SNAT_TABLE).chain(Chain::nat(SNAT_CHAIN, Hook::Postrouting, 100));
    let inside = network.vpc.iter().chain([&network.pod_prefix, &network.service_prefix]);
    for prefix in inside {
        table = table.rule(
            SNAT_CHAIN,
            NftRule::new().ip_daddr(pair(*prefix)).accept().comment(format!("{prefix}: pods keep their address")),
        );
    }
    let pods = pair(network.pod_prefix);
    if let Some((destination, (low, high))) = narrow {
        table = table.rule(
            SNAT_CHAIN,
            NftRule::new()
                .ip_saddr(pods)
                .ip_daddr(host(destination))
                .l4proto(IPPROTO_TCP)
                .masquerade(Some((low, high)))
                .comment(format!("to {destination} by ports {low}-{high}")),
        );
    }
    table.rule(SNAT_CHAIN, NftRule::new().ip_saddr(pods).masquerade(None).comment("traffic leaving the cluster"))
}

/// IANA protocol number.
const IPPROTO_TCP: u8 = 6;
