//! An armed detector: its state for each node, or for the cluster, and its claims.
//!
//! Left out: the list of detectors and what they see; see [`crate::registry`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::claims::{Claims, Holder};
use crate::detector::{Context, Detector, DetectorInfo, State};
use crate::finding::Finding;
use crate::operator::Operator;
use crate::signal::Signal;
use crate::time::Time;

/// How often old state is dropped.
const FORGET: Duration = Duration::from_secs(1);

pub(crate) struct Armed {
    pub info: &'static DetectorInfo,
    /// The state for each node, or for the cluster.
    parts: BTreeMap<Holder, Box<dyn Detector>>,
    claims: Claims,
    forgot: Time,
}

impl Armed {
    pub fn new(info: &'static DetectorInfo, operator: &Operator) -> Self {
        let claims = Claims::new(info.name, info.incident, info.level, &operator.dns_service);
        Self { info, parts: BTreeMap::new(), claims, forgot: Time::default() }
    }

    /// Passes it a signal if it wants that kind, and appends its findings.
    pub fn observe(&mut self, now: Time, operator: &Operator, signal: &Signal, findings: &mut Vec<Finding>) {
        if !signal.observed.collector().is_some_and(|kind| self.info.wants.contains(&kind)) {
            return;
        }
        let (holder, new) = match self.info.state {
            State::EachNode(new) => (Some(Arc::clone(&signal.node)), new),
            State::Cluster(new) => (None, new),
        };
        self.parts.entry(holder.clone()).or_insert_with(new);
        let parts = if signal.is_of_the_cluster() {
            self.parts.range_mut::<Holder, _>(..)
        } else {
            self.parts.range_mut(&holder..=&holder)
        };
        for (holder, detector) in parts {
            detector.observe(&mut Context::of(now, operator, holder, &mut self.claims), signal);
        }
        self.hand_over(findings);
    }

    /// Passes it the time, and appends its findings.
    pub fn tick(&mut self, now: Time, operator: &Operator, findings: &mut Vec<Finding>) {
        let forget = now.since(self.forgot) >= FORGET;
        if forget {
            self.forgot = now;
        }
        for (holder, detector) in &mut self.parts {
            let mut cx = Context::of(now, operator, holder, &mut self.claims);
            detector.tick(&mut cx);
            if forget {
                detector.forget(&cx);
            }
        }
        self.hand_over(findings);
    }

    fn hand_over(&mut self, findings: &mut Vec<Finding>) {
        let is_named = |finding: &Finding| self.info.subjects.contains(&finding.subject.kind);
        debug_assert!(self.claims.findings.iter().all(is_named), "{} names another kind of subject", self.info.name);
        findings.append(&mut self.claims.findings);
    }
}
