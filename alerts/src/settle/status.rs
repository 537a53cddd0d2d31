//! What reading alone tells of a selector.

/// What is known of a selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Status {
    /// It may have series.
    Live,
    /// It reads a recording rule, if there is one of that name.
    Rule { name: String, else_: Box<Status> },
    /// It reads `ALERTS` of this name.
    Alert(String),
    /// There is no such series anywhere.
    Nowhere { why: String, nearest: Option<String> },
    /// This was not recorded.
    Unseen(String),
    /// Its series depend on something that is not known.
    Unsure(String),
}

impl Status {
    pub(super) fn nowhere(&self) -> Option<(&str, Option<&str>)> {
        match self {
            Self::Nowhere { why, nearest } => Some((why, nearest.as_deref())),
            _ => None,
        }
    }
}
