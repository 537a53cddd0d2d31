use super::*;
use crate::testing::{Scene, play, scene};

const NAME: &str = INFO.name;
const RIGHT: &str = "10.219.226.2";
const WRONG: &str = "100.64.249.132";
const FIRST: &str = "10.16.16.16";
const SECOND: &str = "172.16.16.16";

/// A client looks the name up each 100 ms from `from` to `to`, by each resolver in turn, and connects to the address.
/// `took`: milliseconds to the right and to the wrong address.
fn lookups(scene: &mut Scene, name: &str, from: u64, to: u64, answers: &[(&str, &str)], took: [u64; 2]) {
    for (number, at) in (0..).zip((from..to).step_by(100)) {
        let (server, address) = answers[number % answers.len()];
        play!(scene, "{at} answer {server} {name} 2 {address}");
        if !address.is_empty() {
            scene.handshake(at + 5, address, took[usize::from(address == WRONG)]);
        }
    }
}

/// Undeclared: the record is edited at 2 s and restored at 8 s.
pub fn incident() -> Scene {
    let mut scene = Scene::new(NAME);
    let name = "oss.example.com";
    lookups(&mut scene, name, 0, 2_000, &[(FIRST, RIGHT)], [2, 120]);
    lookups(&mut scene, name, 2_000, 8_000, &[(FIRST, WRONG)], [2, 120]);
    lookups(&mut scene, name, 8_000, 12_000, &[(FIRST, RIGHT)], [2, 120]);
    scene
}

pub fn incident_declared() -> Scene {
    let mut scene = Scene::new(NAME);
    let name = "declared.example.com";
    lookups(&mut scene, name, 0, 2_000, &[(FIRST, RIGHT)], [2, 120]);
    lookups(&mut scene, name, 2_000, 4_000, &[(FIRST, WRONG)], [2, 120]);
    lookups(&mut scene, name, 4_000, 7_000, &[(FIRST, RIGHT)], [2, 120]);
    scene
}

#[test]
fn incident_undeclared_after_a_ttl_and_with_a_slow_path() {
    let mut scene = incident();
    play!(scene, "12000 ? info 2000 name/oss.example.com ? warning 4000..4100 name/oss.example.com ? over");
    play!(
        scene,
        "? evidence 10.16.16.16 answers 100.64.249.132 for oss.example.com, TTL 2 s ? evidence no prefix that it had, and the path is slow"
    );
    play!(scene, "? path-slow: warning 2300..2330 name/oss.example.com ? path-slow: over");
    let cleared = scene.findings.iter().find(|(_, finding)| finding.detector == NAME && finding.cleared).unwrap();
    assert!((8_000..8_100).contains(&cleared.0), "with the first right answer of the only resolver");
}

#[test]
fn a_name_that_was_never_inside_may_have_old_prefixes() {
    let mut scene = scene!(NAME, "");
    lookups(&mut scene, "declared.example.com", 0, 1_000, &[(FIRST, WRONG)], [2, 2]);
    play!(scene, "1000 ? warning 0 name/declared.example.com ? evidence these may no longer be its prefixes");
}

#[test]
fn incident_declared_at_the_first_wrong_answer() {
    let mut scene = incident_declared();
    play!(scene, "7000 ? warning 2000 name/declared.example.com ? evidence declared: 10.219.226.0/24 ? over");
}

#[test]
fn variant_one_of_two_resolvers_is_wrong() {
    for (name, first) in [("declared.example.com", 2_100..=2_100), ("oss.example.com", 4_000..=4_400)] {
        let mut scene = Scene::new(NAME);
        lookups(&mut scene, name, 0, 2_000, &[(FIRST, RIGHT), (SECOND, RIGHT)], [2, 120]);
        lookups(&mut scene, name, 2_000, 8_000, &[(FIRST, RIGHT), (SECOND, WRONG)], [2, 120]);
        play!(scene, "? warning {}..{} name/{name} ? not over", first.start(), first.end());
        lookups(&mut scene, name, 8_000, 12_000, &[(FIRST, RIGHT), (SECOND, RIGHT)], [2, 120]);
        play!(scene, "12000 ? over");
    }
}

#[test]
fn two_resolvers_that_go_on_disagreeing_though_both_are_fast() {
    let mut scene = Scene::new(NAME);
    let name = "oss.example.com";
    lookups(&mut scene, name, 0, 2_000, &[(FIRST, RIGHT), (SECOND, RIGHT)], [2, 2]);
    lookups(&mut scene, name, 2_000, 5_000, &[(FIRST, RIGHT), (SECOND, WRONG)], [2, 2]);
    play!(scene, "5000 ? info");
    lookups(&mut scene, name, 5_000, 8_000, &[(FIRST, RIGHT), (SECOND, WRONG)], [2, 2]);
    play!(scene, "8000 ? warning 5200..5600 name/oss.example.com ? evidence for longer than the TTL of 2 s");
    lookups(&mut scene, name, 8_000, 9_000, &[(FIRST, RIGHT), (SECOND, RIGHT)], [2, 2]);
    play!(scene, "9500 ? over");
}

#[test]
fn resolvers_that_never_agreed_have_different_views() {
    let mut scene = Scene::new(NAME);
    lookups(&mut scene, "oss.example.com", 0, 8_000, &[(FIRST, RIGHT), (SECOND, WRONG)], [2, 2]);
    play!(scene, "8000 ? info ? quiet");
}

#[test]
fn variant_a_wildcard_in_the_search_list() {
    let mut scene = scene!(NAME, "0 answer {FIRST} declared.example.com.corp.example 5");
    lookups(&mut scene, "declared.example.com", 10, 1_000, &[(FIRST, RIGHT)], [2, 2]);
    play!(scene, "1000 answer {FIRST} declared.example.com.corp.example 5 10.176.46.7");
    play!(scene, "? warning 1000 name/declared.example.com ? evidence for declared.example.com.corp.example");
    // Queries for the absolute name still get the right address.
    lookups(&mut scene, "declared.example.com", 1_010, 2_000, &[(FIRST, RIGHT)], [2, 2]);
    play!(scene, "2000 answer {FIRST} declared.example.com.corp.example 5 10.176.46.7 ? not over");
    play!(scene, "3000 answer {FIRST} declared.example.com.corp.example 5; 3100 ? over");
}

#[test]
fn twin_right_addresses_in_rotation() {
    let mut scene = Scene::new(NAME);
    let rotated: [(&str, &str); 3] = [(FIRST, RIGHT), (SECOND, "10.219.227.2"), (FIRST, "10.219.228.2")];
    lookups(&mut scene, "oss.example.com", 0, 9_000, &rotated, [2, 2]);
    play!(scene, "9000 ? path-slow: nothing ? quiet");
}

#[test]
fn twin_a_planned_move_to_a_prefix_that_is_as_fast() {
    let mut scene = Scene::new(NAME);
    lookups(&mut scene, "oss.example.com", 0, 2_000, &[(FIRST, RIGHT)], [2, 3]);
    lookups(&mut scene, "oss.example.com", 2_000, 9_000, &[(FIRST, WRONG)], [2, 3]);
    play!(scene, "9000 ? info 2000 name/oss.example.com ? over ? quiet");
}

#[test]
fn twin_a_declared_move() {
    let mut scene = Scene::new(NAME);
    lookups(&mut scene, "declared.example.com", 0, 2_000, &[(FIRST, RIGHT)], [2, 2]);
    lookups(&mut scene, "declared.example.com", 2_000, 9_000, &[(FIRST, "10.219.226.77")], [2, 2]);
    play!(scene, "9000 ? nothing ? quiet");
}

#[test]
fn twin_a_new_record_for_ipv6() {
    for name in ["oss.example.com", "declared.example.com"] {
        let mut scene = Scene::new(NAME);
        lookups(&mut scene, name, 0, 2_000, &[(FIRST, RIGHT)], [2, 2]);
        for at in (2_000..9_000).step_by(100) {
            play!(scene, "{at} answer {FIRST} {name} 2 {RIGHT}; {at} answer {FIRST} {name} 2 fd00:226::2");
        }
        play!(scene, "9000 ? nothing ? quiet");
    }
}

#[test]
fn twin_a_resolver_that_lags_a_ttl() {
    let mut scene = Scene::new(NAME);
    let name = "oss.example.com";
    lookups(&mut scene, name, 0, 2_000, &[(FIRST, RIGHT), (SECOND, RIGHT)], [2, 3]);
    lookups(&mut scene, name, 2_000, 4_000, &[(FIRST, WRONG), (SECOND, RIGHT)], [2, 3]);
    lookups(&mut scene, name, 4_000, 9_000, &[(FIRST, WRONG), (SECOND, WRONG)], [2, 3]);
    play!(scene, "9000 ? info ? quiet");
}

#[test]
fn a_move_to_a_slow_address_of_which_nothing_is_known_is_no_more_than_info() {
    // No connection to the old address, so no usual time.
    let mut scene = Scene::new(NAME);
    for at in (0..2_000).step_by(100) {
        play!(scene, "{at} answer {FIRST} oss.example.com 2 {RIGHT}");
    }
    lookups(&mut scene, "oss.example.com", 2_000, 9_000, &[(FIRST, WRONG)], [2, 120]);
    play!(scene, "9000 ? info ? quiet");
}

#[test]
fn a_wrong_answer_expires_while_other_resolvers_are_right() {
    let mut scene = scene!(NAME, "0 answer {SECOND} declared.example.com 2 {WRONG} ? warning");
    lookups(&mut scene, "declared.example.com", 100, 3_900, &[(FIRST, RIGHT)], [2, 2]);
    play!(scene, "3900 ? not over");
    lookups(&mut scene, "declared.example.com", 3_900, 4_300, &[(FIRST, RIGHT)], [2, 2]);
    play!(scene, "4300 ? over");
}

#[test]
fn the_clusters_own_names_are_left_alone() {
    let mut scene = Scene::new(NAME);
    for at in 0..50 {
        play!(scene, "{} answer 192.168.0.10 shop.default.svc.cluster.local 5 10.176.{at}.7", at * 100);
    }
    play!(scene, "6000 ? nothing");
}
