//! `conntrack-exhaustion`: new flows are dropped because the connection tracking table is full.
//!
//! What it sees: `drop` (or, in a full table, `early_drop`) grows; the count stays at the limit; the kernel log has
//! "table full in netns N" with the namespace of this node.
//! Why it matters: established connections continue, new ones time out, and nothing else on the node is wrong.
//! Which incident: I2.
//!
//! Left out on purpose: lines of the kernel log that name no namespace (older kernels) or another one, since the log is
//! the machine's and several nodes may share it; `insert_failed` and `clash_resolve`, which grow in an empty table too.
//! Failed insertions that the kernel also counts as drops are subtracted.

use std::time::Duration;

use crate::detector::{Context, Detector, DetectorInfo, Scope, State, new};
use crate::finding::{Level, Severity, SubjectKind};
use crate::signal::{CollectorKind, ConntrackStats, ConntrackTable, KernelLog, Observed, Signal};
use crate::time::Time;

pub const INFO: DetectorInfo = DetectorInfo {
    name: "conntrack-exhaustion",
    incident: "I2",
    level: Level::Symptom,
    subjects: &[SubjectKind::Node],
    what: "New flows are dropped because the connection tracking table is full.",
    facts: "It finds the same with none and with stale facts.",
    wants: &[CollectorKind::ConntrackTable, CollectorKind::ConntrackStats, CollectorKind::KernelLog],
    needs: &[&[CollectorKind::ConntrackTable, CollectorKind::ConntrackStats]],
    scope: Scope::Node,
    state: State::EachNode(new::<ConntrackExhaustion>),
};

/// The finding is over without a new sign for this long and below `FULL`.
const QUIET: Duration = Duration::from_secs(1);
/// Signs of different collectors within this time belong together.
const TOGETHER: Duration = Duration::from_secs(2);
/// Per mille of the limit. A dropped entry is counted only briefly, so a poll may see slightly less.
const SUPPORTS_DROP: u128 = 800;
const FULL: u128 = 950;
const AT_LIMIT: u128 = 980;

#[derive(Default)]
struct ConntrackExhaustion {
    stats: Option<ConntrackStats>,
    table: Option<(Time, ConntrackTable)>,
    /// The last sign of dropped flows, and its time.
    sign: Option<(Time, String)>,
    /// Growth of `drop` and of `early_drop` not yet confirmed by the table.
    dropped: Option<(Time, u64)>,
    evicted: Option<(Time, u64)>,
}

/// Whether the kernel reports that the table of this node is full (`__nf_conntrack_alloc` in
/// net/netfilter/nf_conntrack_core.c; the number is that of the namespace's inode).
fn is_full(log: &KernelLog) -> bool {
    let rest = log.line.split_once("nf_conntrack: table full in netns ").map(|(_, rest)| rest);
    let named = rest.and_then(|rest| rest.split(',').next()?.parse::<u64>().ok());
    named.is_some() && named == log.netns
}

fn share(table: ConntrackTable) -> u128 {
    table.share_of(1000)
}

impl ConntrackExhaustion {
    fn stats(&mut self, at: Time, stats: ConntrackStats) {
        let Some(before) = self.stats.replace(stats) else { return };
        let grown = stats.since(&before);
        for (growth, more) in [(&mut self.dropped, grown.drop), (&mut self.evicted, grown.early_drop)] {
            if more > 0 {
                *growth = Some((at, more + growth.map_or(0, |(_, earlier)| earlier)));
            }
        }
    }

    fn table(&mut self, at: Time, table: ConntrackTable) {
        let before = self.table.replace((at, table)).map_or(0, |(_, before)| share(before));
        let at_limit = share(table) >= 1000 || share(table) >= AT_LIMIT && before >= AT_LIMIT;
        if at_limit {
            self.sign = Some((at, "the count is at the limit".to_owned()));
        }
    }

    /// Accepts the signs that the table's state confirms.
    fn confirm(&mut self) {
        let Some((polled, table)) = self.table else {
            // Without a table to compare with, the counter alone decides.
            if let Some((at, drops)) = self.dropped.take() {
                self.sign = Some((at, format!("drop grew by {drops}")));
            }
            return;
        };
        let near = |at: Time| polled.since(at) <= TOGETHER && at.since(polled) <= TOGETHER;
        let share = share(table);
        if share >= FULL
            && let Some((at, evicted)) = self.evicted.take_if(|(at, _)| near(*at))
        {
            self.sign = Some((at, format!("early_drop grew by {evicted}")));
        }
        if share >= SUPPORTS_DROP
            && let Some((at, drops)) = self.dropped.take_if(|(at, _)| near(*at))
        {
            self.sign = Some((at, format!("drop grew by {drops}")));
        }
    }

    fn judge(&mut self, cx: &mut Context<'_>) {
        self.confirm();
        let share = self.table.map_or(0, |(_, table)| share(table));
        let state = || match self.table {
            Some((_, table)) => {
                format!("; {} of {} entries in use on {}", table.count, table.effective_limit(), cx.node)
            }
            None => String::new(),
        };
        if let Some((at, sign)) = &self.sign {
            if cx.now.since(*at) < QUIET || share >= FULL {
                let severity = if share >= FULL { Severity::Critical } else { Severity::Warning };
                cx.claims.make(severity, *at, || format!("{sign}{}", state()));
                return;
            }
            cx.claims.withdraw(format!("no more drops for {} s{}", QUIET.as_secs(), state()));
            self.sign = None;
        }
        for growth in [&mut self.dropped, &mut self.evicted] {
            *growth = growth.filter(|(at, _)| cx.now.since(*at) <= TOGETHER);
        }
    }
}

impl Detector for ConntrackExhaustion {
    fn observe(&mut self, cx: &mut Context<'_>, signal: &Signal) {
        match &signal.observed {
            Observed::ConntrackStats(stats) => self.stats(signal.at, *stats),
            Observed::ConntrackTable(table) => self.table(signal.at, *table),
            Observed::KernelLog(log) if is_full(log) => {
                self.sign =
                    Some((signal.at, "the kernel log reports \"table full\" in this node's namespace".to_owned()));
            }
            _ => return,
        }
        self.judge(cx);
    }

    fn tick(&mut self, cx: &mut Context<'_>) {
        self.judge(cx);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::finding::Subject;
    use crate::testing::{Scene, play, scene};

    const NAME: &str = INFO.name;

    /// The limit falls to just above the load; the load keeps growing and fills the table.
    pub(crate) fn incident() -> Scene {
        let mut scene = scene!(NAME, "");
        for step in 0_u64..30 {
            let (at, count, drops) = (step * 100, (2_500 + step * 80).min(4_096), step.saturating_sub(20) * 7);
            let limit = if step < 5 { 524_288 } else { 4_096 };
            play!(scene, "{at} table {count}/{limit}; {} @worker-2 table 60/{limit}", at + 2);
            play!(scene, "{} stats drop={drops}", at + 5);
        }
        play!(scene, "3000 table 4096/524288; 3002 @worker-2 table 60/524288; 5200 table 4000/524288");
        scene
    }

    #[test]
    fn incident_the_cause_precedes_the_symptom() {
        let mut scene = incident();
        play!(scene, "? conntrack-limit: warning 500 node/worker-1 ? warning 2000 node/worker-1");
        play!(scene, "? over ? conntrack-limit: over ? conntrack-pressure: over");
    }

    #[test]
    fn incident_drops_grow_in_a_full_table_and_end() {
        let mut scene = scene!(NAME, "0 stats drop=7; 0 table 4000/4096; 100 stats drop=7 ? nothing");
        play!(scene, "200 stats drop=19 ? critical 200 node/worker-1");
        assert!(scene.evidence(NAME).contains("drop grew by 12; 4000 of 4096 entries"));
        // Still full.
        play!(scene, "2500 ? not over; 2600 table 4000/262144 ? over");
    }

    #[test]
    fn drops_before_the_poll_that_shows_the_full_table() {
        // The previous poll does not confirm it.
        let dropped = "0 stats drop=0; 0 table 3000/262144; 100 stats drop=3 ? nothing";
        scene!(NAME, "{dropped}; 150 table 3000/2000 ? critical");
    }

    #[test]
    fn a_count_at_the_limit_is_enough() {
        // One poll just below the limit may pass.
        scene!(NAME, "0 table 990/1000 ? nothing; 100 table 990/1000 ? critical");
    }

    #[test]
    fn twin_dns_races_in_a_nearly_empty_table() {
        let mut scene = scene!(NAME, "0 table 40/262144");
        for step in 0..20 {
            let (at, failed, clashes) = (step * 100, step * 3, step * 5);
            play!(scene, "{at} stats drop={failed} insert_failed={failed} clash_resolve={clashes} ? silence");
        }
    }

    #[test]
    fn a_line_of_the_kernel_log_counts_for_its_own_node() {
        // Two nodes of one machine, both near their limits; each agent reads the line.
        let mut scene = scene!(NAME, "0 table 920/1000; 0 @worker-2 table 920/1000");
        for (node, netns) in [("worker-1", 4026532), ("worker-2", 4026999)] {
            play!(
                scene,
                "50 @{node} log {netns} nf_conntrack: nf_conntrack: table full in netns 4026999, dropping packet"
            );
        }
        play!(scene, "? warning 50 node/worker-2");
        let nodes: Vec<_> = scene.findings.iter().filter(|(_, f)| f.detector == NAME).collect();
        assert_eq!(nodes.len(), 1);
        assert_eq!(nodes[0].1.subject, Subject::node("worker-2"));
    }

    #[test]
    fn a_line_that_names_no_namespace_does_not_count_alone() {
        let old = "log 4026999 nf_conntrack: table full, dropping packet";
        let mut scene = scene!(NAME, "0 table 920/1000; 0 stats drop=3; 50 {old}; 4000 ? nothing");
        play!(scene, "4100 {old}; 4150 stats drop=9; 4200 table 940/1000 ? warning 4150..4200 node/worker-1");
    }

    #[test]
    fn early_drop_counts_only_in_a_full_table() {
        for (count, expected) in [(949, "nothing"), (950, "critical")] {
            scene!(NAME, "0 stats early_drop=0; 0 table {count}/1000; 100 stats early_drop=9 ? {expected}");
        }
    }

    #[test]
    fn counters_that_start_again_are_no_news() {
        scene!(NAME, "0 stats drop=500; 100 stats drop=2 ? silence");
    }
}
