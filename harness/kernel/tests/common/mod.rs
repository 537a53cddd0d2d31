//! For tests that need namespaces of their own.

use relapse_kernel::NetNs;

/// Whether this process may make network namespaces. If not, the test cannot run: it says so, and
/// where `RELAPSE_REQUIRE` names `netns` that is a failure, so that a skip never looks like a pass.
#[must_use]
pub fn namespaces() -> bool {
    let Err(reason) = NetNs::create("probe") else { return true };
    let required = std::env::var("RELAPSE_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|word| word.trim() == "netns"), "RELAPSE_REQUIRE=netns, but: {reason}");
    eprintln!("skipped: failed to {reason}; run as root or under `unshare --user --map-root-user --net`");
    false
}
