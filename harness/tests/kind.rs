//! Real clusters: what goes wrong with them is told in a line, what a run made is removed however the run
//! ends, nothing of somebody else's is touched, and no packet of a lab gets out.
//!
//! Runs of the built `relapse`, each test with a state folder of its own, only where real clusters are
//! asked for (`RELAPSE_REQUIRE` names kind, or `RELAPSE_BACKEND` is kind or all). One after the other:
//! runs on clusters wait for each other anyway.

mod support {
    pub mod asked;
    pub mod engine;
    pub mod real_run;
    pub mod skips;
    pub mod stranger;
}

mod on_kind {
    pub mod contained;
    pub mod heard;
    pub mod removed;
    pub mod unmade;
}

use std::path::Path;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use relapse_kind::Kind;
use relapse_lab::cluster::backend::Backend as _;

use on_kind::{heard, removed, unmade};
use support::{asked, skips};

/// What a test finds wrong, in words.
type Tested = Result<(), String>;
/// What it proves, and the test.
type Test = (&'static str, fn() -> Tested);

fn main() -> ExitCode {
    relapse_kind::register();
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(1);
    let tests: [Test; 14] = [
        ("without Docker it is skipped, and failed where it is required", unmade::no_docker),
        ("without kind it is skipped, saying so", unmade::no_kind),
        ("without its image it is skipped, naming it", unmade::no_image),
        ("a creation that fails is told in a line and leaves nothing", unmade::fails),
        ("a disk that is full is told as that", unmade::disk_full),
        ("a creation that hangs is ended in time, with the nodes' logs saved", unmade::hangs),
        ("killed with a fault in force on two clusters: the next start removes all", removed::in_force),
        ("two runs at once: both pass, nothing left", removed::two_at_once),
        ("killed alone while its cluster comes up: recover removes it", removed::coming_up),
        (
            "a packet that tries to leave is dropped; killed while the cluster goes down: recover removes it",
            removed::going_down,
        ),
        ("a packet that tries to leave is told of a trial that is cut off, too", removed::cut_off),
        ("what only an API server tells is heard", heard::told),
        ("all the while the cluster of somebody else was left alone", removed::stranger_untouched),
        // The last one: the cluster of somebody else would go with the engine.
        ("the engine stopped in the middle: inconclusive, removed later", removed::engine_stopped),
    ];
    let trials = tests.map(|(name, test)| Trial::ignorable_test(name, move || run(name, test)));
    let conclusion = skips::run(&arguments, trials.into());
    removed::end();
    conclusion.exit_code()
}

fn run(name: &str, test: fn() -> Tested) -> Result<Completion, Failed> {
    if !asked::for_clusters() {
        let why = "only where RELAPSE_REQUIRE or RELAPSE_BACKEND names kind";
        skips::note("tests on real clusters", why);
        return Ok(Completion::ignored_with(why));
    }
    match Kind::new("none", None, Path::new(""), 1).unable() {
        Some(why) => skips::skip("kind", name, &why),
        None => Ok(test().map(|()| Completion::Completed)?),
    }
}
