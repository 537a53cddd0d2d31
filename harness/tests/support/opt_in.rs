//! Whether real clusters are requested. Tests on them are slow and therefore opt-in.

use super::skips;

/// `RELAPSE_BACKEND` is kind or all: run everything that can run on a cluster.
pub fn for_everything_on_clusters() -> bool {
    let backend = std::env::var("RELAPSE_BACKEND").unwrap_or_default();
    ["kind", "all"].contains(&backend.as_str())
}

/// The same, or `RELAPSE_REQUIRE` contains kind.
pub fn for_clusters() -> bool {
    for_everything_on_clusters() || skips::required().iter().any(|name| name == "kind")
}
