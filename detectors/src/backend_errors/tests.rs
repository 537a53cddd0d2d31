use super::*;
use crate::testing::{Scene, play, scene};

const NAME: &str = INFO.name;
const CLIENT: &str = "10.176.97.10:40001";
const SHOP: &str = "10.176.98.10:8080";
const ANOTHER: &str = "10.176.98.11:8080";
const INGRESS: &str = "10.176.97.20:80";

/// Answers of a server, every 100 ms from `at` on; `.` is a 200, `5` a 500, `4` a 404, `2` a 502, `3` a 503.
fn answers(scene: &mut Scene, at: u64, server: &str, answers: &str) -> u64 {
    let mut now = at;
    for answer in answers.chars() {
        let status = match answer {
            '.' => 200,
            '5' => 500,
            '4' => 404,
            '2' => 502,
            _ => 503,
        };
        play!(scene, "{now} exchange {CLIENT} {server} 3 at-server status={status}");
        now += 100;
    }
    now
}

fn shop() -> Scene {
    scene!(
        NAME,
        "0 pod shop-1 10.176.98.10; 0 pod shop-2 10.176.98.11; 0 pod ingress 10.176.97.20
         0 service shop 192.168.3.3 shop-1@10.176.98.10@worker-2"
    )
}

/// All answers of the only pod of a Service are 500, then as before.
pub(crate) fn incident() -> Scene {
    let mut scene = shop();
    answers(&mut scene, 100, SHOP, "..........");
    answers(&mut scene, 2000, SHOP, "55555555");
    answers(&mut scene, 3000, SHOP, "...............");
    scene
}

/// Whether something is found.
fn found(before: &str, then: &str) -> bool {
    let mut scene = shop();
    let at = answers(&mut scene, 100, SHOP, before);
    answers(&mut scene, at, SHOP, then);
    !scene.findings.is_empty()
}

#[test]
fn incident_at_the_fifth_error_and_over_at_the_tenth_good_answer() {
    let scene = incident();
    play!({ scene }, "? warning 2400 service/shop ? evidence 5 of 5 answers of 10.176.98.10:8080 ? over");
    let ends: Vec<_> = incident().findings.iter().map(|(at, finding)| (*at, finding.cleared)).collect();
    assert_eq!(ends, [(2400, false), (3900, true)]);
}

#[test]
fn incident_a_server_that_is_asked_once_in_two_seconds() {
    let mut scene = shop();
    for (number, answer) in (0..).zip("..........55555".chars()) {
        answers(&mut scene, 100 + number * 2_000, SHOP, &answer.to_string());
    }
    play!(scene, "? warning 28100 service/shop ? evidence 5 of 5 answers");
}

#[test]
fn boundaries() {
    assert!(!found("..........", "5555"), "too few errors");
    assert!(!found("....", "55555555"), "too little is known of the server");
    assert!(found(".....", "55555"));
    assert!(found("..........", "5.5.5.5.5"), "half of them");
    assert!(!found("..........", "5..5..5..5..5..5..5..5..5.."), "a third");
    assert!(!found("5555.55555", "5555555555"), "as ever");
    assert!(!found("5...5...5...5...5...5...5...", "55555"), "errors were usual");
}

#[test]
fn late_nothing_but_errors_from_the_start() {
    assert!(!found("", "555555555"), "too few");
    assert!(found("", "5555555555"));
    assert!(!found("", "4444444444444444"), "the client's");
    let mut scene = shop();
    answers(&mut scene, 100, SHOP, "5555555555");
    play!(scene, "? warning 1000 service/shop ? evidence 10 of 10 answers");
    answers(&mut scene, 2000, SHOP, "..........");
    play!(scene, "? over");
}

#[test]
fn late_another_pod_shows_that_errors_are_not_usual() {
    for (of_another, found) in [(".", true), ("5", false)] {
        let mut scene = shop();
        play!(scene, "50 service shop 192.168.3.3 shop-1@10.176.98.10@worker-2 shop-2@10.176.98.11@worker-2");
        for (n, answer) in (0..).zip("5.55.5.55.5.55.".chars()) {
            answers(&mut scene, 110 + n * 100, ANOTHER, if answer == '5' { of_another } else { "." });
            answers(&mut scene, 100 + n * 100, SHOP, &answer.to_string());
        }
        if found {
            play!(scene, "? warning 1110 pod/shop-1");
        }
        assert_eq!(scene.findings.is_empty(), !found, "{:#?}", scene.findings);
    }
}

#[test]
fn twin_some_are_not_found() {
    assert!(!found("..........", "4....4....4....4....4....44444444444"));
}

#[test]
fn twin_one_error_among_many() {
    assert!(!found("..........", "5...................5......................"));
}

#[test]
fn a_slow_client_is_enough() {
    let mut scene = shop();
    answers(&mut scene, 100, SHOP, "..........");
    for n in 0..5 {
        answers(&mut scene, 2000 + n * 1000, SHOP, "5");
    }
    play!(scene, "? warning 6000 service/shop");
}

#[test]
fn one_pod_of_two_is_the_pod_and_both_are_the_service() {
    let two = "150 service shop 192.168.3.3 shop-1@10.176.98.10@worker-2 shop-2@10.176.98.11@worker-2";
    for (of_another, subject) in [("..........", "pod/shop-1"), ("5555555555", "service/shop")] {
        let mut scene = shop();
        play!(scene, "{two}");
        for n in 0..10 {
            answers(&mut scene, 200 + n * 100, SHOP, ".");
            answers(&mut scene, 210 + n * 100, ANOTHER, ".");
        }
        for (n, other) in (0..).zip(of_another.chars()) {
            answers(&mut scene, 2000 + n * 100, SHOP, "5");
            answers(&mut scene, 2010 + n * 100, ANOTHER, &other.to_string());
        }
        play!(scene, "? warning 2400 {subject}");
        assert_eq!(scene.findings.len(), 1, "{:#?}", scene.findings);
    }
}

#[test]
fn a_gateway_answers_for_others() {
    let mut scene = shop();
    for (from, status) in [(100, 200), (2000, 500)] {
        for at in (from..from + 1500).step_by(100) {
            // The ingress asks the back end and passes its answer on.
            play!(scene, "{at} exchange 10.176.97.20:41000 {SHOP} 3 at-server status={status}");
            play!(scene, "{} exchange 10.176.97.20:41000 192.168.3.3:8080 3 status={status}", at + 1);
            play!(scene, "{} exchange 192.168.40.2:42000 {INGRESS} 5 at-server status={status}", at + 2);
        }
    }
    play!(scene, "? warning 2400 service/shop");
    assert_eq!(scene.findings.len(), 1, "{:#?}", scene.findings);
    // The back end is well, and the ingress does not reach it.
    let mut scene = shop();
    answers(&mut scene, 100, INGRESS, "..........");
    play!(scene, "1150 exchange 10.176.97.20:41000 192.168.3.3:8080 3 status=200");
    answers(&mut scene, 1200, INGRESS, "222222222233333333333");
    play!(scene, "? nothing");
}

#[test]
fn servers_outside_are_seen_by_their_clients() {
    let mut scene = scene!(NAME, "");
    for (at, status) in (0..).zip([[200; 10], [500; 10]].concat()) {
        play!(scene, "{} exchange 10.176.98.29:40001 10.176.46.9:80 3 status={status}", at * 100);
    }
    play!(scene, "1950 ? warning 1400 server/10.176.46.9:80; 61000 ? not over; 62000 ? over");
}
