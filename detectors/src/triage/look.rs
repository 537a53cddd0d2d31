//! What a step found.

use super::State;
use crate::finding::Subject;

/// What a step found.
#[derive(Debug, Clone)]
pub(super) struct Look {
    pub state: State,
    pub evidence: String,
    pub at: Option<Subject>,
    pub explains: bool,
}

impl Look {
    pub fn of(state: State, evidence: impl Into<String>) -> Self {
        Self { state, evidence: evidence.into(), at: None, explains: false }
    }
    pub fn in_order(evidence: impl Into<String>) -> Self {
        Self::of(State::InOrder, evidence)
    }
    pub fn not_on_this_way(evidence: impl Into<String>) -> Self {
        Self::of(State::NotOnThisWay, evidence)
    }
    pub fn not_seen(evidence: impl Into<String>) -> Self {
        Self::of(State::NotSeen, evidence)
    }
    /// Faulty, but it does not explain what users see.
    pub fn faulty(at: Subject, evidence: impl Into<String>) -> Self {
        Self { at: Some(at), ..Self::of(State::Faulty, evidence) }
    }
    pub const fn explains_if(mut self, explains: bool) -> Self {
        self.explains = explains;
        self
    }

    /// The look of a step that looks at several legs: what explains, else what is faulty, else what is in order.
    pub fn worst(looks: Vec<Self>) -> Self {
        let rank = |look: &Self| match look.state {
            State::Faulty if look.explains => 0,
            State::Faulty => 1,
            State::InOrder => 2,
            State::NotSeen => 3,
            State::NotOnThisWay => 4,
        };
        let worst = looks.into_iter().min_by_key(rank);
        worst.unwrap_or_else(|| Self::not_on_this_way("nothing is asked"))
    }
}
