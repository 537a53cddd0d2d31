//! Two namespaces with a link between them, addressed, with permanent neighbours.

use std::net::{IpAddr, Ipv4Addr};

use relapse_kernel::builder::{Builder, VethEnd};
use relapse_kernel::link::{LOOPBACK, set_up};
use relapse_kernel::route::Route;
use relapse_kernel::sysctl::{apply, lab_settings};
use relapse_kernel::{NetNs, Result};

pub struct Side {
    pub index: u32,
    pub address: IpAddr,
}

pub fn namespace(name: &str, forward: bool) -> NetNs {
    let ns = NetNs::create(name).expect("a namespace");
    apply(&ns, &lab_settings(forward)).expect("settings");
    set_up(&ns, LOOPBACK, true).expect("lo up");
    ns
}

/// Builds, in a runtime of its own: a test may be a task of another.
pub fn build<T: Send>(job: impl AsyncFnOnce() -> Result<T> + Send) -> Result<T> {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(job())
    };
    std::thread::scope(|scope| scope.spawn(run).join().expect("no panic"))
}

/// Joins two namespaces by 10.0.`subnet`.0/24: the first is .1, the second .2. Interface indexes and
/// MAC addresses follow from `subnet`.
pub fn join(a: &NetNs, b: &NetNs, subnet: u8, mtu: u32) -> (Side, Side) {
    let name = format!("net{subnet}");
    let index = u32::from(subnet) * 2 + 10;
    let mac = |host| [2, 0, 0, 0, subnet, host];
    let address = |host| IpAddr::V4(Ipv4Addr::new(10, 0, subnet, host));
    let joined = build(async || {
        let end = |ns, index, host| {
            let (name, mac) = (name.clone(), mac(host));
            Ok(VethEnd { at: Builder::open(ns)?, name, index, mac, mtu })
        };
        let (near, far) = (end(a, index, 1)?, end(b, index + 1, 2)?);
        near.make(&far).await?;
        let network = Route::to(IpAddr::V4(Ipv4Addr::new(10, 0, subnet, 0)), 24);
        for (own, host, peer, other) in [(&near, 1, &far, 2), (&far, 2, &near, 1)] {
            own.at.add_address(own.index, address(host), 24).await?;
            own.at.add_route(&network.clone().dev(own.index)).await?;
            own.knows(address(other), peer).await?;
        }
        Ok(())
    });
    joined.expect("joined");
    (Side { index, address: address(1) }, Side { index: index + 1, address: address(2) })
}
