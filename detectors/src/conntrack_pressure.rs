//! `conntrack-pressure`: the connection tracking table is nearly full.
//!
//! What it sees: the count of a node against its limit: `info` from 75 %, `warning` from 90 %.
//! Why it matters: there is room for one more burst and no more; a table at its limit drops new flows.
//! Which incident: I2, as the risk that stands before it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::claims::Claims;
use crate::conntrack_limit::effective_limit;
use crate::detector::{Detector, DetectorInfo, Scope};
use crate::finding::{Finding, Level, Severity, Subject};
use crate::signal::{CollectorKind, Observed, Signal};
use crate::time::Time;

pub const INFO: DetectorInfo = DetectorInfo {
    name: "conntrack-pressure",
    incident: "I2",
    level: Level::Risk,
    what: "The connection tracking table of a node is nearly full.",
    wants: &[CollectorKind::ConntrackTable],
    needs: &[&[CollectorKind::ConntrackTable]],
    scope: Scope::Node,
    arm: |_| Box::new(ConntrackPressure { nodes: BTreeMap::new() }),
};

/// Per cent of the limit.
const INFO_FROM: u128 = 75;
const WARNING_FROM: u128 = 90;
const OVER_BELOW: u128 = 70;

struct ConntrackPressure {
    nodes: BTreeMap<Arc<str>, Claims>,
}

impl Detector for ConntrackPressure {
    fn info(&self) -> &'static DetectorInfo {
        &INFO
    }

    fn observe(&mut self, _now: Time, signal: &Signal, out: &mut Vec<Finding>) {
        let Observed::ConntrackTable(table) = signal.observed else { return };
        let claims = self.nodes.entry(Arc::clone(&signal.node)).or_insert_with(|| Claims::new(&INFO));
        let limit = effective_limit(table);
        let share = u128::from(table.count) * 100 / u128::from(limit);
        let subject = Subject::node(&*signal.node);
        let evidence = || format!("{} of {limit} entries in use ({share} %) on {}", table.count, signal.node);
        if share >= WARNING_FROM {
            claims.make(out, &subject, Severity::Warning, signal.at, evidence);
        } else if share >= INFO_FROM {
            claims.make(out, &subject, Severity::Info, signal.at, evidence);
        } else if share < OVER_BELOW {
            claims.withdraw(out, &subject, evidence());
        }
    }

    fn tick(&mut self, _now: Time, _out: &mut Vec<Finding>) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Scene, table};

    #[test]
    fn twin_a_burst_to_seventy_per_cent_says_nothing() {
        let mut scene = Scene::new();
        for (step, count) in [100, 1_500, 2_867, 2_000, 100].into_iter().enumerate() {
            scene.at(step as u64 * 1_000, "worker-1", table(count, 4_096));
        }
        assert_eq!(scene.findings, []);
    }

    #[test]
    fn edges() {
        let mut scene = Scene::new();
        scene.at(0, "worker-1", table(749, 1_000));
        assert_eq!(scene.worst("conntrack-pressure"), None);
        scene.at(100, "worker-1", table(750, 1_000));
        assert_eq!(scene.worst("conntrack-pressure"), Some(Severity::Info));
        scene.at(200, "worker-1", table(899, 1_000));
        assert_eq!(scene.worst("conntrack-pressure"), Some(Severity::Info));
        scene.at(300, "worker-1", table(900, 1_000));
        assert_eq!(scene.worst("conntrack-pressure"), Some(Severity::Warning));
        scene.at(400, "worker-1", table(700, 1_000));
        assert!(!scene.cleared("conntrack-pressure"));
        scene.at(500, "worker-1", table(699, 1_000));
        assert!(scene.cleared("conntrack-pressure"));
        scene.at(600, "worker-1", table(699, 0));
        assert!(scene.standing("conntrack-pressure").is_none(), "0 means no limit");
    }
}
