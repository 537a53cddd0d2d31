//! What was left out and why, printed last: a skipped trial must not look like a passed one.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use libtest_mimic::{Arguments, Completion, Conclusion, Failed, Trial};

static SKIPS: Mutex<BTreeSet<(String, String)>> = Mutex::new(BTreeSet::new());

/// Backends whose skips are failures.
pub fn required() -> Vec<String> {
    let variable = std::env::var("RELAPSE_REQUIRE").unwrap_or_default();
    variable.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
}

/// A trial that cannot be run on this backend here: left out, or failed where it is required.
pub fn skip(backend: &str, name: &str, reason: &str) -> Result<Completion, Failed> {
    if required().iter().any(|required| required == backend) {
        return Err(format!("required, but skipped: {reason}").into());
    }
    note(name, reason);
    Ok(Completion::ignored_with(reason))
}

/// Keeps a reason for the end.
pub fn note(name: &str, reason: &str) {
    SKIPS.lock().unwrap_or_else(PoisonError::into_inner).insert((name.to_owned(), reason.to_owned()));
}

/// Runs trials, and says last what was left out.
pub fn run(arguments: &Arguments, trials: Vec<Trial>) -> Conclusion {
    let conclusion = libtest_mimic::run(arguments, trials);
    if !arguments.list {
        summarise();
    }
    conclusion
}

/// Prints all of them on standard error.
fn summarise() {
    let skips = SKIPS.lock().unwrap_or_else(PoisonError::into_inner);
    if skips.is_empty() {
        return;
    }
    eprintln!("left out here (where RELAPSE_REQUIRE names the backend, a trial that is left out fails):");
    for (name, reason) in skips.iter() {
        eprintln!("    {name}: {reason}");
    }
}
