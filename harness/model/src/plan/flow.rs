//! A client of the workload, and how its attempts fail.

use std::fmt;
use std::time::Duration;

use super::{OutsideId, PartId, PartPlan, Place, Step, Target};

/// One client of the workload, running for the whole trial: the generic part. The attempt itself is defined by the
/// flow's kind.
#[derive(Debug, Clone)]
pub struct FlowPlan {
    pub name: String,
    /// Kind in the scenario, such as `tcp`.
    pub kind: &'static str,
    pub from: Place,
    /// The other pods of a counted name: attempts come from `from` and these in turn.
    pub in_turn: Vec<Place>,
    pub to: Target,
    /// Node or load balancer outside through which it reaches a Service, instead of the Service's virtual address.
    pub via: Option<Place>,
    /// Resolver outside that is asked for names. Default: [`ClusterPlan::resolver_of`].
    pub resolver: Option<OutsideId>,
    /// The name it looks up, if it does nothing else.
    pub query: Option<String>,
    /// TCP port of the server it needs at the target, if any.
    pub port: Option<u16>,
    /// Size of that server's response, bytes.
    pub response: u32,
    /// Number of connections it keeps open; 0 if each attempt opens its own.
    pub keeps: u32,
    /// Connection-tracking entries created by an attempt.
    pub entries: u32,
    /// Interval between starts of attempts; with kept connections, a slower attempt delays the next.
    pub every: Duration,
    pub timeout: Duration,
    /// How the client sees a missing response.
    pub late: Failure,
    /// Whether an attempt looks up names, and may fail as `NameError`.
    pub looks_up: bool,
    /// Whether a blackbox exporter probes its server as well where series are recorded.
    pub probed: bool,
    /// The requests that its server makes before it responds, each measured by itself.
    pub parts: Vec<PartPlan>,
    /// The order of the parts.
    pub steps: Step,
}

impl FlowPlan {
    /// A flow that opens a connection for each attempt, at the default pace.
    #[must_use]
    pub const fn new(name: String, kind: &'static str, from: Place, to: Target) -> Self {
        Self {
            name,
            kind,
            from,
            in_turn: Vec::new(),
            to,
            via: None,
            resolver: None,
            query: None,
            port: None,
            response: 0,
            keeps: 0,
            entries: 1,
            every: Duration::from_millis(100),
            timeout: Duration::from_millis(400),
            late: Failure::Timeout,
            looks_up: false,
            probed: true,
            parts: Vec::new(),
            steps: Step::InTurn(Vec::new()),
        }
    }

    /// Target, port and response size (bytes) of the server it needs and of those its parts need.
    pub fn asked(&self) -> impl Iterator<Item = (Target, u16, u32)> {
        let own = self.port.map(|port| (self.to, port, self.response));
        own.into_iter().chain(self.parts.iter().map(|part| (part.to, part.port, part.response())))
    }

    /// Name of the flow or of a part in messages: "call", "queries of call".
    #[must_use]
    pub fn part_name(&self, part: Option<PartId>) -> String {
        part.map_or_else(|| self.name.clone(), |id| format!("{} of {}", self.parts[id.0].name, self.name))
    }

    /// Whether it keeps many connections open, which take time to open.
    #[must_use]
    pub const fn holds(&self) -> bool {
        self.keeps > 1
    }
}

/// How an attempt fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Failure {
    #[default]
    Any,
    /// No answer in time.
    Timeout,
    /// A TCP reset or ICMP unreachable.
    Refused,
    /// The name was not resolved (SERVFAIL, NXDOMAIN or no answer).
    NameError,
    /// An HTTP response with this status (RFC 9110, 15) instead of 200.
    Status(u16),
}

impl Failure {
    /// The failure written in a scenario or in `Server-Timing`: a word, or `http-STATUS`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let status = |text: &str| text.parse().ok().filter(|status| (400..=599).contains(status));
        match text {
            "any" => Some(Self::Any),
            "timeout" => Some(Self::Timeout),
            "refused" => Some(Self::Refused),
            "name-error" => Some(Self::NameError),
            other => other.strip_prefix("http-").and_then(status).map(Self::Status),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Timeout => f.write_str("timeout"),
            Self::Refused => f.write_str("refused"),
            Self::NameError => f.write_str("name-error"),
            Self::Status(status) => write!(f, "http-{status}"),
        }
    }
}
