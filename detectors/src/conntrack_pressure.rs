//! `conntrack-pressure`: the connection tracking table is nearly full.
//!
//! What it sees: the count of a node against its limit: `info` from 75 %, `warning` from 90 %.
//! Why it matters: one more burst fills the table, and a table at its limit drops new flows.
//! Which incident: I2, as the risk that precedes it.

use crate::detector::{Context, Detector, DetectorInfo, Scope, State, new};
use crate::finding::{Level, Severity, SubjectKind};
use crate::signal::{CollectorKind, Observed, Signal};

pub const INFO: DetectorInfo = DetectorInfo {
    name: "conntrack-pressure",
    incident: "I2",
    level: Level::Risk,
    subjects: &[SubjectKind::Node],
    what: "The connection tracking table of a node is nearly full.",
    facts: "It finds the same with none and with stale facts.",
    wants: &[CollectorKind::ConntrackTable],
    needs: &[&[CollectorKind::ConntrackTable]],
    scope: Scope::Node,
    state: State::EachNode(new::<ConntrackPressure>),
};

/// Per cent of the limit.
const INFO_FROM: u128 = 75;
const WARNING_FROM: u128 = 90;
const OVER_BELOW: u128 = 70;

#[derive(Default)]
struct ConntrackPressure;

impl Detector for ConntrackPressure {
    fn observe(&mut self, cx: &mut Context<'_>, signal: &Signal) {
        let Observed::ConntrackTable(table) = signal.observed else { return };
        let share = table.share_of(100);
        let evidence =
            || format!("{} of {} entries in use ({share} %) on {}", table.count, table.effective_limit(), cx.node);
        if share >= WARNING_FROM {
            cx.claims.make(Severity::Warning, signal.at, evidence);
        } else if share >= INFO_FROM {
            cx.claims.make(Severity::Info, signal.at, evidence);
        } else if share < OVER_BELOW {
            cx.claims.withdraw(evidence());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{play, scene};

    #[test]
    fn twin_a_burst_to_seventy_per_cent_says_nothing() {
        let burst = "0 table 100/4096; 1000 table 1500/4096; 2000 table 2867/4096; 3000 table 2000/4096";
        scene!(INFO.name, "{burst}; 4000 table 100/4096 ? silence");
    }

    #[test]
    fn edges() {
        let mut scene = scene!(INFO.name, "0 table 749/1000 ? nothing; 100 table 750/1000 ? info");
        play!(scene, "200 table 899/1000 ? info; 300 table 900/1000 ? warning");
        play!(scene, "400 table 700/1000 ? not over; 500 table 699/1000 ? over");
        // 0 means no limit.
        play!(scene, "600 table 699/0 ? over");
    }
}
