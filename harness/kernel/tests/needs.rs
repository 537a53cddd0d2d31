//! Tests that declare their requirements on the machine: a test whose requirement is not met is ignored with the
//! reason, or fails if `RELAPSE_REQUIRE` names `netns`. A test that did not run never shows as passed.
//!
//! A module of a test program lists its tests by requirement; the program's main runs them with `skips::run`. This file
//! defines no requirements, so that test programs of other crates can include it unchanged.
//!
//! ```ignore
//! tests! {
//!     namespaces => [links_come, links_go],
//!     nothing => [names_are_short],
//! }
//! ```

use libtest_mimic::{Completion, Trial};

use crate::skips;

/// `Ok`, or what is missing and how to provide it.
pub type Need = fn() -> Result<(), String>;

/// A test named after its function in `module`, without the program's own name at the start.
pub fn trial(module: &str, name: &str, need: Need, test: fn()) -> Trial {
    let name =
        module.split_once("::").map_or_else(|| name.to_owned(), |(_program, module)| format!("{module}::{name}"));
    let run = {
        let name = name.clone();
        move || match need() {
            Ok(()) => {
                test();
                Ok(Completion::Completed)
            }
            Err(reason) => skips::skip("netns", &name, &reason),
        }
    };
    Trial::ignorable_test(name, run)
}

/// Defines `tests()`, the module's tests with their requirements.
macro_rules! tests {
    ($($need:path => [$($name:ident),+ $(,)?]),+ $(,)?) => {
        pub fn tests() -> Vec<libtest_mimic::Trial> {
            vec![$($(crate::needs::trial(module_path!(), stringify!($name), $need, $name)),+),+]
        }
    };
}
pub(crate) use tests;
