//! The scenarios in the repository.

use std::path::Path;

use relapse::plan::{self, Plan};

/// All plans.
///
/// # Panics
/// With all errors, if there are any.
pub fn plans() -> Vec<Plan> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    plan::load(&[folder]).unwrap_or_else(|diagnostics| panic!("{}", diagnostics.plain()))
}
