//! What stands on a node beside the pods, their rules and their table.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::capped::Capped;
use crate::prefix::Prefix;
use crate::signal::{Change, Route};
use crate::time::Time;

/// Limit on look-ups, and on destinations reached by the node's NIC.
pub(super) const CAP: usize = 4096;
/// `RT_TABLE_MAIN` (include/uapi/linux/rtnetlink.h).
const MAIN: u32 = 254;
/// The kernel's own tables: default, main and local.
pub(super) const KERNELS: [u32; 3] = [253, MAIN, 255];

/// What is known beside the pods, their rules and their table.
#[derive(Debug, Default)]
pub(super) struct Start {
    /// When the node was first seen.
    pub since: Option<Time>,
    /// Routes of all tables but the pods' own.
    pub others: BTreeSet<(u32, Option<Prefix>, u32)>,
    /// When the node's route to each of these pods was removed.
    pub removed: Capped<IpAddr, Time, CAP>,
    /// Pods that got an answer by the node's NIC, where they belong.
    pub at_home: Capped<IpAddr, (), CAP>,
}

impl Start {
    pub fn seen(&mut self, at: Time) {
        self.since.get_or_insert(at);
    }

    pub fn route(&mut self, at: Time, route: &Route) {
        let key = (route.table, route.destination, route.metric);
        if route.change == Change::Removed {
            self.others.remove(&key);
            if let Some(host) = route.destination.filter(|to| route.table == MAIN && *to == Prefix::host(to.address()))
            {
                self.removed.insert(host.address(), at);
            }
        } else {
            self.others.insert(key);
        }
    }

    pub fn answered(&mut self, pod: IpAddr) {
        self.at_home.insert(pod, ());
    }

    pub fn is_filled(&self, table: u32) -> bool {
        self.others.range((table, None, 0)..).next().is_some_and(|(first, ..)| *first == table)
    }

    pub fn has_host_route(&self, pod: IpAddr) -> bool {
        let host = Some(Prefix::host(pod));
        self.others.range((MAIN, host, 0)..=(MAIN, host, u32::MAX)).next().is_some()
    }
}
