use std::time::Duration;

use super::scene::{Scene, app, by_service, database, end, leg};
use crate::signal::{Container, ContainerState, NodeLoad};
use crate::triage::Outcome;

#[test]
fn a_full_connection_table_of_a_node_on_the_way() {
    let legs = || vec![by_service(leg(app(), end("pod/b", "10.176.98.50", Some("worker-1")), 80), "b", "192.168.0.30")];
    for outcome in [Outcome::Timeout, Outcome::NameError, Outcome::Slow(Duration::from_secs(1))] {
        let mut scene = Scene::new(legs(), outcome);
        scene.play("1000 table 4000/4096; 1000 stats drop=3; 1100 table 4096/4096; 1100 stats drop=40");
        scene.leads(1_200, "1 node/worker-2");
        scene.triage.begin_again();
        scene.play("4300 table 60/524288");
        scene.leads(4_300, "nothing");
    }
    let mut elsewhere = Scene::new(legs(), Outcome::Timeout);
    elsewhere.play("1100 @worker-9 table 4096/4096");
    elsewhere.leads(1_200, "nothing");
}

#[test]
fn a_growing_drop_counts_only_with_a_nearly_full_table() {
    let mut scene = Scene::new(vec![leg(app(), database(), 3306)], Outcome::Timeout);
    scene.play("1000 table 50/4096; 1000 stats drop=3; 1100 stats drop=40");
    scene.leads(1_200, "nothing");
}

#[test]
fn a_missing_nic_matters_only_to_what_leaves_by_it() {
    let to = |node| vec![leg(app(), end("pod/b", "10.176.98.50", Some(node)), 80)];
    for (node, expected) in [("worker-2", "nothing, also 1"), ("worker-1", "1 node/worker-2")] {
        let mut scene = Scene::new(to(node), Outcome::Timeout);
        scene.play("1000 link -eth1 3");
        scene.leads(1_200, expected);
    }
}

#[test]
fn a_crashed_pod_and_a_pod_that_starts() {
    let legs = || vec![by_service(leg(app(), end("pod/b", "10.176.98.50", Some("worker-1")), 80), "b", "192.168.0.30")];
    let container = |state, restarts| Container { pod: "b".into(), container: "b".into(), state, restarts };
    let waiting = |reason: &str| ContainerState::Waiting { reason: reason.to_owned() };
    let mut scene = Scene::new(legs(), Outcome::Refused);
    scene.see(1_000, "worker-1", container(waiting("CrashLoopBackOff"), 3));
    scene.leads(1_200, "1 pod/b");
    let mut starts = Scene::new(legs(), Outcome::Refused);
    starts.see(1_000, "worker-1", container(waiting("ContainerCreating"), 0));
    starts.leads(1_200, "nothing");
    starts.see(1_300, "worker-1", container(ContainerState::Running, 0));
    starts.leads(1_400, "nothing");
}

#[test]
fn load_is_no_explanation_but_exhausted_memory_is() {
    let mut scene = Scene::new(vec![leg(app(), database(), 3306)], Outcome::Timeout);
    let load =
        |available: u64| NodeLoad { load1: 90.0, cpus: 2, memory_available: available << 20, memory_total: 8 << 30 };
    scene.see(1_000, "worker-2", load(900));
    scene.leads(1_100, "nothing");
    scene.see(1_200, "worker-2", load(20));
    scene.leads(1_300, "1 node/worker-2");
}
