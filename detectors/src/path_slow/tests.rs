use super::*;
use crate::testing::{Scene, play, scene};

const NAME: &str = INFO.name;
const HOST: &str = "10.176.46.4";

/// Handshakes with a host, one each 100 ms, and the milliseconds each takes.
fn played(scene: &mut Scene, from: u64, server: &str, took: &[u64]) {
    for (number, took) in (0..).zip(took) {
        scene.handshake(from + number * 100, server, *took);
    }
}

fn usual(took: u64) -> Scene {
    let mut scene = Scene::new(NAME);
    played(&mut scene, 0, HOST, &[took; 10]);
    scene
}

#[test]
fn incident_the_third_slow_round_trip() {
    let mut scene = usual(2);
    played(&mut scene, 1_000, HOST, &[120, 120]);
    play!(scene, "1250 ? nothing");
    played(&mut scene, 1_200, HOST, &[120]);
    play!(scene, "1400 ? warning 1320 path/10.176.46.0/24 ? evidence take 120 ms ? evidence usual: 2.0 ms");
    played(&mut scene, 1_500, HOST, &[2, 2]);
    play!(scene, "1650 ? not over");
    played(&mut scene, 1_700, HOST, &[2]);
    play!(scene, "1750 ? over");
}

#[test]
fn the_guard_band() {
    let is_slow = |before, after| {
        let mut scene = usual(before);
        played(&mut scene, 1_000, HOST, &[after; 6]);
        play!(scene, "2000");
        scene.findings.iter().any(|(_, finding)| finding.detector == NAME)
    };
    for (before, after) in [(1, 21), (2, 22), (10, 30), (20, 60), (50, 150), (100, 300)] {
        assert!(is_slow(before, after), "{before} ms -> {after} ms");
    }
    for (before, after) in [(1, 5), (2, 6), (4, 8), (20, 29), (50, 74), (100, 149), (100, 50)] {
        assert!(!is_slow(before, after), "{before} ms -> {after} ms");
    }
}

#[test]
fn a_name_is_to_blame_where_one_leads_there() {
    let mut scene = scene!(NAME, "0 answer 10.16.16.16 db.example.com 5 {HOST}");
    played(&mut scene, 10, HOST, &[2; 10]);
    played(&mut scene, 1_100, HOST, &[60; 3]);
    play!(scene, "1400 ? warning 1360 name/db.example.com");
}

#[test]
fn a_new_address_of_a_name_is_compared_with_what_the_name_had() {
    let moved = |took| {
        let mut scene = scene!(NAME, "0 answer 10.16.16.16 oss.example.com 5 10.219.226.2");
        played(&mut scene, 10, "10.219.226.2", &[2; 20]);
        play!(scene, "2100 answer 10.16.16.16 oss.example.com 5 100.64.249.132");
        played(&mut scene, 2_110, "100.64.249.132", &[took; 20]);
        scene
    };
    let mut scene = moved(120);
    play!(scene, "4150 ? warning 2430 name/oss.example.com ? not over");
    // Healed: the old address again.
    for at in [4_200, 4_700, 5_200] {
        play!(scene, "{at} answer 10.16.16.16 oss.example.com 5 10.219.226.2");
        played(&mut scene, at + 10, "10.219.226.2", &[2; 4]);
    }
    play!(scene, "6700 ? over");
    // The same, while someone else still connects to the other address.
    let mut scene = moved(120);
    for at in (4_200..6_700).step_by(100) {
        play!(scene, "{at} answer 10.16.16.16 oss.example.com 5 10.219.226.2");
        scene.handshake(at + 1, "100.64.249.132", 90);
    }
    play!(scene, "6800 ? over");
    let mut scene = moved(3);
    play!(scene, "5000 ? nothing");
}

#[test]
fn twin_addresses_in_rotation_one_of_them_farther_away() {
    let mut scene = scene!(NAME, "0 answer 10.16.16.16 oss.example.com 5 10.219.226.2 10.219.227.2");
    for number in 0..30 {
        let (server, took) = if number % 3 == 0 { ("10.219.226.2", 2) } else { ("10.219.227.2", 40) };
        scene.handshake(10 + number * 100, server, took);
    }
    play!(scene, "4000 ? nothing");
}

#[test]
fn twin_lost_syns() {
    let mut scene = usual(2);
    for number in 0..4 {
        let at = 1_000 + number * 100;
        let near = format!("10.176.98.29:{}", 50_000 + number);
        // The first SYN is lost and retransmitted.
        play!(scene, "{at} syn eth1 {near} {HOST}:443 7 1; {} syn eth1 {near} {HOST}:443 7 1", at + 1_000);
        play!(scene, "{} syn-ack eth1 {HOST}:443 {near} 7", at + 1_002);
    }
    play!(scene, "4000 ? nothing");
}

#[test]
fn twin_a_short_stall_of_the_machine() {
    let mut scene = usual(2);
    // Everything sent during the stall is answered at its end.
    for number in 0..8 {
        scene.handshake(1_000 + number * 10, HOST, 200 - number * 10);
    }
    // Two slow ones in a row, then a fast one.
    played(&mut scene, 1_300, HOST, &[40, 2, 40, 40, 2, 40, 40]);
    play!(scene, "2500 ? nothing");
}

/// A request over a kept connection, acknowledged `acked` ms later with the timestamp `clock`.
fn request(scene: &mut Scene, number: u64, at: u64, acked: u64, clock: u64) {
    const NEAR: &str = "10.176.98.29:40000";
    let sequence = 1_000 + number * 100;
    let data = Segment { payload: 100, ..ack(NEAR, HOST, Direction::Out, sequence, 0, 9) };
    scene.at(at, "worker-1", data.into());
    let answer = ack(NEAR, HOST, Direction::In, 500, sequence + 100, clock);
    scene.at(at + acked, "worker-1", answer.into());
}

use crate::signal::{Direction, Segment, TcpFlags};

fn ack(near: &str, far: &str, direction: Direction, sequence: u64, acked: u64, clock: u64) -> Segment {
    let (near, far) = (near.parse().unwrap(), format!("{far}:443").parse().unwrap());
    let (source, destination) = if direction == Direction::Out { (near, far) } else { (far, near) };
    Segment {
        link: "eth1".into(),
        direction,
        source,
        destination,
        flags: TcpFlags { ack: true, ..TcpFlags::default() },
        sequence: sequence.try_into().unwrap(),
        acknowledgment: acked.try_into().unwrap(),
        payload: 0,
        mss: None,
        timestamp: Some(clock.try_into().unwrap()),
    }
}

/// Requests over a kept connection, one each 500 ms: the milliseconds until the acknowledgment, and its one-way delay.
fn kept(requests: &[(u64, u64)]) -> Scene {
    let mut scene = Scene::new(NAME);
    for (number, (acked, way)) in (0..).zip(requests) {
        let at = number * 500;
        request(&mut scene, number, at, *acked, 100_000 + at + acked - way);
    }
    scene
}

#[test]
fn incident_over_a_kept_connection() {
    let mut scene = kept(&[vec![(2, 1); 6], vec![(42, 21); 3]].concat());
    play!(scene, "4500 ? warning 4042 path/10.176.46.0/24");
}

#[test]
fn twin_a_slow_server_acknowledges_late() {
    // By the delayed acknowledgment timer, or with the response.
    let mut scene = kept(&[vec![(2, 1); 6], vec![(42, 1); 6]].concat());
    play!(scene, "6500 ? nothing");
    let mut scene = kept(&[vec![(1, 1); 6], vec![(45, 2); 3], vec![(2, 1); 6]].concat());
    play!(scene, "7500 ? nothing");
}

#[test]
fn incident_over_new_connections_with_many_requests_each() {
    // No earlier segment of theirs tells how long the way back usually takes: their acknowledgments may be delayed.
    let mut scene = usual(2);
    let mut number = 0;
    for call in 0..6 {
        let at = 1_000 + call * 1_000;
        played(&mut scene, at, HOST, &[44]);
        for at in (at + 50..).step_by(50).take(13) {
            request(&mut scene, number, at, 44, 100_000 + at + 22);
            number += 1;
        }
    }
    play!(scene, "3500 ? warning 3044 path/10.176.46.0/24; 7000 ? not over");
}

#[test]
fn twin_clients_near_and_far_behind_one_address() {
    // Source NAT, or a load balancer: the far client connects more often than the near one.
    let mut scene = Scene::new(NAME);
    for second in 0..20 {
        let at = second * 1_000;
        scene.handshake(at, HOST, 2);
        for far in (200..1_000).step_by(200) {
            scene.handshake(at + far, HOST, 80);
        }
    }
    play!(scene, "20500 ? nothing");
    // Another far client appears among near ones.
    let mut scene = Scene::new(NAME);
    for at in (0..8_000).step_by(500) {
        scene.handshake(at, HOST, 2);
        if at >= 4_000 {
            played(&mut scene, at + 50, HOST, &[80; 4]);
        }
    }
    play!(scene, "8400 ? nothing");
}

#[test]
fn what_is_slow_from_the_beginning_is_usual() {
    let mut scene = usual(120);
    play!(scene, "1500 ? nothing");
}

#[test]
fn an_unused_path_is_not_slow() {
    let mut scene = usual(2);
    played(&mut scene, 1_000, HOST, &[120; 3]);
    play!(scene, "2000 ? not over; 32000 ? over");
}
