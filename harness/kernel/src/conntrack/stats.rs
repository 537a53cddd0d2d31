//! The counters of connection tracking.

use std::iter::Sum;

use netlink_packet_core::{DecodeError, NetlinkDeserializable, NetlinkHeader};

use super::decode::{number, of_message};

// `enum ctattr_stats_cpu`.
const CTA_STATS_INVALID: u16 = 4;
const CTA_STATS_INSERT_FAILED: u16 = 9;
const CTA_STATS_DROP: u16 = 10;
const CTA_STATS_EARLY_DROP: u16 = 11;
const CTA_STATS_CLASH_RESOLVE: u16 = 14;
// `enum ctattr_stats_global`.
const CTA_STATS_GLOBAL_ENTRIES: u16 = 1;
const CTA_STATS_GLOBAL_MAX_ENTRIES: u16 = 2;

/// Counters of a namespace, summed over all CPUs. The kernel's are 32 bits per CPU and may wrap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Packets that could not be tracked.
    pub invalid: u64,
    /// Entries not inserted because another flow had the same tuple (a port already in use).
    pub insert_failed: u64,
    /// Packets dropped because an entry could not be created, for instance in a full table.
    pub drop: u64,
    /// Entries evicted early to make room.
    pub early_drop: u64,
    /// Races of two packets of one flow that were resolved.
    pub clash_resolve: u64,
}

impl Sum for Stats {
    fn sum<I: Iterator<Item = Self>>(each: I) -> Self {
        each.fold(Self::default(), |all, one| Self {
            invalid: all.invalid + one.invalid,
            insert_failed: all.insert_failed + one.insert_failed,
            drop: all.drop + one.drop,
            early_drop: all.early_drop + one.early_drop,
            clash_resolve: all.clash_resolve + one.clash_resolve,
        })
    }
}

/// The counters of one CPU.
impl NetlinkDeserializable for Stats {
    type Error = DecodeError;

    fn deserialize(_: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        let mut stats = Self::default();
        for (kind, value) in of_message(payload) {
            let field = match kind {
                CTA_STATS_INVALID => &mut stats.invalid,
                CTA_STATS_INSERT_FAILED => &mut stats.insert_failed,
                CTA_STATS_DROP => &mut stats.drop,
                CTA_STATS_EARLY_DROP => &mut stats.early_drop,
                CTA_STATS_CLASH_RESOLVE => &mut stats.clash_resolve,
                _ => continue,
            };
            *field = u32::from_be_bytes(number(value)).into();
        }
        Ok(stats)
    }
}

/// The number of entries and its limit.
pub(super) struct Global {
    pub count: Option<u64>,
    pub limit: Option<u64>,
}

impl NetlinkDeserializable for Global {
    type Error = DecodeError;

    fn deserialize(_: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        let attribute = |wanted| of_message(payload).find(|(kind, _)| *kind == wanted);
        let number = |wanted| attribute(wanted).map(|(_, value)| u32::from_be_bytes(number(value)).into());
        Ok(Self { count: number(CTA_STATS_GLOBAL_ENTRIES), limit: number(CTA_STATS_GLOBAL_MAX_ENTRIES) })
    }
}
