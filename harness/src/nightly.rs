//! Nightly scenarios: those that take long and are replayed only on request.

use relapse_reports::units::count;

use crate::plan::Plan;

/// Requests all nightly scenarios, if it is 1.
pub const VARIABLE: &str = "RELAPSE_NIGHTLY";

/// Whether the environment requests all nightly scenarios.
#[must_use]
pub fn requested() -> bool {
    std::env::var(VARIABLE).is_ok_and(|value| value == "1")
}

/// Removes the nightly scenarios that are not wanted. The text counts them, and says `how` to run them.
pub fn select(plans: Vec<Plan>, how: &str, is_wanted: impl Fn(&Plan) -> bool) -> (Vec<Plan>, Option<String>) {
    let (kept, left): (Vec<_>, Vec<_>) = plans.into_iter().partition(|plan| !plan.nightly || is_wanted(plan));
    let names: Vec<&str> = left.iter().map(|plan| plan.name.as_str()).collect();
    let notice = (!left.is_empty()).then(|| {
        let scenarios = count(left.len(), "nightly scenario");
        format!("left out: {scenarios} ({}), replayed with {how}, or if named", names.join(", "))
    });
    (kept, notice)
}
