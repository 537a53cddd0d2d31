use std::time::Duration;

use super::scene::{Scene, an_answered_syn, app, by_ingress, database, end, leg, unanswered_syns};
use crate::triage::Outcome;

pub(super) fn queries(scene: &mut Scene, from: u64, count: u64, took: u64, more: &str) {
    for number in 0..count {
        let at = from + number * 20 + took;
        scene.play(&format!("{at} exchange 10.176.98.29:{} 10.176.46.4:3306 {took} {more}", 40_000 + number));
    }
}

#[test]
fn a_database_that_became_slow_and_what_it_does_not_explain() {
    let slow = Outcome::Slow(Duration::from_secs(5));
    for (outcome, expected) in [(slow, "2 server/database"), (Outcome::NameError, "nothing, also 2")] {
        let mut scene = Scene::new(vec![leg(app(), database(), 3306)], outcome);
        queries(&mut scene, 100, 10, 1, "");
        scene.leads(900, "nothing");
        queries(&mut scene, 1_000, 3, 400, "acked=1");
        scene.leads(2_000, expected);
    }
    // Two are no series, and late acknowledgments acquit it.
    for (count, more) in [(2, "acked=1"), (5, "acked=399"), (5, "acked=1 again")] {
        let mut scene = Scene::new(vec![leg(app(), database(), 3306)], slow);
        queries(&mut scene, 100, 10, 1, "");
        queries(&mut scene, 1_000, count, 400, more);
        assert_ne!(scene.verdict(2_000).first, Some(2), "{count} {more}");
    }
}

#[test]
fn answers_of_others_do_not_explain_what_these_clients_see() {
    let mut scene = Scene::new(vec![leg(app(), database(), 3306)], Outcome::Timeout);
    queries(&mut scene, 100, 10, 1, "");
    for number in 0..4 {
        let at = 1_500 + number * 20;
        scene.play(&format!("{at} @worker-1 exchange 10.176.98.60:{} 10.176.46.4:3306 400 acked=1", 40_000 + number));
    }
    scene.leads(2_000, "nothing");
}

#[test]
fn errors_of_the_back_end_and_some_404s() {
    let mut scene = Scene::new(by_ingress(), Outcome::Status(500));
    scene.answers(1_000, "10.176.98.40:8080", 10, 1, Some(200));
    scene.answers(2_000, "10.176.98.40:8080", 5, 1, Some(500));
    scene.leads(2_100, "2 service/tickets");
    let mut twin = Scene::new(by_ingress(), Outcome::Status(404));
    twin.answers(1_000, "10.176.98.40:8080", 10, 1, Some(200));
    twin.answers(2_000, "10.176.98.40:8080", 3, 1, Some(404));
    twin.leads(2_100, "nothing");
}

#[test]
fn errors_of_one_pod_of_several_are_about_that_pod() {
    for (of_the_other, place) in [(200, "2 pod/tickets"), (500, "2 service/tickets")] {
        let mut legs = by_ingress();
        legs[1].to.push(end("pod/tickets-2", "10.176.98.41", Some("worker-2")));
        let mut scene = Scene::new(legs, Outcome::Status(500));
        scene.answers(1_000, "10.176.98.40:8080", 5, 1, Some(500));
        scene.answers(1_500, "10.176.98.41:8080", 5, 1, Some(of_the_other));
        scene.leads(2_100, place);
    }
}

#[test]
fn a_dead_server_reached_by_syns_and_echo() {
    let mut scene = Scene::new(vec![leg(app(), database(), 3306)], Outcome::Timeout);
    an_answered_syn(&mut scene);
    unanswered_syns(&mut scene, "eth1");
    scene.play("1200 probe echo 10.176.46.4 ok");
    scene.leads(1_500, "2 server/database, also 6");
    // Without echo it may be the path.
    let mut scene = Scene::new(vec![leg(app(), database(), 3306)], Outcome::Timeout);
    unanswered_syns(&mut scene, "eth1");
    scene.leads(1_500, "6 path/10.176.46.0/24");
}

#[test]
fn far_away_an_answer_may_take_longer() {
    let mut scene = Scene::new(vec![leg(app(), database(), 3306)], Outcome::Timeout);
    scene.play("100 syn eth1 10.176.98.29:40001 10.176.46.4:3306 7 1");
    scene.play("700 syn-ack eth1 10.176.46.4:3306 10.176.98.29:40001 7");
    unanswered_syns(&mut scene, "eth1");
    scene.leads(1_500, "nothing");
    scene.leads(2_300, "6 path/10.176.46.0/24");
}
