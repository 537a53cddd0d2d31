//! Cables: veth pairs between two namespaces, ready to carry the first packet at once.
//!
//! Invariants: no two ends of a run share an interface index or a MAC (equal indexes delay RUNNING
//! by a second), and whoever speaks over a cable has a permanent neighbour entry for the other end.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use relapse_kernel::link::{VethEnd, add_veth};
use relapse_kernel::{NetNs, Result, route};

/// One end of a cable that is plugged in.
#[derive(Debug, Clone)]
pub struct Port {
    pub ns: NetNs,
    pub name: String,
    pub index: u32,
    pub mac: [u8; 6],
}

/// What an end shall be.
pub struct End<'a> {
    pub ns: &'a NetNs,
    pub name: &'a str,
    pub mtu: u16,
}

/// Hands out interface indexes, and MACs made from them. Far above those of the machine: a NIC that Docker moved into a
/// kind node kept its index, and the kernel refuses a second one with `EEXIST`.
static NEXT: AtomicU32 = AtomicU32::new(1 << 23);

/// Connects two namespaces; both ends are up when this returns.
///
/// # Errors
/// When the kernel refuses to make the pair.
pub fn connect(a: &End<'_>, b: &End<'_>) -> Result<(Port, Port)> {
    let ((a, a_mtu), (b, b_mtu)) = (plug(a), plug(b));
    add_veth(&a.end(a_mtu), &b.end(b_mtu))?;
    Ok((a, b))
}

fn plug(end: &End<'_>) -> (Port, u16) {
    let index = NEXT.fetch_add(1, Ordering::Relaxed);
    let [_, b, c, d] = index.to_be_bytes();
    let port = Port { ns: end.ns.clone(), name: end.name.to_owned(), index, mac: [0x02, 0x52, 0x4c, b, c, d] };
    (port, end.mtu)
}

impl Port {
    fn end(&self, mtu: u16) -> VethEnd<'_> {
        VethEnd { ns: &self.ns, name: &self.name, index: self.index, mac: self.mac, mtu: u32::from(mtu) }
    }

    /// Tells this end that `address` is answered by `peer`, for good.
    ///
    /// # Errors
    /// When the kernel refuses the entry.
    pub fn knows(&self, address: IpAddr, peer: &Self) -> Result<()> {
        route::add_neighbour(&self.ns, self.index, address, peer.mac)
    }
}
