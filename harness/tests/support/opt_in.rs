//! Whether real clusters are asked for: what they cost nobody pays unasked.

use super::skips;

/// `RELAPSE_BACKEND` is kind or all: whatever can run on one.
pub fn for_everything_on_clusters() -> bool {
    let backend = std::env::var("RELAPSE_BACKEND").unwrap_or_default();
    ["kind", "all"].contains(&backend.as_str())
}

/// That, or `RELAPSE_REQUIRE` names kind.
pub fn for_clusters() -> bool {
    for_everything_on_clusters() || skips::required().iter().any(|name| name == "kind")
}
