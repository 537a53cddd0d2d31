//! Cables: veth pairs between two namespaces, ready for the first packet.
//!
//! Invariants: no two ends of a run share an interface index or a MAC (equal indexes delay RUNNING
//! by a second), and each user of a cable has a permanent neighbour entry for the other end.

use std::sync::atomic::{AtomicU32, Ordering};

use relapse_kernel::Result;
use relapse_kernel::builder::{Builder, VethEnd};

/// One end of a cable to create.
pub struct End<'a> {
    pub at: &'a Builder,
    pub name: &'a str,
    pub mtu: u16,
}

/// Allocates interface indexes, and MACs derived from them. Far above those of the machine: a NIC moved by Docker into
/// a kind node keeps its index, and the kernel refuses a duplicate with `EEXIST`.
static NEXT: AtomicU32 = AtomicU32::new(1 << 23);

/// Connects two namespaces; both ends are up when this returns.
///
/// # Errors
/// When the kernel refuses to create the pair.
pub async fn connect(a: &End<'_>, b: &End<'_>) -> Result<(VethEnd, VethEnd)> {
    let (a, b) = (plug(a), plug(b));
    a.make(&b).await?;
    Ok((a, b))
}

fn plug(end: &End<'_>) -> VethEnd {
    let index = NEXT.fetch_add(1, Ordering::Relaxed);
    let [_, b, c, d] = index.to_be_bytes();
    let mac = [0x02, 0x52, 0x4c, b, c, d];
    VethEnd { at: end.at.clone(), name: end.name.to_owned(), index, mac, mtu: u32::from(end.mtu) }
}
