//! The command line of relapse.

use std::process::ExitCode;

fn main() -> ExitCode {
    relapse_lab::netns::register();
    #[cfg(feature = "kind")]
    relapse_kind::register();
    relapse::shipped::register();
    // First of all, because a lab must create its namespaces while there is only one thread.
    match std::env::args().nth(1).as_deref() {
        Some(relapse_lab::cluster::backend::LAB) => return relapse::run::lab::lab_main(),
        Some(relapse_lab::host::client::COMMAND) => return relapse_lab::host::guardian_main(),
        _ => {}
    }
    relapse::cli::main()
}
