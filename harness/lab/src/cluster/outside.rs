//! The world around the cluster: hosts, load balancers, and offices behind their VPN gateways.
//! Works on namespace handles, so that both backends share it.

use std::net::IpAddr;

use relapse_detectors::prefix::Prefix;
use relapse_kernel::builder::{Builder, VethEnd};
use relapse_kernel::link::LOOPBACK;
use relapse_kernel::nft::{Chain, Hook, Policy, Rule, Table};
use relapse_kernel::route::Route;
use relapse_kernel::{NetNs, Result, sysctl};
use relapse_model::{OfficePlan, OutsidePlan};
use schemars::JsonSchema;
use serde::Deserialize;

use super::cable::{End, connect};
use super::fabric::{Fabric, PortKind};
use super::{Office, Outside, Records, ServerDelay};

/// Name of the nft table with the clamp of an office gateway.
pub const CLAMP_TABLE: &str = "relapse-vpn-gateway";

/// The only NIC of an outside host.
pub const NIC: &str = "eth0";

/// A plain host's namespace: loopback up, settings written.
///
/// # Errors
/// When the kernel refuses.
pub async fn host_namespace(name: &str, forwards: bool) -> Result<Builder> {
    as_host(&NetNs::create(name)?, forwards).await
}

/// The same for an existing namespace.
///
/// # Errors
/// When the kernel refuses.
pub async fn as_host(ns: &NetNs, forwards: bool) -> Result<Builder> {
    let host = Builder::open(ns)?;
    host.set_up(LOOPBACK).await?;
    sysctl::apply(ns, &sysctl::lab_settings(forwards))?;
    Ok(host)
}

async fn default_route(port: &VethEnd, gateway: IpAddr, peer: &VethEnd) -> Result<()> {
    port.add_neighbour(gateway, peer).await?;
    port.at.add_route(&Route::default_via(gateway).dev(port.index).onlink()).await
}

async fn add_addresses(nic: &VethEnd, all: &[Prefix]) -> Result<()> {
    for address in all {
        nic.at.add_address(nic.index, address.address(), address.length()).await?;
    }
    Ok(())
}

/// Connects the namespace of an outside host to the fabric, behind its load balancer if it has one.
///
/// # Errors
/// When the kernel refuses.
pub async fn build(
    fabric: &mut Fabric,
    number: usize,
    plan: &OutsidePlan,
    host: Builder,
    gateway: IpAddr,
) -> Result<Outside> {
    let address = Prefix::host(plan.address);
    let all: Vec<Prefix> = std::iter::once(&plan.address).chain(&plan.also_at).copied().map(Prefix::host).collect();
    let fabric_end = format!("out{number}");
    let far = |at| End { at, name: NIC, mtu: 1500 };
    let near = End { at: &fabric.at, name: &fabric_end, mtu: 1500 };
    let load_balancer = if plan.load_balancer {
        let hop = host_namespace(&format!("{}-lb", plan.name), true).await?;
        let (up, port) = connect(&far(&hop), &near).await?;
        let (down, nic) = connect(&End { at: &hop, name: "server", mtu: 1500 }, &far(&host)).await?;
        default_route(&up, gateway, &port).await?;
        down.add_neighbour(plan.address, &nic).await?;
        hop.add_route(&Route::to(plan.address, address.length()).dev(down.index)).await?;
        for other in &plan.also_at {
            let via = Route::to(*other, address.length()).via(plan.address).dev(down.index).onlink();
            hop.add_route(&via).await?;
        }
        add_addresses(&nic, &all).await?;
        default_route(&nic, gateway, &down).await?;
        fabric.attach(port, PortKind::Other, plan.address, &up, &all).await?;
        Some(hop.ns)
    } else {
        let (nic, port) = connect(&far(&host), &near).await?;
        add_addresses(&nic, &all).await?;
        default_route(&nic, gateway, &port).await?;
        fabric.attach(port, PortKind::Other, plan.address, &nic, &all).await?;
        None
    };
    if plan.icmp_by_fabric {
        all.iter().for_each(|address| fabric.answer_echo_for(address.address()));
    }
    let records = Records::new(&plan.records, plan.ttl);
    Ok(Outside { name: plan.name.clone(), ns: host.ns, load_balancer, delay: ServerDelay::default(), records })
}

/// Builds an office: a client, its gateway, and the tunnel that ends in the fabric.
///
/// # Errors
/// When the kernel refuses.
pub async fn build_office(fabric: &mut Fabric, number: usize, plan: &OfficePlan) -> Result<Office> {
    let client = host_namespace(&plan.name, false).await?;
    let gateway = host_namespace(&format!("{}-gateway", plan.name), true).await?;
    let (nic, lan) =
        connect(&End { at: &client, name: "eth0", mtu: 1500 }, &End { at: &gateway, name: "lan", mtu: 1500 }).await?;
    client.add_address(nic.index, plan.client, Prefix::host(plan.client).length()).await?;
    default_route(&nic, plan.gateway, &lan).await?;
    gateway.add_address(lan.index, plan.gateway, Prefix::host(plan.gateway).length()).await?;
    lan.add_neighbour(plan.client, &nic).await?;
    gateway.add_route(&Route::to(plan.prefix.address(), plan.prefix.length()).dev(lan.index)).await?;
    let (office_end, fabric_end) = connect(
        &End { at: &gateway, name: "tunnel", mtu: plan.tunnel_mtu },
        &End { at: &fabric.at, name: &format!("vpn{number}"), mtu: plan.tunnel_mtu },
    )
    .await?;
    gateway.add_address(office_end.index, plan.tunnel.0, Prefix::host(plan.tunnel.0).length()).await?;
    default_route(&office_end, plan.tunnel.1, &fabric_end).await?;
    fabric.attach(fabric_end, PortKind::Other, plan.tunnel.0, &office_end, &[plan.prefix]).await?;
    if plan.swallow_fragmentation_needed {
        fabric.swallow_fragmentation_needed();
    }
    let office = Office { name: plan.name.clone(), client: client.ns, gateway: gateway.ns };
    if let Some(size) = plan.clamp {
        clamp(size, plan.prefix, ClampDirection::FromOffice).apply(&office.gateway)?;
    }
    Ok(office)
}

/// Which forwarded SYNs a gateway clamps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ClampDirection {
    /// SYNs that leave the office, which servers in the cloud receive.
    #[default]
    FromOffice,
    /// SYNs and SYN-ACKs to the office.
    ToOffice,
    Both,
}

/// The rules with which a gateway writes `size` into the MSS option of forwarded SYNs and SYN-ACKs.
pub fn clamp(size: u16, office: Prefix, direction: ClampDirection) -> Table {
    let office = (office.address(), office.length());
    let mut table = Table::new(CLAMP_TABLE).chain(Chain::filter("forward", Hook::Forward, -150, Policy::Accept));
    if direction != ClampDirection::ToOffice {
        let rule = Rule::new().oifname("tunnel").ip_saddr(office).tcp_flags(SYN, SYN).counter().tcp_mss_clamp(size);
        table = table.rule("forward", rule.comment(format!("MSS {size} from the office")));
    }
    if direction != ClampDirection::FromOffice {
        let rule = Rule::new().iifname("tunnel").ip_daddr(office).tcp_flags(SYN, SYN).counter().tcp_mss_clamp(size);
        table = table.rule("forward", rule.comment(format!("MSS {size} to the office")));
    }
    table
}

/// The SYN bit of the TCP header's flags (RFC 9293 3.1).
const SYN: u8 = 0x02;
