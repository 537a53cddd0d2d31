//! The command line of relapse.

use std::process::ExitCode;

fn main() -> ExitCode {
    relapse::netns::register();
    #[cfg(feature = "kind")]
    relapse_kind::register();
    // A lab makes its namespaces while there is only one thread: before anything else.
    match std::env::args().nth(1).as_deref() {
        Some(relapse::cluster::backend::LAB) => return relapse::run::lab::lab_main(),
        Some(relapse::host::client::COMMAND) => return relapse::host::guardian_main(),
        _ => {}
    }
    relapse::cli::main()
}
