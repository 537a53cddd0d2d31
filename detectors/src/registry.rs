//! The registry of all detectors, and the set that feeds them.
//!
//! Invariants: the same signals in the same order give the same findings. The set says a finding once: again only
//! when its severity rises, and once more when it is over.
//! Left out: where signals come from, and what becomes of findings.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::detector::{Detector, DetectorInfo, Scope};
use crate::finding::{Finding, Level, Severity, Subject};
use crate::operator::Operator;
use crate::signal::{CollectorKind, Observed, Sight, Signal};
use crate::time::Time;
use crate::{
    connect_stall, conntrack_exhaustion, conntrack_limit, conntrack_pressure, dns_failure, dns_redundancy, dns_replica,
    mss_change, pmtu_blackhole, pod_nic, policy_route, snat_exhaustion, snat_port_reuse, wrong_nic,
};

/// All built-in detectors, one line each.
static REGISTRY: [DetectorInfo; 14] = [
    mss_change::INFO,
    pmtu_blackhole::INFO,
    conntrack_limit::INFO,
    conntrack_exhaustion::INFO,
    conntrack_pressure::INFO,
    pod_nic::INFO,
    dns_redundancy::INFO,
    dns_replica::INFO,
    dns_failure::INFO,
    policy_route::INFO,
    wrong_nic::INFO,
    snat_port_reuse::INFO,
    connect_stall::INFO,
    snat_exhaustion::INFO,
];

/// A finding's identity: what may stand only once.
type Identity = (String, Level, Subject);

/// All armed detectors.
pub struct DetectorSet {
    detectors: Vec<Box<dyn Detector>>,
    standing: BTreeMap<Identity, Severity>,
    sight: BTreeMap<Arc<str>, BTreeMap<CollectorKind, Sight>>,
    now: Time,
}

impl DetectorSet {
    /// Arms every detector of the registry.
    #[must_use]
    pub fn new(operator: &Operator) -> Self {
        Self::of(REGISTRY.iter().map(|info| (info.arm)(operator)).collect())
    }

    /// Arms the given detectors only.
    #[must_use]
    pub fn of(detectors: Vec<Box<dyn Detector>>) -> Self {
        Self { detectors, standing: BTreeMap::new(), sight: BTreeMap::new(), now: Time::default() }
    }

    /// The same set with one detector taken out: whoever expects its findings must then miss them.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.detectors.retain(|detector| detector.name() != name);
        self
    }

    /// Names of all built-in detectors.
    #[must_use]
    pub fn names() -> Vec<&'static str> {
        REGISTRY.iter().map(|info| info.name).collect()
    }

    /// What is known of all built-in detectors.
    #[must_use]
    pub fn info() -> &'static [DetectorInfo] {
        &REGISTRY
    }

    /// Shows one signal to every detector that wants its kind.
    pub fn observe(&mut self, now: Time, signal: &Signal) -> Vec<Finding> {
        self.now = self.now.max(now);
        let Some(kind) = collector_of(&signal.observed) else {
            if let Observed::Collector(collector) = &signal.observed {
                let sight = self.sight.entry(Arc::clone(&signal.node)).or_default();
                sight.insert(collector.collector, collector.sight.clone());
            }
            return Vec::new();
        };
        let mut said = Vec::new();
        for detector in &mut self.detectors {
            if detector.wants().contains(&kind) {
                detector.observe(self.now, signal, &mut said);
            }
        }
        self.news(said)
    }

    /// Lets every detector see that time has passed.
    pub fn tick(&mut self, now: Time) -> Vec<Finding> {
        self.now = self.now.max(now);
        let mut said = Vec::new();
        for detector in &mut self.detectors {
            detector.tick(self.now, &mut said);
        }
        self.news(said)
    }

    /// Detectors that cannot see at present, and why. Judged by the last word of each collector, on every
    /// node that had a collector report at all; a collector that never reported is not ready.
    #[must_use]
    pub fn blind(&self) -> Vec<(&'static str, String)> {
        let mut blind = Vec::new();
        for detector in &self.detectors {
            let info = detector.info();
            let dark: Vec<String> = (self.sight.iter())
                .filter_map(|(node, sight)| Some(format!("node {node}: {}", darkness(info, sight)?)))
                .collect();
            match info.scope {
                Scope::Node => blind.extend(dark.into_iter().map(|why| (info.name, why))),
                Scope::Cluster if !dark.is_empty() && dark.len() == self.sight.len() => {
                    blind.push((info.name, dark.join("; ")));
                }
                Scope::Cluster => {}
            }
        }
        blind
    }

    /// Drops what was said before.
    fn news(&mut self, said: Vec<Finding>) -> Vec<Finding> {
        let mut news = Vec::with_capacity(said.len());
        for mut finding in said {
            let identity = (finding.detector.clone(), finding.level, finding.subject.clone());
            let standing = self.standing.get(&identity).copied();
            if finding.cleared {
                if let Some(severity) = standing {
                    self.standing.remove(&identity);
                    finding.severity = severity;
                    news.push(finding);
                }
            } else if standing.is_none_or(|severity| severity < finding.severity) {
                self.standing.insert(identity, finding.severity);
                news.push(finding);
            }
        }
        news
    }
}

/// Why a detector cannot see by these collectors; `None` when it can.
fn darkness(info: &DetectorInfo, sight: &BTreeMap<CollectorKind, Sight>) -> Option<String> {
    let group = info.needs.iter().find(|group| !group.iter().any(|kind| sight.get(kind) == Some(&Sight::Ready)))?;
    let why = group.iter().map(|kind| match sight.get(kind) {
        Some(Sight::Blind(why)) => format!("{kind:?}: {why}"),
        _ => format!("{kind:?}: never reported ready"),
    });
    Some(why.collect::<Vec<_>>().join(", "))
}

/// The collector that delivers signals of this kind; none for what collectors say of themselves.
const fn collector_of(observed: &Observed) -> Option<CollectorKind> {
    Some(match observed {
        Observed::Link(_) | Observed::Rule(_) | Observed::Route(_) => CollectorKind::Rtnetlink,
        Observed::RouteLookup(_) => CollectorKind::RouteLookup,
        Observed::ConntrackTable(_) => CollectorKind::ConntrackTable,
        Observed::ConntrackStats(_) => CollectorKind::ConntrackStats,
        Observed::Flow(_) => CollectorKind::ConntrackEvents,
        Observed::Segment(_) => CollectorKind::Packets,
        Observed::Socket(_) => CollectorKind::Sockets,
        Observed::KernelLog { .. } => CollectorKind::KernelLog,
        Observed::Dns(_) => CollectorKind::DnsPackets,
        Observed::Probe(_) => CollectorKind::Probes,
        Observed::Pod(_) | Observed::Endpoints(_) => CollectorKind::Inventory,
        Observed::Container(_) | Observed::NodeCondition(_) | Observed::Event(_) | Observed::KubeProxy(_) => {
            CollectorKind::Api
        }
        Observed::PodLog(_) => CollectorKind::PodLogs,
        Observed::Collector(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Feed;
    use crate::signal::Collector;
    use crate::testing::{incidents, ms, operator};

    /// Says a given list of findings, one a tick.
    struct Parrot(Vec<(Severity, bool)>);

    impl Detector for Parrot {
        fn info(&self) -> &'static DetectorInfo {
            &REGISTRY[0]
        }
        fn observe(&mut self, _: Time, _: &Signal, _: &mut Vec<Finding>) {}
        fn tick(&mut self, now: Time, out: &mut Vec<Finding>) {
            let (severity, cleared) = self.0.remove(0);
            out.push(Finding {
                detector: self.name().into(),
                incident: "I1".into(),
                level: Level::Cause,
                severity,
                subject: Subject::node("worker-1"),
                evidence: String::new(),
                since: now,
                cleared,
            });
        }
    }

    #[test]
    fn a_finding_is_said_once_then_only_louder_then_cleared_once() {
        use Severity::{Critical, Info, Warning};
        let script = vec![
            (Info, true),
            (Info, false),
            (Info, false),
            (Warning, false),
            (Info, false),
            (Critical, false),
            (Info, true),
            (Info, true),
            (Info, false),
        ];
        let ticks = script.len();
        let mut set = DetectorSet::of(vec![Box::new(Parrot(script))]);
        let said: Vec<_> = (0..ticks).map(|_| set.tick(Time(0)).first().map(|f| (f.severity, f.cleared))).collect();
        let expected = [
            None,
            Some((Info, false)),
            None,
            Some((Warning, false)),
            None,
            Some((Critical, false)),
            Some((Critical, true)),
            None,
            Some((Info, false)),
        ];
        assert_eq!(said, expected);
    }

    #[test]
    fn names_are_unique_and_each_detector_needs_only_what_it_wants() {
        let mut names = DetectorSet::names();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), REGISTRY.len());
        for info in DetectorSet::info() {
            assert!(info.needs.iter().flat_map(|group| group.iter()).all(|kind| info.wants.contains(kind)));
            assert!(info.what.ends_with('.'), "{}: {}", info.name, info.what);
            assert_eq!((info.arm)(&operator()).name(), info.name);
        }
    }

    #[test]
    fn without_takes_one_detector_out() {
        let set = DetectorSet::new(&operator()).without("pod-nic");
        assert_eq!(set.detectors.len(), REGISTRY.len() - 1);
    }

    fn sight(set: &mut DetectorSet, node: &str, collector: CollectorKind, sight: Sight) {
        let observed = Observed::Collector(Collector { collector, sight });
        set.observe(ms(0), &Signal { at: ms(0), node: node.into(), observed });
    }

    #[test]
    fn blind_only_if_none_of_a_group_sees() {
        let mut set = DetectorSet::new(&operator());
        assert!(set.blind().is_empty(), "nothing is known of any node");
        for kind in REGISTRY.iter().flat_map(|info| info.wants) {
            sight(&mut set, "worker-1", *kind, Sight::Ready);
        }
        assert_eq!(set.blind(), []);
        let no = || Sight::Blind("no permission".into());
        // The counters are enough where the kernel log is closed.
        sight(&mut set, "worker-1", CollectorKind::KernelLog, no());
        assert_eq!(set.blind(), []);
        sight(&mut set, "worker-1", CollectorKind::Rtnetlink, no());
        let names: Vec<_> = set.blind().into_iter().map(|(name, _)| name).collect();
        assert!(!names.contains(&"policy-route"), "route look-ups still see");
        assert!(names.contains(&"pod-nic"));
        assert!(set.blind().iter().any(|(_, why)| why == "node worker-1: Rtnetlink: no permission"));
        // The state of the cluster may be seen from any node.
        sight(&mut set, "worker-2", CollectorKind::Probes, no());
        assert!(!set.blind().iter().any(|(name, _)| *name == "dns-failure"));
        sight(&mut set, "worker-1", CollectorKind::Probes, no());
        assert!(set.blind().iter().any(|(name, _)| *name == "dns-failure"));
    }

    /// A small generator of numbers that look random (xorshift): the same every time.
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
            let said = run(&signals);
            assert_eq!(said, run(&signals));
            // Of one subject nothing is withdrawn that does not stand, and nothing is said twice.
            let mut standing = BTreeMap::new();
            for (_, finding) in said {
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
    fn a_few_milliseconds_between_collectors_change_no_verdict() {
        let mut state = 11;
        for (name, scene) in incidents() {
            let loud = |said: Vec<(Time, Finding)>| {
                let loud = said.into_iter().filter(|(_, f)| f.severity > Severity::Info && !f.cleared);
                loud.map(|(_, f)| (f.detector, f.subject)).collect::<std::collections::BTreeSet<_>>()
            };
            let mut told: Vec<_> =
                (scene.signals.iter()).map(|signal| (signal.at.0 + next(&mut state) % 8_000_000, signal)).collect();
            // What stood when the collectors were armed was told first.
            told.sort_by_key(|(at, signal)| if signal.at <= ms(5) { signal.at.0 } else { *at });
            let mut feed = Feed::new(DetectorSet::new(&operator()));
            let said = told.iter().flat_map(|(at, signal)| feed.signal(Time(*at), signal)).collect();
            assert_eq!(loud(said), loud(scene.said), "{name}");
        }
    }
}
