//! Connection tracking of a namespace: table size, statistics, entries, and notifications.
//!
//! A [`Conntrack`] is opened once and queried often. Everything uses ctnetlink
//! (`net/netfilter/nf_conntrack_netlink.c`, numbers in `linux/netfilter/nfnetlink_conntrack.h`), so it
//! needs only `CAP_NET_ADMIN` over the namespace, and shows this namespace only, whichever thread uses it.
//!
//! Connection tracking is idle in a namespace until a rule uses it (a `ct` expression, a chain of
//! type nat); entries inserted here are kept nevertheless, and expire.
//!
//! Left out: expectations, zones, labels, helpers; changing an existing entry.

mod decode;
mod encode;
mod entry;
mod events;
mod numbers;
mod stats;

pub use self::entry::{Entry, status};
pub use self::events::{Change, ConntrackEvents, Event};
pub use self::stats::Stats;

use std::num::NonZeroU32;

use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::conntrack::{ConntrackAttribute, ConntrackMessage};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};
use netlink_sys::protocols::NETLINK_NETFILTER;

use self::encode::Messages;
use self::numbers::CTA_MARK_MASK;
use self::stats::Global;
use crate::error::{Error, Result};
use crate::netlink::{Netlink, Refusal};
use crate::netns::NetNs;

const IPCTNL_MSG_CT_GET_STATS_CPU: u8 = 4;
const IPCTNL_MSG_CT_GET_STATS: u8 = 5;

/// The number of messages in one send. Refusals of all of them still fit in an ordinary receive buffer.
const AT_ONCE: usize = 256;

/// A ctnetlink socket for one namespace.
pub struct Conntrack(Netlink);

impl Conntrack {
    /// # Errors
    /// When the namespace cannot be entered or the socket cannot be created.
    pub fn open(ns: &NetNs) -> Result<Self> {
        ns.netlink(NETLINK_NETFILTER).map(Self)
    }

    /// The number of entries and its limit: one short request, cheap enough to repeat every few milliseconds. The
    /// limit is that of the machine (`nf_conntrack_max`), the count that of the namespace.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn table(&self) -> Result<(u64, u64)> {
        let request = other(IPCTNL_MSG_CT_GET_STATS);
        let Global { count, limit } = self.0.get("count conntrack entries", request)?;
        count.zip(limit).ok_or_else(|| Error::Answer {
            what: format!("count conntrack entries in {}", self.0.place),
            answer: "no count".into(),
        })
    }

    /// Statistics since the namespace was created, summed over all CPUs.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn stats(&self) -> Result<Stats> {
        let each = self.0.dump("read conntrack statistics", other(IPCTNL_MSG_CT_GET_STATS_CPU), Some)?;
        Ok(each.into_iter().sum())
    }

    /// All entries. The table may change while the kernel lists it: an entry created or removed
    /// meanwhile may be missing.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        self.0.dump("list conntrack entries", message(ConntrackMessage::Get(Vec::new())), Some)
    }

    /// Removes exactly the entries for which `condition` holds, not later ones with the same addresses;
    /// returns the number that still existed.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete_where(&self, condition: impl Fn(&Entry) -> bool) -> Result<usize> {
        let entries = self.entries()?;
        let mut wanted = entries.iter().filter(|entry| condition(entry));
        self.send(&mut wanted, Messages::delete, libc::ENOENT, "delete conntrack entries")
    }

    /// Inserts entries, such as filler for the table ([`Entry::established`]). Existing entries are skipped;
    /// returns the number inserted.
    ///
    /// # Errors
    /// When the kernel refuses, `ENOMEM` if the table is full (the kernel then also logs it).
    pub fn insert(&self, entries: &mut dyn Iterator<Item = Entry>) -> Result<usize> {
        self.send(entries, |messages, entry| messages.insert(&entry), libc::EEXIST, "insert conntrack entries")
    }

    /// Removes every entry with this `mark` in one request, filtered by the kernel
    /// (`ctnetlink_flush_conntrack` in net/netfilter/nf_conntrack_netlink.c).
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete_marked(&self, mark: NonZeroU32) -> Result<()> {
        // Before 5.8 a mark without a mask filters nothing, and every entry would be removed.
        let mask = DefaultNla::new(CTA_MARK_MASK, u32::MAX.to_be_bytes().to_vec());
        let marked = vec![ConntrackAttribute::CtaMark(mark.get()), ConntrackAttribute::Other(mask)];
        let marked = ConntrackMessage::Delete(marked);
        self.0.change("delete marked conntrack entries", message(marked), 0)
    }

    /// Sends a message for each item; counts those that were not refused with `harmless`.
    fn send<T>(
        &self,
        items: &mut dyn Iterator<Item = T>,
        add: impl Fn(&mut Messages, T),
        harmless: i32,
        what: &str,
    ) -> Result<usize> {
        let mut done = 0;
        let mut messages = Messages::default();
        loop {
            items.take(AT_ONCE).for_each(|item| add(&mut messages, item));
            if messages.count() == 0 {
                return Ok(done);
            }
            let refusals = self.0.send_each(what, messages.finish())?;
            done += messages.count() - refusals.len();
            let serious = |r: &Refusal| r.error.raw_os_error() != Some(harmless);
            if let Some(refusal) = refusals.into_iter().find(serious) {
                return Err(Error::kernel(format!("{what} in {}, after {done}", self.0.place), refusal.error));
            }
            messages.clear();
        }
    }
}

fn message(inner: ConntrackMessage) -> NetfilterMessage {
    NetfilterMessage::new(NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, 0), inner)
}

fn other(message_type: u8) -> NetfilterMessage {
    message(ConntrackMessage::Other { message_type, attributes: Vec::new() })
}
