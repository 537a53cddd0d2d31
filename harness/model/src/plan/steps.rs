//! What an application does for each request before it responds: steps, made of parts that are measured separately.

use std::time::Duration;

use super::Target;

/// Index into [`crate::FlowPlan::parts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartId(pub usize);

#[derive(Debug, Clone)]
pub enum Step {
    Part(PartId),
    /// Each begins when the one before has completed.
    InTurn(Vec<Step>),
    /// All begin at once.
    Together(Vec<Step>),
}

/// A request, or several, of an application to one server.
#[derive(Debug, Clone)]
pub struct PartPlan {
    pub name: String,
    /// Kind in the scenario, such as `get`.
    pub kind: &'static str,
    pub to: Target,
    pub port: u16,
    pub work: Work,
    /// Keeps the connection for later requests.
    pub keep: bool,
    /// Time after which it fails. Default: only the whole request has a timeout.
    pub timeout: Option<Duration>,
}

/// The work of a part. Sizes are in bytes.
#[derive(Debug, Clone)]
pub enum Work {
    /// An HTTP GET.
    Get { response: u32 },
    /// A connection to a database, for later parts.
    Connect,
    /// Queries one after another, over the connection of another part or a new one.
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
    /// Time it takes the database without any fault.
    pub takes: Duration,
}

impl PartPlan {
    /// Size of each response of its server, bytes.
    #[must_use]
    pub const fn response(&self) -> u32 {
        match self.work {
            Work::Get { response } | Work::Queries { query: Query { response, .. }, .. } => response,
            Work::Transfer { bytes, upload: false, .. } => bytes,
            Work::Connect | Work::Transfer { .. } => 0,
        }
    }

    /// Whether it has a connection of its own.
    #[must_use]
    pub const fn connects(&self) -> bool {
        !matches!(self.work, Work::Queries { over: Some(_), .. })
    }
}
