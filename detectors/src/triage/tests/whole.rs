use std::time::Duration;

use super::backend::queries;
use super::scene::{Scene, app, by_service, database, end, leg};
use super::service::to_service;
use crate::testing::ms;
use crate::triage::{Leg, Outcome, Seen, State};

#[test]
fn the_first_step_that_explains_is_named_and_others_contribute() {
    let slow = Outcome::Slow(Duration::from_secs(5));
    let mut scene = Scene::new(vec![leg(app(), database(), 3306)], slow);
    queries(&mut scene, 100, 10, 1, "");
    queries(&mut scene, 1_000, 4, 400, "acked=1");
    scene.play("1600 table 4096/4096");
    scene.leads(1_700, "1 node/worker-2, also 2");
    scene.play("4700 table 50/4096");
    queries(&mut scene, 4_300, 3, 400, "acked=1");
    scene.leads(4_800, "2 server/database");
}

#[test]
fn complaints_end_and_with_them_the_verdict() {
    let mut scene = Scene::new(vec![leg(app(), database(), 3306)], Outcome::Timeout);
    assert!(scene.triage.verdict().is_none());
    scene.leads(1_000, "nothing");
    scene.until(5_950);
    assert!(scene.triage.verdict().is_some());
    scene.until(6_050);
    assert!(scene.triage.verdict().is_none());
    scene.triage.seen("another", Seen { at: ms(6_050), outcome: Outcome::Timeout });
    scene.triage.seen("flow", Seen { at: ms(6_050), outcome: Outcome::Well });
    assert!(scene.triage.verdict().is_none());
}

#[test]
fn without_evidence_a_step_is_not_seen() {
    let mut scene = Scene::new(to_service(), Outcome::Timeout);
    assert_eq!(scene.state(1_000, 2), State::NotSeen);
    assert_eq!(scene.state(1_000, 3), State::NotOnThisWay);
    assert_eq!(scene.state(1_000, 4), State::NotSeen);
    assert_eq!(scene.state(1_000, 6), State::NotSeen);
}

#[test]
fn a_node_port_that_is_not_translated() {
    let office = end("office/beijing", "192.168.40.10", None);
    let front = leg(office, end("pod/b", "10.176.98.50", Some("worker-1")), 80);
    let via = vec![end("node/worker-2", "10.176.64.12", Some("worker-2"))];
    let legs = || vec![by_service(Leg { via: via.clone(), ..front.clone() }, "b", "192.168.0.30")];
    let asks = |scene: &mut Scene, number: u64, translated: bool| {
        let (at, client) = (1_000 + number, format!("192.168.40.10:{}", 41_000 + number));
        scene.play(&format!("{at} in eth0 {client} 10.176.64.12:30080 S {number} 0 1"));
        if translated {
            let masked = format!("10.176.64.12:{}", 42_000 + number);
            scene.play(&format!("{at} syn eth0 {masked} 10.176.98.50:80 {number} 1"));
        }
    };
    let mut scene = Scene::new(legs(), Outcome::Timeout);
    (200..203).for_each(|number| asks(&mut scene, number, false));
    scene.leads(1_700, "4 node/worker-2, also 6");
    let mut beyond = Scene::new(legs(), Outcome::Timeout);
    (200..203).for_each(|number| asks(&mut beyond, number, true));
    assert_eq!(beyond.verdict(1_700).first, Some(6));
}
