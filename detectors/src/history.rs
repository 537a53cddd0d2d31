//! What only history proves: the causes that a detector cannot name if it was armed after the change.
//!
//! Every other cause, and every symptom but one, is named from what stands and from what users do meanwhile, whenever a
//! detector starts. This list is the only place where blindness of a late or restarted detector is accepted.

use crate::finding::{Subject, SubjectKind};
use crate::operator::Operator;

/// What a case depends on.
#[derive(Debug)]
pub struct Known<'a> {
    pub operator: &'a Operator,
    /// The subject of the finding.
    pub subject: &'a Subject,
    /// Pods with a link of their own on the node of that subject.
    pub pods: usize,
    /// What is declared about the subject no longer holds.
    pub outdated: bool,
}

/// A finding that needs history.
#[derive(Debug)]
pub struct NeedsHistory {
    pub detector: &'static str,
    /// What cannot be named, in words.
    pub what: &'static str,
    when: fn(&Known<'_>) -> bool,
}

/// All of them.
pub const NEEDS_HISTORY: &[NeedsHistory] = &[
    NeedsHistory {
        detector: "conntrack-limit",
        what: "the undeclared fall of a limit",
        when: |known| known.operator.conntrack_limit.is_none(),
    },
    NeedsHistory {
        detector: "mss-change",
        what: "a raised MSS on a path that is undeclared, or whose declared MTU is outdated",
        when: |known| {
            known.outdated || !known.operator.paths.iter().any(|path| path.prefix.to_string() == known.subject.name)
        },
    },
    NeedsHistory {
        detector: "policy-route",
        what: "a lost rule of a node's only pod",
        when: |known| known.subject.kind == SubjectKind::Pod && known.pods == 1,
    },
    NeedsHistory { detector: "snat-port-reuse", what: "port reuse before arming", when: |_| true },
    NeedsHistory {
        detector: "dns-answer",
        what: "an undeclared wrong record",
        when: |known| !known.operator.names.iter().any(|name| name.name == known.subject.name),
    },
    NeedsHistory { detector: "server-slow", what: "a slow server", when: |_| true },
    NeedsHistory { detector: "path-slow", what: "the slowness of a path, which is a comparison", when: |_| true },
];

/// Whether a finding needs history.
#[must_use]
pub fn is_needed(detector: &str, known: &Known<'_>) -> bool {
    NEEDS_HISTORY.iter().any(|entry| entry.detector == detector && (entry.when)(known))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::DetectorSet;
    use crate::testing::operator;

    #[test]
    fn each_entry_is_a_detector_and_what_is_declared_or_shared_needs_no_history() {
        let names = DetectorSet::names();
        assert!(NEEDS_HISTORY.iter().all(|entry| names.contains(&entry.detector)));
        let mut operator = operator();
        operator.conntrack_limit = Some(262_144);
        let needed = |detector: &str, subject: &str, pods| {
            let subject = &subject.parse().unwrap();
            is_needed(detector, &Known { operator: &operator, subject, pods, outdated: false })
        };
        assert!(!needed("conntrack-limit", "node/worker-1", 3));
        assert!(!needed("mss-change", "path/192.168.60.0/24", 0) && needed("mss-change", "path/192.168.40.0/24", 0));
        let subject = &"path/192.168.60.0/24".parse().unwrap();
        assert!(is_needed("mss-change", &Known { operator: &operator, subject, pods: 0, outdated: true }));
        assert!(!needed("dns-answer", "name/declared.example.com", 0) && needed("dns-answer", "name/other.example", 0));
        assert!(needed("policy-route", "pod/app", 1) && !needed("policy-route", "pod/app", 2));
        assert!(!needed("policy-route", "node/worker-1", 1), "its table");
        assert!(!needed("pod-nic", "node/worker-1", 1));
    }
}
