//! The counters of connection tracking.

use std::ops::AddAssign;

use netlink_packet_core::{DecodeError, NetlinkDeserializable, NetlinkHeader};

use super::decode::{number, of_message};

const CTA_STATS_GLOBAL_ENTRIES: u16 = 1;
const CTA_STATS_GLOBAL_MAX_ENTRIES: u16 = 2;

/// What happened in a namespace, over all CPUs (`enum ctattr_stats_cpu`). The kernel counts each in
/// 32 bits a CPU, which may wrap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Look-ups for a translated tuple that found it taken.
    pub found: u64,
    /// Packets that could not be tracked.
    pub invalid: u64,
    /// Entries put in. Kernels count those of ctnetlink only.
    pub insert: u64,
    /// Entries that were not put in: another flow had the same tuple (a port already taken).
    pub insert_failed: u64,
    /// Packets dropped because an entry could not be made, as when the table is full.
    pub drop: u64,
    /// Entries given up early to make room.
    pub early_drop: u64,
    /// ICMP errors that could not be tracked.
    pub error: u64,
    /// Look-ups begun anew because the table was resized.
    pub search_restart: u64,
    /// Races of two packets of one flow that were resolved.
    pub clash_resolve: u64,
    /// Entries that were not put in: too many others in the same place of the table.
    pub chain_toolong: u64,
}

/// Those of the fields below.
const FIELDS: std::ops::RangeInclusive<u16> = 2..=15;

impl Stats {
    fn field(&mut self, kind: u16) -> Option<&mut u64> {
        Some(match kind {
            2 => &mut self.found,
            4 => &mut self.invalid,
            8 => &mut self.insert,
            9 => &mut self.insert_failed,
            10 => &mut self.drop,
            11 => &mut self.early_drop,
            12 => &mut self.error,
            13 => &mut self.search_restart,
            14 => &mut self.clash_resolve,
            15 => &mut self.chain_toolong,
            _ => return None,
        })
    }
}

impl AddAssign for Stats {
    fn add_assign(&mut self, other: Self) {
        for kind in FIELDS {
            let more = { other }.field(kind).map_or(0, |field| *field);
            if let Some(field) = self.field(kind) {
                *field += more;
            }
        }
    }
}

/// Of one CPU.
impl NetlinkDeserializable for Stats {
    type Error = DecodeError;

    fn deserialize(_: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        let mut stats = Self::default();
        for (kind, value) in of_message(payload) {
            if let Some(field) = stats.field(kind) {
                *field = u32::from_be_bytes(number(value)).into();
            }
        }
        Ok(stats)
    }
}

/// How many entries there are, and how many there may be.
pub(super) struct Global {
    pub count: Option<u64>,
    pub limit: Option<u64>,
}

impl NetlinkDeserializable for Global {
    type Error = DecodeError;

    fn deserialize(_: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        let mut global = Self { count: None, limit: None };
        for (kind, value) in of_message(payload) {
            let value = Some(u32::from_be_bytes(number(value)).into());
            match kind {
                CTA_STATS_GLOBAL_ENTRIES => global.count = value,
                CTA_STATS_GLOBAL_MAX_ENTRIES => global.limit = value,
                _ => {}
            }
        }
        Ok(global)
    }
}
