//! What an alert counts as, who says so, and whether an expectation holds.

use serde::{Deserialize, Serialize};

/// Best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Says what is wrong.
    Cause,
    /// Says that something is wrong that users notice or will notice.
    Symptom,
    /// Another effect of the incident; no false alarm, and no credit.
    Collateral,
}

/// Who says which level an alert has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// `expect` in `relapse.yaml`.
    Expected,
    /// The reviewed list.
    Reviewed,
    /// Its subject.
    Subject,
}

/// Whether an expectation holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    Holds,
    Broken { why: String },
}

impl Level {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cause => "cause",
            Self::Symptom => "symptom",
            Self::Collateral => "collateral",
        }
    }
}
