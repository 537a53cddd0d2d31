//! `conntrack-limit`: the limit of the connection tracking table was lowered.
//!
//! What it sees: `nf_conntrack_max` smaller than at the poll before, weighed against the entries the node
//! carried within the last minute: `info` with room to spare, `warning` below two and a half times the load or once
//! the load reaches half the new limit, `critical` when the table is as good as full.
//! Why it matters: the table fills hours later; the fall is the one moment that names who did it.
//! Which incident: I2.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::claims::Claims;
use crate::detector::{Detector, DetectorInfo, Scope};
use crate::finding::{Finding, Level, Severity, Subject};
use crate::signal::{CollectorKind, ConntrackTable, Observed, Signal};
use crate::time::Time;

pub const INFO: DetectorInfo = DetectorInfo {
    name: "conntrack-limit",
    incident: "I2",
    level: Level::Cause,
    what: "The limit of the connection tracking table was lowered.",
    wants: &[CollectorKind::ConntrackTable],
    needs: &[&[CollectorKind::ConntrackTable]],
    scope: Scope::Node,
    arm: |_| Box::new(ConntrackLimit { nodes: BTreeMap::new() }),
};

/// How far back the load is remembered.
const MEMORY: Duration = Duration::from_mins(1);
/// A limit below five halves of the load is a warning (twice is the incident, ten times its twin): just
/// beyond the incident, since a neighbour of the one that is hit sees the same limit fall.
pub const NARROW: (u64, u64) = (5, 2);
/// With this many times the load, the limit is wide.
const WIDE: u64 = 10;

struct ConntrackLimit {
    nodes: BTreeMap<Arc<str>, Node>,
}

struct Node {
    claims: Claims,
    limit: u64,
    fall: Option<Fall>,
    /// The largest count of each second.
    peaks: VecDeque<(Time, u64)>,
}

struct Fall {
    from: u64,
    at: Time,
}

/// A limit of 0 means none (`net/netfilter/nf_conntrack_core.c`).
pub(crate) const fn effective_limit(table: ConntrackTable) -> u64 {
    if table.limit == 0 { u64::MAX } else { table.limit }
}

impl Node {
    fn peak(&mut self, at: Time, count: u64) -> u64 {
        match self.peaks.back_mut() {
            Some((second, peak)) if at.since(*second) < Duration::from_secs(1) => *peak = (*peak).max(count),
            _ => self.peaks.push_back((at, count)),
        }
        while self.peaks.front().is_some_and(|(second, _)| at.since(*second) > MEMORY) {
            self.peaks.pop_front();
        }
        self.peaks.iter().map(|(_, peak)| *peak).max().unwrap_or(count)
    }

    fn poll(&mut self, at: Time, name: &str, table: ConntrackTable, out: &mut Vec<Finding>) {
        let (count, limit) = (table.count, effective_limit(table));
        let peak = self.peak(at, count);
        let subject = Subject::node(name);
        let fell = limit < self.limit;
        if fell {
            let from = self.fall.as_ref().map_or(self.limit, |fall| fall.from.max(self.limit));
            self.fall = Some(Fall { from, at });
        }
        self.limit = limit;
        let Some(fall) = &self.fall else { return };
        // A fall that was never near the load stands until the limit is back: it always had room.
        let narrow = self.claims.standing(&subject).is_some_and(|severity| severity > Severity::Info);
        let over = if limit >= fall.from {
            format!("the limit is {limit} again")
        } else if narrow && !fell && limit / WIDE >= peak {
            format!("the limit is {limit}, and no more than {peak} entries were seen within a minute")
        } else {
            let severity = if count >= limit / 10 * 9 {
                Severity::Critical
            } else if fell && limit.saturating_mul(NARROW.1) < peak.saturating_mul(NARROW.0) || count >= limit / 2 {
                Severity::Warning
            } else {
                Severity::Info
            };
            let (from, since) = (fall.from, fall.at);
            self.claims.make(out, &subject, severity, since, || {
                format!(
                    "nf_conntrack_max on {name} fell {} -> {limit} with {count} entries in use, at most {peak} within a minute",
                    if from == u64::MAX { "from no limit".to_owned() } else { from.to_string() }
                )
            });
            return;
        };
        self.fall = None;
        self.claims.withdraw(out, &subject, over);
    }
}

impl Detector for ConntrackLimit {
    fn info(&self) -> &'static DetectorInfo {
        &INFO
    }

    fn observe(&mut self, _now: Time, signal: &Signal, out: &mut Vec<Finding>) {
        let Observed::ConntrackTable(table) = signal.observed else { return };
        let node = self.nodes.entry(Arc::clone(&signal.node)).or_insert_with(|| Node {
            claims: Claims::new(&INFO),
            limit: effective_limit(table),
            fall: None,
            peaks: VecDeque::new(),
        });
        node.poll(signal.at, &signal.node, table, out);
    }

    fn tick(&mut self, _now: Time, _out: &mut Vec<Finding>) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Scene, table};

    fn fall(count: u64, limits: [u64; 2]) -> Scene {
        let mut scene = Scene::new();
        scene.at(0, "worker-1", table(count, limits[0]));
        scene.at(100, "worker-1", table(count, limits[1]));
        scene
    }

    #[test]
    fn incident_kube_proxy_writes_its_default_little_above_the_load() {
        let scene = fall(522_000, [2_310_720, 524_288]);
        assert_eq!(scene.first("conntrack-limit", Severity::Critical), Some((100, "node/worker-1".into())));
        let scene = fall(2_600, [262_144, 4_096]);
        assert_eq!(scene.first("conntrack-limit", Severity::Warning), Some((100, "node/worker-1".into())));
        assert!(scene.evidence("conntrack-limit").contains("fell 262144 -> 4096 with 2600 entries"));
    }

    #[test]
    fn twin_still_far_above_the_load_is_info_only() {
        let mut scene = fall(2_600, [4_194_304, 26_000]);
        scene.until(5_000);
        assert_eq!(scene.worst("conntrack-limit"), Some(Severity::Info));
        scene.assert_quiet();
    }

    #[test]
    fn twin_raised_says_nothing() {
        let scene = fall(2_600, [4_096, 2_310_720]);
        assert_eq!(scene.findings, []);
    }

    #[test]
    fn the_recent_peak_counts_not_the_moment() {
        let mut scene = Scene::new();
        scene.at(0, "worker-1", table(3_000, 262_144));
        scene.at(5_000, "worker-1", table(100, 262_144));
        scene.at(5_100, "worker-1", table(100, 4_096));
        assert_eq!(scene.worst("conntrack-limit"), Some(Severity::Warning));
        // The load does not come back: a minute later there is room.
        scene.at(70_000, "worker-1", table(100, 4_096));
        assert!(scene.cleared("conntrack-limit"));
    }

    #[test]
    fn an_info_rises_when_the_load_reaches_half_of_the_lowered_limit() {
        let mut scene = fall(100, [262_144, 4_096]);
        scene.at(1_000, "worker-1", table(2_047, 4_096));
        assert_eq!(scene.worst("conntrack-limit"), Some(Severity::Info));
        scene.at(2_000, "worker-1", table(2_048, 4_096));
        assert_eq!(scene.first("conntrack-limit", Severity::Warning).unwrap().0, 2_000);
        scene.at(3_000, "worker-1", table(2_048, 262_144));
        assert!(scene.cleared("conntrack-limit"));
    }

    #[test]
    fn nodes_are_judged_each_by_its_own_count() {
        let mut scene = Scene::new();
        for (at, limit) in [(0, 262_144), (100, 4_096)] {
            scene.at(at, "worker-1", table(2_600, limit));
            scene.at(at, "worker-2", table(20, limit));
        }
        let loud: Vec<_> = scene.findings.iter().filter(|(_, f)| f.severity > Severity::Info).collect();
        assert!(loud.iter().all(|(_, f)| f.subject == Subject::node("worker-1")));
        assert!(!loud.is_empty());
    }

    #[test]
    fn two_falls_in_a_row_are_over_only_at_the_first_value() {
        let mut scene = fall(2_600, [262_144, 8_192]);
        scene.at(200, "worker-1", table(2_600, 4_096));
        scene.at(300, "worker-1", table(2_600, 8_192));
        assert!(!scene.cleared("conntrack-limit"));
        scene.at(400, "worker-1", table(2_600, 262_144));
        assert!(scene.cleared("conntrack-limit"));
    }
}
