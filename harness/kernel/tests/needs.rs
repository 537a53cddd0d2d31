//! Tests that say what they need of the machine: where it is missing they are ignored with the reason, or fail if
//! `RELAPSE_REQUIRE` names `netns`. None looks passed that was not run.
//!
//! A module of a test program lists its tests by what they need; the program's main runs them with `skips::run`. Knows no need itself: other rooms' test programs take this file as it is.
//!
//! ```ignore
//! tests! {
//!     namespaces => [links_come, links_go],
//!     nothing => [names_are_short],
//! }
//! ```

use libtest_mimic::{Completion, Trial};

use crate::skips;

/// Nothing, or what is missing and what would help.
pub type Need = fn() -> Result<(), String>;

/// A test by the name of its function in `module`, which begins with the program's own name.
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

/// Makes `tests()`, the module's tests by what they need.
macro_rules! tests {
    ($($need:path => [$($name:ident),+ $(,)?]),+ $(,)?) => {
        pub fn tests() -> Vec<libtest_mimic::Trial> {
            vec![$($(crate::needs::trial(module_path!(), stringify!($name), $need, $name)),+),+]
        }
    };
}
pub(crate) use tests;
