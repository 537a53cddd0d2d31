//! Rules as read from a user's files.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::expr::{Expression, Selector};

/// The place of a rule in [`RuleSet::rules`]. Names repeat, so they identify nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(pub usize);

/// All rules of a reader.
#[derive(Debug, Clone, Default)]
pub struct RuleSet {
    pub groups: Vec<Group>,
    pub rules: Vec<Rule>,
    /// Files that hold at least one rule.
    pub files: usize,
    /// Objects of other kinds, which hold no rules: how many of each kind.
    pub skipped: BTreeMap<String, usize>,
}

/// Rules that are evaluated together, one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub name: String,
    pub file: Arc<str>,
    /// `None`: the reader's evaluation interval.
    pub interval: Option<Duration>,
    /// How old the data are that the rules see.
    pub query_offset: Duration,
}

#[derive(Debug, Clone)]
pub struct Rule {
    /// Index of [`RuleSet::groups`].
    pub group: usize,
    /// Path as given by the user, `-` for standard input; with the line, counted from 1, of the rule's name.
    pub file: Arc<str>,
    pub line: usize,
    pub what: What,
    pub expr: String,
    /// Labels that the rule adds, templates included.
    pub labels: BTreeMap<String, String>,
    /// What the expression reads.
    pub read: Expression,
    /// How far back the expression looks at most: ranges, offsets and subqueries added up, including those of recording
    /// rules that it reads; [`Duration::MAX`] for a fixed time. The 5 minutes in which Prometheus looks for the last
    /// sample are not part of it, because a recording has one for each scrape.
    pub reach: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    Alert {
        name: String,
        /// Its `for`.
        wait: Duration,
        keep_firing: Duration,
        severity: Severity,
    },
    /// A recording rule.
    Record { name: String },
}

/// The `severity` label; without one, `Warning`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    Info,
    Warning,
    Critical,
}

impl Rule {
    #[must_use]
    pub fn name(&self) -> &str {
        match &self.what {
            What::Alert { name, .. } | What::Record { name } => name,
        }
    }

    #[must_use]
    pub const fn is_alert(&self) -> bool {
        matches!(self.what, What::Alert { .. })
    }

    /// Every selector of the expression.
    #[must_use]
    pub fn selectors(&self) -> &[Selector] {
        &self.read.selectors
    }

    /// The metrics that the expression names.
    #[must_use]
    pub fn metrics(&self) -> BTreeSet<&str> {
        self.selectors().iter().filter_map(|selector| selector.metric.as_deref()).collect()
    }
}
