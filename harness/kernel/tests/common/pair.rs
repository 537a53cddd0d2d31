//! Two namespaces with a link between them, addressed, with permanent neighbours.

use std::net::{IpAddr, Ipv4Addr};

use relapse_kernel::NetNs;
use relapse_kernel::link::{PrefixRoute, VethEnd, add_address, add_veth, loopback_up};
use relapse_kernel::route::add_neighbour;
use relapse_kernel::sysctl::{apply, lab_settings};

pub struct Side {
    pub index: u32,
    pub address: IpAddr,
}

pub fn namespace(name: &str, forward: bool) -> NetNs {
    let ns = NetNs::create(name).expect("a namespace");
    apply(&ns, &lab_settings(forward)).expect("settings");
    loopback_up(&ns).expect("lo up");
    ns
}

/// Joins two namespaces by 10.0.`subnet`.0/24: the first is .1, the second .2. Interface indexes and
/// MAC addresses follow from `subnet`.
pub fn join(a: &NetNs, b: &NetNs, subnet: u8, mtu: u32) -> (Side, Side) {
    let name = format!("net{subnet}");
    let index = u32::from(subnet) * 2 + 10;
    let mac = |host| [2, 0, 0, 0, subnet, host];
    let address = |host| IpAddr::V4(Ipv4Addr::new(10, 0, subnet, host));
    add_veth(
        &VethEnd { ns: a, name: &name, index, mac: mac(1), mtu },
        &VethEnd { ns: b, name: &name, index: index + 1, mac: mac(2), mtu },
    )
    .expect("a pair");
    let sides = [(a, index, 1, 2), (b, index + 1, 2, 1)].map(|(ns, index, host, other)| {
        add_address(ns, index, address(host), 24, PrefixRoute::Add).expect("an address");
        add_neighbour(ns, index, address(other), mac(other)).expect("a neighbour");
        Side { index, address: address(host) }
    });
    sides.into()
}
