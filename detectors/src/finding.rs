//! Findings: claims of detectors, with their evidence.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::time::Time;

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// A standing weakness that precedes an incident.
    Risk,
    /// The wrong state.
    Cause,
    /// The effect on traffic.
    Symptom,
}

/// How severe a finding is. Only `Warning` and above decides an expectation or fails a control.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    Info,
    Warning,
    Critical,
}

/// What a finding is about, written `kind/name`: `node/worker-1`, `pod/app`, `service/kube-dns`,
/// `path/192.168.40.0/24` (a peer prefix), `name/oss.example.com`, `server/10.176.46.4:3306` (or its declared name),
/// `flow/10.176.64.11:46994->10.200.0.5:443`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subject {
    pub kind: SubjectKind,
    pub name: String,
}

/// The kinds of subjects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SubjectKind {
    Node,
    Pod,
    Service,
    Path,
    Flow,
    /// A domain name, without the dot at its end.
    Name,
    /// An address and port, or the name that an operator declared for it.
    Server,
}

impl SubjectKind {
    pub const ALL: [Self; 7] = [Self::Node, Self::Pod, Self::Service, Self::Path, Self::Flow, Self::Name, Self::Server];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Pod => "pod",
            Self::Service => "service",
            Self::Path => "path",
            Self::Flow => "flow",
            Self::Name => "name",
            Self::Server => "server",
        }
    }
}

/// The text is not of the form `kind/name`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a subject: write node/NAME, pod/NAME, service/NAME, path/PREFIX, name/DOMAIN, server/ADDRESS:PORT or \
     flow/FLOW"
)]
pub struct SubjectError(pub String);

impl Subject {
    #[must_use]
    pub fn node(name: impl Into<String>) -> Self {
        Self { kind: SubjectKind::Node, name: name.into() }
    }
    #[must_use]
    pub fn pod(name: impl Into<String>) -> Self {
        Self { kind: SubjectKind::Pod, name: name.into() }
    }
    #[must_use]
    pub fn service(name: impl Into<String>) -> Self {
        Self { kind: SubjectKind::Service, name: name.into() }
    }
    #[must_use]
    pub fn path(name: impl fmt::Display) -> Self {
        Self { kind: SubjectKind::Path, name: name.to_string() }
    }
    #[must_use]
    pub fn name(domain: impl Into<String>) -> Self {
        Self { kind: SubjectKind::Name, name: domain.into() }
    }
    #[must_use]
    pub fn server(name: impl fmt::Display) -> Self {
        Self { kind: SubjectKind::Server, name: name.to_string() }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.as_str(), self.name)
    }
}

impl FromStr for Subject {
    type Err = SubjectError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || SubjectError(text.to_owned());
        let (kind, name) = text.split_once('/').ok_or_else(error)?;
        let kind = SubjectKind::ALL.into_iter().find(|k| k.as_str() == kind).ok_or_else(error)?;
        if name.is_empty() {
            return Err(error());
        }
        Ok(Self { kind, name: name.to_owned() })
    }
}

impl TryFrom<String> for Subject {
    type Error = SubjectError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Subject> for String {
    fn from(subject: Subject) -> Self {
        subject.to_string()
    }
}

/// A detector's claim. The same (detector, level, subject) may be reported again with a higher severity, and is
/// reported once more with `cleared` when it no longer holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The detector's name, as used in scenarios.
    pub detector: String,
    /// The class of incident: "I4", or any text for outside detectors.
    pub incident: String,
    pub level: Level,
    pub severity: Severity,
    pub subject: Subject,
    /// What was seen, so that a person can check it.
    pub evidence: String,
    /// When it began according to the detector. Evidence only: no deadline is counted from it.
    pub since: Time,
    /// True when this ends an earlier finding.
    #[serde(default)]
    pub cleared: bool,
}
