//! Where to look first: the six steps of triage, over signals and what users see.
//!
//! (1) nodes and pods, (2) the back end's requests, errors and latency, (3) DNS, (4) the Service, (5) the ingress, (6)
//! one failing access, hop by hop. Each step is in order, faulty, not on this way, or not seen, and says why. The verdict
//! is the first step that explains what users see now, and the place; other faulty steps contribute.
//!
//! Invariants: pure, as detectors are; it knows the operator's facts, the ways in ([`Access`]) and what users see
//! ([`Seen`]), and neither findings nor faults. "In order" needs evidence, and "faulty" only explains what it can cause:
//! a name that is not resolved is not explained by a slow server.
//! Left out: the load of nodes explains nothing by itself, since in labs it is the machine's.
//!
//! One file per step. [`journeys`] follows SYNs for all of them, [`shared`] has what else several steps need.

mod access;
mod backend;
mod dns;
mod hops;
mod ingress;
mod journeys;
mod look;
mod nodes;
mod run;
mod service;
mod shared;

#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use access::{Access, AskedService, End, Leg, Lookup, Outcome, Seen};

use crate::finding::Subject;
use crate::operator::Operator;
use crate::signal::Signal;
use crate::time::Time;
use look::Look;
use run::{Run, fresh};
use shared::Shared;

/// A complaint stands for so long after the last bad request.
const STANDS: Duration = Duration::from_secs(5);
/// An explanation is kept for so long while complaints go on and the evidence has a gap.
const GAP: Duration = Duration::from_secs(3);

/// The names of the steps, from 1 on.
pub const STEPS: [&str; 6] = ["nodes and pods", "back end", "DNS", "Service", "ingress", "hop by hop"];

/// The result of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    InOrder,
    Faulty,
    NotOnThisWay,
    NotSeen,
}

impl State {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InOrder => "in order",
            Self::Faulty => "faulty",
            Self::NotOnThisWay => "not on this way",
            Self::NotSeen => "not seen",
        }
    }
}

/// One step and its evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepState {
    /// 1 to 6.
    pub number: u8,
    pub state: State,
    pub evidence: String,
    /// What is faulty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Subject>,
}

/// Where to look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    pub steps: Vec<StepState>,
    /// The first step that explains what users see now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<u8>,
    /// The place that this step names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Subject>,
    /// Other steps that are faulty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contributing: Vec<u8>,
}

impl Verdict {
    /// Whether it says the same, whatever the evidence.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let key = |verdict: &Self| (verdict.first, verdict.at.clone(), verdict.contributing.clone());
        let states = |verdict: &Self| verdict.steps.iter().map(|step| step.state).collect::<Vec<_>>();
        key(self) == key(other) && states(self) == states(other)
    }
}

/// A verdict on one access.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Triaged {
    /// The flow that users complain about.
    pub flow: String,
    /// When the first of its bad requests ended.
    pub since: Time,
    /// The last bad request.
    pub seen: Seen,
    pub verdict: Verdict,
}

/// What a step is asked.
struct Ask<'a> {
    access: &'a Access,
    /// What users see now.
    outcome: Outcome,
    now: Time,
    operator: &'a Operator,
    shared: &'a Shared,
    dns: &'a dns::Resolution,
    services: &'a service::Services,
}

trait Step {
    fn observe(&mut self, operator: &Operator, signal: &Signal);
    fn look(&self, ask: &Ask<'_>) -> Look;
}

/// Bad requests of one flow.
#[derive(Debug, Clone)]
struct Bad {
    first: Time,
    last: Seen,
    count: u64,
}

/// The state of triage.
#[derive(Debug)]
pub struct Triage {
    operator: Operator,
    accesses: Vec<Access>,
    complaints: Vec<Option<Bad>>,
    shared: Shared,
    nodes: nodes::Nodes,
    backend: backend::Backend,
    dns: dns::Resolution,
    services: service::Services,
    ingress: ingress::Ingress,
    hops: hops::Hops,
    now: Time,
    forgot: Time,
    /// The last verdict that explained something, and when, by access.
    explained: Vec<Option<(Time, Verdict)>>,
    shown: Option<usize>,
}

impl Triage {
    #[must_use]
    pub fn new(operator: &Operator, accesses: Vec<Access>) -> Self {
        Self {
            operator: operator.clone(),
            complaints: vec![None; accesses.len()],
            explained: vec![None; accesses.len()],
            accesses,
            shared: Shared::default(),
            nodes: nodes::Nodes::default(),
            backend: backend::Backend::default(),
            dns: dns::Resolution::default(),
            services: service::Services::default(),
            ingress: ingress::Ingress::default(),
            hops: hops::Hops::default(),
            now: Time::default(),
            forgot: Time::default(),
            shown: None,
        }
    }

    fn steps(&self) -> [&dyn Step; 6] {
        [&self.nodes, &self.backend, &self.dns, &self.services, &self.ingress, &self.hops]
    }

    /// Takes a signal.
    pub fn observe(&mut self, signal: &Signal) {
        self.operator.learn(signal);
        self.shared.observe(&self.operator, signal);
        let operator = &self.operator;
        let steps: [&mut dyn Step; 6] =
            [&mut self.nodes, &mut self.backend, &mut self.dns, &mut self.services, &mut self.ingress, &mut self.hops];
        steps.into_iter().for_each(|step| step.observe(operator, signal));
    }

    /// A user saw a request of a flow end.
    pub fn seen(&mut self, flow: &str, seen: Seen) {
        let Some(index) = self.accesses.iter().position(|access| access.flow == flow) else { return };
        if !seen.outcome.is_bad() {
            return;
        }
        let first = Bad { first: seen.at, last: seen, count: 0 };
        let complaint = self.complaints[index].get_or_insert(first);
        (complaint.last, complaint.count) = (seen, complaint.count + 1);
    }

    /// Forgets all complaints and explanations: something was changed.
    pub fn begin_again(&mut self) {
        self.complaints.iter_mut().for_each(|complaint| *complaint = None);
        self.explained.iter_mut().for_each(|explained| *explained = None);
        self.shown = None;
    }

    /// Time has passed. Called about every 50 ms.
    pub fn tick(&mut self, now: Time) {
        self.now = self.now.max(now);
        self.dns.tick(now);
        if now.since(self.forgot) >= Duration::from_secs(1) {
            self.forgot = now;
            self.hops.tick(now);
            self.shared.paths.tick(now);
            self.shared.paths.forget(now);
            self.shared.journeys.forget(now);
        }
        for (complaint, explained) in self.complaints.iter_mut().zip(&mut self.explained) {
            if complaint.as_ref().is_some_and(|complaint| now.since(complaint.last.at) >= STANDS) {
                (*complaint, *explained) = (None, None);
            }
        }
    }

    /// The verdict on what users complain about; `None` if they do not. Of several flows, one that is explained; of
    /// these, one that fails before one that is slow, and the one with most bad requests.
    pub fn verdict(&mut self) -> Option<Triaged> {
        let mut all = Vec::new();
        for index in 0..self.accesses.len() {
            let Some(complaint) = self.complaints[index].clone() else { continue };
            let verdict = self.of(index, complaint.last.outcome);
            all.push((index, complaint, verdict));
        }
        let rank = |(index, complaint, verdict): &&(usize, Bad, Verdict)| {
            let is_slow = matches!(complaint.last.outcome, Outcome::Slow(_));
            let few = std::cmp::Reverse(complaint.count);
            (verdict.first.is_none(), is_slow, few, Some(*index) != self.shown, complaint.first)
        };
        let (index, complaint, verdict) = all.iter().min_by_key(rank)?.clone();
        self.shown = Some(index);
        let (flow, since) = (self.accesses[index].flow.clone(), complaint.first);
        Some(Triaged { flow, since, seen: complaint.last, verdict })
    }

    fn of(&mut self, index: usize, outcome: Outcome) -> Verdict {
        let (access, operator) = (&self.accesses[index], &self.operator);
        let ask = Ask {
            access,
            outcome,
            now: self.now,
            operator,
            shared: &self.shared,
            dns: &self.dns,
            services: &self.services,
        };
        let looks = self.steps().map(|step| step.look(&ask));
        let first = looks.iter().position(|look| look.explains);
        let number = |index: usize| u8::try_from(index + 1).unwrap_or(u8::MAX);
        let faulty = (0..looks.len()).filter(|index| looks[*index].state == State::Faulty && Some(*index) != first);
        let contributing = faulty.map(number).collect();
        let at = first.and_then(|first| looks[first].at.clone());
        let steps = looks.into_iter().enumerate().map(|(index, look)| StepState {
            number: number(index),
            state: look.state,
            evidence: look.evidence,
            at: look.at,
        });
        let verdict = Verdict { steps: steps.collect(), first: first.map(number), at, contributing };
        let explained = &mut self.explained[index];
        match explained {
            _ if verdict.first.is_some() => *explained = Some((self.now, verdict.clone())),
            Some((at, before)) if self.now.since(*at) < GAP => return before.clone(),
            _ => {}
        }
        verdict
    }
}
