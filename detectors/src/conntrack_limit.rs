//! `conntrack-limit`: the limit of the connection tracking table was lowered, or is lower than declared.
//!
//! What it sees: `nf_conntrack_max` is smaller than at the previous poll or than the operator declared, compared with
//! the node's entries within the last minute: `info` with room to spare, `warning` below two and a half times the load
//! or once the load reaches half the new limit, `critical` when the table is nearly full.
//! Why it matters: the table may fill hours later; only the moment of the change shows who made it.
//! Which incident: I2.

use std::collections::VecDeque;
use std::time::Duration;

use crate::detector::{Context, Detector, DetectorInfo, Scope, State, new};
use crate::finding::{Level, Severity, SubjectKind};
use crate::signal::{CollectorKind, Observed, Signal};
use crate::time::Time;

pub const INFO: DetectorInfo = DetectorInfo {
    name: "conntrack-limit",
    incident: "I2",
    level: Level::Cause,
    subjects: &[SubjectKind::Node],
    what: "The limit of the connection tracking table was lowered.",
    facts: "Without a declared limit it has to see the limit fall; a stale smaller one hides only falls from before \
            the start.",
    wants: &[CollectorKind::ConntrackTable],
    needs: &[&[CollectorKind::ConntrackTable]],
    scope: Scope::Node,
    state: State::EachNode(new::<ConntrackLimit>),
};

/// The window over which the load is measured.
const MEMORY: Duration = Duration::from_mins(1);
/// A limit below five halves of the load is a warning (twice is the incident, ten times its twin): slightly more than
/// the incident, because neighbours of the affected node see the same limit fall.
pub const NARROW: (u64, u64) = (5, 2);
/// At this many times the load, the limit is wide.
const WIDE: u64 = 10;

#[derive(Default)]
struct ConntrackLimit {
    limit: Option<u64>,
    fall: Option<Fall>,
    /// The largest count of each second.
    peaks: VecDeque<(Time, u64)>,
}

struct Fall {
    from: u64,
    at: Time,
    /// It was seen; otherwise the limit is lower than the declared one.
    seen: bool,
}

impl ConntrackLimit {
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
}

impl Detector for ConntrackLimit {
    fn observe(&mut self, cx: &mut Context<'_>, signal: &Signal) {
        let Observed::ConntrackTable(table) = signal.observed else { return };
        let (count, limit) = (table.count, table.effective_limit());
        let peak = self.peak(signal.at, count);
        let before = self.limit.replace(limit).unwrap_or(limit);
        let declared = cx.operator.conntrack_limit.map(u64::from).filter(|declared| limit < *declared);
        let seen = limit < before;
        // A limit below the declared one fell before it was seen.
        let fell = seen || declared.is_some() && self.fall.is_none();
        if fell {
            let before = if seen { before } else { declared.unwrap_or(before) };
            let from = self.fall.as_ref().map_or(before, |fall| fall.from.max(before));
            self.fall = Some(Fall { from, at: signal.at, seen });
        }
        let Some(fall) = &self.fall else { return };
        // A fall that never came near the load stands until the limit is back.
        let narrow = cx.claims.standing() > Some(Severity::Info);
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
            cx.claims.make(severity, fall.at, || {
                let from = if fall.from == u64::MAX { "from no limit".to_owned() } else { fall.from.to_string() };
                let how = if fall.seen {
                    format!("fell {from} -> {limit}")
                } else {
                    format!("is {limit}, and {from} was declared,")
                };
                format!(
                    "nf_conntrack_max on {} {how} with {count} entries in use, at most {peak} within a minute",
                    cx.node
                )
            });
            return;
        };
        self.fall = None;
        cx.claims.withdraw(over);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Subject;
    use crate::operator::Operator;
    use crate::testing::{Scene, operator, play, scene};

    const NAME: &str = INFO.name;

    #[test]
    fn incident_kube_proxy_writes_its_default_little_above_the_load() {
        scene!(NAME, "0 table 522000/2310720; 100 table 522000/524288 ? critical 100 node/worker-1");
        scene!(
            NAME,
            "0 table 2600/262144; 100 table 2600/4096 ? warning 100 node/worker-1
             100 ? evidence fell 262144 -> 4096 with 2600 entries"
        );
    }

    #[test]
    fn twin_still_far_above_the_load_is_info_only() {
        scene!(NAME, "0 table 2600/4194304; 100 table 2600/26000; 5000 ? info ? quiet");
    }

    /// A scene in which the operator declares this limit.
    fn declared(limit: u32) -> Scene {
        Scene::with(NAME, Operator { conntrack_limit: Some(limit), ..operator() })
    }

    #[test]
    fn late_a_limit_below_the_declared_one() {
        let mut scene = declared(262_144);
        play!(
            scene,
            "0 table 2600/4096 ? warning 0 node/worker-1 ? evidence is 4096, and 262144 was declared, with 2600"
        );
        play!(scene, "1000 table 2600/4096 ? not over; 2000 table 2600/262144 ? over");
        play!(declared(262_144), "0 table 4000/4096 ? critical 0 node/worker-1");
        // Undeclared, and it stays as it is.
        scene!(NAME, "0 table 2600/4096; 9000 table 2600/4096 ? silence");
    }

    #[test]
    fn late_twins_a_limit_as_declared_and_one_that_is_wide() {
        play!(declared(4096), "0 table 2600/4096; 9000 table 2600/4096 ? silence");
        let mut scene = declared(262_144);
        (0..200).for_each(|n| play!(scene, "{} table 100/26000", n * 1000));
        play!(scene, "? info ? quiet");
        assert_eq!(scene.findings.len(), 1);
    }

    #[test]
    fn twin_raised_says_nothing() {
        scene!(NAME, "0 table 2600/4096; 100 table 2600/2310720 ? silence");
    }

    #[test]
    fn the_recent_peak_counts_not_the_moment() {
        let calm = "0 table 3000/262144; 5000 table 100/262144; 5100 table 100/4096 ? warning";
        // The load does not come back: a minute later there is room again.
        scene!(NAME, "{calm}; 70000 table 100/4096 ? over");
    }

    #[test]
    fn an_info_rises_when_the_load_reaches_half_of_the_lowered_limit() {
        let fall = "0 table 100/262144; 100 table 100/4096; 1000 table 2047/4096 ? info";
        scene!(NAME, "{fall}; 2000 table 2048/4096 ? warning 2000 node/worker-1; 3000 table 2048/262144 ? over");
    }

    #[test]
    fn nodes_are_judged_each_by_its_own_count() {
        let mut scene = scene!(NAME, "");
        for (at, limit) in [(0, 262_144), (100, 4_096)] {
            play!(scene, "{at} table 2600/{limit}; {at} @worker-2 table 20/{limit}");
        }
        let loud: Vec<_> = scene.findings.iter().filter(|(_, f)| f.severity > Severity::Info).collect();
        assert!(loud.iter().all(|(_, f)| f.subject == Subject::node("worker-1")));
        assert!(!loud.is_empty());
    }

    #[test]
    fn two_falls_in_a_row_are_over_only_at_the_first_value() {
        let falls = "0 table 2600/262144; 100 table 2600/8192; 200 table 2600/4096";
        scene!(NAME, "{falls}; 300 table 2600/8192 ? not over; 400 table 2600/262144 ? over");
    }
}
