//! Connection tracking entries that stand for unrelated connections, with which a fault fills a table.

use std::io::{Error, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;

use relapse_kernel::conntrack::{Conntrack, Entry};
use relapse_kernel::{NetNs, sysctl};

use crate::fault::FaultError;

/// The setting that enables events about entries.
const EVENTS: &str = "net.netfilter.nf_conntrack_events";

/// A distinct socket address for each number, in a /16 network that is not routed (such as those of RFC 2544).
pub fn numbered(network: [u8; 2], number: u64) -> SocketAddr {
    let [.., a, b, c, d] = number.to_be_bytes();
    // 14 bits of port, the rest of the number in the address: all different.
    let port = 1024 + (u16::from_be_bytes([c, d]) & 0x3fff);
    let address = u32::from_be_bytes([network[0], network[1], 0, 1])
        + (u32::from_be_bytes([0, a, b, 0]) >> 8 << 2)
        + u32::from(c >> 6);
    (Ipv4Addr::from(address), port).into()
}

/// Inserts entries with a mark that identifies them for removal. No events are sent about them, at insertion or
/// removal: a quarter of a million in half a second would displace those of real flows from any listener's buffer.
pub fn insert(ns: &NetNs, mark: NonZeroU32, entries: &mut dyn Iterator<Item = Entry>) -> Result<(), FaultError> {
    let table = Conntrack::open(ns)?;
    let inserted =
        without_events(ns, || table.insert(&mut entries.map(|entry| Entry { mark: mark.get(), ..entry })).map(drop));
    let full =
        |e: &FaultError| e.errno().map(|errno| Error::from_raw_os_error(errno).kind()) == Some(ErrorKind::OutOfMemory);
    // A full table is what is wanted.
    inserted.or_else(|e| if full(&e) { Ok(()) } else { Err(e) })
}

/// Does a job while the kernel sends no events about entries that are made.
pub fn without_events<T>(ns: &NetNs, job: impl FnOnce() -> Result<T, FaultError>) -> Result<T, FaultError> {
    let before = sysctl::read(ns, EVENTS)?;
    sysctl::write(ns, EVENTS, "0")?;
    let done = job();
    sysctl::write(ns, EVENTS, before.trim())?;
    done
}

/// How full the table is; an error if it has fewer than `wanted` entries.
pub fn read_back(ns: &NetNs, wanted: u64) -> Result<String, FaultError> {
    let (count, limit) = Conntrack::open(ns)?.table()?;
    let read_back = format!("{count} of {limit}");
    if count < wanted {
        return Err(FaultError::NotInForce { what: format!("fill the table of {}", ns.name()), read_back });
    }
    Ok(read_back)
}
