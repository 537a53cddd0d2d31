//! What an application does for each request before it answers: steps, and in them the parts whose times are known by
//! themselves.

use std::time::Duration;

use crate::plan::Target;

/// Index into [`crate::FlowPlan::parts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartId(pub usize);

#[derive(Debug, Clone)]
pub enum Step {
    Part(PartId),
    /// Each begins when the one before has ended.
    InTurn(Vec<Step>),
    /// All begin at once.
    Together(Vec<Step>),
}

/// One thing that the application asks of a server.
#[derive(Debug, Clone)]
pub struct PartPlan {
    pub name: String,
    /// As scenarios write it: `get`.
    pub kind: &'static str,
    pub to: Target,
    pub port: u16,
    pub work: Work,
    /// Its connection is used again by later requests.
    pub keep: bool,
    /// Time after which it fails; none where only the whole request has one.
    pub timeout: Option<Duration>,
}

/// What is asked. Sizes are in bytes.
#[derive(Debug, Clone)]
pub enum Work {
    /// An HTTP GET.
    Get { response: u32 },
    /// A connection to a database, for later parts.
    Connect,
    /// Queries one after another: over the connection of another part, or their own.
    Queries { over: Option<PartId>, count: u32, query: Query, think: Duration },
    /// Files one after another, to an object store (HTTP PUT) or from it (GET).
    Transfer { bytes: u32, upload: bool, times: u32 },
}

/// One query of a database.
#[derive(Debug, Clone, Copy)]
pub struct Query {
    /// Bytes.
    pub request: u32,
    /// Bytes.
    pub response: u32,
    /// How long it takes the database by itself.
    pub takes: Duration,
}

impl PartPlan {
    /// What its server answers at a time, bytes.
    #[must_use]
    pub const fn response(&self) -> u32 {
        match self.work {
            Work::Get { response } | Work::Queries { query: Query { response, .. }, .. } => response,
            Work::Transfer { bytes, upload: false, .. } => bytes,
            Work::Connect | Work::Transfer { .. } => 0,
        }
    }

    /// Whether it opens a connection of its own.
    #[must_use]
    pub const fn connects(&self) -> bool {
        !matches!(self.work, Work::Queries { over: Some(_), .. })
    }
}
