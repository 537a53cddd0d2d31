//! Real clusters: errors are reported in one line, everything a run made is removed however the run ends, clusters of
//! others are never touched, and no packet of a lab gets out.
//!
//! Each test runs the built `relapse` with a state folder of its own, only if real clusters are requested
//! (`RELAPSE_REQUIRE` contains kind, or `RELAPSE_BACKEND` is kind or all). Sequentially, because runs on clusters wait
//! for each other anyway.

mod support {
    pub mod engine;
    pub mod opt_in;
    pub mod real_run;
    pub mod skips;
    pub mod stranger;
}

mod on_kind {
    pub mod contained;
    pub mod removed;
    pub mod signals;
    pub mod unmade;
}

use std::path::Path;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use relapse_kind::Kind;
use relapse_lab::cluster::backend::Backend as _;

use on_kind::{removed, signals, unmade};
use support::{opt_in, skips};

/// The result of a test, with the failure as text.
type Tested = Result<(), String>;
/// A test and what it proves.
type Test = (&'static str, fn() -> Tested);

fn main() -> ExitCode {
    relapse_kind::register();
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(1);
    let tests: [Test; 15] = [
        ("without Docker it is skipped, or fails if required", unmade::no_docker),
        ("without kind it is skipped with that reason", unmade::no_kind),
        ("without its image it is skipped, and the image is named", unmade::no_image),
        ("a failed creation is reported in one line and leaves nothing", unmade::fails),
        ("a full disk is reported as such", unmade::disk_full),
        ("a hanging creation is ended in time, and the nodes' logs are saved", unmade::hangs),
        ("killed with a fault in force on two clusters: the next start removes all", removed::in_force),
        ("two runs at once: both pass, nothing left", removed::two_at_once),
        ("killed alone while its cluster comes up: recover removes it", removed::coming_up),
        ("a chain killed while its second step is healed: recover removes all", removed::chain_healing),
        (
            "a packet that tries to leave is dropped; killed while the cluster goes down: recover removes it",
            removed::going_down,
        ),
        ("a packet that tries to leave is reported for an aborted trial, too", removed::cut_off),
        ("signals of the API server reach the detectors", signals::reach_detectors),
        ("the cluster of another owner was never touched", removed::stranger_untouched),
        // Last, because the other owner's cluster would end with the engine.
        ("the engine stopped during a trial: inconclusive, removed later", removed::engine_stopped),
    ];
    let trials = tests.map(|(name, test)| Trial::ignorable_test(name, move || run(name, test)));
    let conclusion = skips::run(&arguments, trials.into());
    removed::end();
    conclusion.exit_code()
}

fn run(name: &str, test: fn() -> Tested) -> Result<Completion, Failed> {
    if !opt_in::for_clusters() {
        let why = "only where RELAPSE_REQUIRE or RELAPSE_BACKEND names kind";
        skips::note("tests on real clusters", why);
        return Ok(Completion::ignored_with(why));
    }
    match Kind::new("none", None, Path::new(""), 1).unable() {
        Some(why) => skips::skip("kind", name, &why),
        None => Ok(test().map(|()| Completion::Completed)?),
    }
}
