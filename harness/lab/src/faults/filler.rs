//! Entries of connection tracking that stand for other people's connections: what two faults fill a table with.

use std::io::{Error, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;

use relapse_kernel::conntrack::{Conntrack, Entry};
use relapse_kernel::{NetNs, sysctl};

use crate::fault::FaultError;

/// The setting by which news of entries are told.
const EVENTS: &str = "net.netfilter.nf_conntrack_events";

/// One of a network of /16 that is routed nowhere (RFC 2544 has some), another one for each number.
pub fn numbered(network: [u8; 2], number: u64) -> SocketAddr {
    let [.., a, b, c, d] = number.to_be_bytes();
    // 14 bits of port, the rest of the number in the address: all different.
    let port = 1024 + (u16::from_be_bytes([c, d]) & 0x3fff);
    let address = u32::from_be_bytes([network[0], network[1], 0, 1])
        + (u32::from_be_bytes([0, a, b, 0]) >> 8 << 2)
        + u32::from(c >> 6);
    (Ipv4Addr::from(address), port).into()
}

/// Puts entries in, by whose mark they are told from everything else when they go. No events are told of them, neither
/// now nor then: a quarter of a million in half a second would drown those of real flows in any listener's buffer.
pub fn put_in(ns: &NetNs, mark: NonZeroU32, entries: &mut dyn Iterator<Item = Entry>) -> Result<(), FaultError> {
    let table = Conntrack::open(ns)?;
    let before = sysctl::read(ns, EVENTS)?;
    sysctl::write(ns, EVENTS, "0")?;
    let put = table.insert(&mut entries.map(|entry| Entry { mark: mark.get(), ..entry })).map(drop);
    sysctl::write(ns, EVENTS, before.trim())?;
    let full =
        |e: &FaultError| e.errno().map(|errno| Error::from_raw_os_error(errno).kind()) == Some(ErrorKind::OutOfMemory);
    // A table that is full is as full as it can be.
    put.or_else(|e| if full(&e) { Ok(()) } else { Err(e) })
}

/// How full the table is; an error where there are fewer entries than these.
pub fn read_back(ns: &NetNs, wanted: u64) -> Result<String, FaultError> {
    let (count, limit) = Conntrack::open(ns)?.table()?;
    let read_back = format!("{count} of {limit}");
    if count < wanted {
        return Err(FaultError::NotInForce { what: format!("fill the table of {}", ns.name()), read_back });
    }
    Ok(read_back)
}
