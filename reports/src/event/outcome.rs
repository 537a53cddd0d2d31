//! The outcome of a trial or a run.

use serde::{Deserialize, Serialize};

/// The outcome of a trial or a run, ordered from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Pass,
    /// Not run, with a reason. Does not fail a run; `--require` turns it into `Fail`.
    Skipped,
    /// A detection failed.
    Fail,
    /// No steady state, no effect, or a lost collector: nothing was proved.
    Inconclusive,
    /// Something was left behind.
    Dirty,
    /// A defect of relapse itself.
    InternalError,
}

impl Outcome {
    /// Exit status of a run with this outcome (`sysexits.h` for the last).
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Pass | Self::Skipped => 0,
            Self::Fail => 1,
            Self::Inconclusive => 2,
            Self::Dirty => 3,
            Self::InternalError => 70,
        }
    }

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Skipped => "skipped",
            Self::Fail => "fail",
            Self::Inconclusive => "inconclusive",
            Self::Dirty => "dirty",
            Self::InternalError => "internal-error",
        }
    }
}
