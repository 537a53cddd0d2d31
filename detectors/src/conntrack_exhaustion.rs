//! `conntrack-exhaustion`: new flows are dropped because the connection tracking table is full.
//!
//! What it sees: `drop` (or, in a table that is full, `early_drop`) grows; the count sits at the limit;
//! the kernel log says "table full", counted for those nodes only whose own table is near its limit.
//! Why it matters: established connections go on, new ones time out, and nothing else on the node is wrong.
//! Which incident: I2.
//!
//! Left out on purpose: `insert_failed` and `clash_resolve`, which grow in an empty table too; a kernel
//! that counts each failed insertion as a drop as well has that part taken off.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::claims::Claims;
use crate::conntrack_limit::effective_limit;
use crate::detector::{Detector, DetectorInfo, Scope};
use crate::finding::{Finding, Level, Severity, Subject};
use crate::signal::{CollectorKind, ConntrackStats, ConntrackTable, Observed, Signal};
use crate::time::Time;

pub const INFO: DetectorInfo = DetectorInfo {
    name: "conntrack-exhaustion",
    incident: "I2",
    level: Level::Symptom,
    what: "New flows are dropped because the connection tracking table is full.",
    wants: &[CollectorKind::ConntrackTable, CollectorKind::ConntrackStats, CollectorKind::KernelLog],
    needs: &[&[CollectorKind::ConntrackTable, CollectorKind::ConntrackStats]],
    scope: Scope::Node,
    arm: |_| Box::new(ConntrackExhaustion { nodes: BTreeMap::new() }),
};

/// Without a new sign for this long, and below `FULL`, it is over.
const QUIET: Duration = Duration::from_secs(1);
/// Signs of different collectors within this time belong together.
const TOGETHER: Duration = Duration::from_secs(2);
/// Per mille of the limit. A dropped entry was counted for a moment, so a poll may see a little less.
const SUPPORTS_DROP: u128 = 800;
const SUPPORTS_LOG: u128 = 900;
const FULL: u128 = 950;
const AT_LIMIT: u128 = 980;

struct ConntrackExhaustion {
    nodes: BTreeMap<Arc<str>, Node>,
}

struct Node {
    claims: Claims,
    stats: Option<ConntrackStats>,
    table: Option<(Time, ConntrackTable)>,
    /// The last sign that flows are being dropped, and when it was.
    sign: Option<(Time, String)>,
    /// Growth of `drop`, and of `early_drop`, that the table did not yet bear out.
    dropped: Option<(Time, u64)>,
    evicted: Option<(Time, u64)>,
    /// The machine's kernel log said so.
    logged: Option<Time>,
}

fn share(table: ConntrackTable) -> u128 {
    u128::from(table.count) * 1000 / u128::from(effective_limit(table))
}

impl Node {
    fn new() -> Self {
        Self {
            claims: Claims::new(&INFO),
            stats: None,
            table: None,
            sign: None,
            dropped: None,
            evicted: None,
            logged: None,
        }
    }

    fn stats(&mut self, at: Time, stats: ConntrackStats) {
        if let Some(before) = self.stats.replace(stats) {
            // A counter that runs backwards was reset: nothing grew.
            let failed = stats.insert_failed.saturating_sub(before.insert_failed);
            // A failed insertion counts as a drop too, and has other reasons.
            let dropped = stats.drop.saturating_sub(before.drop).saturating_sub(failed);
            let evicted = stats.early_drop.saturating_sub(before.early_drop);
            for (growth, more) in [(&mut self.dropped, dropped), (&mut self.evicted, evicted)] {
                if more > 0 {
                    *growth = Some((at, more + growth.map_or(0, |(_, earlier)| earlier)));
                }
            }
        }
    }

    fn table(&mut self, at: Time, table: ConntrackTable) {
        let before = self.table.replace((at, table)).map_or(0, |(_, before)| share(before));
        let at_limit = share(table) >= 1000 || share(table) >= AT_LIMIT && before >= AT_LIMIT;
        if at_limit {
            self.sign = Some((at, "the count sits at the limit".to_owned()));
        }
    }

    /// Takes the signs that the state of the table bears out.
    fn weigh(&mut self) {
        let Some((polled, table)) = self.table else {
            // No table to compare with: the counter alone must do.
            if let Some((at, drops)) = self.dropped.take() {
                self.sign = Some((at, format!("drop grew by {drops}")));
            }
            return;
        };
        let near = |at: Time| polled.since(at) <= TOGETHER && at.since(polled) <= TOGETHER;
        let share = share(table);
        if share >= SUPPORTS_LOG
            && let Some(at) = self.logged.take_if(|at| near(*at))
        {
            self.sign = Some((at, "the kernel log says \"table full\"".to_owned()));
        }
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

    fn judge(&mut self, now: Time, name: &str, out: &mut Vec<Finding>) {
        self.weigh();
        let subject = Subject::node(name);
        let share = self.table.map_or(0, |(_, table)| share(table));
        let state = self.table.map_or_else(String::new, |(_, table)| {
            format!("; {} of {} entries in use on {name}", table.count, effective_limit(table))
        });
        if let Some((at, sign)) = &self.sign {
            if now.since(*at) < QUIET || share >= FULL {
                let severity = if share >= FULL { Severity::Critical } else { Severity::Warning };
                self.claims.make(out, &subject, severity, *at, || format!("{sign}{state}"));
                return;
            }
            self.sign = None;
            self.claims.withdraw(out, &subject, format!("no more drops for {} s{state}", QUIET.as_secs()));
        }
        for growth in [&mut self.dropped, &mut self.evicted] {
            *growth = growth.filter(|(at, _)| now.since(*at) <= TOGETHER);
        }
        self.logged = self.logged.filter(|at| now.since(*at) <= TOGETHER);
    }
}

impl Detector for ConntrackExhaustion {
    fn info(&self) -> &'static DetectorInfo {
        &INFO
    }

    fn observe(&mut self, now: Time, signal: &Signal, out: &mut Vec<Finding>) {
        if let Observed::KernelLog { line } = &signal.observed {
            if line.contains("nf_conntrack") && line.contains("table full") {
                // The log is the machine's: whose table it was, only the counts can tell.
                for (name, node) in &mut self.nodes {
                    node.logged = Some(signal.at);
                    node.judge(now, name, out);
                }
            }
            return;
        }
        let node = self.nodes.entry(Arc::clone(&signal.node)).or_insert_with(Node::new);
        match signal.observed {
            Observed::ConntrackStats(stats) => node.stats(signal.at, stats),
            Observed::ConntrackTable(table) => node.table(signal.at, table),
            _ => return,
        }
        node.judge(now, &signal.node, out);
    }

    fn tick(&mut self, now: Time, out: &mut Vec<Finding>) {
        for (name, node) in &mut self.nodes {
            node.judge(now, name, out);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::testing::{Scene, drops, stats, table};

    const NAME: &str = "conntrack-exhaustion";

    /// The limit falls to little above the load; the load goes on growing and fills the table.
    pub(crate) fn incident() -> Scene {
        let mut scene = Scene::new();
        for step in 0_u64..30 {
            let count = (2_500 + step * 80).min(4_096);
            let limit = if step < 5 { 524_288 } else { 4_096 };
            scene.at(step * 100, "worker-1", table(count, limit));
            scene.at(step * 100 + 2, "worker-2", table(60, limit));
            scene.at(step * 100 + 5, "worker-1", drops(step.saturating_sub(20) * 7));
        }
        scene.at(3_000, "worker-1", table(4_096, 524_288));
        scene.at(5_200, "worker-1", table(4_000, 524_288));
        scene
    }

    #[test]
    fn incident_the_cause_precedes_the_symptom() {
        let scene = incident();
        assert_eq!(scene.first("conntrack-limit", Severity::Warning), Some((500, "node/worker-1".into())));
        assert_eq!(scene.first(NAME, Severity::Warning), Some((2_000, "node/worker-1".into())));
        assert!(scene.cleared(NAME) && scene.cleared("conntrack-limit") && scene.cleared("conntrack-pressure"));
    }

    #[test]
    fn incident_drops_grow_in_a_full_table_and_end() {
        let mut scene = Scene::new();
        scene.at(0, "worker-1", drops(7));
        scene.at(0, "worker-1", table(4_000, 4_096));
        scene.at(100, "worker-1", drops(7));
        assert_eq!(scene.worst(NAME), None);
        scene.at(200, "worker-1", drops(19));
        assert_eq!(scene.first(NAME, Severity::Critical), Some((200, "node/worker-1".into())));
        assert!(scene.evidence(NAME).contains("drop grew by 12; 4000 of 4096 entries"));
        scene.until(2_500);
        assert!(!scene.cleared(NAME), "still full");
        scene.at(2_600, "worker-1", table(4_000, 262_144));
        assert!(scene.cleared(NAME));
    }

    #[test]
    fn drops_before_the_poll_that_shows_the_full_table() {
        let mut scene = Scene::new();
        scene.at(0, "worker-1", drops(0));
        scene.at(0, "worker-1", table(3_000, 262_144));
        scene.at(100, "worker-1", drops(3));
        assert_eq!(scene.worst(NAME), None, "the last poll does not bear it out");
        scene.at(150, "worker-1", table(3_000, 2_000));
        assert_eq!(scene.worst(NAME), Some(Severity::Critical));
    }

    #[test]
    fn a_count_at_the_limit_is_enough() {
        let mut scene = Scene::new();
        scene.at(0, "worker-1", table(990, 1_000));
        assert_eq!(scene.worst(NAME), None, "one poll just below the limit may pass");
        scene.at(100, "worker-1", table(990, 1_000));
        assert_eq!(scene.worst(NAME), Some(Severity::Critical));
    }

    #[test]
    fn twin_dns_races_in_a_nearly_empty_table() {
        let mut scene = Scene::new();
        scene.at(0, "worker-1", table(40, 262_144));
        for step in 0..20 {
            let (insert_failed, clash_resolve) = (step * 3, step * 5);
            let races = ConntrackStats { drop: insert_failed, insert_failed, clash_resolve, ..stats() };
            scene.at(step * 100, "worker-1", Observed::ConntrackStats(races));
        }
        assert_eq!(scene.findings, []);
    }

    #[test]
    fn the_kernel_log_counts_only_for_the_node_whose_table_is_full() {
        let mut scene = Scene::new();
        let log = |line: &str| Observed::KernelLog { line: line.to_owned() };
        scene.at(0, "worker-1", table(920, 1_000));
        scene.at(0, "worker-2", table(10, 1_000));
        scene.at(50, "worker-2", log("nf_conntrack: nf_conntrack: table full in netns 4026532, dropping packet"));
        let nodes: Vec<_> = scene.findings.iter().filter(|(_, f)| f.detector == NAME).collect();
        assert_eq!(nodes.len(), 1);
        assert_eq!(nodes[0].1.subject, Subject::node("worker-1"));

        let mut scene = Scene::new();
        scene.at(0, "worker-1", table(10, 1_000));
        scene.at(50, "worker-1", log("nf_conntrack: table full, dropping packet"));
        scene.until(4_000);
        assert_eq!(scene.findings, []);
    }

    #[test]
    fn early_drop_counts_only_in_a_full_table() {
        let evicting = |n| Observed::ConntrackStats(ConntrackStats { early_drop: n, ..stats() });
        for (count, expected) in [(949, false), (950, true)] {
            let mut scene = Scene::new();
            scene.at(0, "worker-1", evicting(0));
            scene.at(0, "worker-1", table(count, 1_000));
            scene.at(100, "worker-1", evicting(9));
            assert_eq!(scene.worst(NAME).is_some(), expected, "{count}");
        }
    }

    #[test]
    fn counters_that_start_again_are_no_news() {
        let mut scene = Scene::new();
        scene.at(0, "worker-1", drops(500));
        scene.at(100, "worker-1", drops(2));
        assert_eq!(scene.findings, []);
    }
}
