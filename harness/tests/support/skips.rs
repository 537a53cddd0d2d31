//! Skipped trials and reasons, printed last, so that a skipped trial does not look like a passed one.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use libtest_mimic::{Arguments, Completion, Conclusion, Failed, Trial};

static SKIPS: Mutex<BTreeSet<(String, String)>> = Mutex::new(BTreeSet::new());

/// Backends whose skipped trials count as failures.
pub fn required() -> Vec<String> {
    let variable = std::env::var("RELAPSE_REQUIRE").unwrap_or_default();
    variable.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
}

/// Skips a trial that cannot run on this backend here, or fails it if the backend is required.
pub fn skip(backend: &str, name: &str, reason: &str) -> Result<Completion, Failed> {
    if required().iter().any(|required| required == backend) {
        return Err(format!("required, but skipped: {reason}").into());
    }
    note(name, reason);
    Ok(Completion::ignored_with(reason))
}

/// Records a reason, printed at the end.
pub fn note(name: &str, reason: &str) {
    SKIPS.lock().unwrap_or_else(PoisonError::into_inner).insert((name.to_owned(), reason.to_owned()));
}

/// Runs trials, and then prints what was skipped.
pub fn run(arguments: &Arguments, trials: Vec<Trial>) -> Conclusion {
    let conclusion = libtest_mimic::run(arguments, trials);
    if !arguments.list {
        summarise();
    }
    conclusion
}

/// Prints all reasons to standard error.
fn summarise() {
    let skips = SKIPS.lock().unwrap_or_else(PoisonError::into_inner);
    if skips.is_empty() {
        return;
    }
    eprintln!("skipped here (if RELAPSE_REQUIRE contains the backend, a skipped trial fails):");
    for (name, reason) in skips.iter() {
        eprintln!("    {name}: {reason}");
    }
}
