//! The world around the cluster: hosts, load balancers, and offices behind their VPN gateways.
//! Written over namespace handles, so that both backends share it.

use std::net::IpAddr;

use relapse_detectors::prefix::Prefix;
use relapse_kernel::link::PrefixRoute;
use relapse_kernel::nft::{Chain, Hook, Policy, Rule, Table};
use relapse_kernel::route::{self, Route};
use relapse_kernel::{NetNs, Result, link, sysctl};
use relapse_model::{OfficePlan, OutsidePlan};
use schemars::JsonSchema;
use serde::Deserialize;

use super::cable::{End, Port, connect};
use super::fabric::{Fabric, PortKind};
use super::{Office, Outside, ServerDelay};

/// Name of the nft table in which an office gateway clamps.
pub const CLAMP_TABLE: &str = "relapse-vpn-gateway";

/// The one NIC of an outside host.
pub const NIC: &str = "eth0";

/// A plain host's namespace: loopback up, settings written.
///
/// # Errors
/// When the kernel refuses.
pub fn host_namespace(name: &str, forwards: bool) -> Result<NetNs> {
    as_host(NetNs::create(name)?, forwards)
}

/// The same of a namespace that somebody else made.
///
/// # Errors
/// When the kernel refuses.
pub fn as_host(ns: NetNs, forwards: bool) -> Result<NetNs> {
    link::loopback_up(&ns)?;
    sysctl::apply(&ns, &sysctl::lab_settings(forwards))?;
    Ok(ns)
}

fn default_route(ns: &NetNs, port: &Port, gateway: IpAddr, peer: &Port) -> Result<()> {
    port.knows(gateway, peer)?;
    route::add_route(ns, &Route::default_via(gateway).dev(port.index).onlink())
}

/// Plugs the namespace of an outside host into the fabric, behind its load balancer where it has one.
///
/// # Errors
/// When the kernel refuses.
pub fn build(fabric: &mut Fabric, number: usize, plan: &OutsidePlan, ns: NetNs, gateway: IpAddr) -> Result<Outside> {
    let address = Prefix::host(plan.address);
    let fabric_end = format!("out{number}");
    let far = |ns| End { ns, name: NIC, mtu: 1500 };
    let load_balancer = if plan.load_balancer {
        let hop = host_namespace(&format!("{}-lb", plan.name), true)?;
        let (up, port) = connect(&far(&hop), &End { ns: &fabric.ns, name: &fabric_end, mtu: 1500 })?;
        let (down, nic) = connect(&End { ns: &hop, name: "server", mtu: 1500 }, &far(&ns))?;
        default_route(&hop, &up, gateway, &port)?;
        down.knows(plan.address, &nic)?;
        route::add_route(&hop, &Route::to(plan.address, address.length()).dev(down.index))?;
        link::add_address(&ns, nic.index, plan.address, address.length(), PrefixRoute::Omit)?;
        default_route(&ns, &nic, gateway, &down)?;
        fabric.attach(port, PortKind::Other, plan.address, &up, &[address])?;
        Some(hop)
    } else {
        let (nic, port) = connect(&far(&ns), &End { ns: &fabric.ns, name: &fabric_end, mtu: 1500 })?;
        link::add_address(&ns, nic.index, plan.address, address.length(), PrefixRoute::Omit)?;
        default_route(&ns, &nic, gateway, &port)?;
        fabric.attach(port, PortKind::Other, plan.address, &nic, &[address])?;
        None
    };
    if plan.icmp_by_fabric {
        fabric.answer_echo_for(plan.address);
    }
    Ok(Outside { name: plan.name.clone(), ns, load_balancer, delay: ServerDelay::default() })
}

/// Builds an office: a client, its gateway, and the tunnel that ends in the fabric.
///
/// # Errors
/// When the kernel refuses.
pub fn build_office(fabric: &mut Fabric, number: usize, plan: &OfficePlan) -> Result<Office> {
    let client = host_namespace(&plan.name, false)?;
    let gateway = host_namespace(&format!("{}-gateway", plan.name), true)?;
    let (nic, lan) =
        connect(&End { ns: &client, name: "eth0", mtu: 1500 }, &End { ns: &gateway, name: "lan", mtu: 1500 })?;
    link::add_address(&client, nic.index, plan.client, Prefix::host(plan.client).length(), PrefixRoute::Omit)?;
    default_route(&client, &nic, plan.gateway, &lan)?;
    link::add_address(&gateway, lan.index, plan.gateway, Prefix::host(plan.gateway).length(), PrefixRoute::Omit)?;
    lan.knows(plan.client, &nic)?;
    route::add_route(&gateway, &Route::to(plan.prefix.address(), plan.prefix.length()).dev(lan.index))?;
    let (office_end, fabric_end) = connect(
        &End { ns: &gateway, name: "tunnel", mtu: plan.tunnel_mtu },
        &End { ns: &fabric.ns, name: &format!("vpn{number}"), mtu: plan.tunnel_mtu },
    )?;
    link::add_address(
        &gateway,
        office_end.index,
        plan.tunnel.0,
        Prefix::host(plan.tunnel.0).length(),
        PrefixRoute::Omit,
    )?;
    default_route(&gateway, &office_end, plan.tunnel.1, &fabric_end)?;
    fabric.attach(fabric_end, PortKind::Other, plan.tunnel.0, &office_end, &[plan.prefix])?;
    if plan.swallow_fragmentation_needed {
        fabric.swallow_fragmentation_needed();
    }
    let office = Office { name: plan.name.clone(), client, gateway };
    if let Some(size) = plan.clamp {
        clamp(size, plan.prefix, ClampDirection::FromOffice).apply(&office.gateway)?;
    }
    Ok(office)
}

/// Which forwarded SYNs a gateway clamps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ClampDirection {
    /// Those that leave the office: what servers in the cloud see.
    #[default]
    FromOffice,
    /// Those (and SYN-ACKs) that come to the office.
    ToOffice,
    Both,
}

/// The rules by which a gateway writes `size` into the MSS option of forwarded SYNs and SYN-ACKs.
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
