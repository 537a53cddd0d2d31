//! The set of all detectors: feeds them, and reports which of them are blind.
//!
//! Invariant: the same signals in the same order give the same findings.
//! Left out: the list of detectors (`lib.rs`), the source of signals, and the use of findings.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::DETECTORS;
use crate::armed::Armed;
use crate::detector::{DetectorInfo, Scope};
use crate::finding::Finding;
use crate::operator::Operator;
use crate::signal::{CollectorKind, Observed, Sight, Signal};
use crate::time::Time;

/// All armed detectors.
pub struct DetectorSet {
    detectors: Vec<Armed>,
    /// The operator's facts, and the pods that agents saw.
    operator: Operator,
    sight: BTreeMap<Arc<str>, BTreeMap<CollectorKind, Sight>>,
    /// Collectors that saw and then lost something or ended.
    lost: BTreeSet<(Arc<str>, CollectorKind)>,
    now: Time,
}

impl DetectorSet {
    /// Arms every detector of the registry.
    #[must_use]
    pub fn new(operator: &Operator) -> Self {
        let detectors = DETECTORS.iter().map(|info| Armed::new(info, operator)).collect();
        Self {
            detectors,
            operator: operator.clone(),
            sight: BTreeMap::new(),
            lost: BTreeSet::new(),
            now: Time::default(),
        }
    }

    /// The set without one detector, so that its findings are missed.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.detectors.retain(|detector| detector.info.name != name);
        self
    }

    /// Names of all built-in detectors.
    #[must_use]
    pub fn names() -> Vec<&'static str> {
        DETECTORS.iter().map(|info| info.name).collect()
    }

    /// Descriptions of all built-in detectors.
    #[must_use]
    pub fn info() -> &'static [DetectorInfo] {
        DETECTORS
    }

    /// Passes a signal to every detector that wants its kind.
    pub fn observe(&mut self, now: Time, signal: &Signal) -> Vec<Finding> {
        self.now = self.now.max(now);
        if let Observed::Collector(collector) = &signal.observed {
            let sight = self.sight.entry(Arc::clone(&signal.node)).or_default();
            let before = sight.insert(collector.collector, collector.sight.clone());
            if before == Some(Sight::Ready) && collector.sight != Sight::Ready {
                self.lost.insert((Arc::clone(&signal.node), collector.collector));
            }
        }
        self.operator.learn(signal);
        let mut findings = Vec::new();
        for detector in &mut self.detectors {
            detector.observe(self.now, &self.operator, signal, &mut findings);
        }
        findings
    }

    /// Passes the time to every detector.
    pub fn tick(&mut self, now: Time) -> Vec<Finding> {
        self.now = self.now.max(now);
        let mut findings = Vec::new();
        for detector in &mut self.detectors {
            detector.tick(self.now, &self.operator, &mut findings);
        }
        findings
    }

    /// Detectors that are blind now, and why. Based on the last report of each collector, on every node with any
    /// report; a collector that never reported is not ready. What is observed of the cluster from several nodes can be
    /// seen without one of them, but not if that one lost something that only it may have seen.
    #[must_use]
    pub fn blind(&self) -> Vec<(&'static str, String)> {
        let mut blind = Vec::new();
        for detector in &self.detectors {
            let info = detector.info;
            let blind_nodes: Vec<String> = (self.sight.iter())
                .filter_map(|(node, sight)| Some(format!("node {node}: {}", blindness(info, sight)?)))
                .collect();
            match info.scope {
                Scope::Node => blind.extend(blind_nodes.into_iter().map(|why| (info.name, why))),
                Scope::Cluster => {
                    let everywhere = blind_nodes.len() == self.sight.len();
                    if !blind_nodes.is_empty() && (everywhere || self.has_lost(info)) {
                        blind.push((info.name, blind_nodes.join("; ")));
                    }
                }
            }
        }
        blind
    }

    /// Whether a node is blind because a collector that the detector needs lost something there.
    fn has_lost(&self, info: &DetectorInfo) -> bool {
        let needs = |kind: &CollectorKind| info.needs.iter().any(|group| group.contains(kind));
        let is_blind = |node| self.sight.get(node).is_some_and(|sight| blindness(info, sight).is_some());
        self.lost.iter().any(|(node, kind)| needs(kind) && is_blind(node))
    }
}

/// Why a detector is blind with these collectors; `None` if it is not.
fn blindness(info: &DetectorInfo, sight: &BTreeMap<CollectorKind, Sight>) -> Option<String> {
    let group = info.needs.iter().find(|group| !group.iter().any(|kind| sight.get(kind) == Some(&Sight::Ready)))?;
    let why = group.iter().map(|kind| match sight.get(kind) {
        Some(Sight::Blind(why)) => format!("{kind:?}: {why}"),
        _ => format!("{kind:?}: never reported ready"),
    });
    Some(why.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Severity;
    use crate::operator::Knowledge;
    use crate::record::Feed;
    use crate::signal::Collector;
    use crate::testing::{incidents, ms, operator};

    #[test]
    fn names_are_unique_and_each_detector_needs_only_what_it_wants() {
        let mut names = DetectorSet::names();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DETECTORS.len());
        for info in DetectorSet::info() {
            assert!(info.needs.iter().flat_map(|group| group.iter()).all(|kind| info.wants.contains(kind)));
            for sentence in [info.what, info.facts] {
                assert!(sentence.ends_with('.'), "{}: {sentence}", info.name);
            }
        }
    }

    #[test]
    fn without_takes_one_detector_out() {
        let set = DetectorSet::new(&operator()).without("pod-nic");
        assert_eq!(set.detectors.len(), DETECTORS.len() - 1);
    }

    fn sight(set: &mut DetectorSet, node: &str, collector: CollectorKind, sight: Sight) {
        let observed = Observed::Collector(Collector { collector, sight });
        set.observe(ms(0), &Signal { at: ms(0), node: node.into(), observed });
    }

    #[test]
    fn blind_only_if_none_of_a_group_sees() {
        let mut set = DetectorSet::new(&operator());
        assert!(set.blind().is_empty(), "nothing is known of any node");
        for kind in DETECTORS.iter().flat_map(|info| info.wants) {
            sight(&mut set, "worker-1", *kind, Sight::Ready);
        }
        assert_eq!(set.blind(), []);
        let no = || Sight::Blind("no permission".into());
        // Counters are enough without the kernel log.
        sight(&mut set, "worker-1", CollectorKind::KernelLog, no());
        assert_eq!(set.blind(), []);
        sight(&mut set, "worker-1", CollectorKind::Rtnetlink, no());
        let names: Vec<_> = set.blind().into_iter().map(|(name, _)| name).collect();
        assert!(!names.contains(&"policy-route"), "route look-ups still see");
        assert!(names.contains(&"pod-nic"));
        assert!(set.blind().iter().any(|(_, why)| why == "node worker-1: Rtnetlink: no permission"));
        // The cluster's state can be observed from any node.
        sight(&mut set, "worker-2", CollectorKind::Probes, no());
        assert!(!set.blind().iter().any(|(name, _)| *name == "dns-failure"));
        sight(&mut set, "worker-1", CollectorKind::Probes, no());
        assert!(set.blind().iter().any(|(name, _)| *name == "dns-failure"));
    }

    #[test]
    fn what_one_node_lost_none_of_the_others_may_have_seen() {
        let mut set = DetectorSet::new(&operator());
        for (node, kind) in ["worker-1", "worker-2"]
            .into_iter()
            .flat_map(|node| DETECTORS.iter().flat_map(|info| info.wants).map(move |kind| (node, kind)))
        {
            sight(&mut set, node, *kind, Sight::Ready);
        }
        sight(&mut set, "worker-2", CollectorKind::DnsPackets, Sight::Blind("3 packets lost".into()));
        let why = set.blind().into_iter().find(|(name, _)| *name == "dns-answer").map(|(_, why)| why);
        assert_eq!(why.as_deref(), Some("node worker-2: DnsPackets: 3 packets lost"));
    }

    /// A deterministic pseudo-random number generator (xorshift).
    fn next(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    #[test]
    fn the_same_signals_give_the_same_findings_in_whatever_order_they_come() {
        let mut signals: Vec<Signal> = incidents().into_iter().flat_map(|(_, scene)| scene.signals).collect();
        let run = |signals: &[Signal]| {
            let mut feed = Feed::new(DetectorSet::new(&operator()));
            signals.iter().flat_map(|signal| feed.signal(signal.at, signal)).collect::<Vec<_>>()
        };
        let mut state = 7;
        for _ in 0..3 {
            for index in (1..signals.len()).rev() {
                let other = next(&mut state) % (index as u64 + 1);
                signals.swap(index, usize::try_from(other).unwrap());
            }
            let findings = run(&signals);
            assert_eq!(findings, run(&signals));
            // For each subject, only standing claims are withdrawn, and none is reported twice.
            let mut standing = BTreeMap::new();
            for (_, finding) in findings {
                let key = (finding.detector, finding.level, finding.subject);
                if finding.cleared {
                    assert_eq!(standing.remove(&key), Some(finding.severity));
                } else {
                    assert!(standing.insert(key, finding.severity) < Some(finding.severity));
                }
            }
        }
    }

    #[test]
    fn detectors_find_the_same_with_other_facts_as_their_documentation_says() {
        let loud = |name: &str, scene: &[Signal], facts: Knowledge| {
            let mut feed = Feed::new(DetectorSet::new(&facts.of(operator())));
            let findings = scene.iter().flat_map(|signal| feed.signal(signal.at, signal)).collect::<Vec<_>>();
            let own = findings.into_iter().map(|(_, finding)| finding).filter(|f| f.detector == name);
            own.filter(|f| f.severity > Severity::Info && !f.cleared).map(|f| f.subject).collect::<Vec<_>>()
        };
        let same: Vec<_> = DETECTORS
            .iter()
            .filter(|info| info.facts.starts_with("It finds the same with none and with stale facts"))
            .collect();
        assert!(same.len() > 15, "{}", same.len());
        let mut found = std::collections::BTreeSet::new();
        for (scene_name, scene) in incidents() {
            let sees_pods = scene.signals.iter().any(|signal| matches!(signal.observed, Observed::Pod(_)));
            for info in same.iter().filter(|info| sees_pods || !info.facts.ends_with("that agents see.")) {
                let right = loud(info.name, &scene.signals, Knowledge::Right);
                found.extend((!right.is_empty()).then_some(info.name));
                for facts in [Knowledge::None, Knowledge::Stale] {
                    assert_eq!(loud(info.name, &scene.signals, facts), right, "{} in {scene_name}, {facts}", info.name);
                }
            }
        }
        assert!(found.len() > 10, "{found:?}");
    }

    #[test]
    fn a_few_milliseconds_between_collectors_change_no_verdict() {
        let mut state = 11;
        for (name, scene) in incidents() {
            let loud = |findings: Vec<(Time, Finding)>| {
                let loud = findings.into_iter().filter(|(_, f)| f.severity > Severity::Info && !f.cleared);
                loud.map(|(_, f)| (f.detector, f.subject)).collect::<std::collections::BTreeSet<_>>()
            };
            let mut delivered: Vec<_> =
                (scene.signals.iter()).map(|signal| (signal.at.0 + next(&mut state) % 8_000_000, signal)).collect();
            // State from when the collectors were armed is delivered first.
            delivered.sort_by_key(|(at, signal)| if signal.at <= ms(5) { signal.at.0 } else { *at });
            let mut feed = Feed::new(DetectorSet::new(&operator()));
            let findings = delivered.iter().flat_map(|(at, signal)| feed.signal(Time(*at), signal)).collect();
            assert_eq!(loud(findings), loud(scene.timed), "{name}");
        }
    }
}
